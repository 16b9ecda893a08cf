from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import ntpath
import posixpath
import shutil
import stat
import struct
import tarfile
import threading
import tracemalloc
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fuzz_bombs import tar_headers, xz_dictionary, zip_directory
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from concept_tuning.config import DataConfig
from concept_tuning.data import unpacking
from concept_tuning.data.archive_streams import XzStream
from concept_tuning.data.archives import archive_table
from concept_tuning.data.unpacking import extract_archive, member_parts
from concept_tuning.errors import DataError

FILES = {"owl/1.png": b"first", "owl/deep/2.png": b"", "wren/3.png": b"third" * 1000, "read me.txt": b"hello"}
TAR_SUFFIXES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(raw_name(name), data, method)
    return path


def raw_name(name: str) -> zipfile.ZipInfo:
    """An entry with this very name, which ZipInfo itself would tidy up."""
    info = zipfile.ZipInfo("x", (2020, 1, 1, 0, 0, 0))
    info.filename = info.orig_filename = name
    return info


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo()
            info.name, info.size, info.mode = name, len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return path


def make(path: Path, files: dict[str, bytes]) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def extract(path: Path, target: Path, **limits) -> None:
    extract_archive(path, target, **({"max_entries": 1000, "max_bytes": 10**7, "max_ratio": 200.0} | limits))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(path: Path, message: str, **limits) -> None:
    """The archive is refused with this message, and the folder around the target is as it was."""
    place = path.parent / "place"
    place.mkdir(exist_ok=True)
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError, match=message) as caught:
        extract(path, place / "target", **limits)
    assert str(caught.value).startswith(f"{path}: ")
    assert sorted(path.parent.rglob("*")) == before
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("suffix", [".zip", *TAR_SUFFIXES])
def test_every_kind_is_unpacked_whole(suffix, tmp_path):
    path = tmp_path / f"birds{suffix}"
    if suffix == ".zip":
        make_zip(path, FILES)
    else:
        make_tar(path, FILES, TAR_SUFFIXES[suffix])
    extract(path, tmp_path / "a" / "b" / "target")
    assert content(tmp_path / "a" / "b" / "target") == FILES
    assert [entry.name for entry in (tmp_path / "a" / "b").iterdir()] == ["target"]
    path.rename(tmp_path / "misnamed.dat")
    extract(tmp_path / "misnamed.dat", tmp_path / "other")
    assert content(tmp_path / "other") == FILES


def test_stored_entries_empty_folders_and_dot_entries(tmp_path):
    extract(
        make_zip(tmp_path / "a.zip", {"./": b"", "e/": b"", "./f//g.txt": b"x"}, zipfile.ZIP_STORED), tmp_path / "z"
    )
    assert content(tmp_path / "z") == {"f/g.txt": b"x"}
    assert (tmp_path / "z" / "e").is_dir()
    (tmp_path / "src" / "e").mkdir(parents=True)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "src", ".")
        archive.addfile(tarfile.TarInfo("./f.txt"))
    extract(tmp_path / "a.tar", tmp_path / "t")
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["e", "f.txt"]


def test_long_names_in_both_tar_dialects(tmp_path):
    name = "/".join(["a" * 90] * 5) + "/\u00e9.png"
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=dialect) as archive:
            archive.addfile(tarfile.TarInfo(name))
        extract(tmp_path / "x.tar", tmp_path / f"t{dialect}")
        assert content(tmp_path / f"t{dialect}") == {name: b""}


def test_files_get_no_rights_from_the_archive(tmp_path):
    info = raw_name("run.png")
    info.external_attr = (stat.S_IFREG | 0o6777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, b"x")
    member = tarfile.TarInfo("run.png")
    member.mode = 0o6777
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member)
    for kind in ("zip", "tar"):
        extract(tmp_path / f"a.{kind}", tmp_path / kind)
        assert stat.S_IMODE((tmp_path / kind / "run.png").stat().st_mode) & 0o7111 == 0


