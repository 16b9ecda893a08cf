"""The page itself: chapters, figures and the plotting library in one HTML file that opens offline."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from concept_tuning import __version__
from concept_tuning.diagnostics.diagnose import Diagnosis
from concept_tuning.engine.runs import write_atomically
from concept_tuning.errors import RunError
from concept_tuning.report.blocks import Block, Chart, Fold, Source, percent_interval, units_text
from concept_tuning.report.chapters import chapters
from concept_tuning.report.findings import findings

#: Name of the page in the folder of a diagnosis.
PAGE = "report.html"


def render_report(diagnosis: Diagnosis) -> str:
    """Return the report as HTML that needs nothing else: no network, no other file.

    Names from runs and data are escaped; figures are drawn as they come into view.
    """
    source = Source(diagnosis)
    parts = chapters(source)
    charts = [chart for chapter in parts for chart in _charts(chapter.blocks)]
    places = {id(chart): place for place, chart in enumerate(charts)}
    predictions = source.each("predictions")
    page = Environment(
        loader=PackageLoader("concept_tuning.report", "."), autoescape=True, undefined=StrictUndefined
    ).get_template("page.html.j2")
    return page.render(
        title=f"What {_listed(source.runs)} look at" if len(source.runs) > 1 else f"What {source.runs[0]} looks at",
        overview=diagnosis.overview,
        units=units_text(diagnosis.overview),
        chapters=parts,
        findings=findings(source),
        accuracy=lambda run: percent_interval(predictions[run].accuracy) if run in predictions else "not looked at",
        has_charts=lambda chapter: any(True for _ in _charts(chapter.blocks)),
        place=lambda chart: places[id(chart)],
        command=_command(diagnosis),
        version=__version__,
        plotly=get_plotlyjs(),
        figures=_json(charts),
    )


def write_report(diagnosis: Diagnosis, folder: Path) -> Path:
    """Write the report into a folder and return the file; raises :class:`RunError` if it cannot be written."""
    path = folder / PAGE
    try:
        write_atomically(path, render_report(diagnosis))
    except OSError as error:
        raise RunError(f"The report {path} cannot be written ({error.strerror}).") from error
    return path


def _charts(blocks: Iterable[Block]) -> Iterable[Chart]:
    for block in blocks:
        if isinstance(block, Chart):
            yield block
        elif isinstance(block, Fold):
            yield from _charts(block.blocks)


def _json(charts: Iterable[Chart]) -> str:
    """Return the figures as a JSON list in which nothing can end a script element."""
    text = ",".join(chart.figure.to_json() for chart in charts)
    return f"[{text}]".replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _command(diagnosis: Diagnosis) -> str:
    overview = diagnosis.overview
    runs = " ".join(shlex.quote(card.name) for card in overview.runs)
    only = f" --only {' '.join(overview.only)}" if overview.only else ""
    folder = " --source-folder FOLDER" if overview.source_folder else ""
    return (
        f"concept-tuning diagnose {runs} --split {overview.split} --images {overview.limit or 0} --seed "
        f"{overview.seed}{only}"
        f"{folder}, with the paths of these runs."
    )


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
