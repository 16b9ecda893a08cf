from __future__ import annotations

import numpy as np
import pytest

from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.thumbnails import Thumbnails, make_thumbnails


def test_thumbnails_are_the_named_pictures(pictures, tmp_path) -> None:
    wanted = [pictures.keys[5], pictures.keys[2], pictures.keys[5], "unknown"]
    found = make_thumbnails(pictures, wanted, side=24)
    assert found.keys == (pictures.keys[2], pictures.keys[5])
    assert np.array_equal(found.image(pictures.keys[5]), pictures.image(5, 24).permute(1, 2, 0).numpy())
    assert found.labels.tolist() == pictures.labels[[2, 5]].tolist()
    assert pictures.keys[2] in found
    with pytest.raises(KeyError):
        found.image("unknown")
    save_result(found, tmp_path / "thumbnails.json")
    assert np.array_equal(load_result(Thumbnails, tmp_path / "thumbnails.json").images, found.images)


def test_no_thumbnails(pictures) -> None:
    assert make_thumbnails(pictures, []).images.shape == (0, 112, 112, 3)
