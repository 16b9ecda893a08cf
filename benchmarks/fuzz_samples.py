"""Sound files of every kind that is taken in, and ways to damage them; all of it follows from one random source."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import torch
from fuzz_bombs import gif, hostile_headers, png, rle_bmp, tiled_tiff
from PIL import Image
from safetensors.numpy import save

from concept_tuning.config import RunConfig

_ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_ODD_TEXTS = (
    b"\0", b"..", b"../", b"/", b"\\", b"C:", b"~", b'"', b"\r", b"\n", b",", b";", b"\t", b"NaN", b"Infinity", b"-1",
    b"1e999", b"null", b"[]", b"{}", b"[" * 2000, b"\xff\xfe", "\ufeff".encode(), "\u202e".encode(), b"%s", b"\xc3",
)  # fmt: skip
_NAME_PARTS = (
    "..", ".", "", "owl", "wren", "1.png", "list.csv", "a" * 300, "\0", "\n", "CON", "C:", "~", "é", "e\u0301",
    "\u202e", "__MACOSX", ".hidden", "a.", "a ", "train", "test",
)  # fmt: skip


def samples() -> dict[str, list[bytes]]:
    """Return a few sound files of each kind, by its suffix."""
    noise = np.random.default_rng(0).integers(0, 256, (21, 17, 3), dtype=np.uint8)
    colour, deep = Image.fromarray(noise), Image.fromarray(noise[..., 0].astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = colour.convert("RGBA")
    clear.putalpha(100)
    palette = colour.convert("P")
    moving = {"save_all": True, "append_images": [colour.rotate(90), clear], "duration": 40}
    birds = {f"{name}/{number}.png": _encoded(colour, "PNG") for name in ("owl", "wren") for number in range(4)}
    listing = "path,label,split,group\n" + "".join(f"{key},{key.split('/')[0]},train,x\n" for key in birds)
    tar, listed = _tar(birds), birds | {"list.csv": listing.encode()}
    return {
        "png": [_encoded(each, "PNG", **more) for each, more in (
            (colour, {}), (clear, {}), (deep, {}), (palette, {"transparency": 3}), (colour, {"exif": exif}),
            (colour, moving), (clear, moving | {"disposal": 1}),
        )] + [png((1, 1), frame=(1, 1))],
        "jpg": [
            _encoded(colour, "JPEG"), _encoded(colour, "JPEG", progressive=True, exif=exif),
            _encoded(colour.convert("CMYK"), "JPEG"), _encoded(colour.convert("L"), "JPEG"),
        ],
        "webp": [_encoded(colour, "WEBP"), _encoded(clear, "WEBP", lossless=True), _encoded(colour, "WEBP", **moving)],
        "gif": [
            _encoded(palette, "GIF"), _encoded(palette, "GIF", **moving), _encoded(palette, "GIF", transparency=2),
            _encoded(palette, "GIF", disposal=2, comment=b"a bird", **moving), gif((2, 1), (1, 1)),
        ],
        "tif": [_encoded(each, "TIFF", compression=how) for each, how in (
            (colour, "raw"), (colour, "tiff_lzw"), (clear, "tiff_deflate"), (deep, "raw"), (colour, "jpeg"),
            (colour.convert("1"), "group4"), (colour, "packbits"), (colour, "lzma"), (colour, "zstd"),
        )] + [tiled_tiff((17, 21), (32, 32)), tiled_tiff((16, 16), (16, 16), how=1, big=True)],
        "bmp": [
            _encoded(colour, "BMP"), _encoded(palette, "BMP"), rle_bmp((6, 3), b"\4\7\2\1\0\0\0\2\1\1\5\x09\0\1"),
            rle_bmp((6, 2), b"\6\x17\0\0\0\6\x12\x30\x45\0\0\1", bits=4),
        ],
        "ppm": [_encoded(colour, "PPM"), b"P2\n3 2 9\n1 2 3 4 5 6\n", b"P1 3 2 1 0 1 0 1 0 "],
        "zip": [_zip(birds), _zip(listed, zipfile.ZIP_STORED)],
        "tar": [tar, _tar(listed), _tar(birds, tarfile.PAX_FORMAT, "é" * 90)],
        "tar.gz": [gzip.compress(tar, mtime=0)], "tar.bz2": [bz2.compress(tar)], "tar.xz": [lzma.compress(tar)],
        "csv": [listing.encode(), listing.replace(",", ";").encode("utf-16"), listing.encode("utf-8-sig")],
        "safetensors": [save({"labels": np.arange(4), "probabilities.prediction": np.ones((4, 2), np.float32) / 2})],
        "json": [json.dumps(RunConfig().to_dict()).encode()],
        "state.pt": [_state(), _state(_use_new_zipfile_serialization=False)],
    }  # fmt: skip


def damaged(kind: str, sound: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return a damaged copy of a sound file: a few changes, and for half of the files the sums made right again."""
    packer = {"tar.gz": (gzip.decompress, gzip.compress), "tar.bz2": (bz2.decompress, bz2.compress)}.get(kind)
    if packer is not None and chance.random() < 0.5:
        return packer[1](damaged("tar", packer[0](sound), others, chance))
    data = bytearray(sound)
    for _ in range(chance.choice((1, 1, 2, 4, 12))):
        chance.choice(_CHANGES)(data, others, chance)
    repair = {"png": _right_png, "tar": _right_tar}.get(kind)
    return repair(bytes(data)) if repair and chance.random() < 0.5 else bytes(data)


