"""Uploads that are slow, idle, endless or too many: they end in time, and keep nobody else out."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from demo_server import DemoServer

from app.demo import gate, incoming
from app.demo.incoming import Cut, Incoming

Messages = Sequence[dict[str, object] | float]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def body(size: int, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def coming(messages: Messages) -> Callable:
    """Return a ``receive`` of these messages; a number is a pause in seconds, and the end another one without end."""
    left = list(messages)

    async def receive():
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))
        if not left:
            await asyncio.sleep(600)
        return left.pop(0)

    return receive


async def received(uploads: Incoming, messages: Messages) -> int:
    """Receive an upload to its end and return its bytes."""
    with uploads.upload(coming(messages)) as upload:
        while (await upload()).get("more_body"):
            pass
        return upload.came


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pause", "whole", "messages", "status", "words"),
    [
        (0.1, 60, [], 408, "too slowly"),
        (0.1, 60, [body(5)], 408, "too slowly"),
        (60, 0.2, [body(5)], 408, "too slowly"),
        (60, 0.2, [message for _ in range(400) for message in (0.03, body(0))], 408, "too slowly"),
        (60, 0.0, [body(5, more=False)], 408, "too slowly"),
        (60, 60, [body(60), body(60)], 413, "At most 100 MB"),
        (60, 60, [body(5), {"type": "http.disconnect"}], 400, "went away"),
    ],
    ids=["idle", "half", "half at the end", "drip by drip", "too late", "too large", "gone"],
)
async def test_what_does_not_come_in_time_and_size_is_cut(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
    whole: float,
    messages: Messages,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(incoming, "PAUSE_SECONDS", pause)
    monkeypatch.setattr(incoming, "UPLOAD_SECONDS", whole)
    monkeypatch.setattr(incoming, "MAX_UPLOAD", 100)
    uploads, begun = Incoming(tmp_path), time.monotonic()
    with pytest.raises(Cut, match=words) as found:
        await received(uploads, messages)
    assert found.value.status == status
    assert time.monotonic() - begun < 5
    assert uploads.coming == 0


@pytest.mark.anyio
async def test_what_comes_in_time_is_received_and_a_hang_up_may_then_be_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "PAUSE_SECONDS", 0.1)
    uploads = Incoming(tmp_path)
    with uploads.upload(coming([0.01, body(5), 0.01, body(7, more=False), 0.3, {"type": "http.disconnect"}])) as upload:
        assert len((await upload())["body"]) == 5
        assert uploads.coming == uploads.used == 5
        assert len((await upload())["body"]) == 7
        assert (await upload())["type"] == "http.disconnect"
    assert (upload.came, upload.cut, uploads.coming, uploads.ended) == (12, None, 0, 12)


@pytest.mark.anyio
async def test_an_upload_counts_by_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MAX_STORED", 100)
    uploads = Incoming(tmp_path)
    with uploads.upload(coming([body(60)])) as first, uploads.upload(coming([body(30), body(30)])) as second:
        assert await uploads.refusal(100) is None
        await first()
        await second()
        assert uploads.used == 90
        refused = await uploads.refusal(11)
        assert refused is not None
        assert (refused.status, refused.message) == (503, incoming.DISK_SHARE)
        assert await uploads.refusal(10) is None
        with pytest.raises(Cut, match="share of the disk"):
            await second()
    assert uploads.used == 120  # until what is on disk is counted again, none is taken for lost
    (tmp_path / "first").write_bytes(b"x" * 60)
    assert await uploads.refusal(40) is None
    assert uploads.used == 60
    refused = await uploads.refusal(incoming.MAX_UPLOAD + 1)
    assert refused is not None
    assert refused.status == 413


@pytest.mark.anyio
async def test_the_reason_of_a_cut_is_answered_whatever_gradio_says_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless():
        yield b"x"
        await asyncio.sleep(60)

    async def deaf(scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass

    async def talks(scope, receive, send) -> None:
        try:
            await deaf(scope, receive, send)
        except Cut:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"well done"})

    monkeypatch.setattr(incoming, "PAUSE_SECONDS", 0.05)
    for app in (deaf, talks):
        inner = gate.Gate(app, folder=tmp_path, uploads=set)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=inner), base_url="http://demo") as web:
            answer = await web.post("/gradio_api/upload", content=endless())
            assert answer.status_code == 408
            assert answer.json() == {"detail": incoming.TOO_SLOW}


def test_thirty_idle_uploads_keep_nobody_out(demo: DemoServer) -> None:
    head = (
        b"POST /gradio_api/upload HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    announced = head.replace(b"Transfer-Encoding: chunked", b"Content-Length: 104857600")
    address = demo.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((address[0], int(address[1]))) for _ in range(30)]
    try:
        for place, connection in enumerate(idle):
            connection.sendall((head, announced)[place % 2])
        time.sleep(0.5)
        with httpx.Client(base_url=demo.url, timeout=60) as web:
            answer = web.post("/gradio_api/upload", files={"files": ("x.png", b"x")})
        assert answer.status_code == 200, answer.text
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.slow
def test_an_idle_upload_is_hung_up_on_and_its_half_file_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = DemoServer(tmp_path)
    try:
        (folder,) = tmp_path.glob("concept-tuning-demo-*")
        before = {path for path in folder.rglob("*") if path.is_file()}
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=incoming.PAUSE_SECONDS + 20) as connection:
            part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n' + b"x" * 70_000
            connection.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: demo\r\nContent-Length: 1000000\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + part
            )
            time.sleep(1)
            assert {path for path in folder.rglob("*") if path.is_file()} > before
            answer = b""
            while more := connection.recv(65536):  # ends where the connection is closed
                answer += more
        assert answer.startswith(b"HTTP/1.1 408")
        assert incoming.TOO_SLOW.encode() in answer
        assert {path for path in folder.rglob("*") if path.is_file()} == before
    finally:
        server.end()
