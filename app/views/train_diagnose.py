"""The last part of Train: diagnose finished runs side by side, in the background."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.pages import page
from app.views.train_names import begin, follow_again, follow_name
from app.views.train_runs import follow
from concept_tuning.data.printable import as_unicode
from concept_tuning.diagnostics.background import (
    FOLDER,
    DiagnosisJob,
    delete_diagnosis,
    is_taken,
    list_diagnoses,
    start_diagnosis,
    stop_diagnosis,
)
from concept_tuning.engine.records import RunRecord, list_runs
from concept_tuning.errors import StudioError

_SEEN = "train_diagnoses_seen"
_BUSY_SECONDS, _IDLE_SECONDS = 2, 10
_COLOURS = {"finished": "green", "failed": "red", "stopped": "orange"}
_LINKS = (
    ("attention", "visibility"),
    ("rare", "diamond"),
    ("spurious", "link_off"),
    ("embedding", "scatter_plot"),
    ("compare", "balance"),
)
_COUNTS, _USUAL_COUNT, _FEW = (100, 250, 500, 1000, 2000), 500, 30
_MOST_RUNS = 8


def show() -> None:
    """Show the form, and the diagnoses that were started here."""
    finished = {run.name: run for run in list_runs(state.ROOT) if run.state == "finished"}
    if finished:
        _form(finished)
    else:
        st.info(
            "Finished runs can be diagnosed: what they look at, which features are rare, which are shortcuts. Train "
            "some above; two of them show what a method changes.",
            icon=":material/info:",
        )
    jobs = list_diagnoses(state.ROOT)
    st.session_state[_SEEN] = _states(jobs)
    working = any(job.state == "working" for job in jobs)
    st.fragment(_live, run_every=_BUSY_SECONDS if working else _IDLE_SECONDS)()


def _form(finished: dict[str, RunRecord]) -> None:
    newest = sorted(finished.values(), key=lambda run: -(run.updated.timestamp() if run.updated else 0.0))
    alike = [run.name for run in newest if run.source == newest[0].source]
    follow("train_diagnose", list(finished), alike[:2] if len(alike) > 1 else [run.name for run in newest[:2]])
    chosen = st.multiselect(
        "Finished runs to look at",
        list(finished),
        max_selections=_MOST_RUNS,
        key="train_diagnose",
        format_func=as_unicode,
        help="They must have been trained on the same pictures.",
    )
    if len(chosen) == 1:
        st.caption("One run alone is looked at. What it loses or rescues against another needs a second run.")
    first, second = st.columns(2)
    suggested = _free_name()
    follow_name("train_diagnose_name", suggested)
    name = first.text_input("Name of the diagnosis", key="train_diagnose_name").strip() or suggested
    with second:
        images = _images([finished[run] for run in chosen])
    st.caption("Takes some minutes on two cores, in the background; more pictures take longer and say more.")
    if st.button("Diagnose", icon=":material/search:", disabled=not chosen, key="train_diagnose_start"):
        with shown_errors():
            with st.spinner("Starting"):
                begin(
                    lambda free: start_diagnosis([finished[run] for run in chosen], state.ROOT, free, images=images),
                    name,
                    _free_name if name == suggested else None,
                )
            follow_again("train_diagnose_name")
            st.rerun()


def _images(runs: list[RunRecord]) -> int:
    """Let the user choose how many test pictures are looked at, of those there are."""
    there = min((count for run in runs if (count := _test_pictures(run))), default=_COUNTS[-1])
    counts = [count for count in _COUNTS if count < there] + [min(there, _COUNTS[-1])]
    if there < _FEW:
        st.warning(
            f"Too few test pictures ({there}) to say much: what is found on them may well be chance.",
            icon=":material/warning:",
        )
    if len(counts) == 1:
        st.caption("The one test picture is looked at." if there == 1 else f"All {there} test pictures are looked at.")
        return there
    usual = _USUAL_COUNT if _USUAL_COUNT in counts else counts[-1]
    return st.select_slider("Test pictures to look at", counts, usual, key=f"train_diagnose_images_{there}")


def _test_pictures(run: RunRecord) -> int:
    """Return how many test pictures a run was measured on, 0 where it does not tell."""
    try:
        return int((run.results or {})["splits"]["test"]["n"])
    except (KeyError, TypeError, ValueError):
        return 0


def _free_name() -> str:
    """Return the first name that neither a diagnosis has nor a folder or a record that is none of ours."""
    return next(name for number in itertools.count(1) if not is_taken(state.ROOT, name := f"diagnosis-{number}"))


def _live() -> None:
    with shown_errors():
        _show_all()


def _show_all() -> None:
    jobs = list_diagnoses(state.ROOT)
    if st.session_state.get(_SEEN) != _states(jobs):
        st.rerun()
    for job in jobs:
        with st.container(border=True), shown_errors():
            _show_job(job)


def _states(jobs: list[DiagnosisJob]) -> dict[str, str]:
    return {job.name: job.state for job in jobs}


def _show_job(job: DiagnosisJob) -> None:
    st.markdown(f"**{plain(job.name)}** :{_COLOURS.get(job.state, 'blue')}-badge[{job.state}]")
    st.caption(plain(as_unicode(", ".join(job.runs))))
    if job.state == "working":
        st.progress(job.progress, text=f"{plain(job.message)} ({job.begun} of {job.total}), {job.seconds:.0f} s so far")
    elif job.state in ("failed", "stopped"):
        st.markdown(plain(job.message))
    with st.container(horizontal=True, gap="small"):
        if job.can_be_opened:
            for name, icon in _LINKS:
                target = page(name)
                if st.button(target.title, icon=f":material/{icon}:", key=f"train_open_{job.name}_{name}"):
                    st.session_state["diagnosis"] = f"{FOLDER}/{job.name}"
                    st.switch_page(target)
        if job.state == "working":
            if st.button("Stop", icon=":material/stop:", key=f"train_end_{job.name}"):
                _act(lambda: stop_diagnosis(job))
        else:
            with st.popover("Delete", icon=":material/delete:", key=f"train_drop_{job.name}"):
                st.markdown(f"The results and the report of **{plain(job.name)}** will be gone; its runs stay.")
                if st.button("Delete for good", icon=":material/delete_forever:", key=f"train_dropped_{job.name}"):
                    _act(lambda: delete_diagnosis(job))


def _act(action: Callable[[], object]) -> None:
    try:
        action()
    except StudioError as error:
        st.toast(plain(str(error)), icon=":material/error:", duration="long")
        return
    st.rerun()
