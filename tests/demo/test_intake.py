"""Uploads: limits before decoding, content and not names, nothing outside the folder, sentences without paths."""

from __future__ import annotations

import builtins
import errno
import io
import os
import tempfile
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fuzz_bombs import tiled_tiff, zip_directory
from PIL import Image

from app.demo import intake
from app.demo.intake import UploadError, fresh_picture, read_batch, read_picture
from concept_tuning.data.decode import UnreadableImage


def _png(colour: int = 90, size: tuple[int, int] = (30, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 10, 200)).save(file, format="PNG")
    return file.getvalue()


def _upload(folder: Path, content: bytes, name: str = "x.png") -> dict[str, str]:
    path = folder / name
    path.write_bytes(content)
    return {"path": str(path), "orig_name": name}


def test_a_picture_is_read_upright_and_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(file, format="JPEG", exif=exif)
    assert read_picture(_upload(tmp_path, file.getvalue(), "x.txt"), tmp_path).shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello there, this is text", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not a picture"),
        (_png()[:40], "damaged"),
        (b"%PDF-1.4 something", "not a picture"),
    ],
)
def test_what_is_no_picture_is_named_without_a_path(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UploadError, match=words) as caught:
        read_picture(_upload(tmp_path, content), tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_too_many_pixels_and_bytes_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = bytearray(_png())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    with pytest.raises(UploadError, match="60000 x 60000 pixels, and at most 30 million"):
        read_picture(_upload(tmp_path, bytes(header)), tmp_path)
    monkeypatch.setattr(intake, "MAX_BYTES", 1000)
    with pytest.raises(UploadError, match="over 0 MB"):
        read_picture(_upload(tmp_path, _png() + b"\0" * 1000), tmp_path)


@pytest.mark.parametrize(
    "upload", ["/etc/passwd", {"path": "/etc/passwd"}, {"path": 3}, {"url": "http://x"}, {"path": "a\0b"}]
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, upload: object) -> None:
    with pytest.raises(UploadError, match="upload it again"):
        read_picture(upload, tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "secret.png"
    inside.mkdir()
    outside.write_bytes(_png())
    (inside / "x.png").symlink_to(outside)
    with pytest.raises(UploadError, match="upload it again"):
        read_picture({"path": str(inside / "x.png")}, inside)


def test_no_upload_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match="upload one"):
        read_picture(None, tmp_path)
    for nothing in (None, [], "x", {}):
        with pytest.raises(UploadError, match="choose pictures"):
            read_batch(nothing, tmp_path, sides=(8,))


def _zip(folder: Path, files: dict[str, bytes], name: str = "x.zip") -> dict[str, str]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    return _upload(folder, file.getvalue(), name)


def test_a_batch_takes_pictures_and_archives_and_says_what_is_of_no_use(tmp_path: Path) -> None:
    uploads = [
        _upload(tmp_path, _png(), "a.png"),
        _zip(tmp_path, {"a/b": _png(), "notes": b"text", "__MACOSX/x": b"1"}),
    ]
    found = read_batch(uploads, tmp_path, sides=(8, 16))
    assert [picture.name for picture in found] == ["a.png", "a/b", "notes"]
    assert [size.shape for size in found[0].sizes or ()] == [(8, 12, 3), (16, 24, 3)]
    assert found[2].sizes is None
    assert "not a picture" in found[2].reason


def test_an_unsafe_or_too_large_archive_is_refused_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    climbing = io.BytesIO()
    with zipfile.ZipFile(climbing, "w") as archive:
        archive.writestr("../../evil.png", _png())
    bomb = _zip(tmp_path, {"a": b"\0" * 30_000_000}, "bomb.zip")
    for upload, words in (
        (_upload(tmp_path, climbing.getvalue(), "evil.zip"), "leads out"),
        (bomb, "bomb.zip"),
        (_upload(tmp_path, b"PK\x03\x04 nonsense", "cut.zip"), "damaged"),
    ):
        with pytest.raises(UploadError, match=words) as caught:
            read_batch([upload], tmp_path, sides=(8,))
        assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path.parent / "evil.png").exists()
    monkeypatch.setattr(intake, "MAX_PICTURES", 2)
    with pytest.raises(UploadError, match="more than 2"):
        read_batch([_zip(tmp_path, {"a": _png(), "b": _png(), "c": _png()})], tmp_path, sides=(8,))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_what_the_server_lacks_is_told_without_a_path_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def lacking(file: object, *rest: object, **more: object) -> object:
        if ".part-" in str(file):
            raise OSError(number, os.strerror(number), str(file))
        return builtins.open(file, *rest, **more)

    monkeypatch.setattr("concept_tuning.data.unpacking.open", lacking, raising=False)
    with pytest.raises(UploadError) as caught:
        read_batch([_zip(tmp_path, {"a.png": _png()})], tmp_path, sides=(8,))
    assert str(caught.value) == (
        "x.zip: it cannot be unpacked here just now, which is no fault of its own; try again later."
    )