def test_names_made_on_windows_and_mac(tmp_path):
    extract(make_zip(tmp_path / "w.zip", {"birds\\": b"", "birds\\owl\\1.png": b"x"}), tmp_path / "w")
    assert content(tmp_path / "w") == {"birds/owl/1.png": b"x"}
    name = "caf\u00e9/\u9e1f.png"
    data = make_zip(tmp_path / "m.zip", {name: b"x"}).read_bytes()
    flagged = struct.pack("<H", 0x800)
    assert data.count(flagged) == 2  # macOS writes UTF-8 and does not set the flag for it
    (tmp_path / "m.zip").write_bytes(data.replace(flagged, b"\0\0"))
    extract(tmp_path / "m.zip", tmp_path / "m")
    assert content(tmp_path / "m") == {name: b"x"}
    old = make_zip(tmp_path / "o.zip", {"\u00fc.png": b"x"}).read_bytes()
    old = old.replace(flagged, b"\0\0").replace("\u00fc.png".encode(), b"x\x81.png")  # CP437, of the same length
    (tmp_path / "o.zip").write_bytes(old)
    extract(tmp_path / "o.zip", tmp_path / "o")
    assert content(tmp_path / "o") == {"x\u00fc.png": b"x"}


HOSTILE_NAMES = [
    ("../evil.png", "leads out of the archive's folder"),
    ("owl/../../evil.png", "leads out"),
    ("owl/../1.png", "leads out"),
    ("..", "leads out"),
    ("..\\evil.png", "leads out"),
    ("owl\\..\\..\\evil.png", "leads out"),
    ("owl/.. /evil.png", "leads out"),
    ("owl/.../evil.png", "leads out"),
    ("/tmp/evil.png", "has an absolute name"),
    ("//server/share/evil.png", "has an absolute name"),
    ("\\evil.png", "has an absolute name"),
    ("\\\\?\\C:\\evil.png", "has an absolute name"),
    ("C:\\evil.png", "has an absolute name"),
    ("C:evil.png", "has an absolute name"),
    ("owl/c:/evil.png", "has an absolute name"),
    ("a/" * 65 + "evil.png", "nested more than 64 folders deep"),
]


@pytest.mark.parametrize(("name", "message"), HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_entries_that_land_elsewhere_are_refused(kind, name, message, tmp_path):
    path = make(tmp_path / f"x.{kind}", {"good.png": b"x", name: b"evil"})
    refused(path, f"the entry .* {message}" if "nested" in message else message)


def test_a_name_with_a_zero_character_is_refused(tmp_path):
    data = make_zip(tmp_path / "x.zip", {"good?.png": b"x"}).read_bytes()
    (tmp_path / "x.zip").write_bytes(data.replace(b"good?", b"good\0"))
    refused(tmp_path / "x.zip", "has a name that is not allowed")


@pytest.mark.parametrize("target", ["/etc", "..", "good.png", "/etc/passwd"])
def test_links_in_zips_are_refused(target, tmp_path):
    info = raw_name("owl")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("good.png", b"x")
        archive.writestr(info, target)
        archive.writestr("owl/evil.png", b"x")
    refused(tmp_path / "x.zip", "the entry 'owl' is a link; make the archive again, of plain files and folders")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "special file"),
        (tarfile.BLKTYPE, "special file"),
        (tarfile.FIFOTYPE, "special file"),
        (b"Z", "special file"),
    ],
)
def test_links_and_special_files_in_tars_are_refused(kind, said, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("good.png"))
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "good.png"
        archive.addfile(info)
    refused(tmp_path / "x.tar", f"the entry 'odd' is a {said}; make the archive again")


def test_special_files_in_zips_are_refused(tmp_path):
    info = raw_name("pipe.png")
    info.external_attr = stat.S_IFIFO << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"")
    refused(tmp_path / "x.zip", "the entry 'pipe.png' is a special file")


def test_a_tar_file_with_holes_is_refused(tmp_path):
    # claims a terabyte of zeros and stores nothing
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("holes.png")
        info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**12), "GNU.sparse.numblocks": "1"}
        archive.addfile(info)
    refused(tmp_path / "x.tar", "the entry 'holes.png' is a file with holes")


