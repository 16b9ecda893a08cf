"""Chapters on shortcuts: other backgrounds, switches, simple properties, suspicious concepts and slices."""

from __future__ import annotations

import numpy as np

from concept_tuning.diagnostics.concept_effects import ConceptEffect, ConceptEffects, MaskShares, spurious_score
from concept_tuning.diagnostics.counterfactuals import Counterfactuals, RunCounterfactuals
from concept_tuning.diagnostics.editing import OTHER_CLASS
from concept_tuning.diagnostics.properties import PropertyTable
from concept_tuning.diagnostics.slices import SliceTable
from concept_tuning.diagnostics.switches import PREDICTION, FrontDoorSwitches
from concept_tuning.figures.concept_effects import concept_gallery, occurrence_figure, suspicion_figure
from concept_tuning.figures.counterfactuals import flip_figure, gap_figure, strip_figure
from concept_tuning.figures.labels import number, percent
from concept_tuning.figures.properties import property_figure, strength_figure
from concept_tuning.figures.slices import slice_figure, slice_gallery
from concept_tuning.figures.switches import SWITCH_NAMES, switch_figure, switch_maps_figure
from concept_tuning.report.blocks import Block, Chart, Fold, Note, Source, Table, moved, percent_interval, points

#: Concepts, slices and edited pictures that are shown with their pictures.
_SHOWN = 3
#: How to read an edited picture.
STRIP_HELP = (
    "A tick is a right answer; a bold one differs from that for the picture as it is. With the object removed no "
    "answer is right."
)
#: A concept is told of if the lower end of its pull is at least this AUC,
PULLS = 0.6
#: and the pulled class's probability rises by at least this much on average, with an interval above 0.
RISES = 0.01


def counterfactuals(source: Source) -> list[Block]:
    """Return flip rates by kind of background, what is left of them without the paste, and edited pictures."""
    found: Counterfactuals | None = source.joint("counterfactuals")
    if found is None:
        return []
    rows = [
        [
            run.run,
            percent_interval(run.accuracy),
            points(run.flip_gap),
            points(run.background_gap),
            _followed(run),
        ]
        for run in found.runs
    ]
    strips: list[Block] = [
        Chart(
            figure=strip_figure(found, key, runs=source.runs),
            caption=f"{key}: {STRIP_HELP}",
        )
        for key in telling_examples(found)
    ]
    left = f" {found.left_out} pictures without object, background or donor are left out." if found.left_out else ""
    return [
        Chart(
            figure=flip_figure(found, runs=source.runs),
            caption="Share of predictions that change with the background, with Wilson intervals. What already changes "
            "before another background of the same class is the paste's own doing.",
        ),
        Chart(
            figure=gap_figure(found, runs=source.runs),
            caption="What other classes' backgrounds do beyond that. Accuracy that falls shows a network that reads "
            "backgrounds "
            "even where the pictures' own backgrounds are unusual for their class; there predictions change either "
            "way.",
        ),
        Table(
            columns=["run", "accuracy", "flips beyond the paste", "accuracy lost", "says the background's class"],
            rows=rows,
            caption=f"Over {len(found.keys)} pictures, backgrounds from the {found.donor_split} split.{left}",
        ),
        *strips[:_SHOWN],
        *([Fold(title="More edited pictures", blocks=strips[_SHOWN:])] if len(strips) > _SHOWN else []),
    ]


def _followed(run: RunCounterfactuals) -> str:
    """Return how often the background's class is said, of the pictures not called so before, and beyond noise."""
    swapped = next(outcome for outcome in run.outcomes if outcome.kind == OTHER_CLASS)
    if swapped.followed is None:
        return "–"
    beyond = "" if run.followed_gap is None else f"; {points(run.followed_gap)} against an own background"
    return f"{percent_interval(swapped.followed)}{beyond}"


def telling_examples(found: Counterfactuals) -> list[str]:
    """Return the examples' keys, those whose predictions change most by other backgrounds first."""
    changes = {
        example.key: sum(
            int(outcome.predicted[example.place] != run.predicted[example.place])
            for run in found.runs
            for outcome in run.outcomes
        )
        for example in found.examples
    }
    return sorted(changes, key=lambda key: -changes[key])


