"""The campaign of bad inputs: it takes sound files, sees what is wrong, and finds nothing in a short time."""

from __future__ import annotations

import random
import re
from pathlib import Path

import fuzz_inputs
import pytest
from fuzz_bombs import hostile_headers, hostile_picture, png, rle_bmp
from fuzz_inputs import HOSTILE, KINDS, attempt
from fuzz_samples import damaged, hostile_archive, samples

from concept_tuning.data import decode
from concept_tuning.data.decode import UnreadableImage
from concept_tuning.data.picture_headers import Header
from concept_tuning.errors import ArchiveError, DataError

SOUND = samples()


@pytest.mark.parametrize("kind", SOUND)
def test_every_sound_sample_is_used(kind: str, tmp_path: Path) -> None:
    for number, sound in enumerate(SOUND[kind]):
        place = tmp_path / str(number)
        place.mkdir()
        assert attempt(kind, sound, place, seconds=20) == "used"


@pytest.mark.filterwarnings("ignore")
def test_some_hundred_bad_inputs_of_all_kinds_are_used_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_inputs.resource, "setrlimit", lambda *_: None)  # which would stay for the other tests
    found = fuzz_inputs._try_some(1, 0, 8 * len(KINDS), KINDS)
    assert found["findings"] == []
    assert sum(found["counts"].values()) == 8 * len(KINDS)
    assert any(name.endswith("refused") for name in found["counts"])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ValueError("odd"), "ValueError: odd"),
        (MemoryError(), "MemoryError"),
        (DataError(""), "DataError without words"),
        (DataError("It is damaged."), "refused"),
    ],
)
def test_only_words_for_the_user_count_as_refused(fault, said: str, tmp_path: Path, monkeypatch) -> None:
    def use(data: bytes, place: Path) -> None:
        raise fault

    monkeypatch.setitem(fuzz_inputs._ENTRIES, "csv", use)
    assert attempt("csv", b"", tmp_path, seconds=20).startswith(said)


@pytest.mark.filterwarnings("ignore")
def test_some_hundred_small_files_that_ask_for_much_take_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_inputs.resource, "setrlimit", lambda *_: None)
    found = fuzz_inputs._try_some(2, 0, 300, HOSTILE)
    assert found["findings"] == []
    assert found["counts"]["hostile.picture used"] > 10 < found["counts"]["hostile.picture refused"]


def test_what_takes_much_memory_is_seen_whether_used_or_refused(tmp_path: Path, monkeypatch) -> None:
    kept: list[bytes] = []

    def use(data: bytes, place: Path) -> None:
        kept.append(b"x" * (200 << 20))
        kept.clear()
        if data:
            raise DataError("It is damaged.")

    monkeypatch.setitem(fuzz_inputs._ENTRIES, "csv", use)
    for data, outcome in ((b"", "used"), (b"x", "refused")):
        found = attempt("csv", data, tmp_path, seconds=20)
        assert re.fullmatch(rf"{outcome}, and took (19|20)\d MB of memory", found)
    monkeypatch.setattr(fuzz_inputs, "MEMORY", 300 << 20)
    assert attempt("csv", b"x", tmp_path, seconds=20) == "refused"


@pytest.mark.parametrize(
    "error", [UnreadableImage("it does not fit into memory"), ArchiveError("It is damaged."), UnreadableImage("odd")]
)
@pytest.mark.parametrize("cause", [MemoryError(), OSError("decoder error -9"), OSError("decoder error -2")])
def test_a_refusal_for_want_of_memory_is_a_finding(error, cause, tmp_path: Path, monkeypatch) -> None:
    def use(data: bytes, place: Path) -> None:
        raise error from cause

    monkeypatch.setitem(fuzz_inputs._ENTRIES, "csv", use)
    assert attempt("csv", b"", tmp_path, seconds=20).startswith("refused only as memory") is ("-2" not in str(cause))


@pytest.mark.filterwarnings("ignore")
def test_the_campaign_finds_the_bombs_where_nothing_holds_them(tmp_path: Path, monkeypatch) -> None:
    wide, cleared = rle_bmp((1_000_000, 1)), png((9000, 9000), frame=(1, 1))
    assert attempt("bmp", wide, tmp_path, seconds=20) == attempt("png", cleared, tmp_path, seconds=20) == "refused"
    monkeypatch.setattr(decode, "_room", lambda image, *_: image.size)
    monkeypatch.setattr(decode, "read_header", lambda *_: Header())
    assert re.match(r"used, and took [345]\d\d MB", attempt("bmp", wide, tmp_path, seconds=20))
    assert re.match(r"refused, and took [23]\d\d MB", attempt("png", cleared, tmp_path, seconds=20))


def test_what_takes_too_long_and_what_is_written_outside_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_inputs.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(fuzz_inputs, "SECONDS", 1)

    def slow(data: bytes, place: Path) -> None:
        (place / "inside").touch()
        (place.parent / "outside").touch()
        while True:
            pass

    monkeypatch.setitem(fuzz_inputs._ENTRIES, "csv", slow)
    found = fuzz_inputs._try_some(0, 0, 1, ("csv",))["findings"]
    assert [finding.split(": ", 1)[1].split(":")[0] for finding in found] == ["took longer than 1 s", "written outside"]
    assert "/outside" in found[1]
    assert "/inside" not in found[1]


def test_an_input_follows_from_its_number(tmp_path: Path) -> None:
    others = SOUND["png"]
    one, same, other = (damaged("png", others[0], others, random.Random(f"0:{seed}")) for seed in (5, 5, 6))
    assert one == same != other
    for seed in range(20):
        first, again = random.Random(seed), random.Random(seed)
        assert hostile_archive("zip", "/x", first) == hostile_archive("zip", "/x", again)
        assert hostile_picture(first) == hostile_picture(again)
        assert hostile_headers("tar", first) == hostile_headers("tar", again)
