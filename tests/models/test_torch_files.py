"""Files of torch.save are read only if they take no more memory than they are long; all of its formats are."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
import torch

from concept_tuning.engine.checkpoint import STATE, load_checkpoint, save_checkpoint
from concept_tuning.errors import RunError, WeightsError
from concept_tuning.models.state import read_state
from concept_tuning.models.torch_files import load_tensors


def squeezed(path: Path, how: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a file's records anew, compressed, as torch's reader takes them; returns the path."""
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def doubled(path: Path) -> Path:
    """Let a file's directory name its largest record twice, so that it holds more than it is long."""
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
        archive.filelist.append(largest)
        archive._didModify = True
    return path


def of_two_directories(path: Path, ends: str) -> Path:
    """Put a second directory, of records stored as they are, where Python looks; torch looks where the end says."""
    data = path.read_bytes()
    end = data.rindex(b"PK\5\6")
    size, offset = struct.unpack_from("<II", data, end + 12)
    decoy, place = bytearray(data[offset:end]), 0
    while place < size:
        struct.pack_into("<H", decoy, place + 10, zipfile.ZIP_STORED)
        struct.pack_into("<II", decoy, place + 20, 0, 0)
        place += 46 + sum(struct.unpack_from("<HHH", decoy, place + 28))
    data, last, count = data[:end], data[end:], len(zipfile.ZipFile(path).namelist())
    large = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    if ends != "plain":
        told = end if ends == "two large" else end + len(decoy)  # where torch looks for that of large files
        last = large + struct.pack("<4sIQI", b"PK\6\7", 0, told, 1) + last
    path.write_bytes(data + (large if ends == "two large" else b"") + decoy + last)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "weights.pth"
    torch.save({"w": torch.zeros(1 << 20), "step": 3}, file)
    return file


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_every_format_of_torch_is_read(new: bool, path: Path) -> None:
    torch.save({"w": torch.arange(5), "step": 3}, path, _use_new_zipfile_serialization=new)
    assert load_tensors(path)["w"].tolist() == [0, 1, 2, 3, 4]


def test_a_small_file_that_would_fill_the_memory_is_refused(path: Path) -> None:
    squeezed(path)
    assert path.stat().st_size < 20_000
    assert torch.load(path, weights_only=True)["w"].numel() == 1 << 20  # torch would take it
    with pytest.raises(ValueError, match="records are compressed"):
        load_tensors(path)
    with pytest.raises(WeightsError, match=r"cannot be read as weights \(its records are compressed"):
        read_state(path)


@pytest.mark.parametrize("ends", ["plain", "large", "two large"])
def test_a_file_of_two_directories_is_refused(ends: str, path: Path) -> None:
    of_two_directories(squeezed(path), ends)
    with zipfile.ZipFile(path) as archive:
        assert {record.compress_type for record in archive.infolist()} == {zipfile.ZIP_STORED}
    assert torch.load(path, weights_only=True)["w"].numel() == 1 << 20  # torch reads the other
    with pytest.raises(ValueError, match="its directory is not where"):
        load_tensors(path)


@pytest.mark.parametrize("after", [b"x", b"PK\5\6", b"PK\5\6" + bytes(18)])
def test_what_stands_after_the_end_of_a_file_is_no_way_round(after: bytes, path: Path) -> None:
    path.write_bytes(path.read_bytes() + after)
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        load_tensors(path)


def test_a_file_whose_records_were_stored_anew_is_read(path: Path) -> None:
    squeezed(path, zipfile.ZIP_STORED)  # by Python, without the records of large files that torch writes
    assert load_tensors(path)["step"] == 3


def test_records_that_are_longer_than_the_file_are_refused(path: Path) -> None:
    doubled(path)
    with pytest.raises(ValueError, match="records are longer than the file"):
        load_tensors(path)


def test_a_squeezed_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path, step=1, weights={"w": torch.zeros(2)}, state={"x": torch.zeros(1 << 20)})
    assert load_checkpoint(checkpoint, "x")[1]["x"].numel() == 1 << 20
    squeezed(checkpoint / STATE)
    with pytest.raises(RunError, match=r"step-000000001 cannot be read: its records are compressed"):
        load_checkpoint(checkpoint, "x")
