"""The two losses that `benchmarks/concept_loss_cost.py` compares are one loss, and its arithmetic."""

from __future__ import annotations

import json
import os
from pathlib import Path

import concept_loss_cost
import pytest
import records
import torch
from concept_loss_cost import ConceptLoss, LossCase, main, measure

SMALL = {"batch_size": 3, "classes": 6, "queue_size": 4}
OPTIONS = ["--batch-size", "3", "--classes", "6", "--queue-size", "4", "--rounds", "2", "--rank", "3"]


def test_both_sides_compute_the_same_loss_and_gradient() -> None:
    """Nearly orthogonal embeddings and float64, so that rounding does not decide which pairs are the heaviest."""
    loss = ConceptLoss(LossCase(batch_size=3, classes=60, queue_size=4), transport_dtype=torch.float64)
    found = {}
    for name in ("ours", "reference"):
        value = getattr(loss, name)()
        found[name] = (value, loss.queries.grad.clone())
    assert found["ours"][0] == pytest.approx(found["reference"][0], rel=1e-4)
    torch.testing.assert_close(found["ours"][1], found["reference"][1], rtol=1e-3, atol=1e-5)
    assert found["ours"][0] > 0.1


def test_embeddings_span_as_many_directions_as_asked() -> None:
    for rank, expected in ((None, 6), (3, 3)):
        loss = ConceptLoss(LossCase(**SMALL, rank=rank))
        vectors = torch.cat(
            [loss.queries.detach().flatten(0, 1), loss.keys.flatten(0, 1), loss.queue.keys.flatten(0, 2)]
        )
        assert torch.linalg.matrix_rank(vectors, rtol=1e-4) == expected
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
        assert loss.queue.filled.tolist() == [4] * 6
        assert not (loss.confusing == loss.labels[:, None]).any()
        assert [sorted(row) for row in loss.confusing.tolist()] == [
            [other for other in range(6) if other != label] for label in loss.labels.tolist()
        ]


def test_more_varied_cosines_take_more_iterations() -> None:
    many, few = (
        ConceptLoss(LossCase(batch_size=3, classes=60, queue_size=4, rank=rank)).iterations() for rank in (4, None)
    )
    assert len(many) == len(few) == 3
    assert min(many) > max(few)


def test_a_ratio_is_the_median_over_rounds_and_memory_is_measured_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.0, 10.0, 20.0, 1.0, 7.0])
    peaks = iter([200, 1000])
    monkeypatch.setattr(concept_loss_cost, "timed", lambda side: next(times))
    monkeypatch.setattr(concept_loss_cost, "traced_peak", lambda side: next(peaks))
    row = measure(LossCase(**SMALL), rounds=3)
    assert row["reference_over_time"] == 3
    assert row["reference_over_time_spread"] == {"min": 2, "median": 3, "max": 7}
    assert row["seconds"]["ours"] == {"min": 1, "median": 1, "max": 10}
    assert row["memory_over_reference"] == 0.2
    queue = 6 * 4 * 9 * 6 * 4  # C x K x P x C numbers of four bytes
    assert row["queue_bytes"] == queue
    assert row["memory_over_reference_with_queue"] == (200 + queue) / (1000 + queue)


def test_a_record_is_written_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    monkeypatch.setattr(concept_loss_cost, "RECORD", record)
    monkeypatch.setattr(records, "commit", lambda: "abc1234")
    main(OPTIONS)
    assert not record.exists()
    main([*OPTIONS, "--record"])
    assert "Concept loss, 6 classes, K = 4, batch 3" in capsys.readouterr().out
    written = json.loads(record.read_text(encoding="utf-8"))
    assert written["commit"] == "abc1234"
    assert written["command"].startswith("python benchmarks/concept_loss_cost.py --batch-size 3")
    assert f"{os.cpu_count()} cores" in written["machine"]
    (row,) = written["rows"]
    assert (row["rank"], row["classes"], row["rounds"], row["concepts"], row["confusing"]) == (3, 6, 2, 9, 5)
    assert row["peak_bytes"]["ours"] > 0