def hostile_archive(kind: str, outside: str, chance: random.Random) -> bytes:
    """Return a whole archive of odd names, links, devices and chains of headers, some meant for a folder outside."""
    if chance.random() < 0.2:
        return hostile_headers(kind, chance)
    files = {}
    for number in range(chance.randint(1, 8)):
        if chance.random() < 0.6:
            files[f"{chance.choice(('owl', 'wren'))}/{number}.png"] = b"tame"
            continue
        parts = [chance.choice(_NAME_PARTS) for _ in range(chance.randint(1, 5))]
        start = chance.choice(("", "", "", "/", "../" * chance.randint(1, 9), outside + "/", "\\"))
        files[start + chance.choice("//\\").join(parts)] = b"evil %d" % number
    if kind == "zip":
        return _zip(files, chance=chance)
    before = chain(chance.choice("LKxg"), chance.randint(1, 900)) if chance.random() < 0.2 else b""
    return before + _tar(files, chance=chance)


def chain(kind: str, count: int) -> bytes:
    """Return headers of a tar file that each describe the next: long names or links (L, K) or extended ones (x, g)."""
    text = b"11 path=ab\n" if kind in "xg" else b"owl/1.png\0"
    header = tarfile.TarInfo("x")
    header.type, header.size = kind.encode(), len(text)
    return (header.tobuf(tarfile.GNU_FORMAT) + text.ljust(tarfile.BLOCKSIZE, b"\0")) * count


def _flip(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _put_number(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    form = chance.choice((">H", "<H", ">I", "<I", "B"))
    size = struct.calcsize(form)
    if len(data) >= size:
        place = chance.randrange(len(data) - size + 1)
        number = chance.choice(_ODD_NUMBERS) & ((1 << 8 * size) - 1)
        data[place : place + size] = struct.pack(form, number)


def _put_text(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    text = chance.choice(_ODD_TEXTS)
    data[place : place + chance.choice((0, len(text)))] = text


def _cut(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _remove(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    del data[place : place + chance.randint(1, 64)]


def _repeat(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = data[place : place + chance.randint(1, 64)] * chance.choice((1, 2, 50))


def _splice(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    other, place = chance.choice(others), chance.randrange(len(data) + 1)
    data[place:] = other[chance.randrange(len(other) + 1) :]


_CHANGES: tuple[Callable[[bytearray, list[bytes], random.Random], None], ...] = (
    _flip, _flip, _put_number, _put_number, _put_text, _cut, _remove, _repeat, _splice,
)  # fmt: skip


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _state(**options: bool) -> bytes:
    """Return what is in a checkpoint beside the weights, packed as torch does now or as it did before."""
    weight = torch.nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.ones(3, 2)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    optimizer.step()
    numbers = {"step": 1, "best": {"step": 1, "accuracy": 0.5, "loss": 0.7}, "metrics_bytes": 80, "scaler": {}}
    stream = io.BytesIO()
    tensors = {"optimizer": optimizer.state_dict(), "random_states": [[torch.arange(16, dtype=torch.uint8)]]}
    torch.save(numbers | tensors, stream, **options)
    return stream.getvalue()


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, chance: random.Random | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x", (2020, 1, 1, 0, 0, 0))
            info.filename = info.orig_filename = name
            if chance is not None:
                info.external_attr = chance.choice((*[0o100644] * 12, 0o120777, 0o040755, 0o010644)) << 16
            archive.writestr(info, content, method)
    return stream.getvalue()


def _tar(
    files: dict[str, bytes], form: int = tarfile.GNU_FORMAT, long: str = "", chance: random.Random | None = None
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(long + name)
            info.size = len(content)
            if chance is not None and chance.random() < 0.1:
                info.type = chance.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE))
                info.linkname, info.size = chance.choice(("../../x", "/etc/passwd", name)), 0
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _right_png(data: bytes) -> bytes:
    """Make the sums of a PNG file's pieces right."""
    found, place = bytearray(data[:8]), 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        piece = data[place + 4 : place + 8 + length]
        found += data[place : place + 4] + piece + struct.pack(">I", zlib.crc32(piece))
        place += length + 12
    return bytes(found)


def _right_tar(data: bytes) -> bytes:
    """Make the sums of the blocks of a tar file right that look like headers."""
    found = bytearray(data)
    for place in range(0, len(found) - 511, 512):
        if found[place + 257 : place + 262] == b"ustar":
            found[place + 148 : place + 156] = b" " * 8
            found[place + 148 : place + 156] = b"%06o\0 " % sum(found[place : place + 512])
    return bytes(found)
