"""The chapter on rare features: which there are, how they look, and what the runs do with them."""

from __future__ import annotations

import numpy as np

from concept_tuning.diagnostics.rare_results import RareFeatures, RareFeaturesReport, Rarity, rare_by_information
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.figures.labels import listed, number, percent
from concept_tuning.figures.rare_features import classes_with, gallery_figure, rarity_figure, sweep_figure
from concept_tuning.figures.rare_probes import has_probes, probe_figure
from concept_tuning.figures.rare_use import change_figure, coverage_figure, rarest_figure
from concept_tuning.report.blocks import Block, Chart, Fold, Note, Source, Table

#: Concepts shown with their pictures, and listed in the table.
_PICTURED, _LISTED = 4, 15
#: Above the table of InfoNCE.
BOUND_TITLE = "A lower bound on the information (InfoNCE)"
#: Said in place of the chart of what single concepts tell before and after.
NO_PROBES = (
    "No concept tells the classes of these pictures apart beyond chance, so there is nothing to follow from before "
    "fine-tuning to after it. More pictures may show some."
)


def rare_features(source: Source) -> list[Block]:
    """Return the chart of each view, with the first view's in full and the others folded away."""
    report: RareFeaturesReport | None = source.joint("rare-features")
    if report is None:
        return []
    blocks: list[Block] = [Note(text=report.note)] if report.note else []
    for place, result in enumerate(report.analyses):
        parts = view_blocks(source, result)
        blocks += (
            parts if place == 0 else [Fold(title=f"The same for {result.view} of {result.backbone}", blocks=parts)]
        )
    return [*blocks, *(Note(text=f"{one.analysis}: {one.reason}") for one in report.missing)]


def view_blocks(source: Source, result: RareFeatures) -> list[Block]:
    """Return the blocks of one view, its chart first."""
    error = result.reconstruction_error
    rebuilt = "" if error is None else f" They leave {percent(error, 0)} of the patches' size unexplained."
    blocks: list[Block] = [
        Chart(
            figure=rarity_figure(result),
            heading=f"{result.view.capitalize()} of {result.backbone}",
            caption=f"One point for each of {len(result.concepts)} concepts: how often pre-training saw it at its "
            "telling level, against what its presence says of the class beyond the band of shuffled labels. Rare ones "
            f"are in the upper left.{rebuilt}",
        )
    ]
    if isinstance(result.source, Unavailable):
        blocks.append(Note(text=result.source.reason))
    else:
        blocks.append(Note(text=result.source.note))
    if isinstance(result.rarity, Rarity):
        blocks += _rarity(source, result, result.rarity)
    return [*blocks, *_probes(source, result), *_bounds(result)]


def _rarity(source: Source, result: RareFeatures, rarity: Rarity) -> list[Block]:
    order = rare_by_information(result, rarity)
    blocks: list[Block] = [
        Chart(
            figure=sweep_figure(rarity),
            caption="How many concepts are rare if more or fewer count as seldom seen, and how many useless ones "
            "would give on average at most.",
        )
    ]
    if len(order):
        blocks += [
            Chart(
                figure=gallery_figure(result, source.thumbnails, concepts=[int(k) for k in order[:_PICTURED]]),
                caption="Strongest patches of the most informative rare concepts on the pre-trained network.",
            ),
            _table(result, order[:_LISTED]),
        ]
    runs = source.runs
    if rarity.threshold.rare and any(use.coverage is not None for use in rarity.uses):
        blocks.append(
            Chart(
                figure=coverage_figure(rarity.uses, runs=runs),
                caption="Share of pictures with a rare concept among those that count most for the answer, and the "
                "same for concepts drawn at random.",
            )
        )
    if any(use.rarest_tenth is not None for use in rarity.uses):
        blocks.append(
            Chart(
                figure=rarest_figure(rarity.uses, runs=runs),
                caption="Accuracy on the tenth of the pictures with the rarest concepts, and on the others.",
            )
        )
    if isinstance(rarity.changes, Unavailable):
        return [*blocks, Note(text=rarity.changes.reason)]
    return [
        *blocks,
        Chart(
            figure=change_figure(rarity.changes),
            caption="Did fine-tuning raise what rare concepts say of the class? Concepts are chosen on some of the "
            "pictures and measured on others; 95 % bootstrap intervals.",
        ),
    ]


def _table(result: RareFeatures, places: np.ndarray) -> Table:
    frequency = None if isinstance(result.source, Unavailable) else result.source.frequency
    rows = []
    for place in places:
        label = int(result.marked_class[place])
        rows.append(
            [
                result.concepts[place],
                listed(classes_with(result, int(place))),
                percent(float(result.class_frequency[label, place]), 0),
                "unknown" if frequency is None else number(float(frequency[place]), 2),
                number(float(result.target_frequency[place]), 2),
                number(float(result.presence.information[place])),
                number(float(result.presence.band[place])),
                number(float(result.knn[place])),
                *(number(float(network.auc[place]), 2) for network in result.networks),
            ]
        )
    columns = ["concept", "marks", "in its pictures", "source frequency", "target frequency", "information (nats)"]
    columns += ["band", "k-nearest-neighbour", *(f"AUC {network.name}" for network in result.networks)]
    return Table(
        columns=columns,
        rows=rows,
        caption="Frequencies are shares of patches above the level that tells classes apart best. Information is "
        "Miller-Madow corrected and to be read against the band alone, since the level was chosen by it.",
    )


def _probes(source: Source, result: RareFeatures) -> list[Block]:
    if not has_probes(result):
        return [Note(text=NO_PROBES)]
    return [
        Fold(
            title="How well single concepts tell classes, before and after",
            blocks=[
                Chart(
                    figure=probe_figure(result, runs=source.runs),
                    caption="AUC of one concept alone for the class it marks, chosen on one half of the pictures and "
                    "measured on the other. 0.5 is chance.",
                )
            ],
        )
    ]


def _bounds(result: RareFeatures) -> list[Block]:
    rows = [
        [network.name, str(bound.batch), number(bound.value), number(bound.cap)]
        for network in result.networks
        for bound in network.contrast
    ]
    if not rows:
        return []
    table = Table(
        columns=["run", "pictures set against each other", "bound (nats)", "cannot pass"],
        rows=rows,
        caption="InfoNCE is a lower bound on the information between picture and label, and cannot pass the logarithm "
        "of the number of pictures: never the information itself.",
    )
    return [Fold(title=BOUND_TITLE, blocks=[table])]
