"""Uploads while they come in: how large and how slow one may be, and how many bytes all may have together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException
from starlette.types import Message, Receive

from app.demo.storage import stored_bytes

#: Most bytes of one upload, its files together, and of all uploads and answers on disk.
MAX_UPLOAD, MAX_STORED = 100 * 2**20, 2**30
#: Seconds in which something more of a body must come, and in which an upload must be there.
PAUSE_SECONDS, UPLOAD_SECONDS = 30.0, 300.0
DISK_SHARE = "The demo's share of the disk is used up; uploads are deleted after ten minutes. Try again then."
TOO_LARGE = f"At most {MAX_UPLOAD >> 20} MB can be sent at once; send fewer or smaller files."
TOO_SLOW = "This comes in too slowly, so it was given up. Try a smaller picture, or another connection."
_GONE = "The sender went away."


class Cut(MultiPartException):
    """A reason why an upload is not received to its end.

    Gradio's reader of forms deletes at this kind of error what it has written.

    Attributes:
        status: Of the answer.
        message: What the sender is told.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Incoming:
    """The uploads that come into a folder.

    An upload counts by what came of it, not by what it announces: one that sends nothing keeps nobody out.

    Args:
        folder: Where uploads and answers are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._on_disk = 0
        self._ended_then = 0
        #: Bytes of all uploads that ended since the start, and of those that come in now.
        self.ended = self.coming = 0

    @property
    def used(self) -> int:
        """Bytes on disk when last counted, and of what came since; half an upload may count twice, none is left out."""
        return self._on_disk + self.ended - self._ended_then + self.coming

    async def refusal(self, announced: int) -> Cut | None:
        """Return why an upload of so many bytes (0: unknown) is not begun, or None; counts what is on disk."""
        if announced > MAX_UPLOAD:
            return Cut(413, TOO_LARGE)
        ended = self.ended
        self._on_disk = await run_in_threadpool(stored_bytes, self._folder)
        self._ended_then = ended
        return Cut(503, DISK_SHARE) if self.used + announced > MAX_STORED else None

    @contextlib.contextmanager
    def upload(self, receive: Receive) -> Iterator[Upload]:
        """Count an upload among those that come in until the block ends; yields how it is received."""
        upload = Upload(receive, self)
        try:
            yield upload
        finally:
            self.coming -= upload.came
            self.ended += upload.came


class Upload:
    """One upload that comes in; called as an ASGI ``receive``, it raises :class:`Cut` at a limit.

    Attributes:
        came: Bytes so far.
        cut: Why it was given up; None while it was not.
    """

    def __init__(self, receive: Receive, incoming: Incoming) -> None:
        self.came = 0
        self.cut: Cut | None = None
        self._receive = receive
        self._incoming = incoming
        self._until = time.monotonic() + UPLOAD_SECONDS
        self._whole = False

    async def __call__(self) -> Message:
        """Return the next message."""
        if self._whole:  # whoever asks now waits for the sender to hang up
            return await self._receive()
        message = await self._next()
        if message["type"] == "http.disconnect":
            raise self._given_up(400, _GONE)
        size = len(message.get("body", b""))
        self.came += size
        self._incoming.coming += size
        if self.came > MAX_UPLOAD:
            raise self._given_up(413, TOO_LARGE)
        if self._incoming.used > MAX_STORED:
            raise self._given_up(503, DISK_SHARE)
        self._whole = not message.get("more_body", False)
        return message

    async def _next(self) -> Message:
        left = self._until - time.monotonic()
        if left <= 0:
            raise self._given_up(408, TOO_SLOW)
        try:
            with anyio.fail_after(min(PAUSE_SECONDS, left)):
                return await self._receive()
        except TimeoutError as error:
            raise self._given_up(408, TOO_SLOW) from error

    def _given_up(self, status: int, message: str) -> Cut:
        self.cut = Cut(status, message)
        return self.cut
