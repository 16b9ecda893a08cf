"""Which concepts are rare: the chart with its threshold, the concept that is clicked, and all of them as a table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import streamlit as st

from app.blocks import show_blocks, show_figure
from app.clicks import clicked
from app.errors import shown_errors
from app.markdown import plain
from app.views import rare_one

if TYPE_CHECKING:
    from streamlit.elements.lib.column_types import ColumnConfig

    from concept_tuning.diagnostics.rare_choice import RareChoice
    from concept_tuning.diagnostics.rare_results import RareFeatures
    from concept_tuning.report.blocks import Source

_SHARE = "rare-share"
#: Rows of the table before all are asked for.
_LISTED = 15
#: Of columns of text.
_WIDTHS: dict[str, Literal["small", "medium", "large"]] = {
    "concept": "medium",
    "kind": "medium",
    "marks": "large",
    "channels": "small",
}
#: Headings too long for their columns.
_SHORT = {"p over all concepts": "p (all)", "nearest-neighbour information (nats)": "k-NN (nats)"}


@st.fragment
def show(source: Source, result: RareFeatures, place: int) -> None:
    """Show the chart, the chosen concept and the table of one analysis, which is the ``place``-th."""
    from concept_tuning.report.rare_csv import concept_rows

    with shown_errors():
        choice = _choose_share(result)
        rows = concept_rows(result, choice)
        names = [str(row["concept"]) for row in rows]
        _chart(result, choice, place, result.concepts.index(rare_one.chosen_concept(names, place)))
        rare_one.show(source, result, choice, names, place)
        _table(result, choice, rows, place)


def _choose_share(result: RareFeatures) -> RareChoice | None:
    """Let the user say what counts as seldom seen; None, with the reason, where frequencies are unknown."""
    from concept_tuning.diagnostics.rare_choice import choose_rare
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.labels import number

    if isinstance(result.rarity, Unavailable):
        st.info(f"Which of them are rare cannot be said. {plain(result.rarity.reason)}", icon=":material/info:")
        return None
    saved = result.rarity.threshold.share
    percent = st.slider(
        "Share of the concepts that count as seldom seen",
        1,
        50,
        min(50, max(1, round(100 * saved))),
        format="%d %%",
        key=_SHARE,
        bind="query-params",
        help="Those that pre-training saw least. There is no true value: see whether what you find holds at others.",
    )
    choice = choose_rare(result, saved if percent == round(100 * saved) else percent / 100)
    point = choice.threshold
    view = plain(result.view)
    seen = f"of the {point.low} seen least (in at most {number(100 * point.frequency, 2)} % of patches)"
    if point.rare:
        st.markdown(
            f"**{point.rare} of {len(result.concepts)} {view} are rare**: {seen}, these tell the classes apart "
            f"beyond the band. Were none of the {point.low} useful, {number(point.expected_by_chance, 2)} would pass "
            "on average at most."
        )
    else:
        st.markdown(
            f"**None of {len(result.concepts)} {view} is rare**: {seen}, none is shown to tell the classes "
            "apart. Move the slider to count more of them as seldom seen."
        )
    return choice


def _chart(result: RareFeatures, choice: RareChoice | None, place: int, chosen: int) -> None:
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.labels import percent
    from concept_tuning.figures.rare_features import rarity_figure, sweep_figure
    from concept_tuning.report.blocks import Note

    key = f"rare-chart-{place}"
    where = "" if choice is None else " Rare ones are in the shaded upper left."
    caption = (
        f"One point for each concept. To the right: seen more often{'' if choice is None else ' in pre-training'}. Up: "
        "its presence says more of the class than it does with shuffled labels; in the grey band below "
        f"0 stay {percent(result.presence.band_level, 0)} of useless concepts.{where} Click a point to see it below."
    )
    show_figure(
        rarity_figure(result, choice=choice, chosen=_ringed(key, result, choice, chosen)),
        key=key,
        alt=caption,
        on_select=lambda: _take_click(key, result, place),
        selection_mode="points",
    )
    st.caption(caption)
    if not isinstance(result.rarity, Unavailable) and st.toggle("The same at other shares", key="rare-sweep"):
        caption = "How many concepts are rare at other shares, and how many useless ones would give on average at most."
        show_figure(sweep_figure(result.rarity), key=f"rare-sweep-{place}", alt=caption)
        st.caption(caption)
    if not isinstance(result.source, Unavailable):
        show_blocks([Note(text=result.source.note)], key=f"rare-note-{place}")


def _ringed(key: str, result: RareFeatures, choice: RareChoice | None, chosen: int) -> int:
    """Return the concept to ring: the chosen one, or the one before if a click on the chart chose it.

    A chart marks its clicked point by itself, and is drawn anew, which is slow, only if the figure differs.
    """
    drawn = (result.backbone, result.presence.n, None if choice is None else choice.threshold.share)
    point = clicked(key)
    by_click = point is not None and "customdata" in point and int(point["customdata"][0]) == chosen
    before = st.session_state.get(f"{key}-ring")
    if not by_click or before is None or before[0] != drawn:
        before = (drawn, chosen)
    st.session_state[f"{key}-ring"] = before
    return int(before[1])


def _take_click(key: str, result: RareFeatures, place: int) -> None:
    point = clicked(key)
    if point is not None and "customdata" in point:
        rare_one.choose(result.concepts[int(point["customdata"][0])], place)


def _table(
    result: RareFeatures, choice: RareChoice | None, rows: list[dict[str, str | float | None]], place: int
) -> None:
    """Show the rare concepts, or the first ones where none is known to be, and offer all as a file."""
    from concept_tuning.report.rare_csv import concepts_csv

    rare = [row for row in rows if row["kind"] == "rare"]
    every = st.toggle(f"List all {len(rows)} concepts", key="rare-all")
    shown = rows if every else (rare or rows)[:_LISTED]
    if choice is not None and not rare:
        st.caption(":material/info: None is rare at this share; the table lists the others.")
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        column_config={name: _column(name) for name in shown[0]},
        alt="The concepts with their frequencies and information.",
    )
    st.caption(
        f"{len(shown)} of {len(rows)} concepts, {len(rare)} rare in all. Frequencies are shares (0–1) of patches above "
        "the level that tells the classes best. Information is to be read against its band; p (all): p over all "
        "concepts; k-NN: nearest-neighbour information. AUC: how well the concept alone tells the class it marks; 0.5 "
        "is chance. The file has all of them; texts that a spreadsheet might take for a formula get an apostrophe."
    )
    name = re.sub(r"[^\w.-]+", "-", f"rare-{result.view}-{result.backbone}")
    st.download_button(
        f"All {plain(result.view)} (CSV)",
        lambda: concepts_csv(result, choice).encode("utf-8-sig"),
        f"{name}.csv",
        "text/csv",
        key=f"rare-csv-{place}",
        on_click="ignore",
        icon=":material/table:",
    )


def _column(name: str) -> ColumnConfig:
    """Return how a column is written: frequencies span orders of magnitude, the rest does not."""
    if name in ("seen in pre-training", "seen here"):
        return st.column_config.NumberColumn(format="%.2g")
    if name == "in its pictures":
        return st.column_config.NumberColumn(format="%.2f", help="Share (0–1) of the pictures of the class it marks.")
    if name in _WIDTHS:
        return st.column_config.TextColumn(width=_WIDTHS[name])
    return st.column_config.NumberColumn(_SHORT.get(name, name), format="%.3f", help=name)
