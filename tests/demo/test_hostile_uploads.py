"""Two hundred uploads that mean harm or are odd: each gets an answer or a message, and the server goes on serving."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from demo_server import DemoServer
from PIL import Image

_ANSWER, _MESSAGE, _EITHER = "complete", "error", "complete or error"
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")
_SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(document.cookie)</script><image href='file:///etc/passwd'/></svg>"


def _pixels(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 56, 3), dtype=np.uint8))


def _saved(image: Image.Image, kind: str, **more: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **more)
    return file.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(width: int, height: int, *, bits: int = 1, colour: int = 0, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil.sh", "rm -rf /")
    return file.getvalue()


def _truncated() -> Iterator[tuple[str, bytes, str]]:
    for kind in _FORMATS:
        whole = _saved(_pixels(), kind)
        for share in (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
            yield f"cut at {share:.0%}.{kind.lower()}", whole[: max(1, int(share * len(whole)))], _EITHER


def _flipped() -> Iterator[tuple[str, bytes, str]]:
    for seed in range(70):
        kind = _FORMATS[seed % len(_FORMATS)]
        whole = bytearray(_saved(_pixels(), kind))
        dice = np.random.default_rng(seed)
        for place in dice.integers(0, len(whole), 6):
            whole[place] = dice.integers(0, 256)
        yield f"flipped {seed}.{kind.lower()}", bytes(whole), _EITHER


def _odd() -> Iterator[tuple[str, bytes, str]]:
    image = _pixels()
    frames = [_pixels(seed) for seed in range(4)]
    grey = Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 20)
    clear = image.copy()
    clear.putalpha(Image.new("L", image.size, 30))
    yield "animated.gif", _saved(image, "GIF", save_all=True, append_images=frames), _ANSWER
    yield "animated.webp", _saved(image, "WEBP", save_all=True, append_images=frames), _ANSWER
    yield "animated.png", _saved(image, "PNG", save_all=True, append_images=frames), _ANSWER
    yield "16 bits.png", _saved(grey, "PNG"), _ANSWER
    yield "16 bits.tiff", _saved(grey, "TIFF"), _ANSWER
    yield "cmyk.jpg", _saved(image.convert("CMYK"), "JPEG"), _ANSWER
    yield "cmyk.tiff", _saved(image.convert("CMYK"), "TIFF"), _ANSWER
    yield "palette.png", _saved(image.convert("P"), "PNG"), _ANSWER
    yield "one bit.png", _saved(image.convert("1"), "PNG"), _ANSWER
    yield "clear.png", _saved(clear, "PNG"), _ANSWER
    yield "clear.webp", _saved(clear, "WEBP"), _ANSWER
    yield "one pixel.png", _saved(image.resize((1, 1)), "PNG"), _ANSWER
    yield "thin.png", _saved(image.resize((3000, 1)), "PNG"), _ANSWER
    yield "floats.tiff", _saved(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), _MESSAGE
    yield "wrong suffix.txt", _saved(image, "PNG"), _ANSWER
    yield "wrong suffix.svg", _saved(image, "JPEG"), _ANSWER
    yield "<img src=x onerror=alert(1)>.png", _saved(image, "PNG"), _ANSWER
    yield "../../../etc/cron.d/evil.png", _saved(image, "PNG"), _ANSWER
    yield "gif and script.gif", _saved(image, "GIF") + b"*/=1;alert(1)//", _ANSWER
    yield "jpeg and archive.jpg", _saved(image, "JPEG") + _zip(), _ANSWER
    yield "png and page.png", _saved(image, "PNG") + b"<html><script>alert(1)</script>", _ANSWER
    yield "much text.png", _saved(image, "PNG") + b"x" * 5_000_000, _ANSWER
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    yield "large exif.jpg", _saved(image, "JPEG", exif=exif), _ANSWER


def _harmful() -> Iterator[tuple[str, bytes, str]]:
    yield "nothing.png", b"", _MESSAGE
    yield "text.png", b"hello", _MESSAGE
    yield "script.svg", _SVG, _MESSAGE
    yield "script.png", _SVG, _MESSAGE
    yield (
        "entities.svg",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>",
        _MESSAGE,
    )
    yield "page.html", b"<html><script>alert(1)</script></html>", _MESSAGE
    yield "program.jpg", b"MZ\x90\0" + b"\0" * 500, _MESSAGE
    yield "program", b"\x7fELF" + b"\0" * 500, _MESSAGE
    yield "paper.pdf", b"%PDF-1.7\n1 0 obj", _MESSAGE
    yield "drawing.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (r) file", _MESSAGE
    yield "archive.zip", _zip(), _MESSAGE
    yield "pickle.pkl", b"\x80\x04cos\nsystem\n(S'id'\ntR.", _MESSAGE
    yield "icon.ico", b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0h\4\0\0\x16\0\0\0", _MESSAGE
    yield "layers.psd", b"8BPS\0\1" + b"\0" * 40, _MESSAGE
    yield "bomb of one bit.png", _png(25_000, 25_000, data=b"\0" * (25_000 * 3126)), _MESSAGE
    for width, height in (
        (65_000, 65_000),
        (2**31 - 1, 2**31 - 1),
        (1, 2**31 - 1),
        (0, 5),
        (2**31, 1),
        (30_000_001, 1),
    ):
        yield f"header of {width} x {height}.png", _png(width, height), _MESSAGE
    yield "huge.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;", _MESSAGE
    yield (
        "huge.bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        _MESSAGE,
    )
    yield "huge.ppm", b"P6 99999 99999 255\n", _MESSAGE
    yield "negative.ppm", b"P6 -5 -5 255\n", _MESSAGE
    yield "endless header.ppm", b"P6 " + b"#" * 100_000, _MESSAGE
    yield "loop.tiff", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", _MESSAGE
    yield "wrong sum.png", _saved(_pixels(), "PNG")[:-8] + b"\0" * 8, _EITHER
    for seed, magic in enumerate(
        (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\1\0\0WEBP", b"II*\0", b"BM", b"P6 ")
    ):
        yield f"noise {seed}", magic + np.random.default_rng(seed).bytes(2000), _MESSAGE


CASES = [*_truncated(), *_flipped(), *_odd(), *_harmful()]


def _compare(web: httpx.Client, name: str, content: bytes) -> tuple[str, str]:
    """Send a file and ask about it; returns the kind of the last event and what it says."""
    answer = web.post("/gradio_api/upload", files={"files": (name, content)})
    assert answer.status_code == 200, f"{name}: {answer.status_code} {answer.text}"
    file = {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    shown = web.get(f"/gradio_api/file={answer.json()[0]}")
    assert shown.status_code in (200, 415), f"{name}: {shown.status_code}"
    assert shown.headers["content-type"] in ("image/webp", "application/json")
    call = web.post("/gradio_api/call/compare", json={"data": [file]})
    assert call.status_code == 200, f"{name}: {call.status_code} {call.text}"
    text = web.get(f"/gradio_api/call/compare/{call.json()['event_id']}").text
    lines = [line for line in text.splitlines() if line]
    return lines[-2].removeprefix("event: "), lines[-1].removeprefix("data: ")


def test_there_are_two_hundred_of_them() -> None:
    assert len(CASES) >= 200
    assert len({name for name, _, _ in CASES}) == len(CASES)


@pytest.mark.slow
def test_each_is_answered_and_the_server_goes_on(demo: DemoServer) -> None:
    good, said_before = _saved(_pixels(), "PNG"), len(demo.output())
    with httpx.Client(base_url=demo.url, timeout=60) as web:
        before = _compare(web, "good.png", good)
        assert before[0] == "complete"
        wrong = []
        for name, content, expected in CASES:
            kind, said = _compare(web, name, content)
            if kind not in expected.split(" or "):
                wrong.append(f"{name}: {kind} {said[:200]}")
            elif kind == "error":
                message = json.loads(said)["error"]
                if not message or "unexpected" in message or "Traceback" in message or "/files---" in message:
                    wrong.append(f"{name}: says {message}")
        assert wrong == []
        assert _compare(web, "good.png", good) == before
    assert "Traceback" not in demo.output()[said_before:]


@pytest.mark.parametrize("boundary", ["", "x" * 5000])
def test_a_broken_form_is_refused(demo: DemoServer, boundary: str) -> None:
    with httpx.Client(base_url=demo.url, timeout=60) as web:
        headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
        answer = web.post("/gradio_api/upload", content=b"--nonsense", headers=headers)
        assert 400 <= answer.status_code < 500
        assert "Traceback" not in answer.text
        assert web.get("/config").status_code == 200
