"""The summary: what the results say, one sentence each, with the chapter that shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from concept_tuning.diagnostics.concept_effects import ConceptEffect, ConceptEffects, MaskShares
from concept_tuning.diagnostics.controls import ControlledMaps
from concept_tuning.diagnostics.counterfactuals import Counterfactuals, RunCounterfactuals, differing
from concept_tuning.diagnostics.editing import OTHER_CLASS
from concept_tuning.diagnostics.groups import UNKNOWN_LIKENESS, GroupTable
from concept_tuning.diagnostics.ledger import Ledger
from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.properties import PropertyTable
from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport
from concept_tuning.diagnostics.rare_use import PRETRAINED
from concept_tuning.diagnostics.results import Interval, Unavailable
from concept_tuning.diagnostics.slices import SliceTable
from concept_tuning.diagnostics.verdict import (
    FEW_PICTURES,
    FEW_UNITS,
    MIN_DIFFERING,
    Comparison,
    Verdict,
    sentence_of,
)
from concept_tuning.figures.labels import listed, number, percent
from concept_tuning.report.blocks import Finding, Source, Tone, moved, of_all, points
from concept_tuning.report.looking import badge_counts
from concept_tuning.report.spurious import PULLS, telling_concept

#: A worst cell, or errors gathered in a slice, are told as more than chance below this p value.
_SURE = 0.05
#: Chapters that speak of other pictures than those diagnosed, or that warn of few of them by themselves.
_OWN_COUNT = ("verdict", "properties")
_FEW = "Too few"


def findings(source: Source) -> list[Finding]:
    """Return what the results say, in the order of the chapters; on few pictures each says so first."""
    return [_cautious(source, finding) for find in _FINDERS for finding in find(source)]


def _cautious(source: Source, finding: Finding) -> Finding:
    overview = source.diagnosis.overview
    if finding.chapter in _OWN_COUNT or finding.text.startswith(_FEW):
        return finding
    return _of_few_or_units(finding, overview.pictures, overview.units, f"{overview.split} pictures")


def _of_few_or_units(finding: Finding, count: int, units: int | None, what: str) -> Finding:
    """Return a finding that is no good or bad news where it rests on few pictures, or on few units of these."""
    found = _of_few(finding, count, what)
    if found is finding and units is not None:
        return _of_few(finding, units, f"units of {what}", fewest=FEW_UNITS)
    return found


def _of_few(finding: Finding, count: int, what: str, *, fewest: int = FEW_PICTURES) -> Finding:
    """Return a finding that is no good or bad news, and says why, where it rests on few pictures or units."""
    if count >= fewest:
        return finding
    return replace(finding, text=f"{_FEW} {what} ({count}) to say anything. {finding.text}", tone="neutral")


def _accuracy(source: Source) -> Iterator[Finding]:
    found: dict[str, Predictions] = source.each("predictions")
    for run, result in found.items():
        yield Finding(
            text=f"{run} has {of_all(result.accuracy, 'pictures')} right.",
            tone="neutral",
            chapter="predictions",
        )


def _verdict(source: Source) -> Iterator[Finding]:
    found = source.joint("verdict")
    for one in [] if found is None else found.verdicts:
        if isinstance(one, Verdict):
            for part in (one.accuracy, one.worst_group):
                if isinstance(part, Comparison):
                    yield Finding(text=sentence_of(one, part), tone="neutral", chapter="verdict")


def _worst_group(source: Source) -> Iterator[Finding]:
    found: dict[str, GroupTable] = source.each("groups")
    for run, table in found.items():
        sure = table.p_even is not None and table.p_even < _SURE
        beyond = "more than" if sure else "not shown to be more than"
        chance = (
            f"whether this is more than chance gives cannot be told, since {UNKNOWN_LIKENESS}"
            if table.p_even is None
            else f"{beyond} chance among equally hard cells gives (p = {number(table.p_even, 2)})"
        )
        yield Finding(
            text=f"{run} is worst at {table.worst.class_name} | {table.worst.group}: "
            f"{of_all(table.worst.accuracy, 'pictures')} right, {100 * table.gap:.1f} points below its average, "
            f"{chance}.",
            tone="bad" if sure else "neutral",
            chapter="groups",
        )


def _ledger(source: Source) -> Iterator[Finding]:
    found: Ledger | None = source.joint("ledger")
    for one in [] if found is None else found.methods:
        churn = "" if isinstance(one.beyond_churn, Unavailable) else f"; beyond churn {points(one.beyond_churn)}"
        yield Finding(
            text=f"{one.method} loses {of_all(one.lost, 'pictures')}, which training from scratch has right, and "
            f"rescues {percent(one.rescued.value)} of them, which it has wrong{churn}; this holds for these runs, not "
            "for new seeds.",
            tone="neutral",
            chapter="ledger",
        )


def _controls(source: Source) -> Iterator[Finding]:
    found: dict[str, ControlledMaps] = source.each("controls")
    for run, result in found.items():
        counts, all_controls = badge_counts(result), len(result.controls)
        # on how many pictures every comparison by a measure rests at least
        pictures = {badge.measure: badge.difference.n for badge in sorted(result.badges, key=lambda b: -b.difference.n)}
        measures = dict.fromkeys(badge.measure for badge in result.badges)
        compared = [
            measure for measure in measures if all(by.get(measure, (0, 0))[1] == all_controls for by in counts.values())
        ]
        if not compared:
            text = f"Maps of {run} could not be compared with all of their controls{_why_not(result)}."
            yield Finding(text=text, tone="neutral", chapter="controls")
            continue
        won = {measure: [name for name, by in counts.items() if by[measure][0] == all_controls] for measure in compared}
        best = [f"{listed(names)} on {_measured(measure, pictures)}" for measure, names in won.items() if names]
        text = (
            f"Maps of {run} that beat all {all_controls} of their controls: {'; '.join(best)}."
            if best
            else f"No map of {run} is shown to beat all {all_controls} of its controls on any measure, "
            f"{listed([_measured(measure, pictures) for measure in compared])}: read little into them."
        )
        told = Finding(text=text, tone="neutral" if best else "bad", chapter="controls")
        rest = [pictures[measure] for measure in compared if won[measure] or not best]
        yield _of_few(told, max(rest), "pictures")


def _measured(measure: str, pictures: Mapping[str, int]) -> str:
    """Return a measure with the number of pictures it is of, which says so where these are few."""
    few = "only " if pictures[measure] < FEW_PICTURES else ""
    return f"{measure} (of {few}{pictures[measure]} pictures)"


def _why_not(result: ControlledMaps) -> str:
    """Return the commonest reasons for missing comparisons, to follow a statement."""
    reasons = Counter(one.reason.rstrip(".") for one in result.unavailable)
    return ": " + "; ".join(reason for reason, _ in reasons.most_common(2)) if reasons else ""


def _rare(source: Source) -> Iterator[Finding]:
    report: RareFeaturesReport | None = source.joint("rare-features")
    if report is None:
        return
    for missing in report.missing:
        yield Finding(
            text=f"{missing.analysis.capitalize()}: {missing.reason}", tone="neutral", chapter="rare-features"
        )
    told: set[str] = set()
    for result in report.analyses:
        if result.backbone not in told:  # the first view of each backbone; the chapter has the others
            told.add(result.backbone)
            yield from _rare_of(result)


def _rare_of(result: RareFeatures) -> Iterator[Finding]:
    of = f"{result.view} of {result.backbone}"
    if isinstance(result.rarity, Unavailable):
        text = f"Which {of} are rare cannot be said: {result.rarity.reason}"
        yield Finding(text=text, tone="neutral", chapter="rare-features")
        return
    point = result.rarity.threshold
    count, chance = f"{point.rare} of {len(result.concepts)} {of}", number(point.expected_by_chance, 2)
    if not point.rare:
        text = (
            f"None of {len(result.concepts)} {of} is rare: of the {point.low} that pre-training saw least, none is "
            "shown to tell classes apart."
        )
    elif point.rare <= point.expected_by_chance:
        text = (
            f"{count} pass as rare, among the {point.low} that pre-training saw least: no more than useless ones could "
            f"give ({chance} or fewer on average), so that none is shown to tell classes apart."
        )
    else:
        text = (
            f"{count} are rare: among the {point.low} that pre-training saw least, they tell classes apart (useless "
            f"ones would give {chance} or fewer on average)."
        )
    yield Finding(text=text, tone="neutral", chapter="rare-features")
    for change in () if isinstance(result.rarity.changes, Unavailable) else result.rarity.changes:
        tones: dict[str, Tone] = {"raised": "good", "lowered": "bad"}
        low, value = change.per_concept.low, number(change.after_value, 2)
        still = f"; the {value} nats after it are still no information" if low > 0 >= change.after_value else ""
        if low > 0 and change.in_halves:
            still = "; an older version measured this in two halves, which gives too much: diagnose again"
        yield Finding(
            text=f"Information in rare {result.view}, {change.after} against {change.before}: {change.verdict} "
            f"({number(change.per_concept.value, 2)} nats per concept, 95 % interval "
            f"{number(low, 2)} to {number(change.per_concept.high, 2)}{still}).",
            tone=tones.get(change.verdict, "neutral") if change.before == PRETRAINED else "neutral",
            chapter="rare-features",
        )


def _counterfactuals(source: Source) -> Iterator[Finding]:
    found: Counterfactuals | None = source.joint("counterfactuals")
    if found is None:
        return
    for run in found.runs:
        follows = follows_background(found, run)
        text = "follows the background" if follows else "is not shown to follow the background"
        told = Finding(
            text=f"{run.run} {text}: with another class's background in place of one of its own class, accuracy "
            f"{moved(run.background_gap, 'falls', 'rises')} and the share of predictions that change "
            f"{moved(run.flip_gap, 'grows', 'shrinks')}{_taken(run) if follows else ''}.",
            tone="bad" if follows else "neutral",
            chapter="counterfactuals",
        )
        yield _of_few_or_units(told, len(found.keys), found.units, "edited pictures")


def follows_background(found: Counterfactuals, run: RunCounterfactuals) -> bool:
    """Return whether a run is shown to follow the background, by accuracy or by changed answers.

    An interval above zero that rests on fewer than :data:`MIN_DIFFERING` pictures, or units, shows nothing.
    """
    gaps = (run.flip_gap, run.background_gap)
    return any(gap.low > 0 and count >= MIN_DIFFERING for gap, count in zip(gaps, differing(found, run), strict=True))


def _taken(run: RunCounterfactuals) -> str:
    """Return how many pictures take the background's class, where a background of their own class makes fewer do so."""
    swapped = next(outcome for outcome in run.outcomes if outcome.kind == OTHER_CLASS)
    if swapped.followed is None or run.followed_gap is None or run.followed_gap.low <= 0:
        return ""
    own = max(0.0, swapped.followed.value - run.followed_gap.value)
    return (
        f"; of the pictures not called so before, {percent(swapped.followed.value)} are then called the background's "
        f"class, and {percent(own)} before a background of their own class "
        f"(difference {points(run.followed_gap)})"
    )


