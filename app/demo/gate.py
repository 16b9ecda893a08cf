"""What stands between the network and Gradio: a list of addresses, limits on bodies, and headers on every answer.

Gradio serves more than this demo needs (components' own servers, proxies to other Spaces, deep links, editing by
language models); whatever is not on the list here is answered 404. Gradio names files by their places on the server;
here that folder goes by another name of the same length, so that bodies keep their length.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.demo.intake import UploadError, preview
from app.demo.worker import BUSY

_LOG = logging.getLogger(__name__)

_API = "/gradio_api"
#: Addresses that can be read, as patterns of the whole path.
READABLE: tuple[str, ...] = (
    r"/",
    r"/config/?",
    r"/theme\.css",
    r"/favicon\.ico",
    r"/robots\.txt",
    r"/manifest\.json",
    r"/assets/[\w./-]+",
    r"/static/[\w./-]+",
    r"/logout",
    rf"{_API}/theme\.css",
    rf"{_API}/info/?",
    rf"{_API}/openapi\.json",
    rf"{_API}/login_check/?",
    rf"{_API}/user/?",
    rf"{_API}/token/?",
    rf"{_API}/app_id/?",
    rf"{_API}/startup-events",
    rf"{_API}/heartbeat/[\w-]+",
    rf"{_API}/queue/data",
    rf"{_API}/upload_progress",
    rf"{_API}/call/[\w-]+/[\w-]+",
    rf"{_API}/file=.+",
)
#: Addresses that take something.
WRITABLE: tuple[str, ...] = (
    r"/login/?",
    rf"{_API}/queue/join",
    rf"{_API}/call/[\w-]+",
    rf"{_API}/upload",
    rf"{_API}/cancel",
    rf"{_API}/reset/?",
)
_READ, _WRITE = (re.compile("|".join(f"(?:{pattern})" for pattern in part)) for part in (READABLE, WRITABLE))
_UPLOAD = f"{_API}/upload"
_FILE = f"{_API}/file="
_JOINS = re.compile(rf"{_API}/(queue/join|call/[\w-]+)")

#: Most bytes of a question, which names files and does not hold them, and of all uploads and answers on disk.
MAX_QUESTION, MAX_STORED = 256 * 1024, 2**30
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), camera=(self)",
    # A Space shows the demo in a frame of its own site; nobody else may.
    "Content-Security-Policy": "object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
}
#: Nothing that a visitor made, opened on its own, may run or load anything.
_FILE_POLICY = "default-src 'none'; sandbox"


class Gate:
    """ASGI middleware around Gradio's application.

    Args:
        app: What it stands in front of.
        folder: Where uploads and answers are put.
        uploads: Returns the paths of all that visitors have sent.
    """

    def __init__(self, app: ASGIApp, *, folder: Path, uploads: Callable[[], set[str]]) -> None:
        self._app = app
        self._folder = folder.resolve()
        self._uploads = uploads
        self._inside = str(folder).encode()
        self._outside = b"/files".ljust(len(self._inside), b"-")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        if scope["path"].startswith(_FILE):
            path = scope["path"].replace(self._outside.decode(), self._inside.decode(), 1)
            scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        send = _renamed(_with_headers(send, scope["path"]), self._inside, self._outside)
        answer, receive = await self._judge(Request(scope, receive))
        if answer is not None:
            await answer(scope, receive, send)
            return
        if _JOINS.fullmatch(scope["path"]):
            send = _busy_in_words(send)
        await self._hand_on(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio answer; where it fails at a request, say so in words, without its inside."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            _LOG.exception("The request to %s failed", scope["path"])
            if begun:
                raise
            status = 400 if scope["path"] == _UPLOAD else 500
            await JSONResponse({"detail": "This request cannot be read."}, status_code=status)(scope, receive, send)

    async def _judge(self, request: Request) -> tuple[Response | None, Receive]:
        """Return the answer to a request that is not for Gradio, or None; and what is still to be received."""
        path, receive = request.url.path, request.receive
        allowed = {"GET": _READ, "HEAD": _READ, "POST": _WRITE}.get(request.method)
        if allowed is None or not allowed.fullmatch(path) or ".." in path:
            return JSONResponse({"detail": "There is nothing here."}, status_code=404), receive
        if path.startswith(_FILE):
            return await self._file(unquote(path.removeprefix(_FILE))), receive
        if path == _UPLOAD:
            return await self._upload(), receive
        if request.method == "POST":
            return await self._question(request)
        return None, receive

    async def _file(self, name: str) -> Response | None:
        """Answer for a file: what was uploaded comes back as a fresh picture of its pixels or not at all."""
        place = Path(name)
        if "\0" in name or not place.is_absolute() or not place.resolve().is_relative_to(self._folder):
            return JSONResponse({"detail": "There is no such file."}, status_code=404)
        if str(place) not in self._uploads():
            return None
        try:
            return Response(await run_in_threadpool(_fresh, place), media_type="image/webp")
        except UploadError as error:
            return JSONResponse({"detail": str(error)}, status_code=415)

    async def _upload(self) -> Response | None:
        stored = await run_in_threadpool(lambda: sum(_sizes(self._folder)))
        return JSONResponse({"detail": BUSY}, status_code=503) if stored > MAX_STORED else None

    async def _question(self, request: Request) -> tuple[Response | None, Receive]:
        """Refuse a body that is too large, or that names a file other than an upload; returns what to receive again."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_QUESTION:
                return JSONResponse({"detail": "The request is too large."}, status_code=413), request.receive
        body = body.replace(self._outside, self._inside)
        if request.headers.get("content-type", "").split(";")[0] == "application/json":
            try:
                named = [Path(name) for name in _named_files(json.loads(body))]
            except (ValueError, RecursionError):
                return JSONResponse({"detail": "The request is not valid JSON."}, status_code=400), request.receive
            if not all(path.is_absolute() and path.resolve().is_relative_to(self._folder) for path in named):
                detail = "Only files that were uploaded here can be used; upload the picture first."
                return JSONResponse({"detail": detail}, status_code=400), request.receive
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await request.receive()

        return None, again


