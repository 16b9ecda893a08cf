"""Each sentence of the summary on results made by hand: what is shown, what is not, what was not measured."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from concept_tuning.diagnostics.controls import ControlledMaps
from concept_tuning.diagnostics.counterfactuals import _summary
from concept_tuning.diagnostics.editing import EDITS, OTHER_CLASS, SAME_CLASS
from concept_tuning.diagnostics.groups import group_table
from concept_tuning.diagnostics.rare_results import RareFeaturesReport
from concept_tuning.diagnostics.rare_use import PRETRAINED, InformationChange
from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.report.blocks import Finding, Source
from concept_tuning.report.findings import findings
from tests.figures import test_properties, test_slices, test_verdict
from tests.figures.examples import rare_features
from tests.figures.test_concept_effects import concept, effects
from tests.figures.test_controls import badge, controlled
from tests.figures.test_ledger import SCRATCH, TUNED, ledger

RUN = "tuned"


def summary(pictures: int = 40, units: int | None = None, **results: Any) -> list[Finding]:
    """Findings of one run; ``each_x`` is a result of the run, ``x`` one of all together."""
    found = {
        (name.removeprefix("each_").replace("_", "-"), RUN if name.startswith("each_") else None): result
        for name, result in results.items()
    }
    overview = SimpleNamespace(
        runs=(SimpleNamespace(name=RUN),),
        class_names=("owl", "tern"),
        entries=(),
        pictures=pictures,
        split="test",
        units=units,
    )
    return findings(Source(SimpleNamespace(overview=overview, results=found, thumbnails=None)))


def interval(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high, n=40)


def background_reader(*, balanced: bool, n: int = 400) -> Any:
    """The rates of a model that says the class of the background, whatever the object is."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n)
    backgrounds = rng.integers(0, 4, n) if balanced else labels
    donors = (labels + rng.integers(1, 4, n)) % 4
    said = {OTHER_CLASS: donors, SAME_CLASS: labels}
    predicted = [backgrounds, *(said.get(kind, backgrounds) for kind in EDITS)]
    return _summary(RUN, np.eye(4)[np.stack(predicted)], labels, donors, seed=0)


def edited(run: Any, count: int = 40, units: int | None = None) -> Any:
    """The result of a run on some pictures that were edited."""
    return SimpleNamespace(runs=(run,), keys=tuple(map(str, range(count))), units=units)


@pytest.mark.parametrize("balanced", [True, False])
def test_a_model_that_reads_backgrounds_alone_is_told_of(balanced: bool) -> None:
    run = background_reader(balanced=balanced)
    (found,) = summary(counterfactuals=edited(run))
    assert found.tone == "bad"
    assert found.text.startswith("tuned follows the background")
    named = "100.0 % are then called the background's class, and 0.0 % before a background of their own class"
    assert named in found.text


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(("count", "follows"), [(5, False), (6, True)])
def test_a_handful_of_pictures_is_no_background_that_is_followed(count: int, follows: bool, stored: bool) -> None:
    labels = np.arange(500) % 2
    predicted = dict.fromkeys(EDITS, labels) | {OTHER_CLASS: np.where(np.arange(500) < count, 1 - labels, labels)}
    run = _summary(RUN, np.eye(2)[np.stack([labels, *predicted.values()])], labels, 1 - labels, seed=0)
    assert run.flip_gap.low > 0
    assert run.differing == (count, count)
    result = edited(dataclasses.replace(run, differing=run.differing if stored else None), 500)
    result.labels = labels
    (found,) = summary(500, counterfactuals=result)
    assert found.text.startswith("tuned follows the background") == follows
    assert ("called the background's class" in found.text) == follows
    assert found.tone == ("bad" if follows else "neutral")


def test_units_that_differ_are_counted_and_not_their_pictures() -> None:
    labels, units = np.arange(500) % 2, np.arange(500) // 2
    predicted = dict.fromkeys(EDITS, labels) | {OTHER_CLASS: np.where(np.arange(500) < 10, 1 - labels, labels)}
    run = _summary(RUN, np.eye(2)[np.stack([labels, *predicted.values()])], labels, 1 - labels, 0, units)
    (found,) = summary(500, 250, counterfactuals=edited(run, 500, 250))
    assert run.differing == (5, 5)
    assert "is not shown to follow" in found.text