def _properties(source: Source) -> Iterator[Finding]:
    found: PropertyTable | None = source.joint("properties")
    if found is None:
        return
    for one in found.properties[:1]:
        if one.informative:
            told = Finding(
                text=f"{one.name.capitalize()}, the strongest of {len(found.properties)} properties, alone tells the "
                f"class of {of_all(one.accuracy, 'training pictures')} "
                f"(naming the largest class: {percent(one.baseline)}); on the scale from there to all right this is "
                f"{number(one.strength, 2)}.",
                tone="bad" if one.flagged else "neutral",
                chapter="properties",
            )
            yield _of_few_or_units(told, one.accuracy.n, found.units, "training pictures")


def _effects(source: Source) -> Iterator[Finding]:
    found: dict[str, ConceptEffects] = source.each("concept-effects")
    for run, result in found.items():
        count = sum(one.pull is not None for one in result.concepts)
        one = telling_concept(result)
        if not count:
            text = f"What single concepts of {run} do to its predictions could not be measured."
            yield Finding(text=text, tone="neutral", chapter="concept-effects")
        elif one is None or one.pull is None:
            text = f"None of {count} concepts of {run} is shown to sway predictions much by itself."
            yield Finding(text=text, tone="neutral", chapter="concept-effects")
        else:
            yield _of_few(_effect(run, result, one, one.pull, count), one.pull.n, "pictures to paste on")


