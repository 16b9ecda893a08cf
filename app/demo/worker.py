"""One thread that asks the models, so many requests that may wait for it, and a limit on how long each waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from typing import TypeVar

from concept_tuning.errors import StudioError

AnswerT = TypeVar("AnswerT")

#: What a visitor reads when there is too much to do.
BUSY = "The demo is busy: too many pictures are waiting. Try again in a moment."
TOO_LONG = "This took longer than the demo allows, so it was given up. Try a smaller picture, or fewer of them."


class BusyError(StudioError):
    """So many requests wait already, or this one waited too long, that it was not begun."""


class TookTooLongError(StudioError):
    """A request was begun and not done in time."""


class Worker:
    """Runs functions one at a time, in a thread of its own; models are thereby never used by two at once.

    The limits hold for every caller, whichever way its request came in.

    Args:
        waiting: Most requests that wait or are worked on at once; one that was given up counts until it ends.
        seconds: Longest time that a caller waits, its own work included.
    """

    def __init__(self, *, waiting: int, seconds: float) -> None:
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(waiting)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")

    def ask(self, function: Callable[..., AnswerT], *args: object, seconds: float | None = None) -> AnswerT:
        """Return what a function returns; ``seconds`` is another limit than the worker's.

        Raises:
            BusyError: if there is no place, or it was not begun in time.
            TookTooLongError: if it was begun and not done in time; its thread goes on to the end of it.
            Exception: whatever the function raises.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError(BUSY)
        future: Future[AnswerT] = self._pool.submit(function, *args)
        future.add_done_callback(lambda _: self._places.release())
        try:
            return future.result(timeout=self._seconds if seconds is None else seconds)
        except TimeoutError as error:
            if future.cancel():
                raise BusyError(BUSY) from error
            if future.done() and future.exception() is error:
                raise
            raise TookTooLongError(TOO_LONG) from error