def test_noise_that_hits_the_backgrounds_class_as_often_before_its_own_is_not_told_as_taken() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(500) % 2
    predicted = {kind: np.where(rng.random(500) < 0.3, 1 - labels, labels) for kind in EDITS}
    run = _summary(RUN, np.eye(2)[np.stack([labels, *predicted.values()])], labels, 1 - labels, seed=0)
    (found,) = summary(500, counterfactuals=edited(run, 500))
    swapped = run.outcomes[EDITS.index(OTHER_CLASS)]
    assert swapped.followed is not None
    assert swapped.followed.value > 0.25
    assert "called the background's class" not in found.text


def test_a_model_that_reads_the_object_is_no_good_sign_but_not_shown() -> None:
    labels = np.arange(40) % 4
    run = _summary(RUN, np.eye(4)[np.stack([labels] * (1 + len(EDITS)))], labels, (labels + 1) % 4, seed=0)
    (found,) = summary(counterfactuals=edited(run))
    assert found.tone == "neutral"
    assert "is not shown to follow" in found.text


def test_the_most_suspicious_concept_that_is_shown_to_pull_is_told_of() -> None:
    weak, strong = concept(1, 1, interval(0.7, 0.55, 0.85)), concept(2, 0, interval(0.85, 0.75, 0.95))
    (found,) = summary(each_concept_effects=effects(weak, strong))
    assert (found.tone, "A patch of concept 2" in found.text) == ("bad", True)
    first = concept(1, 0, interval(0.8, 0.62, 0.9))
    (found,) = summary(each_concept_effects=effects(first, strong))
    assert "A patch of concept 1" in found.text, "the chart's first, though the second's interval begins higher"
    (found,) = summary(each_concept_effects=effects(weak))
    assert (found.tone, found.text) == (
        "neutral",
        "None of 1 concepts of tuned is shown to sway predictions much by itself.",
    )
    (found,) = summary(each_concept_effects=effects(concept(1, 0, None)))
    assert (found.tone, "could not be measured" in found.text) == ("neutral", True)


@pytest.mark.parametrize(
    ("shift", "told"),
    [((4e-9, 3e-9, 5e-9), False), ((0.009, 0.005, 0.02), False), ((0.05, 0.0, 0.1), False), ((0.05, 0.01, 0.1), True)],
)
def test_a_pull_of_tiny_probabilities_sways_no_predictions(shift: tuple[float, float, float], told: bool) -> None:
    named = Interval(value=0.25, low=0.1, high=0.4, n=32)
    one = dataclasses.replace(concept(1, 0, interval(1.0, 1.0, 1.0)), shift=interval(*shift), newly_called=named)
    (found,) = summary(each_concept_effects=effects(one))
    assert ("A patch of concept 1" in found.text) == told
    assert found.tone == ("bad" if told else "neutral")
    assert ("probability rises by 5.0 points [1.0, 10.0], and 25.0 % of 32 pictures are newly" in found.text) == told
    assert "for sure" not in found.text


def test_a_concept_that_leans_to_the_object_is_no_warning() -> None:
    outside, inside = (concept(1, index, interval(0.85, 0.75, 0.95)) for index in (0, 1))
    (found,) = summary(each_concept_effects=effects(outside))
    assert (found.tone, "no less than the 60 % of one evenly spread" in found.text) == ("bad", True)
    (found,) = summary(each_concept_effects=effects(inside))
    assert (found.tone, "less than the 70 % of one evenly spread: it leans" in found.text) == ("neutral", True)


def test_without_masks_a_concept_that_pulls_is_to_be_looked_at() -> None:
    missing = Unavailable(analysis="masks", reason="There are none.")
    (found,) = summary(each_concept_effects=effects(concept(1, 0, interval(0.85, 0.75, 0.95)), masks=missing))
    assert found.tone == "bad"
    assert found.text.endswith("Whether it is a part of the object only its pictures can tell: look at them.")


