"""Accuracy and changed predictions with the attentions of the front-door head switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from concept_tuning.diagnostics.switches import PREDICTION, FrontDoorSwitches, SwitchMaps, SwitchOutcome
from concept_tuning.figures.labels import escape, interval_text, number, run_labels, shorten, wrap
from concept_tuning.figures.rows import add_points, name_rows, rate_axis, spread, symbol_of
from concept_tuning.figures.style import finish, overlay, run_colours
from concept_tuning.figures.tiles import Grid, Tile, tile_figure

#: What the settings are called wherever people read.
SWITCH_NAMES: Mapping[str, str] = {
    "everything on": "everything on",
    "position off": "patch attention off",
    "channel off": "channel attention off",
    "both off": "both off",
}


def switch_figure(
    results: Sequence[FrontDoorSwitches], *, reads: str = PREDICTION, runs: Sequence[str] | None = None
) -> go.Figure:
    """Draw accuracy, and the share of predictions that change, under each setting of the switches.

    Args:
        results: One or more runs with a front-door head.
        reads: ``prediction``, the runs' fixed rule, or ``front_door``, that head alone.
        runs: All runs of the page, for their colours.
    """
    drawn = [result.run for result in results]
    colours = run_colours(drawn) | run_colours(list(runs or drawn))
    outcomes = {result.run: {one.name: one for one in result.outcomes if one.reads == reads} for result in results}
    settings = [name for name in SWITCH_NAMES if any(name in found for found in outcomes.values())]
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.08)
    offsets, labels = spread(len(results)), run_labels([*(runs or ()), *drawn])
    for place, result in enumerate(results):
        found = outcomes[result.run]
        rows = [(row, found[name]) for row, name in enumerate(settings) if name in found]
        for column in (1, 2):
            # Flips against itself say nothing, so everything on has none.
            shown = [(row, one) for row, one in rows if column == 1 or not (one.use_position and one.use_channel)]
            add_points(
                figure,
                [one.accuracy if column == 1 else one.flips for _, one in shown],
                [row + offsets[place] for row, _ in shown],
                name=shorten(labels[result.run], 24),
                hover=[_told(result, one) for _, one in shown],
                colour=colours[result.run],
                symbol=symbol_of(place),
                panel=(1, column),
                legend=column == 1,
            )
    finish(figure, size=140 + max(1, len(settings)) * (32 + 10 * len(results)), legend=len(results) > 1)
    counts = " / ".join(str(n) for n in sorted({len(result.keys) for result in results}))
    rate_axis(figure, f"accuracy (0–1)<br>n = {counts}", panel=(1, 1))
    rate_axis(figure, f"changed predictions<br>(0–1), n = {counts}", panel=(1, 2))
    figure.update_xaxes(nticks=4)
    for column in (1, 2):
        name_rows(figure, [wrap(SWITCH_NAMES[name], 18) for name in settings], panel=(1, column), shown=column == 1)
    figure.update_layout(margin={"l": 8, "t": 36 if len(results) > 1 else 12}, legend={"tracegroupgap": 0})
    return figure


def switch_maps_figure(maps: SwitchMaps, key: str, image: np.ndarray, *, class_names: Sequence[str]) -> go.Figure:
    """Draw a picture and where the front-door head looks in it under each setting, with what it predicts there.

    A map is coloured from its own least to its own greatest value, which stands in the hover text.

    Args:
        maps: The maps of a run.
        key: Name of the picture; one of ``maps.keys``.
        image: (s, s, 3) uint8, the picture, at any size.
        class_names: The C classes.

    Raises:
        ValueError: There are no maps of that picture.
    """
    if key not in maps.keys:
        raise ValueError(f"there are no maps of {key!r}; there are of {', '.join(maps.keys)}")
    place = maps.keys.index(key)
    explained = class_names[int(maps.explained[place])]
    grid = Grid(count=1 + len(maps.names), lines=3)
    tiles = [_tile(grid, 0, key, image, "picture", escape(key))]
    for row, name in enumerate(maps.names):
        values = maps.values[row, place]
        predicted = class_names[int(maps.predicted[row, place])]
        blank = not (np.isfinite(values).all() and (values > 0).any())
        told = "the map is blank: it points at nothing" if blank else f"logits {number(float(values.max()))} at most"
        title = f"{wrap(SWITCH_NAMES.get(name, name), 18)}<br>{shorten(predicted, 22)}"
        lines = [escape(SWITCH_NAMES.get(name, name)), f"predicts {escape(predicted)}"]
        lines += [f"what speaks for {escape(explained)}: {told}", escape(key)]
        shown = image if blank else overlay(image, values)
        tiles.append(_tile(grid, len(tiles), key, shown, title, "<br>".join(lines)))
    return tile_figure(tiles, width=grid.width, height=grid.height)


def _tile(grid: Grid, place: int, key: str, image: np.ndarray, title: str, hover: str) -> Tile:
    left, top = grid.corner(place)
    return Tile(key=key, image=image, left=left, top=top, title=title, hover=hover)


def _told(result: FrontDoorSwitches, one: SwitchOutcome) -> str:
    lines = [
        f"{escape(result.run)}: {escape(SWITCH_NAMES.get(one.name, one.name))}",
        f"accuracy {interval_text(one.accuracy)}",
    ]
    if not (one.use_position and one.use_channel):
        lines += [
            f"changed predictions {interval_text(one.flips)}",
            f"{one.lost} right ones lost, {one.won} won, p = {number(one.p_value, 2)} (McNemar)",
            f"mean shift of the probabilities {number(one.probability_shift)}",
        ]
    scales = (("patch", result.position_gamma), ("channel", result.channel_gamma))
    lines += [f"learnt scale of {name} attention {number(gamma)}" for name, gamma in scales if gamma is not None]
    return "<br>".join(lines)
