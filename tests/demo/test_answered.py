"""How a question is answered: settings that strangers send, errors without an inside."""

from __future__ import annotations

import gradio as gr
import pytest

from app.demo.answered import answered, checked
from app.demo.intake import UploadError
from concept_tuning.errors import RunError


@pytest.mark.parametrize(
    ("opacity", "found"),
    [(0.3, 0.3), (-1, 0.0), (7, 1.0), ("much", 0.5), (float("nan"), 0.5), (None, 0.5), (10**400, 0.5)],
)
def test_an_opacity_from_a_strangers_program_is_brought_into_range(opacity: object, found: float) -> None:
    assert checked("grad-cam", opacity) == ("grad-cam", found)


@pytest.mark.parametrize("name", ["lime", None, 3, ["grad-cam"]])
def test_an_unknown_kind_of_map_is_refused(name: object) -> None:
    with pytest.raises(UploadError, match="no such kind"):
        checked(name, 0.5)


def test_foreseen_errors_keep_their_words_and_others_lose_them() -> None:
    def foreseen() -> None:
        raise RunError("The run is gone.")

    def unforeseen() -> None:
        raise KeyError("/secret/path")

    with pytest.raises(gr.Error) as caught:
        answered(foreseen)()
    assert caught.value.message == "The run is gone."
    with pytest.raises(gr.Error) as caught:
        answered(unforeseen)()
    assert "secret" not in caught.value.message