@pytest.mark.parametrize("kind", "LKx")
def test_a_chain_of_headers_that_each_describe_the_next_is_refused(kind, tmp_path):
    text = b"11 path=ab\n" if kind == "x" else b"owl/1.png\0"
    header = tarfile.TarInfo("x")
    header.type, header.size = kind.encode(), len(text)
    link = header.tobuf(tarfile.GNU_FORMAT) + text.ljust(tarfile.BLOCKSIZE, b"\0")
    good = make_tar(tmp_path / "good.tar", FILES).read_bytes()
    (tmp_path / "x.tar").write_bytes(link * 900 + good)
    refused(tmp_path / "x.tar", "cannot be unpacked, as it is damaged.*recursion")


def test_bombs_are_stopped_by_their_ratio(tmp_path):
    zeros = {"a.bmp": bytes(1_000_000)}
    make_zip(tmp_path / "x.zip", zeros)
    refused(tmp_path / "x.zip", "unpacks to more than 200 times its own size.*raise data.max_archive_ratio")
    for suffix in (".tar.gz", ".tar.bz2", ".tar.xz"):
        make_tar(tmp_path / f"x{suffix}", zeros, TAR_SUFFIXES[suffix])
        refused(tmp_path / f"x{suffix}", "unpacks to more than 200 times its own size")
    extract(tmp_path / "x.zip", tmp_path / "trusted", max_ratio=1100)
    assert (tmp_path / "trusted" / "a.bmp").stat().st_size == 1_000_000


def test_limits_hold_exactly(tmp_path):
    files = {"a/1.bin": bytes(range(200)), "b.bin": bytes(range(100))}
    for path in (make_zip(tmp_path / "x.zip", files), make_tar(tmp_path / "x.tar", files)):
        refused(path, "unpacks to more than 299 bytes; .* raise data.max_archive_bytes", max_bytes=299)
        refused(path, "more than 2 files and folders in it; .* raise data.max_archive_entries", max_entries=2)
        extract(path, tmp_path / f"{path.suffix}-target", max_bytes=300, max_entries=3)


def test_too_many_entries_are_refused(tmp_path):
    files = {f"{number}.png": b"" for number in range(51)}
    for path in (make_zip(tmp_path / "x.zip", files), make_tar(tmp_path / "x.tar", files)):
        refused(path, "more than 50 files and folders", max_entries=50)
    folders = {"/".join([f"{number}"] + ["d"] * 60) + "/x.png": b"" for number in range(3)}
    refused(make_zip(tmp_path / "deep.zip", folders), "more than 99 files and folders", max_entries=99)
    with tarfile.open(tmp_path / "same.tar", "w") as archive:
        for _ in range(20):
            info = tarfile.TarInfo("same")
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    refused(tmp_path / "same.tar", "more than 10 files and folders", max_entries=10)


@pytest.mark.parametrize("claimed", [0, 1, 60])
def test_entries_of_a_zip_are_counted_whatever_its_end_claims(claimed, tmp_path):
    (tmp_path / "x.zip").write_bytes(zip_directory(60, claimed=claimed))
    refused(
        tmp_path / "x.zip", "more than 50 files and folders in it; .* raise data.max_archive_entries", max_entries=50
    )
    refused(tmp_path / "x.zip", "the entry 'x' is in it twice", max_entries=60)


@pytest.mark.parametrize("zip64", [False, True])
def test_a_long_directory_of_a_zip_is_not_read(zip64, tmp_path):
    data = zip_directory(40, claimed=1, name=60_000)
    if zip64:  # the numbers that count lie in two further records
        end = data.rindex(b"PK\5\6")
        size, place = struct.unpack_from("<II", data, end + 12)
        record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, size, place)
        locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
        data = data[:end] + record + locator + b"PK\5\6" + bytes(8) + b"\xff" * 8 + bytes(2)
    (tmp_path / "x.zip").write_bytes(data)
    tracemalloc.start()
    try:
        refused(tmp_path / "x.zip", "the list of what is in it takes more than 141312 bytes", max_entries=40)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    refused(tmp_path / "x.zip", "damaged", max_entries=10_000)


