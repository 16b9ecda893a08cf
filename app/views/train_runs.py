"""The runs of Train, live: state, progress and curves, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from app import state
from app.errors import shown_errors
from app.markdown import plain
from app.method_words import method_label
from app.views.train_places import as_called, called_upload
from concept_tuning.diagnostics.background import refuse_while_diagnosed
from concept_tuning.engine.records import RunRecord, list_runs
from concept_tuning.errors import StudioError

_BUSY_SECONDS, _IDLE_SECONDS = 2, 10
_FIRST = 6
_MOST_CURVES = 4
_COLOURS = {"finished": "green", "failed": "red", "broken": "red", "stopped": "orange", "interrupted": "orange"}
_SEEN = "train_seen"
#: Names of the runs that this session started last.
STARTED = "train_started"


def show() -> None:
    """Show the runs, and keep them up to date."""
    runs = list_runs(state.ROOT)
    st.session_state[_SEEN] = _states(runs)
    seconds = _BUSY_SECONDS if any(run.working for run in runs) else _IDLE_SECONDS
    st.fragment(_live, run_every=seconds)()


def follow(key: str, options: Sequence[str], suggested: Sequence[str]) -> None:
    """Keep a choice of runs at what is suggested until the user changes it; then only drop runs that are gone."""
    kept = st.session_state.get(key)
    given = f"{key}_given"
    if kept is None or kept == st.session_state.get(given):
        st.session_state[key] = list(suggested)
    else:
        st.session_state[key] = [name for name in kept if name in options]
    st.session_state[given] = list(suggested)


def _live() -> None:
    with shown_errors():
        _show_all()


def _show_all() -> None:
    runs = list_runs(state.ROOT)
    if st.session_state.get(_SEEN) != _states(runs):
        st.rerun()  # a run came, went or ended: other parts of the page list it too
    if not runs:
        st.info("No runs yet. Choose pictures and methods above and start them.", icon=":material/info:")
        return
    runs.sort(key=lambda run: (not run.working, -(run.updated.timestamp() if run.updated else 0.0)))
    everything = len(runs) <= _FIRST or st.toggle(f"Show all {len(runs)} runs", key="train_all")
    for run in runs if everything else runs[:_FIRST]:
        with st.container(border=True), shown_errors():
            _show_run(run)
    _curves(runs)


def _states(runs: list[RunRecord]) -> dict[str, str]:
    return {run.name: run.state for run in runs}


def _show_run(run: RunRecord) -> None:
    word = "stopping" if run.stopping else run.state
    st.markdown(f"**{plain(run.name)}** :{_COLOURS.get(run.state, 'blue')}-badge[{word}]")
    if run.method:
        st.caption(f"{method_label(run.method)} · {plain(run.backbone)} · {plain(_source(run))} · seed {run.seed}")
    if run.state == "finished" and run.results is not None:
        st.markdown(_result(run))
    else:
        if run.total_steps:
            st.progress(run.progress, text=_progress(run))
        st.markdown(plain(as_called(run.message, run.source, _source(run))))
    if run.state == "failed" and not _can_go_on(run):
        st.caption("It ended before its first step, so nothing can go on: mend what is said here and start new runs.")
    _controls(run)


def _source(run: RunRecord) -> str:
    return called_upload(Path(run.source.replace("\\", "/")))


def _can_go_on(run: RunRecord) -> bool:
    """Whether resuming may help: a failure before the pictures were even split would only come again."""
    rests = run.state in ("stopped", "interrupted", "failed")
    return rests and (run.state != "failed" or run.step > 0 or (run.path / "split.json").is_file())


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


def interval_words(cell: Mapping[str, Any], digits: int) -> str:
    """Return the 95 % interval of an accuracy, in percent, with the numbers of pictures and, if known, of units."""
    low, high = (f"{100 * cell[end]:.{digits}f}" for end in ("low", "high"))
    units = f" of {cell['units']} units" if cell.get("units") is not None else ""
    return f"[95 %: {low} to {high}], n = {cell['n']}{units}"


def worst_group(split: Mapping[str, Any], digits: int) -> str:
    """Return how a split's worst group is told: accuracy, interval and count as far as they are stored."""
    name = split.get("worst_group")
    text = f"{100 * split['worst_group_accuracy']:.{digits}f} %"
    cell = next((cell for cell in split.get("groups", ()) if cell["name"] == name), None)
    if cell is not None:
        text += f" {interval_words(cell, digits)}"
    return f"{text} ({name})"


