from __future__ import annotations

import base64

import numpy as np
import pytest

from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.thumbnails import LOSSLESS, Thumbnails, make_thumbnails, pack_thumbnails


def test_thumbnails_are_the_named_pictures(pictures, tmp_path) -> None:
    wanted = [pictures.keys[5], pictures.keys[2], pictures.keys[5], "unknown"]
    found = make_thumbnails(pictures, wanted, side=24, quality=LOSSLESS)
    assert found.keys == (pictures.keys[2], pictures.keys[5])
    assert np.array_equal(found.image(pictures.keys[5]), pictures.image(5, 24).permute(1, 2, 0).numpy())
    assert found.labels.tolist() == pictures.labels[[2, 5]].tolist()
    assert pictures.keys[2] in found
    with pytest.raises(KeyError):
        found.image("unknown")
    save_result(found, tmp_path / "thumbnails.json")
    assert load_result(Thumbnails, tmp_path / "thumbnails.json").files == found.files


def test_a_page_gets_the_file_as_it_is(pictures) -> None:
    found = make_thumbnails(pictures, pictures.keys[:1])
    kind, content = found.address(pictures.keys[0]).split(",")
    assert kind == "data:image/webp;base64"
    assert base64.b64decode(content) == found.file(pictures.keys[0])
    for read in (found.address, found.file):
        with pytest.raises(KeyError):
            read("unknown")


def test_no_thumbnails(pictures) -> None:
    assert make_thumbnails(pictures, []).files == ()


def test_lossy_thumbnails_are_small_and_close() -> None:
    rows, columns = np.mgrid[:112, :112]
    image = np.stack([rows, columns, rows[::-1]], axis=2).astype(np.uint8) * 2
    found = pack_thumbnails(["a"], image[None], np.array([0]))
    assert len(found.file("a")) < image.nbytes / 10
    assert np.abs(found.image("a").astype(int) - image).mean() < 4
