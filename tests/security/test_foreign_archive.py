"""An archive of a stranger: real bombs of ten gigabytes, archives within archives, and formulas in its list."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from fuzz_bombs import tar_headers, xz_dictionary, zip_directory
from PIL import Image

from concept_tuning.config import DataConfig, RunConfig
from concept_tuning.data.archives import archive_table
from concept_tuning.data.registry import load_data
from concept_tuning.errors import ArchiveError, DataError, StudioError

TEN_GIGABYTES = 10 * 2**30
#: So many zeros make one piece of a bomb.
PIECE = 2**26


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    return DataConfig(cache_dir=str(tmp_path / "cache"), max_archive_bytes=2**28)


def written(folder: Path) -> int:
    """Return how many bytes lie below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


def tar_bomb(path: Path) -> Path:
    """Write a gzipped tar file of one file of ten gigabytes of zeros, of a hundred equal gzip members."""
    head = tarfile.TarInfo("owl/1.png")
    head.size = TEN_GIGABYTES
    piece = gzip.compress(bytes(PIECE))
    content = gzip.compress(head.tobuf(tarfile.GNU_FORMAT)) + piece * (TEN_GIGABYTES // PIECE)
    path.write_bytes(content + gzip.compress(bytes(2 * tarfile.BLOCKSIZE)))
    return path


def zip_bomb(path: Path, *, claimed: int) -> Path:
    """Write a zip file of one file of ten gigabytes of zeros, whose headers tell another size."""
    flushed = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = flushed.compress(bytes(PIECE)) + flushed.flush(zlib.Z_FULL_FLUSH)
    data = piece * (TEN_GIGABYTES // PIECE) + b"\x03\0"
    name, common = b"owl/1.png", (20, 0, 8, 0, 0, 0, len(data), claimed)
    head = struct.pack("<IHHHHHIIIHH", 0x04034B50, *common, len(b"owl/1.png"), 0) + name
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, *common, len(name), 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(entry), len(head) + len(data), 0)
    path.write_bytes(head + data + entry + end)
    return path


def test_a_bomb_of_ten_gigabytes_in_a_tar_is_stopped_early(tmp_path: Path, config: DataConfig) -> None:
    bomb = tar_bomb(tmp_path / "bomb.tar.gz")
    assert bomb.stat().st_size < TEN_GIGABYTES / 500
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        archive_table(bomb, config)
    assert written(tmp_path / "cache") == 0


@pytest.mark.parametrize("claimed", [1000, 2**32 - 2])
def test_a_bomb_of_ten_gigabytes_in_a_zip_is_stopped_whatever_it_claims(
    tmp_path: Path, config: DataConfig, claimed: int
) -> None:
    bomb = zip_bomb(tmp_path / "bomb.zip", claimed=claimed)
    assert bomb.stat().st_size < TEN_GIGABYTES / 500
    with pytest.raises(ArchiveError):
        archive_table(bomb, config)
    assert written(tmp_path / "cache") == 0


ONLY_HEADERS = {
    "a zip of 450,000 entries": (
        lambda: zip_directory(450_000, claimed=1),
        "the list of what is in it takes more than",
    ),
    "a zip of long names": (
        lambda: zip_directory(390, claimed=390, name=60_000),
        "the list of what is in it takes more",
    ),
    "a tar of long headers": (lambda: tar_headers(390, 900_000), "its headers are longer than"),
    "a tar of headers for all that follow": (
        lambda: tar_headers(390, 900_000, tarfile.XGLTYPE),
        "its headers are longer than",
    ),
}


@pytest.mark.parametrize("bomb", ONLY_HEADERS)
def test_an_archive_of_nothing_but_headers_takes_little_memory(bomb: str, tmp_path: Path) -> None:
    make, said = ONLY_HEADERS[bomb]
    (tmp_path / "x.zip").write_bytes(make())
    config = DataConfig(cache_dir=str(tmp_path / "cache"), max_archive_entries=400)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=said):
            archive_table(tmp_path / "x.zip", config)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert written(tmp_path / "cache") == 0


def test_an_xz_file_does_not_say_how_much_memory_it_takes(tmp_path: Path, config: DataConfig) -> None:
    (tmp_path / "x.tar.xz").write_bytes(xz_dictionary(bytes(10240)))
    with pytest.raises(ArchiveError, match="bytes of memory to be unpacked; make it again, with xz -9 or less"):
        archive_table(tmp_path / "x.tar.xz", config)
    with pytest.raises(lzma.LZMAError, match="Memory usage limit"):  # the attack was a real one
        lzma.LZMADecompressor(memlimit=2**32 - 2**20).decompress((tmp_path / "x.tar.xz").read_bytes())


def test_archives_within_archives_are_never_opened(tmp_path: Path, config: DataConfig) -> None:
    inner = zip_bomb(tmp_path / "inner.zip", claimed=1000).read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        for name in ("owl", "wren"):
            archive.writestr(f"{name}/1.png", png())
            archive.writestr(f"{name}/2.zip", inner)
            archive.writestr(f"{name}/3.tar.gz", b"\x1f\x8b" + inner)
    table = archive_table(tmp_path / "outer.zip", config)
    assert sorted(table.keys) == ["owl/1.png", "wren/1.png"]
    with zipfile.ZipFile(tmp_path / "only.zip", "w") as archive:
        archive.writestr("inner.zip", inner)
    with pytest.raises(DataError):
        archive_table(tmp_path / "only.zip", config)


def test_a_tar_whose_hard_link_leads_to_a_file_outside_writes_nothing(tmp_path: Path, config: DataConfig) -> None:
    (tmp_path / "secret").write_bytes(b"as it was")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        link = tarfile.TarInfo("owl/1.png")
        link.type, link.linkname = tarfile.LNKTYPE, str(tmp_path / "secret")
        archive.addfile(link)
        over = tarfile.TarInfo("owl/1.png")  # through the link, if there were one
        over.size = 4
        archive.addfile(over, io.BytesIO(b"evil"))
    with pytest.raises(ArchiveError, match="is a link"):
        archive_table(tmp_path / "x.tar", config)
    assert (tmp_path / "secret").read_bytes() == b"as it was"


def test_an_archive_of_a_picture_bomb_names_it_and_goes_on(tmp_path: Path) -> None:
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("owl", "wren"):
            for place in range(6):
                out = io.BytesIO()
                Image.new("RGB", (8, 8), (place * 20, len(name) * 20, 0)).save(out, "PNG")
                archive.writestr(f"{name}/{place}.png", out.getvalue())
        archive.writestr("owl/bomb.png", bomb.getvalue())
    values = {"method": "vanilla", "data": {"source": str(path), "cache_dir": str(tmp_path / "cache")}}
    data = load_data(RunConfig.from_dict(values))
    assert [problem.key for problem in data.problems] == ["owl/bomb.png"]
    assert "pixels" in data.problems[0].reason


class Payload:
    """An object whose unpickling makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.target)!r}, 'w').close()",))


def test_cifar_files_with_code_are_refused_by_their_checksum(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{place}" for place in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    values = {"method": "vanilla", "data": {"source": "cifar10", "root": str(tmp_path)}}
    with pytest.raises(DataError):
        load_data(RunConfig.from_dict(values))
    assert not (tmp_path / "executed").exists()
    pickle.loads((folder / "test_batch").read_bytes())
    assert (tmp_path / "executed").exists()  # the attack was a real one


def test_every_refusal_is_written_for_the_user() -> None:
    assert issubclass(ArchiveError, DataError)
    assert issubclass(DataError, StudioError)