def switches(source: Source) -> list[Block]:
    """Return accuracy and changed predictions under each setting of the attentions."""
    found: dict[str, FrontDoorSwitches] = source.each("switches")
    if not found:
        return []
    rows = [
        [
            run,
            SWITCH_NAMES.get(outcome.name, outcome.name),
            percent_interval(outcome.accuracy),
            percent_interval(outcome.flips),
            f"{outcome.lost} / {outcome.won}",
            number(outcome.p_value, 2),
            number(outcome.probability_shift, 2),
        ]
        for run, result in found.items()
        for outcome in result.outcomes
        if outcome.reads == PREDICTION
    ]
    columns = ["run", "switches", "accuracy", "changed", "lost / won", "McNemar p", "probability shift"]
    strips = _switch_maps(source, found)
    return [
        Chart(
            figure=switch_figure(list(found.values()), runs=source.runs),
            caption="Accuracy, and the share of predictions that change, with the attention over patches, over "
            "channels or both switched off in the trained head.",
        ),
        *_idle(found),
        Table(
            columns=columns,
            rows=rows,
            caption="Answers are those that the run gives in use, from its heads together. Lost / won: right answers "
            "that a switch costs, and that it brings. McNemar p: how often chance splits these at least as unevenly; "
            "near 1, the switch shows no net gain or loss. Probability shift: mean change of the class probabilities.",
        ),
        Note(
            text="The head was trained with its attentions on, so a switch also shows features that the layers behind "
            "it never saw: answers that stay do not say that an attention does nothing, and answers that change do not "
            "say that it removes a shortcut."
        ),
        *strips[:_SHOWN],
        *([Fold(title="More pictures under the switches", blocks=strips[_SHOWN:])] if len(strips) > _SHOWN else []),
    ]


def _idle(found: dict[str, FrontDoorSwitches]) -> list[Note]:
    """Return a sentence for each run whose answers no switch changes, with how far its probabilities shift."""
    notes = []
    for run, result in found.items():
        read = [outcome for outcome in result.outcomes if outcome.reads == PREDICTION]
        if not any(outcome.flips.value for outcome in read):
            shift = max((outcome.probability_shift for outcome in read), default=0.0)
            notes.append(
                Note(
                    text=f"No switch changes any of the {len(result.keys)} answers of {run} (mean shift of probability "
                    f"{number(shift, 2)} at most)."
                )
            )
    return notes


def _switch_maps(source: Source, found: dict[str, FrontDoorSwitches]) -> list[Block]:
    """Return each shown picture's maps under every setting, by run, those whose prediction changes first."""
    shown = [
        (len(np.unique(maps.predicted[:, place])), run, key, maps)
        for run, result in found.items()
        if (maps := result.maps) is not None
        for place, key in enumerate(maps.keys)
        if key in source.thumbnails
    ]
    return [
        Chart(
            figure=switch_maps_figure(maps, key, source.thumbnails.image(key), class_names=source.class_names),
            heading=run,
            caption=f"{key}: where the front-door head of {run} finds what speaks for the class that it names with "
            "everything on (Grad-CAM), and, above each, the class it names under that setting.",
        )
        for _, run, key, maps in sorted(shown, key=lambda one: -one[0])
    ]


def properties(source: Source) -> list[Block]:
    """Return how well simple properties tell the classes, and the spread of the strongest one."""
    found: PropertyTable | None = source.joint("properties")
    if found is None:
        return []
    strongest = found.properties[0].name if found.properties else None
    blocks: list[Block] = [
        Chart(
            figure=strength_figure(found),
            caption="Cross-validated accuracy of naive Bayes from one property alone, on the training pictures: 0 is "
            "as good as naming the largest class, 1 gives the class away.",
        )
    ]
    if strongest is not None:
        blocks.append(
            Fold(
                title=f"How {strongest} is spread over the classes",
                blocks=[Chart(figure=property_figure(found, strongest), caption="One box for each class.")],
            )
        )
    return [
        *blocks,
        Note(text=found.caveat),
        *(Note(text=f"{one.analysis}: {one.reason}") for one in found.unavailable),
    ]


def concept_effects(source: Source) -> list[Block]:
    """Return each run's concepts by suspicion, where they occur, and the pictures of the first."""
    blocks: list[Block] = []
    for run, result in source.each("concept-effects").items():
        blocks += _effects_of(source, run, result)
    return blocks


