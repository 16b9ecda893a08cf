"""The summary: what the results say, one sentence each, with the chapter that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from concept_tuning.diagnostics.concept_effects import ConceptEffects, MaskShares
from concept_tuning.diagnostics.controls import ControlledMaps
from concept_tuning.diagnostics.counterfactuals import Counterfactuals
from concept_tuning.diagnostics.editing import OTHER_CLASS
from concept_tuning.diagnostics.groups import GroupTable
from concept_tuning.diagnostics.ledger import Ledger
from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.properties import PropertyTable
from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport
from concept_tuning.diagnostics.rare_use import PRETRAINED
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.slices import SliceTable
from concept_tuning.diagnostics.verdict import Comparison, Verdict
from concept_tuning.figures.labels import number
from concept_tuning.report.blocks import Finding, Source, Tone, of_all, percent, points
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
        chance = "more than" if sure else "not shown to be more than"
        yield Finding(
            text=f"{run} is worst at {table.worst.class_name} | {table.worst.group}: "
            f"{of_all(table.worst.accuracy, 'pictures')} right, {100 * table.gap:.1f} points below its average, "
            f"{chance} chance among equally hard cells gives (p = {number(table.p_even, 2)}).",
            tone="bad" if sure else "neutral",
            chapter="groups",
        )


def _ledger(source: Source) -> Iterator[Finding]:
    found: Ledger | None = source.joint("ledger")
    for one in [] if found is None else found.methods:
        churn = "" if isinstance(one.beyond_churn, Unavailable) else f"; beyond churn {points(one.beyond_churn)}"
        yield Finding(
            text=f"{one.method} loses {of_all(one.lost, 'pictures')} that training from scratch has right, and rescues "
            f"{percent(one.rescued.value)} that it has wrong{churn}; this holds for these runs, not for new seeds.",
            tone="neutral",
            chapter="ledger",
        )


def _controls(source: Source) -> Iterator[Finding]:
    found: dict[str, ControlledMaps] = source.each("controls")
    for run, result in found.items():
        counts, all_controls = badge_counts(result), len(result.controls)
        measures = dict.fromkeys(badge.measure for badge in result.badges)
        compared = [
            measure for measure in measures if all(by.get(measure, (0, 0))[1] == all_controls for by in counts.values())
        ]
        if not compared:
            text = f"Maps of {run} could not be compared with all of their controls."
            yield Finding(text=text, tone="neutral", chapter="controls")
            continue
        won = {measure: [name for name, by in counts.items() if by[measure][0] == all_controls] for measure in compared}
        best = [f"{_listed(names)} on {measure}" for measure, names in won.items() if names]
        text = (
            f"Maps of {run} that beat all {all_controls} of their controls: {'; '.join(best)}."
            if best
            else f"No map of {run} is shown to beat all {all_controls} of its controls on any measure: read little "
            "into "
            "them."
        )
        yield Finding(text=text, tone="neutral" if best else "bad", chapter="controls")


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
    yield Finding(
        text=f"{point.rare} of {len(result.concepts)} {of} are rare: among the {point.low} that pre-training saw "
        f"least, they tell classes apart (useless ones would give {number(point.expected_by_chance, 2)} or fewer on "
        "average).",
        tone="neutral",
        chapter="rare-features",
    )
    for change in () if isinstance(result.rarity.changes, Unavailable) else result.rarity.changes:
        tones: dict[str, Tone] = {"raised": "good", "lowered": "bad"}
        yield Finding(
            text=f"Information in rare {result.view}, {change.after} against {change.before}: {change.verdict} "
            f"({number(change.per_concept.value, 2)} nats per concept, 95 % interval "
            f"{number(change.per_concept.low, 2)} to {number(change.per_concept.high, 2)}).",
            tone=tones.get(change.verdict, "neutral") if change.before == PRETRAINED else "neutral",
            chapter="rare-features",
        )


def _counterfactuals(source: Source) -> Iterator[Finding]:
    found: Counterfactuals | None = source.joint("counterfactuals")
    for run in [] if found is None else found.runs:
        follows = run.background_gap.low > 0 or run.flip_gap.low > 0
        text = "follows the background" if follows else "is not shown to follow the background"
        swapped = next(outcome for outcome in run.outcomes if outcome.kind == OTHER_CLASS)
        taken = (
            ""
            if swapped.followed is None
            else f", and says that class in {percent(swapped.followed.value)} of the others"
        )
        yield Finding(
            text=f"{run.run} {text}: with another class's background in place of one of its own class, accuracy falls "
            f"by {points(run.background_gap)} and predictions change in {points(run.flip_gap)} of the pictures{taken}.",
            tone="bad" if follows else "neutral",
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
        pulls = [(one.pull.low, one) for one in result.concepts if one.pull is not None]
        if not pulls:
            text = f"What single concepts of {run} do to its predictions could not be measured."
            yield Finding(text=text, tone="neutral", chapter="concept-effects")
            continue
        low, one = max(pulls, key=lambda found: found[0])
        if low < _PULLS or one.pull is None:
            text = f"None of {len(pulls)} concepts of {run} is shown to sway predictions much by itself."
            yield Finding(text=text, tone="neutral", chapter="concept-effects")
            continue
        outside = (
            f", and {percent(float(result.masks.outside[one.index]), 0)} of its strength lies outside the object "
            f"(evenly spread: {percent(float(result.masks.even[one.index]), 0)})"
            if isinstance(result.masks, MaskShares)
            else ""
        )
        yield Finding(
            text=f"A patch of concept {one.rank} of {run} alone pulls other classes' pictures to "
            f"{result.class_names[one.pulled_class]} (AUC {number(one.pull.value, 2)} [{number(one.pull.low, 2)}, "
            f"{number(one.pull.high, 2)}], 0.5 is none; the strongest of {len(pulls)}){outside}: look at it.",
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
                tone="bad" if gather else "neutral",
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
