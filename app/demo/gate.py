"""What stands between the network and Gradio: a list of addresses, limits on bodies, and headers on answers.

Gradio serves more than this demo needs (components' own servers, proxies to other Spaces, deep links, editing by
language models); whatever is not on the list here is answered 404. Gradio names files by their places on the server;
here that folder goes by another name of the same length, so that bodies keep their length.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.demo.answers import busy_in_words, errors_in_words, renamed, with_headers
from app.demo.incoming import PAUSE_SECONDS, TOO_SLOW, Cut, Incoming
from app.demo.intake import UploadError, fresh_picture
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
    r"/assets/[\w.-][\w./-]*",
    r"/static/[\w.-][\w./-]*",
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
    rf"{_API}/call/(v2/)?[\w-]+",
    rf"{_API}/upload",
    rf"{_API}/cancel",
    rf"{_API}/reset/?",
)
_READ, _WRITE = (re.compile("|".join(f"(?:{pattern})" for pattern in part)) for part in (READABLE, WRITABLE))
_UPLOAD, _FILE, _LOGIN_CHECK = f"{_API}/upload", f"{_API}/file=", f"{_API}/login_check"
_JOINS = re.compile(rf"{_API}/(queue/join|call/(v2/)?[\w-]+)")
_LOGIN = re.compile(r"/login/?")

#: Most bytes of a question, which names files and does not hold them.
MAX_QUESTION = 256 * 1024
#: Log-ins that one address may try within a minute.
MAX_LOGINS, _MINUTE = 10, 60.0
#: Uploads that wait to be shown back. They are decoded one at a time: one can take some hundred megabytes.
MAX_SHOWN = 24
NOTHING_HERE = "There is nothing here."
FOREIGN_FILE = "Only files that were uploaded here can be used; upload the picture first."
NO_LOGIN = "Log in first."


class Gate:
    """ASGI middleware around Gradio's application.

    Args:
        app: What it stands in front of.
        folder: Where uploads and answers are put.
        uploads: Returns the paths of all that visitors have sent.
        behind_proxy: Whether headers that a proxy adds on who asked, and how, are to be believed.
    """

    def __init__(
        self, app: ASGIApp, *, folder: Path, uploads: Callable[[], set[str]], behind_proxy: bool = False
    ) -> None:
        self._app = app
        self._folder = folder.resolve()
        self._uploads = uploads
        self._behind_proxy = behind_proxy
        self._inside = str(self._folder).encode()
        self._outside = b"/files".ljust(len(self._inside), b"-")
        self._incoming = Incoming(self._folder)
        self._showing, self._to_show = asyncio.Semaphore(1), 0
        self._logins: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(self._cleaned(scope), receive, send)
        else:  # the demo has no web sockets
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        send = renamed(with_headers(send, alone=path.startswith(_FILE)), self._inside, self._outside)
        try:
            answer, receive = await self._judge(scope, receive)
        except (ValueError, RecursionError):  # a path or a body that is no text, or nested too deep
            answer = _refusal(400, "This request cannot be read.")
        if answer is not None:
            await answer(scope, receive, send)
            return
        send = busy_in_words(send) if _JOINS.fullmatch(path) else errors_in_words(send)
        await (self._upload if path == _UPLOAD else self._hand_on)(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio receive an upload within its limits."""
        with self._incoming.upload(receive) as upload:

            async def sending(message: Message) -> None:
                if upload.cut is None:  # what Gradio says of a form that was cut is not the reason
                    await send(message)

            await self._hand_on(scope, upload, sending)
        if upload.cut is not None:
            await _cut(upload.cut)(scope, receive, send)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio answer; where it fails at a request, say so in words, without its inside."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if begun:
                raise
            await self._failure(scope, error)(scope, receive, send)

    def _failure(self, scope: Scope, error: Exception) -> Response:
        if isinstance(error, Cut):
            return _cut(error)
        _LOG.warning("The request to %s failed: %s: %s", scope["path"], type(error).__name__, error)
        if _JOINS.fullmatch(scope["path"]):
            return _refusal(404, "There is no such endpoint, or it takes something else; see /gradio_api/info.")
        return _refusal(400 if scope["path"] == _UPLOAD else 500, "This request cannot be read.")

    async def _judge(self, scope: Scope, receive: Receive) -> tuple[Response | None, Receive]:
        """Return the answer to a request that is not for Gradio, or None; and what is still to be received."""
        path, method = scope["path"], scope["method"]
        allowed = {"GET": _READ, "HEAD": _READ, "POST": _WRITE}.get(method)
        if allowed is None or not allowed.fullmatch(path) or ".." in path:
            return _refusal(404, NOTHING_HERE), receive
        if path.startswith(_FILE):
            return await self._file(scope, unquote(path.removeprefix(_FILE))), receive
        if path == _UPLOAD:
            refused = await self._incoming.refusal(_announced(scope))
            return (None if refused is None else _cut(refused)), receive
        if method == "POST":
            return await self._question(scope, receive)
        return None, receive

    async def _file(self, scope: Scope, name: str) -> Response | None:
        """Answer for a file: what was uploaded comes back as a fresh picture of its pixels or not at all."""
        place = Path(name)
        if "\0" in name or not place.is_absolute() or not place.resolve().is_relative_to(self._folder):
            return _refusal(404, "There is no such file.")
        if not await self._is_logged_in(scope):
            return _refusal(401, NO_LOGIN)
        return await self._shown(place) if str(place) in self._uploads() else None

    async def _is_logged_in(self, scope: Scope) -> bool:
        """Ask Gradio, as it asks itself before its own files, whether a request may be answered."""
        said: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                said.append(message["status"])

        check = {"method": "GET", "path": _LOGIN_CHECK, "raw_path": _LOGIN_CHECK.encode(), "query_string": b""}
        await self._app({**scope, **check}, receive, send)
        return said == [200]

    async def _shown(self, place: Path) -> Response:
        """Return an upload as a fresh picture, one at a time for all visitors."""
        if self._to_show >= MAX_SHOWN:
            return _refusal(503, BUSY)
        self._to_show += 1
        try:
            async with self._showing:
                return Response(await run_in_threadpool(fresh_picture, place), media_type="image/webp")
        except UploadError as error:
            return _refusal(415, str(error))
        finally:
            self._to_show -= 1

    async def _question(self, scope: Scope, receive: Receive) -> tuple[Response | None, Receive]:
        """Refuse a body that is too large, or that names a file other than an upload; returns what to receive again."""
        request = Request(scope, receive)
        body = b""
        try:
            with anyio.fail_after(PAUSE_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > MAX_QUESTION:
                        return _refusal(413, "The request is too large."), receive
        except TimeoutError:
            return _refusal(408, TOO_SLOW), receive
        if _LOGIN.fullmatch(scope["path"]):
            if self._tries_too_often(request):
                return _refusal(429, "Too many log-ins; wait a minute."), receive
        else:
            body = body.replace(self._outside, self._inside)
            if request.headers.get("content-type", "").split(";")[0] != "application/json":
                return _refusal(415, "Questions are asked as application/json."), receive
            named = [Path(name) for name in _named_files(json.loads(body))]
            if not all(path.is_absolute() and path.resolve().is_relative_to(self._folder) for path in named):
                return _refusal(400, FOREIGN_FILE), receive
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return None, again

    def _tries_too_often(self, request: Request) -> bool:
        """Return whether an address has had its log-ins of this minute; one that is refused does not count."""
        now = time.monotonic()
        self._logins = {name: tries for name, tries in self._logins.items() if now - tries[-1] <= _MINUTE}
        address = request.client.host if request.client else ""
        tries = self._logins.get(address, deque())
        while tries and now - tries[0] > _MINUTE:
            tries.popleft()
        if len(tries) >= MAX_LOGINS:
            return True
        tries.append(now)
        self._logins[address] = tries
        return False

    def _cleaned(self, scope: Scope) -> Scope:
        """Return a request with the server's own name of a file, without a stranger's word on who forwarded it."""
        headers = scope["headers"]
        if not self._behind_proxy:
            headers = [(name, value) for name, value in headers if not name.lower().startswith(b"x-forwarded-")]
        path: str = scope["path"]
        if not path.startswith(_FILE):
            return {**scope, "headers": headers}
        path = path.replace(self._outside.decode(), self._inside.decode(errors="surrogateescape"), 1)
        return {**scope, "headers": headers, "path": path, "raw_path": quote(path, errors="replace").encode()}


def _refusal(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status_code=status)


def _cut(reason: Cut) -> Response:
    return _refusal(reason.status, reason.message)


def _announced(scope: Scope) -> int:
    """Return how many bytes a request says that it has; 0 where it does not say."""
    found = dict(scope["headers"]).get(b"content-length", b"")
    return int(found) if found.isdigit() else 0


def _named_files(value: Any) -> Iterator[str]:
    """Yield what a question says of each file: its path, or its address where it has no path."""
    if isinstance(value, dict):
        named = value.get("path") if isinstance(value.get("path"), str) else value.get("url")
        if isinstance(named, str):
            yield named.replace("\0", "?")
        for inner in value.values():
            yield from _named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_files(inner)