def _effects_of(source: Source, run: str, result: ConceptEffects) -> list[Block]:
    galleries: list[Block] = [
        Chart(
            figure=concept_gallery(result, one.rank, source.thumbnails),
            heading=f"Concept {one.rank} of {run}, pulls to {result.class_names[one.pulled_class]}",
            caption=effect_caption(result, one),
        )
        for one in result.concepts[:_SHOWN]
    ]
    return [
        Chart(
            figure=suspicion_figure(result),
            heading=run,
            caption="A concept is suspicious if a patch of it, pasted on pictures of other classes, pulls the "
            "prediction to one class, the more so the more it also occurs elsewhere. It says where to look: a part of "
            "the object may pull as well.",
        ),
        *_score_of(run, result),
        *galleries,
        Fold(
            title=f"Where the concepts of {run} occur",
            blocks=[
                Chart(
                    figure=occurrence_figure(result),
                    caption=f"Share of each class's pictures with the concept. The concepts leave "
                    f"{percent(result.error, 0)} of the feature maps' size unexplained.",
                )
            ],
        ),
    ]


def _score_of(run: str, result: ConceptEffects) -> list[Block]:
    found = spurious_score(result)
    if found is None:
        return []
    classes = ", ".join(f"{name} {number(value)}" for name, value in found.classes)
    return [
        Note(
            text=f"Spurious score of {run}: {number(found.value)}, the mean over {len(found.classes)} of "
            f"{len(result.class_names)} classes of the lowest AUC that tells a class's own pictures from patches of "
            f"one concept alone ({classes}). 1 is best; at 0.5 the patches convince as much as the class. Every "
            "concept counts, parts of the object too."
        )
    ]


def telling_concept(result: ConceptEffects) -> ConceptEffect | None:
    """Return the most suspicious concept that is shown to pull, or None; the one to look at first."""
    return next((one for one in result.concepts if _pulls(one)), None)


def _pulls(one: ConceptEffect) -> bool:
    """Return whether a concept is shown to pull, by rank and, but for older results, by probability."""
    rises = one.shift is None or (one.shift.value >= RISES and one.shift.low > 0)
    return one.pull is not None and one.pull.low >= PULLS and rises


def effect_caption(result: ConceptEffects, one: ConceptEffect) -> str:
    """Return what one concept does, in words."""
    text = f"In {percent(one.present.value, 0)} of the pictures; "
    if one.pull is not None:
        text += f"pull {number(one.pull.value)} [{number(one.pull.low)}, {number(one.pull.high)}] (0.5 is none)"
        text += "; " if one.shift is None else f", the class's probability {moved(one.shift, 'rises', 'falls')}; "
    text += f"without it {percent(one.flips.value, 0)} of these predictions change."
    if isinstance(result.masks, MaskShares):
        outside, even = (percent(float(part[one.index]), 0) for part in (result.masks.outside, result.masks.even))
        text += f" By the masks, {outside} of its strength lies outside the object (even spread: {even})."
    return text


def slices(source: Source) -> list[Block]:
    """Return the slices of each run and the pictures of those with most excess errors."""
    blocks: list[Block] = []
    for run, result in source.each("slices").items():
        blocks += _slices_of(source, run, result)
    return blocks


def _slices_of(source: Source, run: str, result: SliceTable) -> list[Block]:
    worst = [place for place in np.arange(len(result.slices)) if result.slices[place].excess > 0][:_SHOWN]
    galleries: list[Block] = [
        Chart(
            figure=slice_gallery(result, int(place), source.thumbnails, class_names=source.class_names),
            heading=f"Slice {place + 1} of {run}",
            caption=f"Accuracy {percent_interval(result.slices[place].accuracy)}; "
            f"{number(result.slices[place].excess, 2)} errors more than its classes have on average.",
        )
        for place in worst
    ]
    chance = "" if result.p_value is None else f" Chance gives as bad a slice with p = {number(result.p_value, 2)}."
    return [
        Chart(
            figure=slice_figure(result),
            heading=run,
            caption=f"Pictures that look alike and share a label, with their accuracy; the band is all "
            f"pictures.{chance}",
        ),
        *([Fold(title=f"Pictures of the worst slices of {run}", blocks=galleries)] if galleries else []),
        Note(text=result.caveat),
    ]
