"""The ELPV data set: electroluminescence photographs of solar cells, from the PyPI package of that name.

Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence
images", Solar Energy 185 (2019): 2,624 grey pictures of 300 x 300 pixels with a defect probability of 0,
1/3, 2/3 or 1. The pictures are under CC BY-NC-SA 4.0 and stay in the package, which is an optional extra.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from concept_tuning.config import ElpvConfig
from concept_tuning.data.decode import decode_image
from concept_tuning.data.table import ImageTable
from concept_tuning.errors import DataError

PACKAGE = "elpv_dataset"
LICENCE = "CC BY-NC-SA 4.0"
SPLIT_NOTE = (
    "like training, drawn at random; the data has no module id, so cells of one module may be on both sides "
    "of the split"
)
CELL_TYPES = ("mono", "poly")
_CLASS_NAMES = {
    "defective": ("functional", "defective"),
    "four-class": ("0 %", "33 %", "67 %", "100 %"),
}


def elpv_table(config: ElpvConfig, *, max_pixels: int) -> ImageTable:
    """List the solar cells; a picture is decoded only when it is read.

    Classes are ``functional`` and ``defective`` (probability over 0.5), or the four probabilities by
    name; groups are the cell types; no splits are given.

    Args:
        config: Which of the two tasks.
        max_pixels: Pictures with more pixels are unreadable.

    Raises:
        DataError: The package is not installed, or its list of labels is missing or damaged.
    """
    folder = _package_data()
    names, probabilities, types = _read_labels(folder / "labels.csv")
    if config.task == "defective":
        labels = (probabilities > 0.5).astype(np.int64)
    else:
        labels = np.round(probabilities * 3).astype(np.int64)

    def stamp(row: int) -> str:
        status = (folder / names[row]).stat()
        return f"{folder / names[row]}|{status.st_size}|{status.st_mtime_ns}"

    return ImageTable(
        source="elpv",
        class_names=_CLASS_NAMES[config.task],
        group_names=CELL_TYPES,
        keys=names,
        labels=labels,
        groups=types,
        splits=None,
        read=lambda row: decode_image(folder / names[row], max_pixels=max_pixels),
        stamp=stamp,
        validation_note=SPLIT_NOTE,
    )


def _package_data() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "The data set `elpv` is not installed. `pip install elpv-dataset` brings it (91 MB); its pictures "
            f"are under {LICENCE}: name the authors, no commercial use, share alike."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _read_labels(path: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return the names, the defect probabilities (N,) float64 and the indices (N,) int64 into CELL_TYPES."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        names, probabilities, types = zip(*lines, strict=True)
        values = np.array([float(value) for value in probabilities])
        cells = np.array([CELL_TYPES.index(cell) for cell in types], dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"The labels of the data set `elpv`, {path}, cannot be used: {error}. {_REINSTALL}") from error
    known = (np.abs(values * 3 - np.round(values * 3)) < 1e-3) & (values >= 0) & (values <= 1)  # False for NaN
    if not known.all():
        raise DataError(f"A defect probability in {path} is none of 0, 1/3, 2/3 and 1. {_REINSTALL}")
    return tuple(names), values, cells


_REINSTALL = "Install it afresh with `pip install --force-reinstall elpv-dataset`."
