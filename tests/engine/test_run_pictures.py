from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from concept_tuning.config import RunConfig
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
