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
#: Pictures at once, which are one row.
_AT_ONCE = 8
#: Makes the whole tile take the click of the button below the picture, which stays reachable by keyboard. A row that
#: is too wide for the page can be pushed sideways.
_STYLE = """<style>
[class*="st-key-attention-row-"] {display: grid !important; grid-auto-flow: column; gap: 0.5rem; overflow-x: auto;
 grid-auto-columns: minmax(5.25rem, 7.5rem); padding: 2px;}
[class*="st-key-attention-row-"] > div {width: auto !important; min-width: 0 !important;}
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
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            with st.popover("Filter", icon=":material/filter_alt:", key="attention-filter"):
                found = _filtered(pictures)
            shown = _page(found) if found else []
            _leaf(pictures, found, shown)
        st.session_state["attention-found"] = found
        if not found:
            st.info(
                "No picture fits all of this. Take a filter back, or look at the whole split.",
                icon=":material/filter_alt_off:",
            )
            st.button("Take all filters back", key="attention-reset", on_click=_reset)
            return
        show_tiles(pictures, shown, key, pictures.thumbnails(shown), name="gallery", on_click=choose)


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
    with st.container(key=f"attention-row-{name}"):
        for place, one in enumerate(keys):
            label = classes[int(small.labels[small.keys.index(one)])] if one in small else "not kept"
            with st.container(key=f"attention-tile-{name}-{place}"):
                if one in small:
                    alt = f"{one}: {label}. {said(pictures.predictions, one)}"
                    st.image(small.address(one), alt=alt, width="stretch")
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
        st.session_state[name] = None
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
    scope = st.selectbox(
        "Pictures",
        scopes,
        format_func=names.__getitem__,
        key=_SCOPE,
        help="What the runs say is known of diagnosed pictures; of others, the models are asked when one is chosen.",
    )
    label = st.selectbox("Class", overview.class_names, index=None, key=_CLASS, bind="query-params", placeholder="any")
    groups = any_run.group_names if any_run.groups is not None else ()
    group = st.selectbox(
        "Group",
        groups,
        index=None,
        key=_GROUP,
        bind="query-params",
        placeholder="any",
        disabled=not groups,
        help=None if groups else "This data has no groups.",
    )
    answers = st.multiselect(
        "Answers",
        list(answer_choices(predictions)),
        key=_ANSWERS,
        placeholder="any: right, wrong, lost, rescued",
        help="Of several, all hold. Lost: the first run has it right and the second wrong; rescued is the reverse.",
    )
    wanted = None if label is None else overview.class_names.index(label)
    where = None if group is None else any_run.group_names.index(group)
    found = choose_keys(predictions, label=wanted, group=where, answers=answers, first=pictures.with_maps)
    if scope == _WHOLE:
        found += _undiagnosed(pictures, wanted, where, answers)
    st.caption("Pictures with stored maps come first; of any other, the models are asked.")
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
    before, page = st.session_state.get(_PAGE, (found, 0))
    page = min(page, pages - 1) if before == found else 0
    st.session_state[_PAGE] = (found, page)
    return found[page * _AT_ONCE : (page + 1) * _AT_ONCE]


def _turn(step: int) -> None:
    found, page = st.session_state[_PAGE]
    st.session_state[_PAGE] = (found, max(0, page + step))


def _leaf(pictures: PictureList, found: list[str], shown: list[str]) -> None:
    """Offer to turn the page, and say which pictures these are."""
    if not found:
        return
    start = st.session_state[_PAGE][1] * _AT_ONCE
    if len(found) > len(shown):
        st.button(
            "", icon=":material/chevron_left:", key="attention-back", on_click=_turn, args=(-1,), disabled=start == 0,
            help="Pictures before these",
        )  # fmt: skip
        st.button(
            "", icon=":material/chevron_right:", key="attention-on", on_click=_turn, args=(1,),
            disabled=start + len(shown) >= len(found), help="Pictures after these",
        )  # fmt: skip
    named = [st.session_state[name] for name in (_CLASS, _GROUP) if st.session_state.get(name) is not None]
    named += st.session_state.get(_ANSWERS, [])
    kept = f": {plain(', '.join(named))}" if named else ""
    runs = ", then ".join(plain(run) for run in pictures.predictions)
    signs = f". {RIGHT} right, {WRONG} wrong: {runs}" if runs else ""
    st.caption(f"{start + 1} to {start + len(shown)} of {len(found)} pictures{kept}{signs}.", width="content")
