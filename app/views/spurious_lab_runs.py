"""The lab's runs, live: how far they are, how good they became, and what the detectors say of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import state
from app.markdown import plain
from concept_tuning.diagnostics.background import FOLDER, DiagnosisJob, list_diagnoses, start_diagnosis
from concept_tuning.engine.records import RunRecord, list_runs
from concept_tuning.errors import StudioError

if TYPE_CHECKING:
    from concept_tuning.report.blocks import Source

#: Names of the lab's runs and of their diagnoses.
_NAME = re.compile(r"lab-rho-(\d\.\d\d)")
_SEEN = "spurious-lab-seen"
_BUSY_SECONDS, _IDLE_SECONDS = 2, 20
#: What the lab's diagnoses make.
_DETECTORS = ("predictions", "groups", "counterfactuals", "properties", "concept-effects", "slices")
_IMAGES = 240


def run_name(rho: float) -> str:
    """Return what the run at a rho is called."""
    return f"lab-rho-{rho:.2f}"


def show() -> None:
    """Show the lab's runs, and keep them up to date."""
    runs, jobs = _found()
    st.session_state[_SEEN] = _states(runs, jobs)
    busy = any(run.working for run in runs) or any(job.state == "working" for job in jobs.values())
    st.fragment(_live, run_every=_BUSY_SECONDS if busy else _IDLE_SECONDS)()


def _found() -> tuple[list[RunRecord], dict[str, DiagnosisJob]]:
    runs = sorted((run for run in list_runs(state.ROOT) if _NAME.fullmatch(run.name)), key=lambda run: run.name)
    names = {run.name for run in runs}
    return runs, {job.name: job for job in list_diagnoses(state.ROOT) if job.name in names}


def _states(runs: list[RunRecord], jobs: dict[str, DiagnosisJob]) -> list[tuple[str, str, str]]:
    return [(run.name, run.state, jobs[run.name].state if run.name in jobs else "") for run in runs]


def _live() -> None:
    runs, jobs = _found()
    if st.session_state.get(_SEEN) != _states(runs, jobs):
        st.rerun()
    if not runs:
        return
    st.markdown("##### Your runs")
    for run in runs:
        if run.state != "finished" or run.name not in jobs or jobs[run.name].state != "finished":
            with st.container(border=True):
                _step(run, jobs.get(run.name))
    rows = [_row(run, jobs.get(run.name)) for run in runs if run.state == "finished"]
    if rows:
        caption = (
            "Accuracy on test pictures in which habitats say nothing, and what each detector says. The shortcut shows "
            "in the worst group first. Detectors point at places to look; none of them is sure."
        )
        st.dataframe(rows, hide_index=True, width="stretch", alt=caption)
        st.caption(caption)
    _open([name for name, job in jobs.items() if job.state == "finished"])


def _step(run: RunRecord, job: DiagnosisJob | None) -> None:
    """Show how far a run is and what can be done next."""
    st.markdown(f"**rho {_rho(run)}**")
    if job is not None and job.state == "working":
        st.progress(job.progress, text=f"The detectors look: {plain(job.message)}")
    elif job is not None and job.state != "finished":
        st.markdown(f"The detectors {job.state}. {plain(job.message)} Remove this diagnosis on the Train page.")
    elif run.state == "finished":
        st.markdown("Trained.")
        if st.button("Let the detectors look", icon=":material/search:", key=f"spurious-look-{run.name}"):
            _look(run)
        st.caption("One to three minutes on two cores, in the background.")
    elif run.working:
        left = f", {run.seconds_left:.0f} s left" if run.seconds_left is not None else ""
        st.progress(run.progress, text=f"step {run.step} of {run.total_steps or '…'}{left}: {plain(run.message)}")
    else:
        st.markdown(f"{run.state.capitalize()}. {plain(run.message)} Resume or delete it on the Train page.")


def _look(run: RunRecord) -> None:
    try:
        start_diagnosis([run], state.ROOT, run.name, images=_IMAGES, only=_DETECTORS)
    except StudioError as error:
        st.toast(str(error), icon=":material/error:", duration="long")
        return
    st.rerun()


def _open(names: list[str]) -> None:
    if not names:
        return
    with st.container(horizontal=True, gap="small"):
        for name in sorted(names):
            st.button(
                f"Look closer at rho {name.removeprefix('lab-rho-')}",
                icon=":material/link_off:",
                key=f"spurious-open-{name}",
                on_click=_choose,
                args=(name,),
            )


def _choose(name: str) -> None:
    st.session_state["diagnosis"] = f"{FOLDER}/{name}"
    st.session_state["spurious-part"] = "groups"
    st.session_state[_SEEN] = None  # so that the whole page is drawn again, not the lab alone


def _rho(run: RunRecord) -> str:
    return run.name.removeprefix("lab-rho-")


def _row(run: RunRecord, job: DiagnosisJob | None) -> dict[str, str]:
    test: dict[str, Any] = (run.results or {}).get("splits", {}).get("test", {})
    row = {"rho": _rho(run), "test accuracy": _percent(test.get("accuracy"))}
    row["worst group"] = _percent(test.get("worst_group_accuracy"))
    if job is None or job.state != "finished":
        return row
    from concept_tuning.report.blocks import Source

    try:
        return row | _detectors(Source(state.read_diagnosis(job.path)), run.path.name)
    except StudioError:
        return row | {"predictions follow the background": "the diagnosis is damaged"}


def _detectors(source: Source, run: str) -> dict[str, str]:
    """Return in words what each detector says of a run."""
    from concept_tuning.figures.labels import number
    from concept_tuning.report.blocks import points

    edited, table = source.joint("counterfactuals"), source.joint("properties")
    effects, slices = source.each("concept-effects").get(run), source.each("slices").get(run)
    row = {}
    if edited is not None:
        row["predictions follow the background"] = points(edited.runs[0].flip_gap)
    if table is not None and table.properties:
        row["strongest property (0–1)"] = f"{table.properties[0].name} {number(table.properties[0].strength, 2)}"
    if effects is not None and effects.concepts and effects.concepts[0].suspicion is not None:
        row["most suspicious concept (0–1)"] = number(effects.concepts[0].suspicion, 2)
    if slices is not None and slices.p_value is not None:
        row["mistakes gather"] = f"p = {number(slices.p_value, 2)}"
    return row


def _percent(share: Any) -> str:
    return f"{100 * share:.0f} %" if isinstance(share, int | float) else "–"
