"""Stored pictures on the pages: the files as they are, which nothing on the server opens again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from concept_tuning.diagnostics.thumbnails import pack_thumbnails


def _list_of_pictures(small) -> None:
    from app.picture_list import show_pictures
    from concept_tuning.report.picture_lists import ListedPicture

    show_pictures([ListedPicture(key=key, text="x") for key in small.keys], small, key="x")


def _gallery(small) -> None:
    from types import SimpleNamespace

    from app.views.attention_gallery import show_tiles

    overview = SimpleNamespace(class_names=("a",))
    pictures = SimpleNamespace(diagnosis=SimpleNamespace(overview=overview), predictions={})
    show_tiles(pictures, small.keys, small.keys[0], small, name="x", on_click=print)


@pytest.mark.parametrize("part", [_list_of_pictures, _gallery])
def test_they_are_shown_as_they_are(part: Callable[..., None]) -> None:
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    small = pack_thumbnails(("a.png", "b.png"), images, np.zeros(2, np.int64))
    page = AppTest.from_function(part, default_timeout=120, args=(small,)).run()
    assert not page.exception
    shown = [url for image in page.get("image") for url in image.value]
    assert shown == [f"data:image/webp;base64,{file}" for file in small.files]
