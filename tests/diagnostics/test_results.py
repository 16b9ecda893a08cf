from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from pydantic.dataclasses import dataclass

from concept_tuning.diagnostics import results
from concept_tuning.diagnostics.results import RESULT, Array, Interval, Unavailable, load_result, save_result
from concept_tuning.errors import RunError


@dataclass(frozen=True, kw_only=True, config=RESULT)
class Sample:
    values: Array
    rates: tuple[Interval, ...]
    other: Unavailable | None = None


def sample(values: np.ndarray) -> Sample:
    return Sample(values=values, rates=(Interval(value=0.5, low=0.2, high=float("inf"), n=4),))


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1.5, np.nan], [-np.inf, 0.0]], np.float32),
        np.arange(10_000, dtype=np.int64).reshape(100, 100),
        np.random.default_rng(0).random((3, 50, 40)).astype(np.float32),
        np.zeros((0, 4), bool),
        np.arange(12, dtype=np.uint8).reshape(3, 4).T,
    ],
    ids=["not-finite", "large-integers", "large-floats", "empty", "strided"],
)
def test_a_result_is_read_back_equal(tmp_path, values) -> None:
    save_result(sample(values), tmp_path / "sample.json")
    found = load_result(Sample, tmp_path / "sample.json")
    assert found.values.dtype == values.dtype
    np.testing.assert_array_equal(found.values, values)
    assert found.rates == sample(values).rates


def test_results_are_frozen() -> None:
    with pytest.raises(AttributeError):
        sample(np.zeros(1)).other = None


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: {"values": found["values"]},
        lambda found: found | {"surprise": 1},
        lambda found: found | {"values": {"dtype": "<f4", "shape": [9], "values": [1.0]}},
        lambda found: found | {"values": {"dtype": "|O", "shape": [1], "base64": "AAAA"}},
        lambda found: found | {"values": {"dtype": "no such", "shape": [1], "values": [1]}},
        lambda found: found | {"values": {"dtype": "<U1", "shape": [1], "values": ["x"]}},
        lambda found: [],
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path, damage) -> None:
    path = tmp_path / "sample.json"
    save_result(sample(np.zeros(2)), path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(RunError, match=r"sample.json is not a saved Sample"):
        load_result(Sample, path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(RunError, match=r"gone.json cannot be read"):
        load_result(Sample, tmp_path / "gone.json")


def test_values_that_json_lacks_are_written_as_strings(tmp_path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    values = np.array([np.nan, np.inf, -np.inf, 0.1], np.float32)
    save_result(sample(values), tmp_path / "sample.json")
    json.loads((tmp_path / "sample.json").read_text(), parse_constant=refuse)
    assert load_result(Sample, tmp_path / "sample.json").rates[0].high == float("inf")


def test_an_array_of_texts_takes_no_more_memory_than_its_file(tmp_path) -> None:
    path = tmp_path / "sample.json"
    save_result(sample(np.zeros(2)), path)
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"values": {"dtype": "<U1024", "shape": [20_000], "values": [""] * 20_000}}))
    tracemalloc.start()
    try:
        with pytest.raises(RunError, match=r"sample.json is not a saved Sample"):
            load_result(Sample, path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10e6  # eighty million bytes as that array, eighty thousand as the file


def test_too_little_memory_is_told(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    path = tmp_path / "sample.json"
    save_result(sample(np.zeros(2)), path)
    monkeypatch.setattr(results.np, "array", fail)
    with pytest.raises(
        RunError, match=r"sample.json takes more memory than there is; run the diagnosis again on fewer"
    ):
        load_result(Sample, path)
