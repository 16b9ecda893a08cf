"""Predict, then reveal: the learner marks where they would look before the maps appear, and gets a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.blocks import show_figure
from app.clicks import clicked
from app.errors import shown_errors
from app.markdown import plain
from app.views import attention_gallery
from app.views.attention_looks import say
from app.views.attention_picture import ChosenPicture

if TYPE_CHECKING:
    from concept_tuning.diagnostics.guess import GuessScore

_ON, _DONE, _CHART = "attention-guess", "attention-guessed", "attention-guess-chart"
#: Rows and columns to mark, how many cells at most, and the kind of map that is scored.
_GRID, _MOST, _KIND = (6, 6), 3, "grad-cam"


def offer() -> bool:
    """Show the switch and return whether it is on."""
    return st.toggle(
        "Guess first",
        key=_ON,
        help="The maps stay hidden until you have marked where you would look. Then you see how much of each map your "
        "marks caught.",
    )


def show(one: ChosenPicture, *, on: bool) -> bool:
    """Show the picture to mark before the reveal, and the score after it; return whether the maps may be seen."""
    if not on or one.image is None:
        return True
    done = st.session_state.setdefault(_DONE, {})
    if _name(one) not in done:
        _ask(one)
        return False
    _result(one, done)
    return True


def _name(one: ChosenPicture) -> tuple[str, str]:
    return str(one.pictures.folder), one.key


@st.fragment
def _ask(one: ChosenPicture) -> None:
    """Show the picture to mark; the reveal runs the whole page."""
    from concept_tuning.figures.cell_grid import cell_figure

    if st.session_state.pop("attention-reveal", False):
        st.rerun()
    with shown_errors(), st.container(border=True):
        assert one.image is not None
        key = f"attention-marks-{one.key}"
        cells = [f"row {row + 1}, column {column + 1}" for row in range(_GRID[0]) for column in range(_GRID[1])]
        left, right = st.columns([2, 3], gap="medium")
        marked = [divmod(cells.index(cell), _GRID[1]) for cell in st.session_state.get(key, [])]
        with left:
            caption = f"Click up to {_MOST} cells; click one again to take it back."
            show_figure(
                cell_figure(one.key, one.image, _GRID, marked=[(row, column) for row, column in marked], page=290),
                key=f"{_CHART}-{len(marked)}",
                alt=f"{one.key} with a grid. {caption}",
                on_select=lambda: _mark(f"{_CHART}-{len(marked)}", key, cells),
                selection_mode="points",
            )
        with right:
            st.markdown("##### Where would you look to tell the class?")
            st.markdown(
                f"Mark up to {_MOST} cells that tell you most. Then reveal where the networks look, and how much of "
                "that your marks caught."
            )
            st.caption(caption)
            st.multiselect("Marked cells", cells, key=key, max_selections=_MOST, placeholder="Click, or name them here")
            st.button(
                "Reveal",
                type="primary",
                key="attention-reveal-button",
                icon=":material/visibility:",
                disabled=not marked,
                on_click=_reveal,
                args=(one, [(int(row), int(column)) for row, column in marked]),
            )


def _mark(chart: str, key: str, cells: list[str]) -> None:
    """Mark the clicked cell, or take its mark back."""
    point = clicked(chart)
    if point is None or len(point.get("customdata") or ()) != 2:
        return
    row, column = (int(part) for part in point["customdata"])
    cell = cells[row * _GRID[1] + column]
    before = list(st.session_state.get(key, []))
    if cell in before:
        st.session_state[key] = [other for other in before if other != cell]
    elif len(before) < _MOST:
        st.session_state[key] = [*before, cell]


def _reveal(one: ChosenPicture, cells: list[tuple[int, int]]) -> None:
    """Score the marks against each run's map, once for each picture."""
    from concept_tuning.diagnostics.guess import score_guess
    from concept_tuning.diagnostics.results import Unavailable

    mask = _mask(one)
    scores: dict[str, GuessScore | None] = {}
    for run in one.pictures.runs:
        values = one.map(run, _KIND)
        scores[run] = None if isinstance(values, Unavailable) else score_guess(values, cells, _GRID, mask=mask)
    st.session_state[_DONE][_name(one)] = (cells, scores)
    st.session_state["attention-reveal"] = True


def _mask(one: ChosenPicture) -> np.ndarray | None:
    """Return where the object is, if a run's data can be opened and say so."""
    from concept_tuning.diagnostics.one_picture import object_mask
    from concept_tuning.diagnostics.results import Unavailable

    for run in one.pictures.runs:
        if run in one.pictures.places:
            found = one.ask(run, object_mask)
            return None if isinstance(found, Unavailable) else found
    return None


def _result(one: ChosenPicture, done: dict[Any, Any]) -> None:
    """Show the score of this picture and the running one."""
    from concept_tuning.figures.cell_grid import cell_figure
    from concept_tuning.figures.labels import percent

    cells, scores = done[_name(one)]
    found = {run: score for run, score in scores.items() if score is not None}
    with st.container(border=True):
        left, right = st.columns([1, 3], gap="medium")
        assert one.image is not None
        with left:
            figure = cell_figure(one.key, one.image, _GRID, marked=cells, page=220)
            show_figure(figure, key="attention-marked", alt=f"Your {len(cells)} marks on {one.key}.")
        with right:
            st.markdown("##### Your marks")
            for run, score in found.items():
                st.markdown(
                    f"**{plain(run)}: {score.points:.0f} points.** Your {_cells(score.marked)} "
                    f"{percent(score.share, 0)} of its map; as many at random hold {percent(score.chance, 0)} in the "
                    f"mean, the brightest {percent(score.best, 0)}."
                )
            say(
                [
                    f"The map of {run} is blank or cannot be had, so it has no score."
                    for run in scores
                    if run not in found
                ]
            )
            on_object = next((score.on_object for score in found.values() if score.on_object is not None), None)
            if on_object is not None:
                touch = "touches" if on_object == 1 else "touch"
                st.markdown(f"{on_object} of your {len(cells)} marked cells {touch} the object.")
            _running(one, done)
            following = attention_gallery.next_picture([key for _, key in done])
            if following is not None:
                st.button(
                    "Guess the next picture", key="attention-next", icon=":material/arrow_forward:",
                    on_click=attention_gallery.choose, args=(following,),
                )  # fmt: skip


def _cells(count: int) -> str:
    return "cell holds" if count == 1 else f"{count} cells hold"


def _running(one: ChosenPicture, done: dict[Any, Any]) -> None:
    """Say the mean of all pictures of this diagnosis that were guessed in the session, in one sentence."""
    folder = str(one.pictures.folder)
    lines = []
    for run in one.pictures.runs:
        scores = [scores.get(run) for (where, _), (_, scores) in done.items() if where == folder]
        points = [score.points for score in scores if score is not None]
        if points:
            lines.append(f"{np.mean(points):.0f} for {plain(run)} (n = {len(points)})")
    if lines:
        st.caption(
            f"Running score: {', '.join(lines)}; 0 is what random cells get, 100 what the brightest cells of the "
            f"{_KIND} map get, and a high score says that you foresaw the network, not that either of you is right."
        )
