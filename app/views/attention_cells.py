"""Where a patch attends: a cell of the picture is clicked, and what it reads in the front-door head is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.blocks import show_figure
from app.choice import choose_one
from app.clicks import clicked
from app.errors import shown_errors
from app.markdown import plain
from app.views.attention_looks import say
from app.views.attention_picture import ChosenPicture

if TYPE_CHECKING:
    from concept_tuning.diagnostics.attention_maps import PositionMaps
    from concept_tuning.diagnostics.concept_maps import ConceptMaps

_ROW, _COLUMN = "attention-row", "attention-column"
#: The concept whose cell was gone to; None once another cell is chosen.
_CONCEPT = "attention-concept"
#: Run and picture of which that concept is.
_CONCEPT_OF = "attention-concept-of"


@st.fragment
def show(one: ChosenPicture) -> None:
    """Show the picture with its cells, and where the chosen one attends."""
    with shown_errors():
        found, reasons = one.each("position-attention")
        say(reasons)
        if not found or one.image is None:
            return
        run = next(iter(found))
        if len(found) > 1:
            run = choose_one("Run", list(found), key="attention-cell-run")
        result: PositionMaps = found[run]
        place = result.keys.index(one.key)
        if st.session_state.get(_CONCEPT_OF) != (run, one.key):
            st.session_state[_CONCEPT_OF] = run, one.key
            _forget_concept()
        concepts = one.result("concept-maps", run)
        left, right = st.columns([2, 3], gap="medium")
        with left:
            cell = _choose_cell(one, result.mean[place], concepts if hasattr(concepts, "boxes") else None)
        with right:
            if hasattr(concepts, "maps"):
                _offer_concepts(concepts.maps[concepts.keys.index(one.key)], result.mean.shape[1:])
            _reading(one, result, cell)


def _choose_cell(one: ChosenPicture, mean: np.ndarray, concepts: ConceptMaps | None) -> tuple[int, int]:
    """Show the picture to click, and what does the same by keyboard; return row and column from 0."""
    from concept_tuning.figures.cell_grid import cell_figure
    from concept_tuning.figures.tiles import merge_equal, numbers_label

    rows, columns = mean.shape
    for name, most in ((_ROW, rows), (_COLUMN, columns)):
        st.session_state[name] = min(max(1, st.session_state.get(name, (most + 1) // 2)), most)
    cell = st.session_state[_ROW] - 1, st.session_state[_COLUMN] - 1
    patches = []
    if concepts is not None:
        boxes = concepts.boxes[concepts.keys.index(one.key)] / concepts.image_size
        patches = [(corners, numbers_label(places)) for corners, places in merge_equal(boxes)]
    chart = "attention-cells"
    caption = "Click a cell to see where it attends. Solid orange frame: the chosen cell."
    if patches:
        caption += (
            " Dashed yellow frames: the concept patches by number, 1 tells the class best; a patch lies around the "
            "place where its channels fire most and need not follow the cells."
        )
    assert one.image is not None
    show_figure(
        cell_figure(one.key, one.image, (rows, columns), marked=[cell], patches=patches, page=300),
        key=chart,
        alt=caption,
        on_select=lambda: _take_click(chart),
        selection_mode="points",
    )
    st.caption(caption)
    with st.container(horizontal=True, gap="small"):
        st.number_input("Row, from the top", 1, rows, key=_ROW, width=150, on_change=_forget_concept)
        st.number_input("Column, from the left", 1, columns, key=_COLUMN, width=150, on_change=_forget_concept)
    return cell


def _offer_concepts(peaks: np.ndarray, grid: tuple[int, int]) -> None:
    """Offer the cells where the concepts of maps (P, h, w) fire most."""
    st.pills(
        "Go to the cell where a concept fires most",
        list(range(1, len(peaks) + 1)),
        key=_CONCEPT,
        on_change=_take_concept,
        args=(peaks, grid),
    )


def _take_click(chart: str) -> None:
    point = clicked(chart)
    if point is not None and len(point.get("customdata") or ()) == 2:
        row, column = (int(part) for part in point["customdata"])
        st.session_state[_ROW], st.session_state[_COLUMN] = row + 1, column + 1
        _forget_concept()


def _forget_concept() -> None:
    st.session_state[_CONCEPT] = None


def _take_concept(peaks: np.ndarray, grid: tuple[int, int]) -> None:
    """Go to the cell where the chosen concept's map (h, w) is greatest."""
    number = st.session_state[_CONCEPT]
    if number is None:
        return
    values = peaks[number - 1]
    row, column = divmod(int(values.argmax()), values.shape[1])
    st.session_state[_ROW] = row * grid[0] // values.shape[0] + 1
    st.session_state[_COLUMN] = column * grid[1] // values.shape[1] + 1


def _reading(one: ChosenPicture, result: PositionMaps, cell: tuple[int, int]) -> None:
    from concept_tuning.figures.labels import number
    from concept_tuning.figures.style import laid_over

    place = result.keys.index(one.key)
    row, column = cell
    weights, mean = result.weights[place, row, column], result.mean[place]
    most = np.unravel_index(int(weights.argmax()), weights.shape)
    st.markdown(
        f"In {plain(result.run)}, the cell in row {row + 1}, column {column + 1} reads most from row {most[0] + 1}, "
        f"column {most[1] + 1}: {number(float(weights.max()) * weights.size, 2)} times what even attention would give "
        f"it, and {number(float(weights[row, column]) * weights.size, 2)} times from itself."
    )
    assert one.image is not None
    with st.container(horizontal=True, gap="small"):
        for values, what in ((weights, "where this cell attends"), (mean, "mean over all cells")):
            low, high = (float(edge) * values.size for edge in (values.min(), values.max()))
            caption = f"{what}: {low:.1f} to {high:.1f} × even"
            st.image(laid_over(one.image, values), caption=caption, alt=f"{result.run}, {caption}", width=220)
    st.caption(
        f"The head adds what is attended with the learnt scale {number(result.gamma, 2)}; at 0, where training starts, "
        "attention changes nothing. Attention tells where a cell reads, not what it makes of it."
    )
