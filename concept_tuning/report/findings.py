"""The summary: what the results say, one sentence each, with the chapter that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from concept_tuning.diagnostics.concept_effects import ConceptEffects, MaskShares
from concept_tuning.diagnostics.counterfactuals import Counterfactuals
from concept_tuning.diagnostics.groups import GroupTable
from concept_tuning.diagnostics.ledger import Ledger
from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.properties import PropertyTable
from concept_tuning.diagnostics.rare_results import RareFeaturesReport, Rarity
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.slices import SliceTable
from concept_tuning.diagnostics.verdict import Comparison, Verdict
from concept_tuning.figures.labels import number
from concept_tuning.report.blocks import Finding, Source, of_all, percent, points
from concept_tuning.report.looking import badge_counts

#: A worst cell, or errors gathered in a slice, are told as more than chance below this p value.
_SURE = 0.05
#: A concept is told of if the lower end of its pull is above this AUC.
_PULLS = 0.6


def findings(source: Source) -> list[Finding]:
    """Return what the results say, in the order of the chapters."""
    return [finding for find in _FINDERS for finding in find(source)]


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
                    yield Finding(text=part.sentence, tone="neutral", chapter="verdict")


def _worst_group(source: Source) -> Iterator[Finding]:
    found: dict[str, GroupTable] = source.each("groups")
    for run, table in found.items():
        sure = table.p_even < _SURE
        chance = (
            "more than chance among so many cells gives" if sure else "no more than chance among so many cells gives"
        )
        yield Finding(
            text=f"{run} is worst at {table.worst.class_name} | {table.worst.group}: "
            f"{of_all(table.worst.accuracy, 'pictures')} right, {100 * table.gap:.1f} points below its average, "
            f"{chance} (p = {number(table.p_even, 2)}).",
            tone="bad" if sure else "neutral",
            chapter="groups",
        )


def _ledger(source: Source) -> Iterator[Finding]:
    found: Ledger | None = source.joint("ledger")
    for one in [] if found is None else found.methods:
        churn = "" if isinstance(one.beyond_churn, Unavailable) else f"; beyond churn {points(one.beyond_churn)}"
        yield Finding(
            text=f"{one.method} loses {percent(one.lost.value)} of the pictures, right when trained from scratch, "
            f"and rescues {percent(one.rescued.value)} that it has wrong{churn}.",
            tone="neutral",
            chapter="ledger",
        )


def _controls(source: Source) -> Iterator[Finding]:
    for run, result in source.each("controls").items():
        counts = badge_counts(result)
        all_won = {
            measure: [name for name, by in counts.items() if by.get(measure, (0, 0))[0] == by.get(measure, (0, 1))[1]]
            for measure in dict.fromkeys(badge.measure for badge in result.badges)
        }
        best = [f"{_listed(names)} on {measure}" for measure, names in all_won.items() if names]
        text = (
            f"Maps of {run} that beat all four of their controls: {'; '.join(best)}."
            if best
            else f"No map of {run} beats all four of its controls on any measure: do not read much into them."
        )
        yield Finding(text=text, tone="neutral" if best else "bad", chapter="controls")


def _rare(source: Source) -> Iterator[Finding]:
    report: RareFeaturesReport | None = source.joint("rare-features")
    for result in [] if report is None else report.analyses[:1]:
        if isinstance(result.rarity, Unavailable):
            yield Finding(
                text=f"Which features are rare cannot be said: {result.rarity.reason}",
                tone="neutral",
                chapter="rare-features",
            )
            continue
        rarity: Rarity = result.rarity
        point = rarity.threshold
        yield Finding(
            text=f"{point.rare} of {len(result.concepts)} {result.view} are rare: among the {point.low} that "
            f"pre-training saw least, they tell classes apart "
            f"(by chance at most some {number(point.expected_by_chance, 2)}).",
            tone="neutral",
            chapter="rare-features",
        )
        for change in [] if isinstance(rarity.changes, Unavailable) else rarity.changes:
            yield Finding(
                text=f"Information in rare {result.view}, {change.after} against {change.before}: {change.verdict} "
                f"({number(change.per_concept.value, 2)} nats per concept, 95 % interval "
                f"{number(change.per_concept.low, 2)} to {number(change.per_concept.high, 2)}).",
                tone={"raised": "good", "lowered": "bad"}.get(change.verdict, "neutral"),  # type: ignore[arg-type]
                chapter="rare-features",
            )


def _counterfactuals(source: Source) -> Iterator[Finding]:
    found: Counterfactuals | None = source.joint("counterfactuals")
    for run in [] if found is None else found.runs:
        follows = run.flip_gap.low > 0
        text = "follows the background" if follows else "is not shown to follow the background"
        yield Finding(
            text=f"{run.run} {text}: before another class's background {points(run.flip_gap)} more of its predictions "
            "change than before another background of the same class.",
            tone="bad" if follows else "good",
            chapter="counterfactuals",
        )


def _properties(source: Source) -> Iterator[Finding]:
    found: PropertyTable | None = source.joint("properties")
    for one in [] if found is None else found.properties[:1]:
        if one.informative:
            yield Finding(
                text=f"{one.name.capitalize()} alone tells the class of {of_all(one.accuracy, 'training pictures')} "
                f"(naming the largest class: {percent(one.baseline)}).",
                tone="bad" if one.flagged else "neutral",
                chapter="properties",
            )


def _effects(source: Source) -> Iterator[Finding]:
    found: dict[str, ConceptEffects] = source.each("concept-effects")
    for run, result in found.items():
        one = result.concepts[0] if result.concepts else None
        if one is None or one.pull is None or one.pull.low < _PULLS:
            yield Finding(
                text=f"No concept of {run} is shown to sway predictions much by itself.",
                tone="good",
                chapter="concept-effects",
            )
            continue
        outside = (
            f", and {percent(float(result.masks.outside[one.index]), 0)} of its strength lies outside the object "
            f"(evenly spread: {percent(float(result.masks.even[one.index]), 0)})"
            if isinstance(result.masks, MaskShares)
            else ""
        )
        yield Finding(
            text=f"A patch of concept 1 of {run} alone pulls other classes' pictures to "
            f"{result.class_names[one.pulled_class]} (AUC {number(one.pull.value, 2)}, 0.5 is none){outside}: "
            "look at it.",
            tone="bad",
            chapter="concept-effects",
        )


def _slices(source: Source) -> Iterator[Finding]:
    found: dict[str, SliceTable] = source.each("slices")
    for run, table in found.items():
        if table.p_value is not None and table.slices:
            gather = table.p_value < _SURE
            worst = table.slices[0]
            told = (
                f"gather in pictures that look alike: of the worst such {worst.accuracy.n} "
                f"{percent(worst.accuracy.value)} are right"
                if gather
                else "are not shown to gather in pictures that look alike"
            )
            yield Finding(
                text=f"Errors of {run} {told} (p = {number(table.p_value, 2)}).",
                tone="bad" if gather else "good",
                chapter="slices",
            )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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