def test_a_name_that_no_disk_takes_is_the_fault_of_the_archive(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"^x\.zip: it has an entry whose name is too long for this disk; make the"):
        read_batch([_zip(tmp_path, {"a" * 300: _png()})], tmp_path, sides=(8,))


def test_no_refusal_names_a_setting_or_a_folder_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many, wide = {f"{number}.txt": b"x" for number in range(401)}, tiled_tiff((16, 16), (12_000, 12_000))
    archives = {
        "more than 400 files and folders in it.": _zip(tmp_path, many, "many.zip"),
        "more than 50 times its own size": _zip(tmp_path, {"a.bmp": bytes(10**6)}, "packed.zip"),
        "the list of what is in it takes more": _upload(tmp_path, zip_directory(9000, claimed=1), "list.zip"),
        "may take as much room as 12000 x 12000 pixels, and at most 30000000 are allowed; store it as PNG. Send": (
            _upload(tmp_path, wide, "x.tif")
        ),
    }
    monkeypatch.setattr(intake, "_MAX_UNPACKED", 10**6)
    archives["more than 1000000 bytes."] = _zip(tmp_path, {"a": os.urandom(10**6 + 1)}, "large.zip")
    for words, upload in archives.items():
        with pytest.raises(UploadError) as caught:
            read_batch([upload], tmp_path, sides=(8,))
        assert words in str(caught.value)
        for told in ("data.", "setting", "raise", tempfile.gettempdir(), str(tmp_path)):
            assert told not in str(caught.value)


def test_a_batch_without_a_picture_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match=r"no picture among these files. x.txt: .*not a picture"):
        read_batch([_upload(tmp_path, b"text", "x.txt")], tmp_path, sides=(8,))


def test_a_fresh_picture_is_small_and_never_enlarged(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    for size, expected in (((3000, 2000), (960, 640)), ((30, 20), (30, 20))):
        path.write_bytes(_png(size=size))
        found = Image.open(io.BytesIO(fresh_picture(path)))
        assert (found.format, found.size) == ("WEBP", expected)


def test_one_file_of_no_use_does_not_refuse_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_BYTES", 2000)
    uploads = [
        _upload(tmp_path, _png(), "a.png"),
        _upload(tmp_path, b"x" * 3000, "video.mp4"),
        {"path": str(tmp_path / "expired.png"), "orig_name": "expired.png"},
        {},
        3,
    ]
    found = read_batch(uploads, tmp_path, sides=(8,))
    assert [picture.name for picture in found if picture.sizes] == ["a.png"]
    reasons = {picture.name: picture.reason for picture in found if not picture.sizes}
    assert "over 0 MB" in reasons["video.mp4"]
    assert "upload it again" in reasons["expired.png"]


def test_a_batch_has_one_limit_of_time_of_archives_and_of_unpacked_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = [_zip(tmp_path, {f"{number}/a": _png()}, f"{number}.zip") for number in range(intake.MAX_ARCHIVES + 1)]
    assert len(read_batch([archives[0]] * 50, tmp_path, sides=(8,))) == 1  # the same path counts once
    with pytest.raises(UploadError, match="more than 5 archives"):
        read_batch(archives, tmp_path, sides=(8,))
    monkeypatch.setattr(intake, "_MAX_UNPACKED", len(_png()) + 10)
    with pytest.raises(UploadError, match=r"1\.zip"):
        read_batch(archives[:2], tmp_path, sides=(8,))
    monkeypatch.setattr(intake, "READ_SECONDS", -1.0)
    with pytest.raises(UploadError, match="takes too long"):
        read_batch([_upload(tmp_path, _png())], tmp_path, sides=(8,))


def test_few_pictures_are_decoded_at_once_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, count = 0, 0, threading.Lock()

    def slowly(content: bytes, *, max_pixels: int) -> np.ndarray:
        nonlocal now, most
        with count:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with count:
            now -= 1
        if content == b"bad":
            raise UnreadableImage("bad")
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(intake, "decode_image", slowly)
    good, bad = _upload(tmp_path, _png()), _upload(tmp_path, b"bad", "bad.png")

    def ask(place: int) -> bool:
        try:
            (fresh_picture(Path(good["path"])), read_batch([good], tmp_path, sides=[4]))
            return read_picture((good, bad)[place % 2], tmp_path).shape == (4, 4, 3)
        except UploadError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == [True, False] * 8
    assert most == 2
