"""Train: choose pictures and methods, start runs, watch them, and diagnose them when they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.method_words import method_label
from app.views import train_data, train_diagnose, train_runs, train_settings
from app.views.train_names import begin, follow_again, follow_name
from app.views.train_places import plain_name
from app.views.train_survey import show_survey
from app.views.train_time import said_time
from concept_tuning.config import DataConfig, PlantedConfig, RunConfig
from concept_tuning.engine.records import check_name, list_runs
from concept_tuning.errors import RunError, StudioError
from concept_tuning.settings import NEEDS_GROUPS

if TYPE_CHECKING:
    from concept_tuning.data.survey import Survey

_PARTS = ("pictures", "networks", "start", "runs", "diagnose")
_NAME = "train_name"


@dataclass(frozen=True)
class Comparison:
    """Runs that are ready to be started.

    Attributes:
        name: What all their names begin with.
        runs: Their settings by name; empty where they are not valid.
        free: Returns another name where this one is taken meanwhile; None if the user chose it.
    """

    name: str = ""
    runs: Mapping[str, RunConfig] = field(default_factory=dict)
    free: Callable[[], str] | None = None


def render() -> None:
    """Show the page."""
    st.title("Train")
    st.caption("Fine-tune a network on the same pictures by several methods, then see how they differ.")
    st.markdown(" · ".join(f"[{part.capitalize()}](#{part})" for part in _PARTS))
    st.header("1 · Pictures", anchor="pictures")
    choice = train_data.choose()
    counts = st.container()
    st.header("2 · Networks to compare", anchor="networks")
    plan = train_settings.choose(choice.source if choice else "")
    st.header("3 · Start", anchor="start")
    _show_started()
    planned = Comparison()
    if choice is None:
        st.info("Choose pictures first.", icon=":material/info:")
    else:
        planned = _planned(choice, plan)
    start = st.container()
    sure = any(_known_good(run) for run in planned.runs.values())
    if sure:
        with start:
            _start(planned, plan, None)
    st.header("Runs", anchor="runs")
    with shown_errors():
        train_runs.show()
    st.header("Diagnose", anchor="diagnose")
    with shown_errors():
        train_diagnose.show()
    # Last, since its first time loads the computing libraries: the page is there meanwhile.
    found = None
    with counts:
        if choice and planned.runs:
            found = show_survey(next(iter(planned.runs.values())), choice.called)
    if choice and not sure:
        with start:
            _start(planned, plan, found)


def _known_good(run: RunConfig) -> bool:
    """Whether the pictures can be used without a look at them, which takes its time at first."""
    return run.planted == PlantedConfig() and run.data == DataConfig()


def _planned(choice: train_data.Choice, plan: train_settings.Plan) -> Comparison:
    """Let the user name the runs and return them with their settings, none where they are not valid."""
    suggested = _free_name(choice.name)
    follow_name(_NAME, suggested)
    name = plain_name(st.text_input("Name of this comparison", key=_NAME)) or suggested
    try:
        runs = train_settings.planned_runs(choice, plan, name)
        for run in runs:
            check_name(run)
        _refuse_taken(runs)
    except StudioError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return Comparison()
    if not runs:
        st.info("Choose one or more methods.", icon=":material/info:")
        return Comparison()
    st.caption(f"The runs will be called {plain(_listed(list(runs)))}.")
    return Comparison(name, runs, (lambda: _free_name(choice.name)) if name == suggested else None)


def _refuse_taken(names: Iterable[str]) -> None:
    known = {run.name for run in list_runs(state.ROOT)}
    taken = next((name for name in names if name in known), None)
    if taken is not None:
        raise RunError(f"There is a run {taken!r} already; choose another name.")


def _free_name(name: str) -> str:
    """Return a name, with a number where runs of that name are there."""
    with shown_errors():
        taken = [run.name for run in list_runs(state.ROOT)]
        names = (name if number == 1 else f"{name}-{number}" for number in range(1, 10_000))
        return next(free for free in names if not any(run == free or run.startswith(f"{free}-") for run in taken))
    return name


def _start(planned: Comparison, plan: train_settings.Plan, found: Survey | None) -> None:
    """Let the user start the runs, unless their pictures were refused or lack groups; say how long they take."""
    runs = planned.runs
    good = found is not None or any(_known_good(run) for run in runs.values())
    lacking = _without_groups(plan.methods, found)
    ready = bool(runs) and good and not lacking
    if ready:
        st.caption(said_time(runs.values(), _counts(next(iter(runs.values())), found), plan.preset))
    label = "Start 1 run" if len(runs) == 1 else f"Start {len(runs)} runs" if runs else "Start"
    pressed = st.button(label, type="primary", icon=":material/play_arrow:", disabled=not ready, key="train_start")
    if runs and not good:
        st.caption("These pictures cannot be used, see above why. Choose other pictures first.")
        return
    if runs and lacking:
        labels = " and ".join(method_label(method) for method in lacking)
        st.error(
            f"{labels} {'needs' if len(lacking) == 1 else 'need'} group labels, and these pictures have none. Leave "
            "that out, or use pictures with groups: planted birds, solar cells, or a CSV file with a group column.",
            icon=":material/error:",
        )
        return
    if pressed and ready:
        with shown_errors():
            _queue(planned)
            follow_again(_NAME)
            st.rerun()
    st.caption("Each run is a process of its own, and they train one after another. You may close this page meanwhile.")


def _counts(config: RunConfig, found: Survey | None) -> dict[str, int]:
    """Return the pictures of each split."""
    if found is not None:
        return {name: int(counts.sum()) for name, counts in found.counts.items()}
    birds = config.planted
    return {"train": birds.images, "val": birds.validation_images, "test": birds.test_images}


def _without_groups(methods: Iterable[str], found: Survey | None) -> list[str]:
    """Return the methods that need group labels where the pictures have none; planted birds, not looked at, have."""
    without = found is not None and not found.group_names
    return [method for method in methods if without and method in NEEDS_GROUPS]


def _queue(planned: Comparison) -> None:
    from concept_tuning.engine import jobs

    def start(name: str) -> None:
        runs = {f"{name}{run.removeprefix(planned.name)}": config for run, config in planned.runs.items()}
        st.session_state[train_runs.STARTED] = [run.name for run in jobs.start_together(runs, state.ROOT)]

    with st.spinner("Starting"):
        begin(start, planned.name, planned.free)


def _show_started() -> None:
    """Say what became of the runs that this session started last, with the way to them."""
    with shown_errors():
        names = st.session_state.get(train_runs.STARTED, [])
        runs = [run for run in list_runs(state.ROOT) if run.name in names]
        working = sum(run.working for run in runs)
        if working:
            subject = "1 run is" if working == 1 else f"{working} runs are"
            st.info(f"{subject} on the way: [see how they learn](#runs).", icon=":material/hourglass_top:")
        elif any(run.state == "finished" for run in runs):
            st.success(
                "Training is done: [see the results](#runs), then [diagnose the runs](#diagnose).",
                icon=":material/check:",
            )
        elif runs:
            st.warning("No run was finished: [see why](#runs).", icon=":material/warning:")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and so on"
