"""The runs of Train, live: state, progress and curves, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app import state
from app.method_words import method_label
from concept_tuning.engine.records import RunRecord, list_runs
from concept_tuning.errors import StudioError

_BUSY_SECONDS, _IDLE_SECONDS = 2, 10
_FIRST = 6
_MOST_CURVES = 4
_COLOURS = {"finished": "green", "failed": "red", "broken": "red", "stopped": "orange", "interrupted": "orange"}
_SEEN = "train_seen"


def show() -> None:
    """Show the runs, and keep them up to date."""
    runs = list_runs(state.ROOT)
    st.session_state[_SEEN] = _states(runs)
    seconds = _BUSY_SECONDS if any(run.working for run in runs) else _IDLE_SECONDS
    st.fragment(_live, run_every=seconds)()


def _live() -> None:
    runs = list_runs(state.ROOT)
    if st.session_state.get(_SEEN) != _states(runs):
        st.rerun()  # a run came, went or ended: other parts of the page list it too
    if not runs:
        st.info("No runs yet. Choose pictures and methods above and start them.", icon=":material/info:")
        return
    runs.sort(key=lambda run: (not run.working, -(run.updated.timestamp() if run.updated else 0.0)))
    everything = len(runs) <= _FIRST or st.toggle(f"Show all {len(runs)} runs", key="train_all")
    for run in runs if everything else runs[:_FIRST]:
        with st.container(border=True):
            _show_run(run)
    _curves(runs)


def _states(runs: list[RunRecord]) -> dict[str, str]:
    return {run.name: run.state for run in runs}


def _show_run(run: RunRecord) -> None:
    word = "stopping" if run.stopping else run.state
    st.markdown(f"**{run.name}** :{_COLOURS.get(run.state, 'blue')}-badge[{word}]")
    if run.method:
        st.caption(f"{method_label(run.method)} · {run.backbone} · {_source(run)} · seed {run.seed}")
    if run.state == "finished" and run.results is not None:
        st.markdown(_result(run))
    else:
        if run.total_steps:
            st.progress(run.progress, text=_progress(run))
        st.markdown(run.message)
    _controls(run)


def _source(run: RunRecord) -> str:
    return run.source.replace("\\", "/").rsplit("/", 1)[-1]


def _progress(run: RunRecord) -> str:
    parts = [f"step {run.step} of {run.total_steps}"]
    if run.seconds_left is not None:
        parts.append(f"{_duration(run.seconds_left)} left")
    if run.images_per_second is not None and run.working:
        parts.append(f"{run.images_per_second:.3g} images/s")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _result(run: RunRecord) -> str:
    test = (run.results or {}).get("splits", {}).get("test", {})
    try:
        text = (
            f"Test accuracy **{100 * test['accuracy']:.1f} %** "
            f"[{100 * test['low']:.1f}, {100 * test['high']:.1f}], n = {test['n']}"
        )
        if test.get("worst_group_accuracy") is not None:
            text += f"; worst group {100 * test['worst_group_accuracy']:.1f} % ({test['worst_group']})"
    except (KeyError, TypeError):
        return "Finished, without readable results."
    return text


def _controls(run: RunRecord) -> None:
    from concept_tuning.engine import jobs

    with st.container(horizontal=True, gap="small"):
        if run.stopping:
            if _button(run, "Stop by force", "block"):
                _act(lambda: jobs.stop(run, grace=0), f"{run.name} is stopped")
        elif run.working:
            if _button(run, "Stop", "stop"):
                _act(lambda: jobs.request_stop(run), f"{run.name} ends its step, writes a checkpoint and stops")
        elif run.state in ("stopped", "interrupted", "failed") and _button(run, "Resume", "play_arrow"):
            _act(lambda: jobs.resume(run), f"{run.name} is queued again")
        if not run.working:
            with st.popover("Rename", icon=":material/edit:", key=f"train_rename_{run.name}"):
                new = st.text_input("New name", run.path.name, key=f"train_new_{run.name}")
                if _button(run, "Rename it", "check"):
                    _act(lambda: jobs.rename(run, new), f"{run.name} is now called {new}")
            with st.popover("Delete", icon=":material/delete:", key=f"train_delete_{run.name}"):
                st.markdown(f"The weights, curves and results of **{run.name}** will be gone for good.")
                if _button(run, "Delete for good", "delete_forever"):
                    _act(lambda: jobs.delete(run), f"{run.name} is deleted")


def _button(run: RunRecord, label: str, icon: str) -> bool:
    return st.button(label, icon=f":material/{icon}:", key=f"train_{icon}_{run.name}")


def _act(action: Callable[[], object], done: str) -> None:
    """Do something with a run and say so, or why not; a toast outlives the next rerun."""
    try:
        action()
    except StudioError as error:
        st.toast(str(error), icon=":material/error:", duration="long")
        return
    st.toast(f"{done}.", icon=":material/check:")
    st.rerun()


def _curves(runs: list[RunRecord]) -> None:
    begun = {run.name: run for run in runs if run.step}
    if not begun:
        return
    st.subheader("Curves")
    wanted = [name for name in st.query_params.get_all("run") if name in begun]
    default = wanted or [name for name, run in begun.items() if run.working][:2] or list(begun)[:2]
    if "train_curves" in st.session_state:
        st.session_state["train_curves"] = [name for name in st.session_state["train_curves"] if name in begun]
    chosen = st.multiselect(
        "Runs to draw",
        list(begun),
        default=None if "train_curves" in st.session_state else default,
        max_selections=_MOST_CURVES,
        key="train_curves",
    )
    st.query_params["run"] = chosen
    if not chosen:
        st.caption("Choose one or more runs.")
        return
    try:
        accuracy, losses = state.training_figures([begun[name] for name in chosen])
    except StudioError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    st.plotly_chart(accuracy, theme=None, width="stretch", key="train_accuracy")
    st.caption("Share of the validation pictures that are right, in percent, after each evaluation. Higher is better.")
    for name, figure in losses.items():
        st.markdown(f"**Loss of {name}**")
        st.plotly_chart(figure, theme=None, width="stretch", key=f"train_loss_{name}")
    st.caption("What training makes small, step by step: all terms together (thick), and each where there are more.")
