"""The import rules: each layer imports only those above it, the core never the interface."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "concept_tuning"

#: Lower number: nearer to the top. A module may import modules of its own layer and of lower numbers.
LAYERS = {
    "errors": 0,
    "config": 1,
    "config_methods": 1,
    "proportion": 1,
    "settings": 2,
    "data": 3,
    "models": 3,
    "concepts": 3,
    "losses": 3,
    "methods": 4,
    "engine": 5,
    "progress": 6,
    "diagnostics": 6,
    "figures": 7,
    "report": 8,
    "bench": 8,
    "cli_bench": 9,
    "cli_diagnose": 9,
    "cli": 9,
    "__main__": 10,
}
#: Parts of one layer that may not import each other.
APART = {"data", "models", "concepts", "losses"}


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_layers_above(path: Path) -> None:
    own = part_of(path)
    for module in imported_modules(path):
        if not module.startswith("concept_tuning."):
            assert module.split(".")[0] not in {"streamlit", "gradio", "app"}, f"{path} imports {module}"
            continue
        other = module.split(".")[1]
        assert LAYERS[other] <= LAYERS[own], f"{path} imports {module}, which is a layer below it"
        if own in APART and other in APART:
            assert other == own, f"{path} imports {module} across the layer"


def said_last(code: str) -> str:
    """Return the last line that a Python of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, concept_tuning; print(sorted({'torch', 'timm', 'umap', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert said_last(code) == "[]"


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys\nfrom concept_tuning.cli import main\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'scipy', 'sklearn', 'plotly', 'streamlit', 'gradio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert said_last(code) == "[]"


@pytest.mark.slow
def test_a_run_starts_without_what_few_runs_need_and_before_it_asks_for_a_gpu() -> None:
    """A bench forks its cells from a process with this loaded, in which no GPU may be at work."""
    code = (
        "import sys, torch\n"
        "def asked(*_): raise SystemExit('a GPU is asked for')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = asked\n"
        "import concept_tuning.engine.session\n"
        "print(sorted({'sklearn', 'pandas', 'captum', 'umap', 'plotly', 'optuna'} & set(sys.modules)))"
    )
    assert said_last(code) == "[]"
