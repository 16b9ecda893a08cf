"""Chapters that compare: predictions, groups, verdict, ledger, layouts."""

from __future__ import annotations

from collections.abc import Callable

from concept_tuning.diagnostics.groups import GroupTable
from concept_tuning.diagnostics.ledger import Ledger, MethodLedger
from concept_tuning.diagnostics.predictions import Predictions
from concept_tuning.diagnostics.results import Interval
from concept_tuning.diagnostics.verdict import Comparison, Verdict
from concept_tuning.figures.confusion import confusion_figure
from concept_tuning.figures.embedding import Colour, embedding_figure, named_networks
from concept_tuning.figures.galleries import Entry, gallery
from concept_tuning.figures.groups import cell_figure, group_figure
from concept_tuning.figures.labels import escape, number, percent, shorten
from concept_tuning.figures.ledger import Kind, ledger_gallery, shares_figure, transfer_figure
from concept_tuning.figures.verdict import verdict_figure
from concept_tuning.report.blocks import Block, Chart, Fold, Note, Source, Table, percent_interval, points

#: Pictures of a gallery.
_SHOWN = 12
#: Most classes listed in a table.
_CLASSES = 40
_COLOURS = {
    "class": "Coloured by class",
    "group": "Coloured by group",
    "right": "Coloured by whether the run is right",
}


def predictions(source: Source) -> list[Block]:
    """Return the confusion matrices, the accuracy of each class, and the surest mistakes of each run."""
    found: dict[str, Predictions] = source.each("predictions")
    if not found:
        return []
    blocks: list[Block] = [
        Chart(
            figure=confusion_figure(list(found.values())),
            caption="Rows are the true classes, columns the predictions; colours tell the share of the class. "
            "Everything off the diagonal is a mistake.",
        ),
        _class_table(found),
    ]
    for run, result in found.items():
        entries = _mistakes(source, result)
        if entries:
            chart = Chart(
                figure=gallery(entries, source.thumbnails, most=_SHOWN),
                caption="Wrong predictions of which the run is surest: true class first, then what it says.",
            )
            blocks.append(Fold(title=f"The surest mistakes of {run}", blocks=[chart]))
    return blocks


def _class_table(found: dict[str, Predictions]) -> Table:
    rates = {run: {rate.name: rate.accuracy for rate in result.classes} for run, result in found.items()}
    names = next(iter(found.values())).class_names
    order = sorted(names, key=lambda name: min(by.get(name, _UNKNOWN).value for by in rates.values()))
    rows = [
        [name, *(percent_interval(by[name]) if name in by else "no pictures" for by in rates.values())]
        for name in order[:_CLASSES]
    ]
    left = f"; the {_CLASSES} hardest of {len(names)}" if len(names) > _CLASSES else ""
    return Table(columns=["class", *found], rows=rows, caption=f"Accuracy of each class [95 % interval]{left}.")


_UNKNOWN = Interval(value=2.0, low=0.0, high=1.0, n=0)


def _mistakes(source: Source, result: Predictions) -> list[Entry]:
    wrong = [place for place in (~result.right).nonzero()[0] if result.keys[place] in source.thumbnails]
    wrong.sort(key=lambda place: -float(result.probabilities[place].max()))
    entries = []
    for place in wrong:
        label, said = (result.class_names[kind[place]] for kind in (result.labels, result.predicted))
        sure = percent(float(result.probabilities[place].max()), 0)
        entries.append(
            Entry(
                key=result.keys[place],
                title=f"{shorten(label, 14)}<br>said {shorten(said, 12)}, {sure}",
                hover=f"{escape(result.keys[place])}<br>{escape(label)}, predicted as {escape(said)} ({sure})",
            )
        )
    return entries


def groups(source: Source) -> list[Block]:
    """Return the matrix of classes and groups, its cells from worst to best, and how to read the worst one."""
    found: dict[str, GroupTable] = source.each("groups")
    if not found:
        return []
    rows = [
        [
            run,
            percent_interval(table.average),
            f"{table.worst.class_name} | {table.worst.group}",
            percent_interval(table.worst.accuracy),
            f"{100 * table.gap:.1f} points",
            "not known"
            if table.worst_if_even is None or table.p_even is None
            else f"{percent(table.worst_if_even)} (p = {number(table.p_even, 2)})",
        ]
        for run, table in found.items()
    ]
    columns = ["run", "average", "worst cell", "its accuracy", "gap", "worst by chance alone"]
    return [
        Table(
            columns=columns,
            rows=rows,
            caption="The last column is the smallest accuracy to expect if every cell were equally hard, and how often "
            "chance gives one as small as that found.",
        ),
        Chart(
            figure=group_figure(found), caption="Accuracy of each class within each group; the worst cell has a frame."
        ),
        Chart(
            figure=cell_figure(found, runs=source.runs),
            caption="The same cells, lowest accuracy first, with 95 % intervals.",
        ),
        *(Note(text=f"{run}: {table.caveat}") for run, table in found.items()),
    ]


