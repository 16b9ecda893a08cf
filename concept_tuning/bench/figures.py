"""The figures of a bench in one HTML file that opens offline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from concept_tuning import __version__
from concept_tuning.bench.blocks import Table, read_blocks
from concept_tuning.bench.markdown import budget
from concept_tuning.bench.rank_figure import rank_figure
from concept_tuning.bench.ranks import rankings, remarks
from concept_tuning.bench.setting_figures import curve_figure, dot_figure
from concept_tuning.bench.shortcut_map import ShortcutMap, map_figure, shortcut_maps
from concept_tuning.bench.spec import BenchSpec
from concept_tuning.bench.tables import cell_rows
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.engine.runs import write_atomically
from concept_tuning.errors import RunError
from concept_tuning.figures.labels import listed

#: Name of the page in a bench's folder.
PAGE = "figures.html"
_RANKS = (
    "In each block (data, backbone and sample rate) methods are ranked by mean test accuracy, 1 the best; further left "
    "is better, and a bar joins methods that the test cannot tell apart (Demšar, JMLR 2006)."
)
_MAP = (
    "Accuracy of the worst group on planted birds, darker the better: upwards the habitat tells more about the species "
    "in training, to the right there are more pictures; below the mean stands one standard deviation over seeds."
)
_LOW = "The least of several shares lies below the truth on average, the more so the fewer pictures a group has."


@dataclass(frozen=True, kw_only=True)
class Part:
    """A heading with its figure.

    Attributes:
        name: Of its anchor.
        title: Its heading.
        lead: How to read the figure.
        figure: The figure; None if there is none.
        notes: What it rests on, or why there is none, in sentences.
    """

    name: str
    title: str
    lead: str
    figure: go.Figure | None
    notes: tuple[str, ...] = ()


def write_figures(spec: BenchSpec, out: Path) -> list[Path]:
    """Write :data:`PAGE` into a bench's folder from what is finished there; return what was written.

    Raises:
        RunError: if it cannot be written.
    """
    path = out / PAGE
    try:
        write_atomically(path, render_figures(spec, cell_rows(spec, out)))
    except OSError as error:
        raise RunError(f"The figures {path} cannot be written ({error.strerror}).") from error
    return [path]


def render_figures(spec: BenchSpec, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the page as HTML that needs nothing else: no network, no other file.

    Args:
        spec: The bench.
        rows: Of its final runs, as :func:`concept_tuning.bench.tables.cell_rows` returns them.
    """
    table = read_blocks(spec, rows)
    runs = [found for block in table.values() for found in block.values()]
    parts = figure_parts(spec, table)
    page = Environment(
        loader=PackageLoader("concept_tuning.bench", "."), autoescape=True, undefined=StrictUndefined
    ).get_template("figures.html.j2")
    return page.render(
        name=spec.name,
        parts=parts,
        finished=sum(len(found.rows) for found in runs),
        asked=sum(found.asked for found in runs),
        data=[f"{one.name} ({one.origin})" for one in spec.data],
        seeds=spec.seeds,
        budget=budget(spec).replace("`", ""),
        version=__version__,
        plotly=get_plotlyjs(),
        figures={part.name: json.loads(part.figure.to_json()) for part in parts if part.figure is not None},
    )


def figure_parts(spec: BenchSpec, table: Table) -> list[Part]:
    """Return the figures of a bench, or why they are not there, in the order of the page."""
    dots, worst = dot_figure(spec, table, "accuracy"), dot_figure(spec, table, "worst_group")
    curves = curve_figure(spec, table)
    dotted = f"The dotted line is the mean of {spec.methods[0]}, and each panel has a range of its own."
    return [
        Part(
            name="accuracy",
            title="Test accuracy by method",
            lead=f"Each small dot is one seed, each diamond the mean of a method. {dotted}",
            figure=dots,
            notes=() if dots else ("Not made: no final run is finished.",),
        ),
        Part(
            name="worst-group",
            title="Accuracy of the worst group by method",
            lead=f"The least accuracy over the cells of class and group, for each run by itself. {dotted}",
            figure=worst,
            notes=(_LOW, "Compare methods on the same data, not data with data.")
            if worst
            else ("Not made: no finished run was tested on data with groups.",),
        ),
        *_rank_parts(spec, table),
        Part(
            name="learning-curves",
            title="Accuracy by share of the training pictures",
            lead="Lines join the means of a method at several sample rates; bars are one standard deviation over seeds "
            "to either side, where two or more are finished, and points are moved aside a little so that their bars do "
            "not hide each other.",
            figure=curves,
            notes=() if curves else ("Not made: no method is finished at two sample rates of the same data.",),
        ),
        *_map_parts(spec, table),
    ]


def _rank_parts(spec: BenchSpec, table: Table) -> list[Part]:
    found = rankings(spec, table)
    if isinstance(found, Unavailable):
        return [
            Part(name="ranks", title="Average ranks", lead=_RANKS, figure=None, notes=(f"Not made: {found.reason}",))
        ]
    titles = ("Average ranks", "Average ranks of fewer methods, over more blocks")
    several = ("Each diagram is a test of its own, not corrected for there being two.",) if len(found) > 1 else ()
    return [
        Part(name=name, title=title, lead=_RANKS, figure=rank_figure(one), notes=(*remarks(one), *several))
        for name, title, one in zip(("ranks", "ranks-more-blocks"), titles, found, strict=False)
    ]


def _map_parts(spec: BenchSpec, table: Table) -> list[Part]:
    maps = shortcut_maps(spec, table)
    title = "Shortcut map"
    if not maps:
        reason = (
            "Not made: it needs planted birds at two or more values of rho or of the number of training pictures, "
            "with all else the same, and a finished run."
        )
        return [Part(name="shortcut-map", title=title, lead=_MAP, figure=None, notes=(reason,))]
    return [
        Part(
            name="shortcut-map" if place == 0 else f"shortcut-map-{place + 1}",
            title=title if len(maps) == 1 else f"{title}, {found.backbone}",
            lead=_MAP,
            figure=map_figure(found, table),
            notes=(
                f"Backbone: {found.backbone}. Data: {listed([block.data for block in found.blocks.values()])}.",
                *_left_out(found),
                _LOW,
            ),
        )
        for place, found in enumerate(maps)
    ]


def _left_out(found: ShortcutMap) -> tuple[str, ...]:
    """Say which data the map does not show, since others of the same rho and number of pictures come first."""
    if not found.left_out:
        return ()
    names = listed([block.data for block in found.left_out])
    return (f"Not shown, because a cell shows the first data of its rho and number of pictures alone: {names}.",)
