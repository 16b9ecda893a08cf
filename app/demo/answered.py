"""How a question of the demo is answered: settings of strangers brought into range, errors as sentences."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
import numpy as np

from app.demo.intake import UploadError
from concept_tuning.diagnostics.attribution import METHODS
from concept_tuning.errors import StudioError

_LOG = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")

#: Of a map over its picture, where nobody has chosen another.
OPACITY = 0.5
#: For how long what was found about a picture is kept, in seconds.
KEPT_SECONDS = 1800
#: Said where nothing is known of a picture, which may have been there.
PUT_AWAY = f"There is no picture, or it was put away after {KEPT_SECONDS // 60} minutes; choose one again."


def checked(name: object, opacity: object) -> tuple[str, float]:
    """Return settings of the page, which a stranger's program may have sent, as what they should be."""
    if name not in METHODS:
        raise UploadError(f"There is no such kind of map; choose one of {', '.join(METHODS)}.")
    try:
        share = float(opacity) if isinstance(opacity, int | float) else OPACITY
    except OverflowError:
        share = OPACITY
    return str(name), min(max(share, 0.0), 1.0) if np.isfinite(share) else OPACITY


def answered(function: Callable[..., AnswerT]) -> Callable[..., AnswerT]:
    """Return the function with errors as sentences: those foreseen as they are, all others without their inside."""

    @functools.wraps(function)
    def answer(*args: Any) -> AnswerT:
        return _in_words(function, *args)

    return answer


def answered_event(function: Callable[..., AnswerT]) -> Callable[..., AnswerT]:
    """Return :func:`answered` of a function that is told which thing was chosen."""

    def answer(event: gr.SelectData, *args: Any) -> AnswerT:
        return _in_words(function, *args, event=event)

    answer.__name__ = function.__name__
    return answer


def _in_words(function: Callable[..., AnswerT], *args: Any, **more: Any) -> AnswerT:
    try:
        return function(*args, **more)
    except StudioError as error:
        raise gr.Error(str(error), duration=8, print_exception=False) from error
    except Exception as error:
        _LOG.exception("A request failed")
        text = "Something unexpected went wrong here; it was written to the server's log. Try another picture."
        raise gr.Error(text, print_exception=False) from error
