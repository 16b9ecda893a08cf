"""The same objects before other backgrounds: how often predictions change, and what the pictures look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from concept_tuning.diagnostics.counterfactuals import Counterfactuals, EditedPicture, EditOutcome, RunCounterfactuals
from concept_tuning.diagnostics.editing import BLURRED, EDITS, OTHER_CLASS, REMOVED, SAME_CLASS
from concept_tuning.diagnostics.results import Interval
from concept_tuning.figures.labels import escape, interval_text, number, run_labels, shorten
from concept_tuning.figures.rows import LINE, add_points, name_rows, rate_axis, spread, symbol_of
from concept_tuning.figures.style import finish, run_colours
from concept_tuning.figures.tiles import Grid, Tile, tile_figure

#: What the edits are called, in lines.
_NAMES: Mapping[str, str] = {
    OTHER_CLASS: "background of<br>another class",
    SAME_CLASS: "background of<br>the same class",
    BLURRED: "background<br>blurred",
    REMOVED: "object removed",
}
#: Width of the page in pixels from which on pictures grow no more.
_PAGE = 520


def flip_figure(result: Counterfactuals, *, runs: Sequence[str] | None = None) -> go.Figure:
    """Draw the share of predictions that change by each kind of edit, runs beside each other.

    The customdata of a point are the keys of the pictures whose prediction changes.

    Args:
        result: The runs on the edited pictures.
        runs: All runs of the page, for their colours.
    """
    kinds = [kind for kind in EDITS if any(one.kind == kind for run in result.runs for one in run.outcomes)]
    figure = go.Figure()
    colours, offsets = _colours(result, runs), spread(len(result.runs))
    labels = _labels(result, runs)
    for place, run in enumerate(result.runs):
        add_points(
            figure,
            [one.flips for one in run.outcomes],
            [kinds.index(one.kind) + offsets[place] for one in run.outcomes],
            name=shorten(labels[run.run], 24),
            hover=[_told(run, one) for one in run.outcomes],
            colour=colours[run.run],
            symbol=symbol_of(place),
            customdata=[flipped_keys(result, run, one) for one in run.outcomes],
        )
    finish(figure, size=130 + max(1, len(kinds)) * (32 + 10 * len(result.runs)), legend=len(result.runs) > 1)
    rate_axis(figure, f"share of predictions that change (0–1)<br>n = {len(result.keys)} pictures")
    name_rows(figure, [_NAMES[kind] for kind in kinds])
    figure.update_layout(margin={"l": 8}, legend={"tracegroupgap": 0})
    return figure


def gap_figure(result: Counterfactuals, *, runs: Sequence[str] | None = None) -> go.Figure:
    """Draw what the class of the background does once the paste itself is taken off, for each run.

    Both measures set backgrounds of another class against those of the same class: how much oftener predictions
    change, and how much accuracy falls. At 0 the class of the background does nothing.

    Args:
        result: The runs on the edited pictures.
        runs: All runs of the page, for their colours.
    """
    figure = go.Figure()
    colours, offsets = _colours(result, runs), spread(len(result.runs))
    labels = _labels(result, runs)
    measures: tuple[tuple[str, Callable[[RunCounterfactuals], Interval]], ...] = (
        ("more changed<br>predictions", lambda run: run.flip_gap),
        ("less accuracy", lambda run: run.background_gap),
    )
    for place, run in enumerate(result.runs):
        add_points(
            figure,
            [value(run) for _, value in measures],
            [row + offsets[place] for row in range(len(measures))],
            name=shorten(labels[run.run], 24),
            hover=[
                f"{escape(run.run)}<br>{name.replace('<br>', ' ')} before backgrounds of another class<br>than before "
                f"those of the same class: {interval_text(value(run))}"
                for name, value in measures
            ],
            colour=colours[run.run],
            symbol=symbol_of(place),
        )
    finish(figure, size=130 + len(measures) * (32 + 10 * len(result.runs)), legend=len(result.runs) > 1)
    figure.add_vline(x=0, line={"color": LINE, "width": 1})
    figure.update_xaxes(
        title_text=f"background of another class less same class<br>(−1 to 1), n = {len(result.keys)} pictures",
        title_font_size=12,
        zeroline=False,
        range=_around_zero([value(run) for run in result.runs for _, value in measures]),
    )
    name_rows(figure, [name for name, _ in measures])
    figure.update_layout(margin={"l": 8}, legend={"tracegroupgap": 0})
    return figure


def strip_figure(result: Counterfactuals, key: str, *, runs: Sequence[str] | None = None) -> go.Figure:
    """Draw an example as it is and in all its edits, with what each run predicts above it.

    A tick says that the prediction is the object's class; a prediction in bold is not the one for the picture as
    it is. Where the object is removed no answer is right, and none has a tick. With several runs, a dot in a run's
    colour stands before what it predicts.

    Args:
        result: The runs on the edited pictures.
        key: Name of one of ``result.examples``.
        runs: All runs of the page, for their colours.

    Raises:
        KeyError: There is no such example.
    """
    example = {found.key: found for found in result.examples}[key]
    colours = _colours(result, runs)
    views = [("picture", example.original), *zip(EDITS, example.edits, strict=True)]
    grid = Grid(count=len(views), lines=2 + len(result.runs))
    tiles = []
    for place, (kind, image) in enumerate(views):
        left, top = grid.corner(place)
        heading = f"<b>{_NAMES.get(kind, kind)}</b>"
        said = [_prediction(result, run, example, kind) for run in result.runs]
        dots = [f"<span style='color:{colours[run.run]}'>●</span> " * (len(result.runs) > 1) for run in result.runs]
        tiles.append(
            Tile(
                key=key,
                image=image,
                left=left,
                top=top,
                title="<br>".join([heading, *(dot + text for dot, text in zip(dots, said, strict=True))]),
                hover=_view_hover(result, example, kind),
            )
        )
    figure = tile_figure(tiles, width=grid.width, height=grid.height, page=_PAGE)
    if len(result.runs) > 1:
        _add_legend(figure, result, colours, _labels(result, runs))
    return figure


def _colours(result: Counterfactuals, runs: Sequence[str] | None) -> dict[str, str]:
    drawn = [run.run for run in result.runs]
    return run_colours(drawn) | run_colours(list(runs or drawn))


def _labels(result: Counterfactuals, runs: Sequence[str] | None) -> dict[str, str]:
    return run_labels([*(runs or ()), *(run.run for run in result.runs)])


def _around_zero(intervals: Sequence[Interval]) -> tuple[float, float]:
    """Return the range of an axis that holds all intervals and zero, with room at both ends."""
    low = min([0.0, *(interval.low for interval in intervals)])
    high = max([0.0, *(interval.high for interval in intervals)])
    room = max(0.06 * (high - low), 0.02)
    return low - room, high + room


def flipped_keys(result: Counterfactuals, run: RunCounterfactuals, one: EditOutcome) -> list[str]:
    """Return the pictures whose prediction an edit changes."""
    return [
        key for key, before, after in zip(result.keys, run.predicted, one.predicted, strict=True) if before != after
    ]


def edit_name(kind: str) -> str:
    """Return what an edit is called, as the rows of :func:`flip_figure` are."""
    return _NAMES[kind].replace("<br>", " ")


def _told(run: RunCounterfactuals, one: EditOutcome) -> str:
    lines = [
        f"{escape(run.run)}: {edit_name(one.kind)}",
        f"predictions that change {interval_text(one.flips)}",
        f"the object's class is {'still ' * (one.kind == REMOVED)}said {interval_text(one.accuracy)}, "
        f"as they are {number(run.accuracy.value)}",
        f"mean fall of the probability {number(one.probability_drop)}",
    ]
    if one.followed is not None:
        lines.append(f"predicted as the background's class {interval_text(one.followed)}")
    return "<br>".join(lines)


def _predicted(run: RunCounterfactuals, example: EditedPicture, kind: str) -> int | None:
    found = {one.kind: one.predicted for one in run.outcomes} | {"picture": run.predicted}
    return int(found[kind][example.place]) if kind in found else None


def _prediction(result: Counterfactuals, run: RunCounterfactuals, example: EditedPicture, kind: str) -> str:
    now = _predicted(run, example, kind)
    if now is None:
        return "–"
    same = now == _predicted(run, example, "picture")
    name = shorten(result.class_names[now], 20)
    if kind == REMOVED:
        return f"still says {name}" if same else f"now says <b>{name}</b>"
    text = f"{name} {'✓' if now == example.label else '✗'}"
    return text if same else f"<b>{text}</b>"


def _view_hover(result: Counterfactuals, example: EditedPicture, kind: str) -> str:
    lines = [escape(example.key), f"class {escape(result.class_names[example.label])}"]
    if kind in _NAMES:
        lines.append(_NAMES[kind].replace("<br>", " "))
    donors = {OTHER_CLASS: 0, SAME_CLASS: 1}
    if kind in donors:
        label = int(result.donor_classes[example.place, donors[kind]])
        lines.append(f"from {escape(example.donors[donors[kind]])}, {escape(result.class_names[label])}")
    for run in result.runs:
        now = _predicted(run, example, kind)
        if now is not None:
            lines.append(f"{escape(run.run)}: {escape(result.class_names[now])}")
    return "<br>".join(lines)


def _add_legend(
    figure: go.Figure, result: Counterfactuals, colours: Mapping[str, str], labels: Mapping[str, str]
) -> None:
    for run in result.runs:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"color": colours[run.run], "size": 10},
            name=shorten(labels[run.run], 24),
            showlegend=True,
        )
    figure.update_layout(showlegend=True, height=figure.layout.height + 30 + 10 * len(result.runs))
