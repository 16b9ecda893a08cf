"""Where the runs of a diagnosis lie: it knows their names, not their folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from app import state
from concept_tuning.diagnostics.background import list_diagnoses
from concept_tuning.engine.runs import RunFolder
from concept_tuning.errors import StudioError

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import RunCard

#: Folders that are searched below the root, from it downwards.
_DEPTH = 3


def run_places(folder: Path, card: RunCard) -> list[Path]:
    """Return the folders that may be a run of a diagnosis, the likeliest first; empty where none is known.

    Those that the diagnosis was started with count alone, else those beside it; failing both, all below the
    folder of runs and in the demo. Only trained runs of the same name, method, backbone, data and seed count, and
    none that an absolute name, one with ``..`` or a link leads to, but for links right in the folder of runs, which are
    its owner's.

    Args:
        folder: Of the diagnosis.
        card: The run in it.
    """
    folder = folder.resolve()
    started = [run for job in list_diagnoses(state.ROOT) if job.path.resolve() == folder for run in job.runs]
    if started:
        named = [state.ROOT.resolve() / name for name in started]
        found = [path for path in named if _is_place(path, card)]
        if found:
            return found
    near = [path for root in (state.DEMO.resolve(), state.ROOT.resolve()) for path in _below(root, _DEPTH)]
    fitting = [path for path in dict.fromkeys(near) if _fits(path, card)]
    beside = [path for path in fitting if path.parent == folder.parent]
    return beside or sorted(fitting, key=lambda path: (-len(_common(path, folder)), path))


def _is_place(path: Path, card: RunCard) -> bool:
    """Whether a run that a record names fits, and no name leads out of the folder of runs to it."""
    try:
        return _is_ours(path) and _fits(path, card)
    except (OSError, ValueError):  # no file can bear the name, which may be a stranger's
        return False


def _is_ours(path: Path) -> bool:
    root = state.ROOT.resolve()
    if not path.is_relative_to(root):  # an absolute name, which takes the place of the folder it is put behind
        return False
    return path.resolve() == path or (path.parent == root and path.is_symlink())


def _fits(path: Path, card: RunCard) -> bool:
    weights = RunFolder(path.resolve()).best_weights
    if not f"/{path.as_posix()}".endswith(f"/{card.name}") or not weights.is_file() or weights.resolve() != weights:
        return False
    try:
        config = RunFolder(path).config()
    except StudioError:
        return False
    told = (config.method, config.backbone.architecture, Path(config.data.source).name, config.engine.seed)
    return told == (card.method, card.backbone, card.source, card.seed)


def _below(root: Path, depth: int) -> Iterator[Path]:
    try:
        folders = [path for path in root.iterdir() if path.name[0] != "." and path.is_dir() and not path.is_symlink()]
    except OSError:
        return
    for path in folders:
        if (path / "config.json").is_file():
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _common(first: Path, second: Path) -> list[str]:
    """Return the folders that two paths begin with."""
    shared = []
    for one, other in zip(first.parts, second.parts, strict=False):
        if one != other:
            break
        shared.append(one)
    return shared