def test_entries_of_a_zip_in_its_comment_or_its_files_do_not_count(tmp_path):
    inner = zip_directory(60, claimed=60)
    path = make_zip(tmp_path / "x.zip", {"inner.zip": inner}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"PK\1\2" * 60
    extract(path, tmp_path / "target", max_entries=1)
    assert content(tmp_path / "target") == {"inner.zip": inner}


def test_files_of_a_zip_may_be_longer_than_its_directory(tmp_path):
    noise = np.random.default_rng(0).bytes(2_000_000)
    path = make_zip(tmp_path / "x.zip", {"a.bin": noise}, zipfile.ZIP_STORED)
    extract(path, tmp_path / "target", max_entries=1)
    assert content(tmp_path / "target") == {"a.bin": noise}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_headers_of_a_tar_are_not_kept_and_are_bounded_together(kind, tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_headers(200, 900_000, kind))
    tracemalloc.start()
    try:
        refused(tmp_path / "x.tar", "its headers are longer than 8192 bytes for each entry; make the archive again")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    (tmp_path / "y.tar").write_bytes(tar_headers(800, 8000, kind))
    tracemalloc.start()
    try:
        extract(tmp_path / "y.tar", tmp_path / "target", max_ratio=1e9)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert len(content(tmp_path / "target")) == 800


def test_a_tar_may_begin_with_many_folders(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number in range(3000):
            info = tarfile.TarInfo(f"{number}")
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("1/a.png"))
    extract(tmp_path / "x.tar", tmp_path / "target", max_entries=3001)
    assert content(tmp_path / "target") == {"1/a.png": b""}


def test_an_xz_file_of_several_streams_is_read_whole(tmp_path):
    noise = np.random.default_rng(0).bytes(300_000)
    parts = [lzma.compress(noise), bytes(8), lzma.compress(b""), lzma.compress(bytes(3_000_000)), bytes(200_000)]
    (tmp_path / "x.xz").write_bytes(b"".join(parts))
    with XzStream(tmp_path / "x.xz") as stream:
        assert stream.read(7) == noise[:7]
        assert stream.read(10**8) == noise[7:] + bytes(3_000_000)
        assert stream.read(1) == b""
    broken = parts[0][:5000] + b"x" + parts[0][5001:]
    for damaged in (parts[0][:-1], parts[0][:1000], broken, parts[2] + broken, parts[2] + bytes(4) + parts[0][:1000]):
        (tmp_path / "x.xz").write_bytes(damaged)
        with XzStream(tmp_path / "x.xz") as stream, pytest.raises((EOFError, lzma.LZMAError)):
            stream.read(10**8)


@pytest.mark.parametrize("after", [b"x", b"junk" * 50_000, bytes(5) + b"x", bytes(70_000) + b"\xfd7", b"\xfd7z"])
@pytest.mark.parametrize("chunk", [8, 1 << 16])
def test_what_stands_after_an_xz_file_is_ignored_as_by_lzma(after, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr("concept_tuning.data.archive_streams._CHUNK", chunk)
    data = make_tar(tmp_path / "x.tar", FILES).read_bytes()
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(data) + after)
    if after[0] not in b"\0\xfd":  # by which lzma.open is led to wait for more
        with lzma.open(tmp_path / "x.tar.xz") as known:
            assert known.read() == data
    with XzStream(tmp_path / "x.tar.xz") as stream:
        assert stream.read(10**8) == data
        assert [stream.read(1) for _ in range(3)] == [b""] * 3
    extract(tmp_path / "x.tar.xz", tmp_path / "target")
    assert content(tmp_path / "target") == FILES


@pytest.mark.parametrize("code", [30, 34, 40])
@pytest.mark.parametrize("before", [b"", b"x" * 1000])
def test_an_xz_file_with_a_dictionary_of_gigabytes_is_refused(code, before, tmp_path):
    data = make_tar(tmp_path / "x.tar", FILES).read_bytes()
    start = lzma.compress(data[:1000]) if before else b""
    (tmp_path / "x.tar.xz").write_bytes(start + xz_dictionary(data[1000 if before else 0 :], code))
    refused(
        tmp_path / "x.tar.xz", "more than 134217728 bytes of memory to be unpacked; make it again, with xz -9 or less"
    )


@pytest.mark.parametrize("preset", [0, 6, 9, 9 | lzma.PRESET_EXTREME])
def test_every_preset_of_xz_is_unpacked(preset, tmp_path):
    data = make_tar(tmp_path / "x.tar", FILES).read_bytes()
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(data, preset=preset))
    extract(tmp_path / "x.tar.xz", tmp_path / "target")
    assert content(tmp_path / "target") == FILES


