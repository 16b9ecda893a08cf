"""``python -m concept_tuning``."""

import sys

from concept_tuning.cli import main

if __name__ == "__main__":
    sys.exit(main())
