"""The weighted terms of a step add up to the loss that was stepped on."""

from __future__ import annotations

import json

import loss_shares
import pytest


def test_weighted_terms_add_up_to_the_loss(subjects) -> None:
    run = subjects[1].run
    assert run.config.method == "concept-tuning"
    lines = map(json.loads, (run.folder.path / "metrics.jsonl").read_text().splitlines())
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "step"}
    found = dict(loss_shares.weighted(run.folder.path))
    assert found.keys() == losses.keys()
    for step, terms in found.items():
        assert sum(terms.values()) == pytest.approx(losses[step], rel=1e-4)
        assert terms["bottleneck_kl"] > 0


def test_spans_hold_the_means_of_their_steps(subjects) -> None:
    path = subjects[1].run.folder.path
    (row, *_) = loss_shares.shares([path, path])
    steps = [terms for step, terms in loss_shares.weighted(path) if step <= 10]
    assert row["steps"] == [1, 10]
    assert row["bottleneck_kl"] == pytest.approx(sum(one["bottleneck_kl"] for one in steps) / len(steps), abs=1e-3)