@pytest.mark.parametrize("claimed", [0, 10, 10**9])
def test_a_zip_that_lies_about_a_size_is_refused(claimed, tmp_path):
    data = bytearray(make_zip(tmp_path / "x.zip", {"a.png": bytes(5_000)}).read_bytes())
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, local + 22, claimed)
    struct.pack_into("<I", data, central + 24, claimed)
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path / "x.zip", "damaged, cut off", max_ratio=1e9, max_bytes=10**6)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_tar_header_of_gigabytes_is_not_read_into_memory(kind, tmp_path):
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 1 << 32
    with gzip.open(tmp_path / "x.tgz", "wb", compresslevel=1) as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            stream.write(bytes(1 << 20))
    refused(tmp_path / "x.tgz", "a header in it is longer than 1048576 bytes", max_ratio=1e9)


@pytest.mark.parametrize("flag", [0x1, 0x1 | 0x40, 0x2000])
def test_encrypted_zips_are_refused(flag, tmp_path):
    data = bytearray(make_zip(tmp_path / "x.zip", {"a.png": b"secret"}).read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(mark) + place, flag)
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path / "x.zip", "'a.png' is encrypted; make the archive without a password")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_that_unpack_without_bounds_are_refused(method, tmp_path):
    path = make_zip(tmp_path / "x.zip", {"a.png": b"x"}, method)
    refused(path, rf"compressed in an unusual way \(method {method}\); make the archive with ordinary")


