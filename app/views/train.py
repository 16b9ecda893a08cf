"""Train: choose pictures and methods, start runs, watch them, and diagnose them when they are done."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from app import state
from app.errors import shown_errors
from app.views import train_data, train_diagnose, train_runs, train_settings
from concept_tuning.config import RunConfig
from concept_tuning.engine.records import check_name
from concept_tuning.errors import StudioError


def render() -> None:
    """Show the page."""
    st.title("Train")
    st.caption("Fine-tune a network on the same pictures by several methods, then see how they differ.")
    st.header("1 · Pictures")
    choice = train_data.choose()
    counts = st.container()
    st.header("2 · Networks to compare")
    plan = train_settings.choose(choice.source if choice else "")
    st.header("3 · Start")
    runs: dict[str, RunConfig] = {}
    if choice is None:
        st.info("Choose pictures first.", icon=":material/info:")
    else:
        runs = _start(choice, plan)
    st.header("Runs")
    with shown_errors():
        train_runs.show()
    st.header("Diagnose")
    with shown_errors():
        train_diagnose.show()
    # Last, since its first time loads the computing libraries: the page is there meanwhile.
    with counts:
        if runs:
            train_data.show_survey(next(iter(runs.values())))


def _start(choice: train_data.Choice, plan: train_settings.Plan) -> dict[str, RunConfig]:
    """Let the user name and start the runs; return their settings, none where they are not valid."""
    stamp = st.session_state.setdefault("train_stamp", datetime.now().strftime("%m%d-%H%M"))
    name = st.text_input(
        "Name of this comparison", f"{choice.name}-{stamp}", key=f"train_name_{choice.name}_{stamp}"
    ).strip()
    try:
        runs = train_settings.planned_runs(choice, plan, name)
        for run in runs:
            check_name(run)
    except StudioError as error:
        st.error(str(error), icon=":material/error:")
        return {}
    if not runs:
        st.info("Choose one or more methods.", icon=":material/info:")
    label = "Start 1 run" if len(runs) == 1 else f"Start {len(runs)} runs"
    if st.button(label, type="primary", icon=":material/play_arrow:", disabled=not runs, key="train_start"):
        with shown_errors():
            _queue(runs)
            st.session_state["train_stamp"] = datetime.now().strftime("%m%d-%H%M%S")
            st.rerun()
    st.caption("Each run is a process of its own, and they train one after another. You may close this page meanwhile.")
    return runs


def _queue(runs: dict[str, RunConfig]) -> None:
    from concept_tuning.engine import jobs

    with st.spinner("Starting"):
        for name, config in runs.items():
            jobs.start(config, state.ROOT, name)
