"""The lab's runs, live: how far they are, how good they became, and what the detectors say of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.views.train_names import begin
from app.views.train_runs import interval_words, worst_group
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
#: What the detectors are called in a sentence, by chapter of the findings.
_WORDS = {
    "groups": "the worst group",
    "counterfactuals": "other backgrounds",
    "properties": "simple properties of the data",
    "concept-effects": "suspicious concepts",
    "slices": "gathered mistakes",
}


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
    """Return the lab's runs, and the newest diagnosis of each by the run's name."""
    runs = sorted((run for run in list_runs(state.ROOT) if _NAME.fullmatch(run.name)), key=lambda run: run.name)
    jobs = list_diagnoses(state.ROOT)
    pairs = {run.name: next((job for job in jobs if _is_of(job, run)), None) for run in runs}
    return runs, {name: job for name, job in pairs.items() if job is not None}


def _is_of(job: DiagnosisJob, run: RunRecord) -> bool:
    """Whether a diagnosis is the lab's of this very run, not of one of its name that was there before."""
    named = job.name == run.name or job.name.startswith(f"{run.name}-")
    # The status tells whole seconds, so that a diagnosis may seem to begin within the second of the run's end.
    return named and job.runs == (run.name,) and run.updated is not None and job.started >= run.updated.timestamp() - 1


def _states(runs: list[RunRecord], jobs: dict[str, DiagnosisJob]) -> list[tuple[str, str, str]]:
    return [(run.name, run.state, jobs[run.name].state if run.name in jobs else "") for run in runs]


def _live() -> None:
    with shown_errors():
        _show_all()


def _show_all() -> None:
    runs, jobs = _found()
    if st.session_state.get(_SEEN) != _states(runs, jobs):
        st.rerun()
    if not runs:
        return
    st.markdown("##### Your runs")
    for run in runs:
        if run.state != "finished" or run.name not in jobs or jobs[run.name].state != "finished":
            with st.container(border=True), shown_errors():
                _step(run, jobs.get(run.name))
    told = {_rho(run): _told(run, jobs.get(run.name)) for run in runs if run.state == "finished"}
    for rho, (_, sentence) in told.items():
        if sentence:
            st.markdown(f"**rho {rho}**: {plain(sentence)}")
    if told:
        caption = (
            "A column for each rho: accuracy on test pictures in which habitats say nothing, and what each detector "
            "says. The shortcut shows in the worst group first. Detectors point at places to look; none is sure."
        )
        st.dataframe(
            _turned({rho: row for rho, (row, _) in told.items()}), hide_index=True, width="stretch", alt=caption
        )
        st.caption(caption)
    _open({_rho(run): jobs[run.name] for run in runs if run.name in jobs and jobs[run.name].state == "finished"})


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
    def free() -> str:
        taken = {job.name for job in list_diagnoses(state.ROOT)}
        names = (run.name if number == 1 else f"{run.name}-{number}" for number in range(1, 10_000))
        return next(name for name in names if name not in taken)

    try:
        begin(lambda name: start_diagnosis([run], state.ROOT, name, images=_IMAGES, only=_DETECTORS), free(), free)
    except StudioError as error:
        st.toast(plain(str(error)), icon=":material/error:", duration="long")
        return
    st.rerun()


def _open(found: dict[str, DiagnosisJob]) -> None:
    if not found:
        return
    with st.container(horizontal=True, gap="small"):
        for rho, job in sorted(found.items()):
            st.button(
                f"Look closer at rho {rho}",
                icon=":material/link_off:",
                key=f"spurious-open-{rho}",
                on_click=_choose,
                args=(job.name,),
            )


def _choose(name: str) -> None:
    st.session_state["diagnosis"] = f"{FOLDER}/{name}"
    st.session_state["spurious-part"] = "groups"
    st.session_state[_SEEN] = None  # so that the whole page is drawn again, not the lab alone


def _rho(run: RunRecord) -> str:
    return run.name.removeprefix("lab-rho-")


def _turned(rows: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """Return a row for each measure with a column for each rho."""
    measures = dict.fromkeys(name for row in rows.values() for name in row)
    return [{"measure": name, **{f"rho {rho}": row.get(name, "–") for rho, row in rows.items()}} for name in measures]


def _told(run: RunRecord, job: DiagnosisJob | None) -> tuple[dict[str, str], str]:
    """Return what is known of a run, by measure, and a sentence on who noticed; empty before anyone looked."""
    test: dict[str, Any] = (run.results or {}).get("splits", {}).get("test", {})
    row = {"test accuracy": _interval(test), "worst group": _worst(test)}
    if job is None or job.state != "finished":
        return row, ""
    from concept_tuning.report.blocks import Source

    try:
        source = Source(state.read_diagnosis(job.path))
    except StudioError:
        return row, "the diagnosis is damaged."
    return row | _detectors(source, run.path.name), _noticed(source)


def _noticed(source: Source) -> str:
    """Return which detectors warn and which do not, as a sentence."""
    from concept_tuning.figures.labels import listed
    from concept_tuning.report.findings import findings

    warned = {one.chapter for one in findings(source) if one.tone == "bad"}
    asked = [chapter for chapter in _WORDS if source.each(chapter) or source.joint(chapter)]
    yes = [_WORDS[chapter] for chapter in asked if chapter in warned]
    no = [_WORDS[chapter] for chapter in asked if chapter not in warned]
    if not yes:
        return f"none of the detectors noticed anything ({listed(no)})." if no else ""
    return f"noticed by {listed(yes)}{f'; not by {listed(no)}' if no else ''}."


def _detectors(source: Source, run: str) -> dict[str, str]:
    """Return in words what each detector says of a run."""
    from concept_tuning.figures.labels import number
    from concept_tuning.report.blocks import points

    edited, table = source.joint("counterfactuals"), source.joint("properties")
    effects, slices = source.each("concept-effects").get(run), source.each("slices").get(run)
    row = {}
    if edited is not None:
        row["more answers change with the background"] = points(edited.runs[0].flip_gap)
    if table is not None and table.properties:
        row["strongest property (0–1)"] = f"{table.properties[0].name} {number(table.properties[0].strength, 2)}"
    if effects is not None and effects.concepts and effects.concepts[0].suspicion is not None:
        row["most suspicious concept (0–1)"] = number(effects.concepts[0].suspicion, 2)
    if slices is not None and slices.p_value is not None:
        row["mistakes gather"] = f"p = {number(slices.p_value, 2)}"
    return row


def _interval(test: Mapping[str, Any]) -> str:
    try:
        return f"{100 * test['accuracy']:.0f} % {interval_words(test, digits=0)}"
    except (KeyError, TypeError, ValueError):
        return "–"


def _worst(test: Mapping[str, Any]) -> str:
    try:
        return worst_group(test, digits=0)
    except (KeyError, TypeError, ValueError):
        return "–"