def _named_files(value: Any) -> Iterator[str]:
    """Yield every path or address of a file that a question names."""
    if isinstance(value, dict):
        for key in ("path", "url"):
            if isinstance(value.get(key), str) and not (key == "url" and isinstance(value.get("path"), str)):
                yield value[key].replace("\0", "?")
        for inner in value.values():
            yield from _named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_files(inner)


def _fresh(place: Path) -> bytes:
    file = io.BytesIO()
    Image.fromarray(preview(place)).save(file, format="WEBP", quality=85)
    return file.getvalue()


def _sizes(folder: Path) -> Iterator[int]:
    for file in folder.rglob("*"):
        try:
            yield file.stat().st_size
        except OSError:
            continue


def _renamed(send: Send, inside: bytes, outside: bytes) -> Send:
    """Put one name of the folder in the place of the other in whatever is text; files have no such names in them."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body" and inside in message.get("body", b""):
            message = {**message, "body": message["body"].replace(inside, outside)}
        await send(message)

    return sending


def _with_headers(send: Send, path: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if path.startswith(_FILE):
                headers["Content-Security-Policy"] = _FILE_POLICY
                headers["Cache-Control"] = "private, max-age=300"
        await send(message)

    return sending


def _busy_in_words(send: Send) -> Send:
    """Put the demo's own words in the place of Gradio's where its queue is full."""
    full = False

    async def sending(message: Message) -> None:
        nonlocal full
        if message["type"] == "http.response.start":
            full = message["status"] == 503
            if full:
                body = json.dumps({"detail": BUSY}).encode()
                headers = MutableHeaders(scope=message)
                headers["Content-Length"] = str(len(body))
                headers["Content-Type"] = "application/json"
                headers["Retry-After"] = "2"
                await send(message)
                await send({"type": "http.response.body", "body": body})
        if not full:
            await send(message)

    return sending
