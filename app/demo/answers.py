"""What becomes of Gradio's answers on their way out: headers, other names of files, words in the place of nothing."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

from app.demo.worker import BUSY

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
#: What a program reads where Gradio says that something is wrong with its question, and not what.
UNREADABLE = "This question cannot be read; /gradio_api/info tells what each endpoint takes."
_SILENT = (b'"error": null', b'"error":null')


def with_headers(send: Send, *, alone: bool) -> Send:
    """Put the headers on an answer; ``alone``: for a file, which may be opened on its own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if alone:
                headers["Content-Security-Policy"] = _FILE_POLICY
                headers["Cache-Control"] = "private, max-age=300"
        await send(message)

    return sending


def renamed(send: Send, inside: bytes, outside: bytes) -> Send:
    """Put one name of the folder in the place of the other; both are of one length, so that the answer's stays.

    In addresses and in JSON the name may be written otherwise and longer; the length of such an answer is set anew.
    """
    escaped = json.dumps(inside.decode(errors="surrogateescape"))[1:-1].encode()
    names = tuple(dict.fromkeys((inside, quote_from_bytes(inside).encode(), escaped)))
    return _replaced(send, inside, outside) if len(names) == 1 else _replaced_at_once(send, names, outside)


def _replaced(send: Send, inside: bytes, outside: bytes) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": message.get("body", b"").replace(inside, outside)}
        await send(message)

    return sending


def _replaced_at_once(send: Send, names: tuple[bytes, ...], outside: bytes) -> Send:
    """Hold an answer of known length back until all of it is there; one of unknown length goes on as it comes."""
    start: Message | None = None
    kept = b""

    async def sending(message: Message) -> None:
        nonlocal start, kept
        if message["type"] == "http.response.start":
            if MutableHeaders(scope=message).get("content-length") is None:
                await send(message)
            else:
                start = message
            return
        body: bytes = kept + message.get("body", b"")
        if start is not None and message.get("more_body"):
            kept = body
            return
        for name in names:
            body = body.replace(name, outside)
        if start is not None:
            if body:  # an answer to HEAD keeps the length of what it does not send
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
            await send(start)
            start = None
        await send({**message, "body": body})

    return sending


def errors_in_words(send: Send) -> Send:
    """Put words in the place of an event that says that there is an error, and not which."""
    stream = False

    async def sending(message: Message) -> None:
        nonlocal stream
        if message["type"] == "http.response.start":
            headers = dict(message.get("headers", []))
            stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        elif stream and message["type"] == "http.response.body":
            body: bytes = message.get("body", b"")
            if b"event: error" in body or b'"success": false' in body or b'"success":false' in body:
                for silent in _SILENT:
                    body = body.replace(silent, b'"error": ' + json.dumps(UNREADABLE).encode())
                message = {**message, "body": body}
        await send(message)

    return sending


def busy_in_words(send: Send) -> Send:
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
