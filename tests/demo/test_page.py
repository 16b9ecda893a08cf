"""The page's own functions: what is deleted and what stays, settings that strangers send, errors without an inside."""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio.route_utils import delete_files_created_by_app

from app.demo import page
from app.demo.intake import UploadError
from app.demo.page import build_demo
from app.demo.pair import Pair
from concept_tuning.diagnostics.example_pictures import ExamplePicture
from concept_tuning.errors import RunError


@pytest.fixture
def demo(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gr.Blocks:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    return build_demo(pair, [ExamplePicture(label="x", group="", pixels=pixels)])


def test_old_uploads_are_deleted_and_the_examples_stay(demo: gr.Blocks, tmp_path: Path) -> None:
    examples = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert examples
    upload = tmp_path / "sent" / "x.png"
    upload.parent.mkdir()
    upload.write_bytes(b"x")
    demo.upload_file_set.add(str(upload))
    assert demo.delete_cache == (page.DELETE_EVERY, page.DELETE_AGE)
    delete_files_created_by_app(demo, page.DELETE_AGE)
    assert upload.exists()  # not old yet
    delete_files_created_by_app(demo, 0)
    assert not upload.exists()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == examples


def test_the_table_of_a_batch_is_deleted_too(demo: gr.Blocks, pair: Pair, tmp_path: Path) -> None:
    file = page._csv_file(pair, [])
    button = next(block for block in demo.blocks.values() if isinstance(block, gr.DownloadButton))
    assert button.move_resource_to_block_cache(str(file)) == str(file)  # as Gradio does with what a function returns
    os.utime(file)
    delete_files_created_by_app(demo, 0)
    assert not file.exists()


@pytest.mark.parametrize(
    ("opacity", "found"), [(0.3, 0.3), (-1, 0.0), (7, 1.0), ("much", 0.5), (float("nan"), 0.5), (None, 0.5)]
)
def test_an_opacity_from_a_strangers_program_is_brought_into_range(opacity: object, found: float) -> None:
    assert page._checked("grad-cam", opacity) == ("grad-cam", found)


@pytest.mark.parametrize("name", ["lime", None, 3, ["grad-cam"]])
def test_an_unknown_kind_of_map_is_refused(name: object) -> None:
    with pytest.raises(UploadError, match="no such kind"):
        page._checked(name, 0.5)


def test_foreseen_errors_keep_their_words_and_others_lose_them() -> None:
    def foreseen() -> None:
        raise RunError("The run is gone.")

    def unforeseen() -> None:
        raise KeyError("/secret/path")

    with pytest.raises(gr.Error) as caught:
        page._answered(foreseen)()
    assert caught.value.message == "The run is gone."
    with pytest.raises(gr.Error) as caught:
        page._answered(unforeseen)()
    assert "secret" not in caught.value.message