def test_each_comparison_that_was_made_has_its_sentence() -> None:
    missing = Unavailable(analysis="verdict", reason="A seed is given twice.")
    accuracy = test_verdict.comparison(0.1, 0.05, 0.2, "better")
    worst = test_verdict.comparison(-0.2, -0.3, -0.1, "worse", "worst-group accuracy")
    verdicts = (missing, test_verdict.verdict(accuracy), test_verdict.verdict(accuracy, worst))
    texts = [found.text for found in summary(verdict=SimpleNamespace(verdicts=verdicts))]
    assert [text.split(" in ")[1].split(":")[0] for text in texts] == ["accuracy", "accuracy", "worst-group accuracy"]
    assert summary(verdict=SimpleNamespace(verdicts=(missing,))) == []


def test_a_worst_cell_is_more_than_chance_only_where_chance_is_known() -> None:
    labels, cells = np.repeat([0, 0, 1, 1], 20), np.repeat(np.arange(4), 20)
    right = np.arange(80) % 20 < np.where(cells == 3, 8, 19)
    table = group_table(
        labels=labels,
        predictions=np.where(right, labels, 1 - labels),
        groups=cells % 2,
        class_names=("a", "b"),
        group_names=("g", "h"),
        units=cells,
    )
    known = dataclasses.replace(table, p_even=0.01, worst_if_even=0.8)
    (found,), (sure,) = summary(each_groups=table), summary(each_groups=known)
    assert (found.tone, "whether this is more than chance gives cannot be told" in found.text) == ("neutral", True)
    assert (sure.tone, "more than chance among equally hard cells gives (p = 0.01)" in sure.text) == ("bad", True)


def test_what_a_method_loses_and_rescues_is_told_with_the_churn_where_it_is_known() -> None:
    vanilla, ours = summary(ledger=ledger())
    assert vanilla.text.startswith("vanilla loses 15.0 % of 10 pictures [")
    assert "and rescues 20.0 % of them, which it has wrong; beyond churn +10.0 points [" in vanilla.text
    assert "ours loses 0.0 % of 10 pictures" in ours.text
    assert "churn" not in summary(ledger=ledger({"s0": SCRATCH["s0"]}, TUNED))[0].text


def test_a_property_is_told_of_if_it_is_shown_to_tell_classes() -> None:
    shown, not_shown = (
        summary(properties=test_properties.table(test_properties.score("hue", 0.9, flagged=True, informative=known)))
        for known in (True, False)
    )
    assert ["Hue, the strongest of 1 properties, alone tells the class of 90.0 %" in found.text for found in shown] == [
        True
    ]
    assert not_shown == []


def test_whether_errors_gather_is_told_where_it_was_asked() -> None:
    table = test_slices.table(test_slices.LOW)
    assert summary(each_slices=table) == []
    (found,) = summary(each_slices=dataclasses.replace(table, p_value=0.01))
    assert (found.tone, found.text) == (
        "bad",
        "Errors of tuned gather in pictures that look alike: in the worst set of 2, only 30 % are right (p = 0.01).",
    )
    (found,) = summary(each_slices=dataclasses.replace(table, p_value=0.3))
    assert (found.tone, "are not shown to gather" in found.text) == ("neutral", True)
    assert summary(each_slices=dataclasses.replace(table, slices=(), p_value=0.01)) == []


def test_few_pictures_are_told_of_first_and_bring_neither_good_nor_bad_news() -> None:
    found = background_reader(balanced=False, n=12)
    for count, tone in ((29, "neutral"), (30, "bad")):
        (told,) = summary(count, counterfactuals=edited(found))
        assert told.tone == tone
        assert told.text.startswith("Too few test pictures (29) to say anything. tuned follows") == (count == 29)
    for count, tone in ((9, "neutral"), (10, "bad")):
        (told,) = summary(60, count, counterfactuals=edited(found))
        assert told.tone == tone
        assert told.text.startswith("Too few units of test pictures (9) to say anything. tuned") == (count == 9)
    (told,) = summary(500, counterfactuals=edited(found, 12))
    assert told.tone == "neutral"
    assert told.text.startswith("Too few edited pictures (12) to say anything.")
    few = dataclasses.replace(concept(1, 0, interval(0.78, 0.78, 1)), pull=Interval(value=0.78, low=0.78, high=1, n=3))
    (told,) = summary(each_concept_effects=effects(few))
    assert told.tone == "neutral"
    assert told.text.startswith("Too few pictures to paste on (3) to say anything.")


