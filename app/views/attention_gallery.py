"""The gallery: which pictures there are, filtered by class, group and answers, and which one is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app.errors import shown_errors
from app.markdown import plain
from app.views.attention_picture import RIGHT, WRONG, PictureList, marks, said

if TYPE_CHECKING:
    from concept_tuning.diagnostics.thumbnails import Thumbnails

_PICTURE, _MOVED, _PAGE = "attention-picture", "attention-moved", "attention-page"
_SCOPE, _CLASS, _GROUP, _ANSWERS = "attention-scope", "attention-class", "attention-group", "attention-answers"
_DIAGNOSED, _WHOLE = "diagnosed", "whole split"
_ANY = "any"
#: Pictures at once, and their width in pixels.
_AT_ONCE, _WIDTH = 12, 96
#: Makes the whole tile take the click of the button below the picture, which stays reachable by keyboard.
_STYLE = """<style>
[class*="st-key-attention-tile-"] {position: relative; gap: 0.25rem;}
[class*="st-key-attention-tile-"] :is(div, span, button, p) {position: static;}
[class*="st-key-attention-tile-"] [data-testid="stElementToolbar"] {display: none;}
[class*="st-key-attention-tile-"] button {padding: 0.1rem 0.25rem; min-height: 2.2rem;}
[class*="st-key-attention-tile-"] button p {font-size: 0.8rem; line-height: 1.15;}
[class*="st-key-attention-tile-"] button::after {content: ""; position: absolute; inset: 0; cursor: pointer;}
</style>"""


def chosen(pictures: PictureList) -> str:
    """Return the chosen picture: that of the address, else the one before, else the first; it is in the address."""
    wanted = st.query_params.get("picture") or st.session_state.get(_PICTURE)
    known = set(pictures.diagnosed)
    if wanted and wanted not in known:
        split = pictures.whole_split
        if split is None or wanted not in split.keys:
            st.caption(f":material/info: There is no picture {plain(wanted)} here; this is the first one.")
            wanted = None
    key = wanted or pictures.diagnosed[0]
    _remember(key)
    return key


def choose(key: str) -> None:
    """Choose a picture; for callbacks."""
    _remember(key)
    st.session_state[_MOVED] = True


def next_picture(done: Sequence[str]) -> str | None:
    """Return the first picture of the filtered gallery that is not among those done; None where there is none."""
    return next((key for key in st.session_state.get("attention-found", []) if key not in done), None)


@st.fragment
def show(pictures: PictureList, key: str) -> None:
    """Show filters and pictures; ``key`` is the chosen one."""
    if st.session_state.pop(_MOVED, False):
        st.rerun()
    with shown_errors():
        st.html(_STYLE)
        found = _filtered(pictures)
        st.session_state["attention-found"] = found
        if not found:
            st.info(
                "No picture fits all of this. Take a filter back, or look at the whole split.",
                icon=":material/filter_alt_off:",
            )
            st.button("Take all filters back", key="attention-reset", on_click=_reset)
            return
        shown = _page(found)
        small = pictures.thumbnails(shown)
        show_tiles(pictures, shown, key, small, name="gallery", on_click=choose)
        _tell(pictures, found, shown)


def show_tiles(
    pictures: PictureList,
    keys: Sequence[str],
    key: str,
    small: Thumbnails,
    *,
    name: str,
    on_click: Callable[[str], None],
) -> None:
    """Show pictures that can be clicked, the chosen one with a filled button; ``name`` makes the keys unique."""
    classes = pictures.diagnosis.overview.class_names
    with st.container(horizontal=True, gap="small"):
        for place, one in enumerate(keys):
            label = classes[int(small.labels[small.keys.index(one)])] if one in small else "not kept"
            with st.container(key=f"attention-tile-{name}-{place}", width=_WIDTH):
                if one in small:
                    st.image(small.file(one), alt=f"{one}: {label}. {said(pictures.predictions, one)}", width=_WIDTH)
                st.button(
                    f"{plain(label)} {marks(pictures.predictions, one)}",
                    key=f"attention-open-{name}-{place}",
                    on_click=on_click,
                    args=(one,),
                    type="primary" if one == key else "secondary",
                    width="stretch",
                )


def _remember(key: str) -> None:
    st.session_state[_PICTURE] = key
    st.query_params["picture"] = key


def _reset() -> None:
    for name in (_CLASS, _GROUP):
        st.session_state[name] = _ANY
    st.session_state[_ANSWERS] = []


def _filtered(pictures: PictureList) -> list[str]:
    """Show the filters and return the names of the pictures for which they hold."""
    from concept_tuning.report.picture_choice import answer_choices, choose_keys

    overview = pictures.diagnosis.overview
    predictions = pictures.predictions
    if not predictions:
        st.caption("This diagnosis was made without predictions, so that there is nothing to filter by.")
        return pictures.diagnosed
    any_run = next(iter(predictions.values()))
    scopes = [_DIAGNOSED, _WHOLE] if overview.total > overview.pictures and pictures.places else [_DIAGNOSED]
    names = {
        _DIAGNOSED: f"{overview.pictures} diagnosed",
        _WHOLE: f"all {overview.total} of the {overview.split} split",
    }
    first, second, third, fourth = st.columns([2, 2, 2, 3], vertical_alignment="bottom")
    scope = first.selectbox(
        "Pictures",
        scopes,
        format_func=names.__getitem__,
        key=_SCOPE,
        help="What the runs say is known of diagnosed pictures; of others, the models are asked when one is chosen.",
    )
    label = second.selectbox("Class", [_ANY, *overview.class_names], key=_CLASS, bind="query-params")
    groups = [_ANY, *any_run.group_names] if any_run.groups is not None else [_ANY]
    group = third.selectbox(
        "Group",
        groups,
        key=_GROUP,
        bind="query-params",
        disabled=len(groups) == 1,
        help=None if len(groups) > 1 else "This data has no groups.",
    )
    answers = fourth.multiselect(
        "Answers (all that you choose hold)",
        list(answer_choices(predictions)),
        key=_ANSWERS,
        placeholder="any: right, wrong, lost, rescued",
        help="Lost: the first run has it right and the second wrong; rescued is the reverse.",
    )
    wanted = None if label == _ANY else overview.class_names.index(label)
    where = None if group == _ANY else any_run.group_names.index(group)
    found = choose_keys(predictions, label=wanted, group=where, answers=answers, first=pictures.with_maps)
    if scope == _WHOLE:
        found += _undiagnosed(pictures, wanted, where, answers)
    return found


def _undiagnosed(pictures: PictureList, label: int | None, group: int | None, answers: Sequence[str]) -> list[str]:
    """Return the other pictures of the split; none where answers are asked for, which are not known of them."""
    if answers:
        st.caption(
            ":material/info: What the runs say is known of diagnosed pictures alone; take the answers back to see "
            "the others."
        )
        return []
    split, known = pictures.whole_split, set(pictures.diagnosed)
    if split is None:
        st.caption(":material/info: The pictures of these runs cannot be opened; only diagnosed ones are shown.")
        return []
    kept = [True] * len(split) if label is None else split.labels == label
    if group is not None and split.groups is not None:
        kept = [one and bool(other == group) for one, other in zip(kept, split.groups, strict=True)]
    return [key for key, wanted in zip(split.keys, kept, strict=True) if wanted and key not in known]


def _page(found: list[str]) -> list[str]:
    """Return the pictures of the page that is turned to; the first after another filter."""
    pages = -(-len(found) // _AT_ONCE)
    before = st.session_state.get(_PAGE, (len(found), found[0], 0))
    page = min(before[2], pages - 1) if before[:2] == (len(found), found[0]) else 0
    st.session_state[_PAGE] = (len(found), found[0], page)
    return found[page * _AT_ONCE : (page + 1) * _AT_ONCE]


def _turn(step: int) -> None:
    count, first, page = st.session_state[_PAGE]
    st.session_state[_PAGE] = (count, first, max(0, page + step))


def _tell(pictures: PictureList, found: list[str], shown: list[str]) -> None:
    page = st.session_state[_PAGE][2]
    start = page * _AT_ONCE
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if len(found) > len(shown):
            st.button(
                "Previous", icon=":material/chevron_left:", key="attention-back", on_click=_turn, args=(-1,),
                disabled=page == 0,
            )  # fmt: skip
            st.button(
                "Next", icon=":material/chevron_right:", key="attention-on", on_click=_turn, args=(1,),
                disabled=start + len(shown) >= len(found),
            )  # fmt: skip
        runs = ", then ".join(plain(run) for run in pictures.predictions)
        signs = f" {RIGHT} right, {WRONG} wrong: {runs}." if runs else ""
        st.caption(
            f"{start + 1} to {start + len(shown)} of {len(found)} pictures. Those with stored maps come first; of any "
            f"other, the models are asked.{signs}"
        )
