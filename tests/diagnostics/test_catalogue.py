from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config
from toys import SIZE, ToyMethod, toy_pictures, toy_subject

from concept_tuning.diagnostics.catalogue import BY_NAME, Verdicts
from concept_tuning.diagnostics.ledger import Ledger, negative_transfer
from concept_tuning.diagnostics.pictures import Subject
from concept_tuning.diagnostics.rare_results import Gallery, RareFeaturesReport
from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.diagnostics.verdict import Verdict
from concept_tuning.diagnostics.workbench import Workbench
from tests.figures.examples import MISSING, presence, rare_features

PICTURES = 60


def run(name: str, method: str, seed: int, weights: int | None = None, **overrides: object) -> Subject:
    """A run of random weights, drawn from ``weights``, with the settings of a real one."""
    generator = torch.Generator().manual_seed(seed if weights is None else weights)
    subject = toy_subject(ToyMethod(torch.randn(2, 3, generator=generator)), name=name)
    config = tiny_config(method, seed=seed, **({"image_size": SIZE} | overrides))
    return dataclasses.replace(subject, run=SimpleNamespace(**(vars(subject.run) | {"config": config})))


def bench(*subjects: Subject) -> Workbench:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (PICTURES, 3, 1, 1), dtype=np.uint8)
    images = np.broadcast_to(colours, (PICTURES, 3, SIZE, SIZE)).copy()
    return Workbench(subjects=subjects, bundle=toy_pictures(images, np.arange(PICTURES) % 2).bundle, count=None)


def verdicts(*subjects: Subject) -> tuple[Verdict | Unavailable, ...]:
    found = BY_NAME["verdict"].compute(bench(*subjects))
    assert isinstance(found, Verdicts)
    return found.verdicts


def ledger(*subjects: Subject) -> Ledger | Unavailable:
    return BY_NAME["ledger"].compute(bench(*subjects))


def test_seeds_of_one_configuration_are_pooled_and_paired() -> None:
    [found] = verdicts(run("v1", "vanilla", 1), run("c0", "concept-tuning", 0), run("v0", "vanilla", 0),
                       run("c1", "concept-tuning", 1))  # fmt: skip
    assert isinstance(found, Verdict)
    assert (found.names, found.seeds, found.seeds_paired) == (("vanilla", "concept-tuning"), (2, 2), True)


def test_other_settings_of_a_method_are_not_other_seeds() -> None:
    subjects = [run("a", "concept-tuning", 0), run("b", "concept-tuning", 1, views=2), run("c", "vanilla", 0, 4)]
    found = verdicts(*subjects)
    assert [one.names for one in found] == [
        ("concept-tuning (views=4)", "concept-tuning (views=2)"),
        ("concept-tuning (views=4)", "vanilla"),
        ("concept-tuning (views=2)", "vanilla"),
    ]
    right = {subject.name: bench(subject).right(subject).mean() for subject in subjects}
    assert len(set(right.values())) == 3
    expected = [(right["a"], right["b"]), (right["a"], right["c"]), (right["b"], right["c"])]
    assert np.array([(one.accuracy.first, one.accuracy.second) for one in found]) == pytest.approx(np.array(expected))
    assert [one.seeds for one in found] == [(1, 1)] * 3
    assert [one.seeds_paired for one in found] == [False, True, False]


def test_a_seed_given_twice_is_refused_in_its_verdicts_alone() -> None:
    again = [run("v", "vanilla", 3), run("copy of v", "vanilla", 3)]
    first, second, third = verdicts(*again, run("s", "scratch", 0), run("c", "concept-tuning", 0))
    for found, other in ((first, "scratch"), (second, "concept-tuning")):
        assert isinstance(found, Unavailable)
        assert found.reason.startswith(
            f"vanilla against {other}: v and copy of v are runs of vanilla with the same seed"
        )
    assert isinstance(third, Verdict)


def test_one_configuration_alone_has_no_verdict() -> None:
    found = BY_NAME["verdict"].compute(bench(run("a", "vanilla", 0), run("b", "vanilla", 1)))
    assert isinstance(found, Unavailable)
    assert "All runs are of vanilla with the same settings" in found.reason


def test_the_ledger_sets_each_configuration_against_the_runs_from_scratch() -> None:
    subjects = [
        run("s0", "scratch", 0),
        run("s1", "scratch", 1),
        run("a", "vanilla", 5),
        run("b", "vanilla", 6, lr=0.5),
    ]
    found = ledger(*subjects)
    assert isinstance(found, Ledger)
    assert found.scratch == ("s0", "s1")
    assert [one.method for one in found.methods] == ["vanilla (lr=0.01)", "vanilla (lr=0.5)"]
    first, second = (bench(subject).right(subject) for subject in subjects[:2])
    assert isinstance(found.churn, Interval)
    assert found.churn.value == pytest.approx(np.mean([(first & ~second).mean(), (second & ~first).mean()]))


def test_churn_is_not_taken_between_configurations() -> None:
    found = ledger(run("s0", "scratch", 0), run("s1", "scratch", 1, lr=0.5), run("a", "vanilla", 5))
    assert isinstance(found, Unavailable)
    assert "different settings (scratch (lr=0.01); scratch (lr=0.5))" in found.reason


def test_a_run_from_scratch_given_twice_has_no_churn() -> None:
    found = ledger(run("s0", "scratch", 0), run("s1", "scratch", 0), run("a", "vanilla", 5))
    assert isinstance(found, Unavailable)
    assert "s0 and s1 are runs of scratch with the same seed" in found.reason


def test_without_a_run_from_scratch_there_is_no_ledger() -> None:
    found = ledger(run("a", "vanilla", 0), run("b", "concept-tuning", 0))
    assert isinstance(found, Unavailable)
    assert "from scratch" in found.reason


def test_the_ledgers_pictures_are_those_lost_and_rescued_most_often() -> None:
    places = np.arange(40)
    found = negative_transfer(
        keys=[str(place) for place in places],
        scratch={"s0": places < 30, "s1": (places >= 20) & (places < 30)},
        tuned={"vanilla": {"v0": places >= 30}},
    )
    shown = list(BY_NAME["ledger"].gallery(found))
    assert shown == [str(place) for place in (*range(20, 30), *range(6), *range(30, 40))]


def test_the_pictures_of_rare_features_are_those_of_the_most_informative() -> None:
    one_each = Gallery(
        keys=tuple("abcdefghij"),
        pictures=np.arange(10)[:, None],
        boxes=np.zeros((10, 1, 4)),
        activations=np.ones((10, 1)),
    )
    example = rare_features(
        presence=dataclasses.replace(presence(), information=np.arange(10.0), band=np.zeros(10)), gallery=one_each
    )
    known = dataclasses.replace(example, rarity=dataclasses.replace(example.rarity, rare=np.ones(10, bool)))
    report = RareFeaturesReport(analyses=(dataclasses.replace(known, rarity=MISSING), known), missing=(), note="")
    assert list(BY_NAME["rare-features"].gallery(report)) == list("jihgfedc")
