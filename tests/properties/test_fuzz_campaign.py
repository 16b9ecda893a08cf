"""The campaign of bad inputs: it takes sound files, sees what is wrong, and finds nothing in a short time."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import fuzz_inputs
from fuzz_inputs import KINDS, attempt
from fuzz_samples import damaged, hostile_archive, samples

from concept_tuning.errors import DataError

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
    assert hostile_archive("zip", "/x", random.Random(1)) == hostile_archive("zip", "/x", random.Random(1))