def _result(run: RunRecord) -> str:
    test = (run.results or {}).get("splits", {}).get("test", {})
    try:
        text = f"Test accuracy **{100 * test['accuracy']:.1f} %** {interval_words(test, digits=1)}"
        if test.get("worst_group_accuracy") is not None:
            text += f"; worst group {plain(worst_group(test, digits=1))}"
    except (KeyError, TypeError, ValueError):
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
        elif _can_go_on(run) and _button(run, "Resume", "play_arrow"):
            _act(lambda: jobs.resume(run), f"{run.name} is queued again")
        if not run.working:
            with st.popover("Rename", icon=":material/edit:", key=f"train_rename_{run.name}"):
                new = st.text_input("New name", run.path.name, key=f"train_new_{run.name}")
                if _button(run, "Rename it", "check"):
                    _act(lambda: _at_peace(run, lambda: jobs.rename(run, new)), f"{run.name} is now called {new}")
            with st.popover("Delete", icon=":material/delete:", key=f"train_delete_{run.name}"):
                st.markdown(f"The weights, curves and results of **{plain(run.name)}** will be gone for good.")
                if _button(run, "Delete for good", "delete_forever"):
                    _act(lambda: _at_peace(run, lambda: jobs.delete(run)), f"{run.name} is deleted")


def _at_peace(run: RunRecord, action: Callable[[], object]) -> None:
    """Do what takes a run's folder away; raises RunError while a diagnosis reads it."""
    refuse_while_diagnosed(run)
    action()


def _button(run: RunRecord, label: str, icon: str) -> bool:
    return st.button(label, icon=f":material/{icon}:", key=f"train_{icon}_{run.name}")


def _act(action: Callable[[], object], done: str) -> None:
    """Do something with a run and say so, or why not; a toast outlives the next rerun."""
    try:
        action()
    except StudioError as error:
        st.toast(plain(str(error)), icon=":material/error:", duration="long")
        return
    st.toast(f"{plain(done)}.", icon=":material/check:")
    st.rerun()


def _curves(runs: list[RunRecord]) -> None:
    begun = {run.name: run for run in runs if run.step}
    if not begun:
        return
    st.subheader("Curves")
    suggested = [name for name in st.session_state.get(STARTED, []) if name in begun][:_MOST_CURVES]
    suggested = suggested or list(begun)[:2]
    asked = dict.fromkeys(st.query_params.get_all("run"))
    wanted = [name for name in asked if name in begun][:_MOST_CURVES]
    if wanted and "train_curves" not in st.session_state:
        st.session_state["train_curves"] = wanted
    follow("train_curves", list(begun), suggested)
    chosen = st.multiselect("Runs to draw", list(begun), max_selections=_MOST_CURVES, key="train_curves")
    st.query_params["run"] = chosen if chosen != suggested else []
    if not chosen:
        st.caption("Choose one or more runs.")
        return
    try:
        accuracy, losses = state.training_figures([begun[name] for name in chosen])
    except StudioError as error:
        st.warning(plain(str(error)), icon=":material/warning:")
        return
    caption = "Share of the validation pictures that are right, in percent, after each evaluation. Higher is better."
    st.plotly_chart(accuracy, theme=None, width="stretch", key="train_accuracy", alt=caption)
    st.caption(caption)
    caption = "What training makes small, step by step: all terms together (thick), and each where there are more."
    for name, figure in losses.items():
        st.markdown(f"**Loss of {plain(name)}**")
        st.plotly_chart(figure, theme=None, width="stretch", key=f"train_loss_{name}", alt=f"{name}: {caption}")
    st.caption(caption)
