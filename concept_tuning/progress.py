"""The progress bar of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from tqdm import tqdm

from concept_tuning.data.printable import printable_lines


class ConsoleWatcher:
    """Shows stages as lines and training as a bar with time left, loss terms and images per second."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.is_main = os.environ.get("RANK", "0") == "0"
        self._quiet = quiet or not self.is_main
        self._bar: tqdm | None = None

    def message(self, text: str) -> None:
        """Print a stage."""
        if not self._quiet:
            tqdm.write(printable_lines(text), file=sys.stderr)

    def step(self, done: int, total: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        if self._quiet:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=total, initial=done - 1, unit="step", dynamic_ncols=True, mininterval=0.5, file=sys.stderr
            )
        shown = {name: f"{value:.3g}" for name, value in values.items() if name != "images_per_second"}
        shown["images/s"] = f"{values['images_per_second']:.0f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(1)
        if done == total:
            self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