def _effect(run: str, result: ConceptEffects, one: ConceptEffect, pull: Interval, count: int) -> Finding:
    where, tone = _where(result, one)
    name = result.class_names[one.pulled_class]
    rise = "" if one.shift is None else f"; its probability {moved(one.shift, 'rises', 'falls')}"
    if one.newly_called is not None:
        rise += f", and {percent(one.newly_called.value)} of {one.newly_called.n} pictures are newly called so"
    return Finding(
        text=f"A patch of concept {one.rank} of {run} alone pulls other classes' pictures to {name} "
        f"(AUC {number(pull.value, 2)} [{number(pull.low, 2)}, {number(pull.high, 2)}], 0.5 is none{rise}): of {count} "
        f"concepts it is the most suspicious of those whose AUC is shown to be {number(PULLS, 2)} or more. {where}",
        tone=tone,
        chapter="concept-effects",
    )


def _where(result: ConceptEffects, one: ConceptEffect) -> tuple[str, Tone]:
    """Return whether a concept that pulls is on the object, in words, and whether it is bad news."""
    if not isinstance(result.masks, MaskShares):
        return "Whether it is a part of the object only its pictures can tell: look at them.", "bad"
    outside, even = float(result.masks.outside[one.index]), float(result.masks.even[one.index])
    lies = f"{percent(outside, 0)} of its strength lies outside the object, "
    if outside < even:
        return (
            f"{lies}less than the {percent(even, 0)} of one evenly spread: it leans to the object, and may be a part "
            "of it rather than a shortcut.",
            "neutral",
        )
    return f"{lies}no less than the {percent(even, 0)} of one evenly spread: look at it, it may be a shortcut.", "bad"


def _slices(source: Source) -> Iterator[Finding]:
    found: dict[str, SliceTable] = source.each("slices")
    for run, table in found.items():
        if table.p_value is not None and table.slices:
            gather = table.p_value < _SURE
            worst = table.slices[0]
            told = (
                f"gather in pictures that look alike: in the worst set of {worst.accuracy.n}, only "
                f"{percent(worst.accuracy.value, 0)} are right"
                if gather
                else "are not shown to gather in pictures that look alike"
            )
            yield Finding(
                text=f"Errors of {run} {told} (p = {number(table.p_value, 2)}).",
                tone="bad" if gather else "neutral",
                chapter="slices",
            )


_FINDERS: tuple[Callable[[Source], Iterator[Finding]], ...] = (
    _accuracy,
    _verdict,
    _worst_group,
    _ledger,
    _controls,
    _rare,
    _counterfactuals,
    _properties,
    _effects,
    _slices,
)