def test_changes_have_a_direction_in_words_and_no_sign_of_their_own() -> None:
    run = background_reader(balanced=False)
    gap = Interval(value=-0.042, low=-0.088, high=0.004, n=40)
    (found,) = summary(counterfactuals=edited(dataclasses.replace(run, background_gap=gap)))
    assert "accuracy rises by 4.2 points [−0.4, 8.8]" in found.text
    assert "the share of predictions that change grows by 100.0 points [100.0, 100.0]" in found.text
    assert "-" not in found.text


def test_controls_that_were_not_met_have_their_reason() -> None:
    missing = (Unavailable(analysis="x", reason="There are no masks."), Unavailable(analysis="y", reason="Too few."))
    (found,) = summary(each_controls=dataclasses.replace(controlled(), badges=(), unavailable=missing * 2))
    assert found.text.endswith("could not be compared with all of their controls: There are no masks; Too few.")


def test_no_rare_concept_is_a_sentence_of_its_own() -> None:
    example = rare_features()
    point = dataclasses.replace(example.rarity.threshold, rare=0)
    rarity = dataclasses.replace(example.rarity, threshold=point)
    report = RareFeaturesReport(analyses=(dataclasses.replace(example, rarity=rarity),), missing=(), note="")
    text = summary(rare_features=report)[0].text
    assert text.startswith("None of 5 channels of tiny")
    assert "none is shown to tell classes apart" in text


@pytest.mark.parametrize(("rare", "told"), [(6, False), (7, True)])
def test_no_more_rare_concepts_than_useless_ones_give_are_not_told_as_telling_classes(rare: int, told: bool) -> None:
    example = rare_features()
    point = dataclasses.replace(example.rarity.threshold, rare=rare, low=128, expected_by_chance=6.4)
    rarity = dataclasses.replace(example.rarity, threshold=point)
    report = RareFeaturesReport(analyses=(dataclasses.replace(example, rarity=rarity),), missing=(), note="")
    found = summary(rare_features=report)[0]
    assert found.tone == "neutral"
    assert ("they tell classes apart" in found.text) == told
    assert ("no more than useless ones could give (6.4 or fewer on average)" in found.text) != told


def on_pictures(count: int) -> ControlledMaps:
    """Maps compared on so many pictures."""
    whole: ControlledMaps = controlled()
    badges = tuple(
        dataclasses.replace(one, difference=dataclasses.replace(one.difference, n=count)) for one in whole.badges
    )
    return dataclasses.replace(whole, badges=badges)


@pytest.mark.parametrize("beats", [True, False])
def test_a_measure_of_few_pictures_says_so_and_is_no_bad_news(beats: bool) -> None:
    few = on_pictures(16)
    few = dataclasses.replace(few, badges=tuple(dataclasses.replace(one, beats=beats) for one in few.badges))
    (found,) = summary(500, each_controls=few)
    assert found.tone == "neutral"
    assert found.text.startswith("Too few pictures (16) to say anything. ")
    assert "ROAD (of only 16 pictures)" in found.text


def test_each_measure_has_the_pictures_that_it_is_of() -> None:
    some = on_pictures(500)
    badges = tuple(
        dataclasses.replace(
            one, beats=False, difference=dataclasses.replace(one.difference, n=16 if one.measure == "ROAD" else 500)
        )
        for one in (
            *some.badges,
            *(
                dataclasses.replace(b, map="eigen-cam")
                for b in some.badges
                if b.map == "grad-cam" and b.measure != "ROAD"
            ),
        )
    )
    (found,) = summary(500, each_controls=dataclasses.replace(some, badges=badges))
    assert found.tone == "bad"
    assert "on any measure, outside mass (of 500 pictures) and ROAD (of only 16 pictures): read little" in found.text