def verdict(source: Source) -> list[Block]:
    """Return the sentence, the figure and the table of every two methods."""
    found = source.joint("verdict")
    if found is None:
        return []
    verdicts = [one for one in found.verdicts if isinstance(one, Verdict)]
    notes = [Note(text=one.reason) for one in found.verdicts if not isinstance(one, Verdict)]
    if not verdicts:
        return list(notes)
    rows = []
    for one in verdicts:
        rows += [
            [" − ".join(one.names), part.measure, percent(part.first), percent(part.second), points(part.difference)]
            for part in (one.accuracy, one.worst_group)
            if isinstance(part, Comparison)
        ]
    return [
        Chart(
            figure=verdict_figure(verdicts),
            caption="Differences with 95 % bootstrap intervals over pictures and, where there are several, seeds. A "
            "method is called better or "
            "worse only where the interval holds the difference and leaves zero.",
        ),
        Table(columns=["methods", "measure", "first", "second", "difference"], rows=rows),
        *(Note(text=one.caveat) for one in verdicts if one.caveat),
        *notes,
    ]


def ledger(source: Source) -> list[Block]:
    """Return what each method loses and rescues against training from scratch, and the pictures."""
    found: Ledger | None = source.joint("ledger")
    if found is None:
        return []
    blocks: list[Block] = [
        Chart(
            figure=transfer_figure(found),
            caption="Left: pictures that training from scratch has right and the method has wrong. Right: the other "
            "way round. Dotted lines: what two seeds of training from scratch lose and rescue of each other.",
        ),
        Chart(figure=shares_figure(found), caption="Where all the pictures go, as means over pairs of runs."),
        _ledger_table(found),
    ]
    kinds: tuple[Kind, ...] = ("lost", "rescued")
    for one in found.methods:
        blocks += [fold for kind in kinds if (fold := _ledger_fold(source, found, one, kind)) is not None]
    return blocks


def _ledger_table(found: Ledger) -> Table:
    test = "exact McNemar" if found.units is None else "p, units flipped,"
    rows = []
    for one in found.methods:
        beyond = points(one.beyond_churn) if isinstance(one.beyond_churn, Interval) else "needs two scratch runs"
        pairs = "; ".join(f"{pair.tuned} / {pair.scratch}: p = {number(pair.p_value, 2)}" for pair in one.pairs)
        rows.append(
            [one.method, percent_interval(one.lost), percent_interval(one.rescued), points(one.net), beyond, pairs]
        )
    return Table(
        columns=["method", "lost", "rescued", "net", "lost beyond churn", f"{test} of each pair"],
        rows=rows,
    )


def _ledger_fold(source: Source, found: Ledger, one: MethodLedger, kind: Kind) -> Fold | None:
    counts = one.lost_counts if kind == "lost" else one.rescued_counts
    if not counts.any():
        return None
    figure = ledger_gallery(
        found, source.thumbnails, one.method, kind=kind, class_names=source.class_names, most=_SHOWN
    )
    text = "right from scratch, wrong here" if kind == "lost" else "wrong from scratch, right here"
    return Fold(title=f"Pictures {kind} by {one.method}", blocks=[Chart(figure=figure, caption=f"Pictures {text}.")])


def layout(analysis: str) -> Callable[[Source], list[Block]]:
    """Return a maker of the layouts of an analysis, coloured by class, by group and by error."""

    def blocks(source: Source) -> list[Block]:
        found = source.joint(analysis)
        if found is None:
            return []
        shown = f"{len(found.labels)} of {found.total}" if len(found.labels) < found.total else f"all {found.total}"
        what = "concept patches" if found.kind == "concepts" else "pictures"
        by_group: list[Colour] = [] if found.groups is None else ["group"]
        # Patches are many, and each colouring holds them all once more.
        colours: list[Colour] = ["class"] if found.kind == "concepts" else ["class", *by_group, "right"]
        charts: list[Block] = [
            Chart(
                figure=embedding_figure(named_networks(found), colour=colour, runs=source.runs),
                heading=_COLOURS[colour],
                caption=f"UMAP of {shown} {what}. Near points look alike to the network; far distances and the axes "
                "mean nothing.",
            )
            for colour in colours
        ]
        missing = [Note(text=f"{one.analysis}: {one.reason}") for one in found.missing]
        others = [Fold(title="Coloured otherwise", blocks=charts[1:])] if charts[1:] else []
        return [charts[0], *others, *missing]

    return blocks
