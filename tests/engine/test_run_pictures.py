from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.data.registry import Split
from concept_tuning.engine.run_pictures import RunPictures
from concept_tuning.errors import RunError


class UnreadPictures:
    """Pictures of a split that must not be read."""

    def image(self, row: int) -> Tensor:
        raise AssertionError(f"picture {row} was read")


def test_the_test_split_is_kept_from_methods() -> None:
    split = SimpleNamespace(rows=np.arange(3), images=UnreadPictures())
    data = cast(Any, SimpleNamespace(splits={"test": split}))
    pictures = RunPictures(RunConfig(), cast(Any, None), data, torch.device("cpu"))
    with pytest.raises(RunError, match="train and val alone, not at 'test'"):
        next(pictures.batches("test"))


class GreyPictures:
    """Pictures that are grey all over."""

    def image(self, row: int) -> Tensor:
        return torch.full((3, 16, 16), row, dtype=torch.uint8)


@pytest.mark.parametrize("units", [None, np.array([4, 4, 1, 0, 0])])
def test_every_batch_says_what_its_own_pictures_show(units: np.ndarray | None) -> None:
    rows = np.arange(5)
    split = Split(
        name="val", keys=tuple("abcde"), labels=rows, groups=None, rows=rows, images=GreyPictures(), units=units
    )
    method = cast(Any, SimpleNamespace(backbone=SimpleNamespace(normalise=lambda images: images)))
    config = RunConfig.from_dict({"data": {"image_size": 16}, "engine": {"eval_batch_size": 2}})
    batches = RunPictures(config, method, cast(Any, SimpleNamespace(splits={"val": split})), torch.device("cpu"))
    found = [None if batch.units is None else batch.units.tolist() for batch in batches.batches("val")]
    assert found == ([None] * 3 if units is None else [[4, 4], [1, 0], [0]])