@pytest.mark.parametrize("suffix", [".zip", *TAR_SUFFIXES])
def test_cut_archives_are_refused_wherever_they_are_cut(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    noise = np.random.default_rng(0).bytes(3000)
    files = {"owl/1.png": noise[:700], "owl/2.png": noise[700:1400], "wren/3.png": noise[1400:]}
    make_zip(path, files) if suffix == ".zip" else make_tar(path, files, TAR_SUFFIXES[suffix])
    data = path.read_bytes()
    # a plain tar is padded with zeros, which may go but for the first block
    needed = 4 * 512 + 1024 + 1024 + 2048 if suffix == ".tar" else len(data)
    for length in [*range(0, needed, max(1, needed // 25)), needed - 1]:
        path.write_bytes(data[:length])
        refused(path, "it cannot be unpacked, as it is damaged, cut off, or neither zip nor tar|no files")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_changed_data_is_noticed(kind, tmp_path):
    path = tmp_path / ("x.zip" if kind == "zip" else "x.tgz")
    noise = np.random.default_rng(0).bytes(3000)
    make_zip(path, {"a.png": noise}) if kind == "zip" else make_tar(path, {"a.png": noise}, "w:gz")
    data = bytearray(path.read_bytes())
    data[1500] ^= 0x10
    path.write_bytes(data)
    refused(path, "damaged")


@pytest.mark.parametrize(
    "data", [b"", b"label,path\n", b"PK\x03\x04 and so on", b"\x1f\x8b and so on", b"BZh9", bytes(512)]
)
def test_what_is_no_archive_is_said_to_be_none(data, tmp_path):
    (tmp_path / "x.zip").write_bytes(data)
    refused(tmp_path / "x.zip", "damaged, cut off, or neither zip nor tar|no files")


def test_an_archive_of_nothing(tmp_path):
    refused(make_zip(tmp_path / "a.zip", {}), "there are no files in it")
    refused(make_zip(tmp_path / "b.zip", {"owl/": b"", "wren/": b""}), "there are no files in it")
    refused(make_tar(tmp_path / "c.tar", {}), "there are no files in it")
    refused(make_tar(tmp_path / "d.tgz", {}, "w:gz"), "there are no files in it")


def test_a_missing_archive_and_a_target_in_the_way(tmp_path):
    with pytest.raises(DataError, match=r"There is no archive .*none\.zip; give the path"):
        extract(tmp_path / "none.zip", tmp_path / "target")
    path = make_zip(tmp_path / "x.zip", FILES)
    (tmp_path / "target").symlink_to("nowhere")
    with pytest.raises(DataError, match="target exists already; remove it"):
        extract(path, tmp_path / "target")


COMPOSED, APART = (unicodedata.normalize(form, "caf\u00e9/1.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["owl/1.png", "owl/1.png"], "the entry 'owl/1.png' is in it twice"),
        (["owl/1.png", "owl//./1.png"], "'owl/1.png' is in it twice"),
        (["owl/1.png", "owl\\1.png"], "'owl/1.png' is in it twice"),
        (["owl/1.png", "owl/1.PNG"], "'owl/1.png' and 'owl/1.PNG' cannot be told apart on every computer; rename"),
        (["owl/1.png", "Owl/2.png"], "the entries 'owl' and 'Owl' cannot be told apart"),
        ([COMPOSED, APART], "cannot be told apart"),
        (["owl", "owl/1.png"], "'owl' is in it twice"),
        (["owl/1.png", "owl"], "'owl' is in it twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_clash_are_refused(kind, names, message, tmp_path):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(raw_name(name), name.encode())
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
    refused(path, message)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full while it is unpacked to .*place. Free some space"),
        (errno.EACCES, r"cannot be unpacked to .*place \(no\). Make that folder writable, or set data.cache_dir"),
    ],
)
def test_a_full_or_unwritable_disk_leaves_nothing_behind(code, message, tmp_path, monkeypatch):
    real = open

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(code, "no")

    monkeypatch.setattr(
        unpacking, "open", lambda file, mode: Full(file, "x") if "x" in mode else real(file, mode), raising=False
    )
    refused(make_zip(tmp_path / "x.zip", FILES), message)


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(self, name, stream):
        raise KeyboardInterrupt

    path = make_zip(tmp_path / "x.zip", FILES)
    monkeypatch.setattr(unpacking._Unpacking, "add_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(path, tmp_path / "target")
    assert list(tmp_path.iterdir()) == [path]


NAMES = st.lists(
    st.one_of(
        st.sampled_from(
            ["..", ".", "", " ", "...", ".. ", "~", "C:", "c:x", "CON", "a", "b.png", "\0", "\u2025", "..\u0338"]
        ),
        st.text(min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=6,
).flatmap(
    lambda parts: st.lists(st.sampled_from("/\\"), min_size=len(parts), max_size=len(parts)).map(
        lambda marks: "".join(part + mark for part, mark in zip(parts, marks, strict=True))
    )
)


@given(NAMES.flatmap(lambda name: st.sampled_from([name, name[:-1]])))
@example("a/../../b")
@example("C:../x")
def test_safe_parts_stay_inside_under_posix_and_windows_rules(name):
    parts: tuple[str, ...] = ()
    with suppress(DataError):
        parts = member_parts(name)
    for system, root in ((posixpath, "/data/in"), (ntpath, "D:\\data\\in")):
        joined = system.normpath(system.join(root, *parts))
        assert joined == root or joined.startswith(root + system.sep)
    assert not {"", ".", ".."} & {part.strip() for part in parts}


@settings(max_examples=80, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=3), kind=st.sampled_from(["zip", "tar"]))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_the_names_nothing_is_written_outside(names, kind, tmp_path_factory):
    top = tmp_path_factory.getbasetemp() / "fuzz"
    shutil.rmtree(top, ignore_errors=True)
    place = top / "1/2/3/4/5/6/7"  # deeper than the names can climb
    place.mkdir(parents=True)
    path = top / f"x.{kind}"
    with suppress(UnicodeError):  # names that zipfile itself cannot write
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.writestr(raw_name(name), b"evil")
        else:
            make_tar(path, dict.fromkeys(names, b"evil"))
        try:
            extract(path, place / "target")
        except DataError:
            assert list(place.iterdir()) == []
        else:
            assert sum(entry.is_file() for entry in (place / "target").rglob("*")) == len(content(place / "target")) > 0
        outside = {path, *place.parents, place}
        assert all(entry in outside or entry.is_relative_to(place / "target") for entry in top.rglob("*"))


@settings(max_examples=80, deadline=None)
@given(
    suffix=st.sampled_from([".zip", ".tar", ".tar.gz"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damaged_archives_raise_nothing_else(suffix, changes, tmp_path_factory):
    place = tmp_path_factory.getbasetemp() / "damaged"
    place.mkdir(exist_ok=True)
    path = place / f"x{suffix}"
    files = {"owl/1.png": b"first", "wren/3.png": b"third" * 10}
    make_zip(path, files) if suffix == ".zip" else make_tar(path, files, TAR_SUFFIXES[suffix])
    data = bytearray(path.read_bytes()[:2600])
    for where, value in changes:
        data[where % len(data)] = value
    path.write_bytes(data)
    with suppress(DataError):
        extract(path, place / "target")
    shutil.rmtree(place / "target", ignore_errors=True)
    assert list(place.glob("*part*")) == []


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (3, 2), (number, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


BIRDS = {"owl/1.png": picture(1), "owl/2.png": picture(2), "wren/3.png": picture(3)}


def under(prefix: str, files: dict[str, bytes] = BIRDS) -> dict[str, bytes]:
    return {prefix + name: data for name, data in files.items()}


@pytest.fixture
def config(tmp_path) -> DataConfig:
    return DataConfig(cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("prefix", ["", "./", "birds/", "data/birds v1.2/"])
def test_wrapping_folders_are_stepped_through(kind, prefix, config, tmp_path):
    files = under(prefix) | {
        "__MACOSX/birds/._1.png": b"x",
        f"{prefix}.DS_Store": b"x",
        "README": b"x",
    }
    path = make(tmp_path / f"x.{kind}", files)
    table = archive_table(path, config)
    assert table.keys == tuple(BIRDS)
    assert table.class_names == ("owl", "wren")
    assert table.source == str(path)
    assert table.problems == ()
    assert [table.read(row)[0, 0, 0] for row in range(3)] == [1, 2, 3]


def test_split_folders_are_kept(config, tmp_path):
    table = archive_table(make_zip(tmp_path / "x.zip", under("x/train/") | under("x/test/")), config)
    assert table.splits.tolist() == [2, 2, 2, 0, 0, 0]
    table = archive_table(make_zip(tmp_path / "y.zip", under("x/train/")), config)
    assert table.splits.tolist() == [0, 0, 0]
    assert table.keys[0] == "train/owl/1.png"


def test_an_archive_is_unpacked_once_and_found_by_its_content(config, tmp_path, monkeypatch):
    path = make_zip(tmp_path / "x.zip", BIRDS)
    first = archive_table(path, config)
    monkeypatch.setattr("concept_tuning.data.archives.extract_archive", lambda *_, **__: pytest.fail("unpacked again"))
    path = path.rename(tmp_path / "renamed.zip")
    again = archive_table(path, config)
    assert again.keys == first.keys
    assert [again.stamp(row) for row in range(3)] == [first.stamp(row) for row in range(3)]
    folders = [entry for entry in (tmp_path / "cache" / "archives").iterdir() if entry.is_dir()]
    assert [len(entry.name) for entry in folders] == [16]


def test_another_archive_of_the_same_names_and_sizes_has_other_stamps(config, tmp_path):
    changed = BIRDS | {"owl/1.png": BIRDS["owl/2.png"]}
    tables = [archive_table(make_zip(tmp_path / "x.zip", files), config) for files in (BIRDS, changed)]
    assert [table.read(0)[0, 0, 0] for table in tables] == [1, 2]
    assert all(tables[0].stamp(row).split("|")[0] != tables[1].stamp(row).split("|")[0] for row in range(3))


def test_several_at_once_unpack_one_archive(config, tmp_path):
    path, tables = make_zip(tmp_path / "x.zip", BIRDS), []
    leftover = tmp_path / "cache" / "archives" / "0123456789abcdef.part-1"
    leftover.mkdir(parents=True)
    threads = [threading.Thread(target=lambda: tables.append(archive_table(path, config))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [table.keys for table in tables] == [tuple(BIRDS)] * 4
    assert leftover.is_dir()  # another archive's; an own one is cleared away
    name = next(entry.name for entry in leftover.parent.iterdir() if entry.is_dir() and "." not in entry.name)
    (leftover.parent / name).rename(leftover.parent / f"{name}.part-old")
    archive_table(path, config)
    assert not (leftover.parent / f"{name}.part-old").exists()


LIST = "path,label\nimages/1.png,owl\nimages/2.png,owl\nimages/3.png,wren\n"
IMAGES = {f"images/{number}.png": picture(number) for number in (1, 2, 3)}


@pytest.mark.parametrize("prefix", ["", "birds/", "a/b/"])
@pytest.mark.parametrize("more", [{}, {"masks/1.png": picture(1)}])
def test_a_single_list_at_the_top_counts(prefix, more, config, tmp_path):
    path = make_zip(tmp_path / "x.zip", under(prefix, {"list.CSV": LIST.encode(), **IMAGES, **more}))
    table = archive_table(path, config)
    assert table.keys == tuple(IMAGES)
    assert [table.class_names[label] for label in table.labels] == ["owl", "owl", "wren"]
    assert table.source == str(path)


@pytest.mark.parametrize("more", [{"notes.csv": b"id,score\n1,2\n"}, {"a.csv": LIST.encode(), "b.csv": LIST.encode()}])
def test_other_tables_do_not_count(more, config, tmp_path):
    table = archive_table(make_zip(tmp_path / "x.zip", BIRDS | more), config)
    assert table.keys == tuple(BIRDS)


def test_a_list_in_an_archive_cannot_name_files_outside(config, tmp_path):
    for number, cell in enumerate(("/etc/passwd", "C:\\x.png", "../x.png", "..\\x.png")):
        text = f"path,label\nimages/1.png,owl\n{cell},wren\n"
        path = make_zip(tmp_path / f"{number}.zip", IMAGES | {"list.csv": text.encode()})
        with pytest.raises(DataError, match=rf"{number}\.zip.list\.csv, line 3: the path .* (is absolute|leaves)"):
            archive_table(path, config)


def test_a_list_in_an_archive_names_no_more_pictures_than_it_may_hold(config, tmp_path):
    path = make_zip(tmp_path / "x.zip", IMAGES | {"list.csv": LIST.encode()})
    few = DataConfig(cache_dir=config.cache_dir, max_archive_entries=5)  # a folder, three pictures and the list
    assert len(archive_table(path, few)) == 3
    lines = "".join(f"{number},owl\n" for number in range(5))
    path = make_zip(tmp_path / "y.zip", IMAGES | {"list.csv": (LIST + lines).encode()})
    with pytest.raises(DataError, match=r"y\.zip.list\.csv, line 7: more than 5 pictures are listed"):
        archive_table(path, few)


def test_a_list_that_is_no_text_below_its_first_line_is_told_and_not_passed_over(config, tmp_path):
    path = make_zip(tmp_path / "x.zip", BIRDS | {"list.csv": b"path,label\nowl/1.png,K\xe4uzchen\n"})
    with pytest.raises(DataError, match=r"x\.zip.list\.csv, line 2: not UTF-8 text"):
        archive_table(path, config)


def test_messages_name_the_archive_not_the_cache(config, tmp_path):
    path = make_zip(tmp_path / "x.zip", under("birds/", {"owl/1.png": b"x"}))
    with pytest.raises(DataError, match="only the class 'owl'") as caught:
        archive_table(path, config)
    assert str(caught.value).startswith(str(path))
    assert "cache" not in str(caught.value)
    with pytest.raises(DataError, match=r"The archive .*none\.zip cannot be read \(No such file"):
        archive_table(tmp_path / "none.zip", config)


def test_the_settings_limits_hold_and_a_refused_archive_leaves_no_folder(config, tmp_path):
    path = make_zip(tmp_path / "x.zip", BIRDS)
    for limits in ({"max_archive_entries": 2}, {"max_archive_bytes": 50}, {"max_archive_ratio": 1.0}):
        bomb = path if "max_archive_ratio" not in limits else make_zip(tmp_path / "b.zip", {"a": bytes(9999)})
        with pytest.raises(DataError, match=f"raise data.{next(iter(limits))}"):
            archive_table(bomb, DataConfig(cache_dir=config.cache_dir, **limits))
    assert not [entry for entry in (tmp_path / "cache" / "archives").iterdir() if entry.is_dir()]


def test_the_compressors_are_told_by_their_first_bytes():
    for opener, compress in ((gzip.open, gzip.compress), (bz2.open, bz2.compress), (XzStream, lzma.compress)):
        data = compress(b"x" * 100)
        assert next(known for mark, known in unpacking._OPENERS if data.startswith(mark)) is opener
