"""Open pictures cost memory for their names and places alone, whatever their number; no pixels are kept."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_tuning.data.registry import DataBundle, load_data
from concept_tuning.settings import build_config

FEW, MANY = 200, 2000
#: Side of a picture in pixels; in the cache it has 4,800 bytes.
SIDE = 40
#: Some 280 were measured: keys, digests, index and labels.
BYTES_A_PICTURE = 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two data sets, named by their numbers of pictures."""
    root = tmp_path_factory.mktemp("memory")
    generator = np.random.default_rng(0)
    for count in (FEW, MANY):
        for label in range(10):
            (root / str(count) / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            path = root / str(count) / f"class{number % 10}" / f"{number:06d}.png"
            Image.fromarray(pixels).save(path, compress_level=0)
    return root


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def opened(folder: Path, count: int, cache: Path) -> DataBundle:
    values = {"image_size": 32, "cache_dir": str(cache)}
    return load_data(build_config(data=str(folder / str(count)), overrides=values))


def held() -> int:
    """Return the bytes that Python and NumPy hold now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_picture_that_is_open_costs_its_name_and_place_alone(folder: Path, traced: None, tmp_path: Path) -> None:
    opened(folder, FEW, tmp_path / "first")  # what is made once in a process does not count
    for _ in ("decoded", "found in the cache"):
        taken = {}
        for count in (FEW, MANY):
            before = held()
            data = opened(folder, count, tmp_path / "cache")
            taken[count] = held() - before
            assert sum(len(split) for split in data.splits.values()) == count
            del data
        assert 0 < (taken[MANY] - taken[FEW]) / (MANY - FEW) < BYTES_A_PICTURE


def test_no_picture_that_was_read_is_kept(folder: Path, traced: None, tmp_path: Path) -> None:
    train = opened(folder, FEW, tmp_path).splits["train"]
    train.image(0)
    before = held()
    assert sum(train.image(place).numel() for place in range(len(train))) == len(train) * 3 * SIDE**2
    assert held() - before < 3 * SIDE**2