def test_all_controls_are_beaten_only_if_all_were_met() -> None:
    whole = on_pictures(30)
    (found,) = summary(each_controls=whole)
    assert found.text == "Maps of tuned that beat all 4 of their controls: grad-cam on ROAD (of 30 pictures)."
    some = dataclasses.replace(whole, badges=(badge("grad-cam", whole.controls[0], "ROAD", 0.3),))
    for few in (some, dataclasses.replace(whole, badges=())):
        (found,) = summary(each_controls=few)
        assert (found.tone, "could not be compared" in found.text) == ("neutral", True)
    beaten = tuple(dataclasses.replace(one, beats=False) for one in whole.badges)
    (found,) = summary(each_controls=dataclasses.replace(whole, badges=beaten))
    assert (found.tone, "No map of tuned is shown to beat" in found.text) == ("bad", True)


def change(before: str, after: str, low: float, total_low: float) -> InformationChange:
    return InformationChange(
        before=before,
        after=after,
        per_concept=interval(low + 0.1, low, low + 0.2),
        total=interval(total_low + 1, total_low, total_low + 2),
        others=None,
        before_value=0.1,
        after_value=0.2,
        concepts=(3, 3, 3),
    )


@pytest.mark.parametrize(
    ("before", "low", "total_low", "tone", "verdict"),
    [
        (PRETRAINED, 0.01, -0.5, "good", "raised"),
        (PRETRAINED, -0.02, 0.5, "neutral", "no change shown"),
        (PRETRAINED, -0.3, 0.5, "bad", "lowered"),
        ("vanilla", 0.01, 0.5, "neutral", "raised"),
    ],
)
def test_the_change_of_information_is_judged_by_the_interval_it_prints(before, low, total_low, tone, verdict) -> None:
    example = rare_features()
    rarity = dataclasses.replace(example.rarity, changes=(change(before, RUN, low, total_low),))
    report = RareFeaturesReport(analyses=(dataclasses.replace(example, rarity=rarity),), missing=(), note="")
    _, found = summary(rare_features=report)
    assert found.tone == tone
    assert f"against {before}: {verdict} ({low + 0.1:.2g}" in found.text.replace("−", "-")


def test_what_an_older_result_measured_in_halves_is_not_called_raised() -> None:
    """The half that chose the concepts by the pre-trained network also fitted its table."""
    assert change(PRETRAINED, RUN, 0.01, 0.5).verdict == "raised"
    assert dataclasses.replace(change(PRETRAINED, RUN, 0.01, 0.5), concepts=(3, 3)).verdict == "no change shown"
    assert dataclasses.replace(change(PRETRAINED, RUN, -0.3, 0.5), concepts=(3, 3)).verdict == "lowered"
    example = rare_features()
    older = dataclasses.replace(change(PRETRAINED, RUN, 0.01, 0.5), concepts=(3, 3))
    rarity = dataclasses.replace(example.rarity, changes=(older,))
    report = RareFeaturesReport(analyses=(dataclasses.replace(example, rarity=rarity),), missing=(), note="")
    assert "measured this in two halves, which gives too much: diagnose again" in summary(rare_features=report)[-1].text


def test_every_backbone_and_what_is_missing_has_its_sentence() -> None:
    first = rare_features()
    other = dataclasses.replace(
        first, backbone="other", rarity=Unavailable(analysis="x", reason="It has no batch norm.")
    )
    missing = (Unavailable(analysis="rare features", reason="This began at random."),)
    report = RareFeaturesReport(
        analyses=(first, dataclasses.replace(first, view="groups"), other), missing=missing, note=""
    )
    texts = [found.text for found in summary(rare_features=report)]
    assert texts[0] == "Rare features: This began at random."
    assert [text.split(" are rare")[0] for text in texts[1:]] == ["2 of 5 channels of tiny", "Which channels of other"]


def test_nothing_is_said_of_what_was_not_made() -> None:
    assert summary() == []
