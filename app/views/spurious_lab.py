"""The planted-shortcut lab: slide how strong a shortcut is, train a small network on it, watch who notices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.blocks import show_figure
from app.errors import shown_errors
from app.markdown import plain
from app.views import spurious_lab_runs
from concept_tuning.engine.records import list_runs

if TYPE_CHECKING:
    from concept_tuning.config import PlantedConfig, RunConfig

_DRAWN, _WIDTH = 10, 128
#: A budget for two processor cores, that of `benchmarks/detector_sweep.py`.
_SMALL = {
    "images": 300,
    "validation_images": 200,
    "test_images": 240,
    "image_size": 96,
    "batch_size": 32,
    "max_steps": 60,
    "epochs": 100,
    "lr": 0.1,
    "backbone_lr_scale": 0.3,
}


def show() -> None:
    """Show the lab."""
    st.subheader("Plant a shortcut, and see who notices")
    st.markdown(
        "Birds are put at home (gulls before water) in a share *rho* of the training pictures, and anywhere, home too, "
        "in the others. In the test every habitat is equally common. The higher rho, the better it pays to look at the "
        "habitat alone.\n\n"
        "1. **Slide** rho.\n"
        "2. **Train** a small network.\n"
        "3. Let the **detectors** of this page look at it: they are not told where the birds live.\n\n"
        "Then again with another rho."
    )
    rho = st.slider("rho: share of birds put at home", 0.0, 1.0, 0.95, 0.05, key="spurious-rho", bind="query-params")
    config = _settings(rho)
    _preview(config.planted)
    _start(config, rho)
    spurious_lab_runs.show()
    _recorded()


def _settings(rho: float) -> RunConfig:
    from concept_tuning.settings import build_config

    return build_config(data="planted", method="vanilla", overrides={**_SMALL, "rho": round(rho, 2)})


def _preview(config: PlantedConfig) -> None:
    from concept_tuning.data.planted import species_pairs

    homes = {name: home for pair in species_pairs(config) for name, home in zip(pair.names, pair.homes, strict=True)}
    drawn = state.drawn_birds(config, 0, _DRAWN)
    with st.container(horizontal=True, gap="small"):
        for text, image in drawn:
            name, _, habitat = text.rpartition(", ")
            where = f"{text}: {'at home' if homes.get(name) == habitat else 'away'}"
            st.image(image, caption=plain(where), alt=where, width=_WIDTH)
    lives = ", ".join(f"{name}: {home}" for name, home in homes.items())
    st.caption(f"The first training pictures at this rho. Homes: {plain(lives)}.")


def _start(config: RunConfig, rho: float) -> None:
    name = spurious_lab_runs.run_name(rho)
    known = any(run.name == name for run in list_runs(state.ROOT))
    label = f"Train at rho {rho:.2f}"
    if st.button(label, type="primary", icon=":material/play_arrow:", disabled=known, key="spurious-train"):
        with shown_errors():
            from concept_tuning.engine import jobs

            with st.spinner("Starting"):
                jobs.start(config, state.ROOT, name)
            st.rerun()
    st.caption(
        "There is a run at this rho below; slide to another, or delete it on the Train page to train it again."
        if known
        else "300 pictures, 60 steps, plain fine-tuning: one to three minutes on two cores, in the background. You may "
        "close this page meanwhile."
    )


def _recorded() -> None:
    """Show the recorded sweep: what the detectors do over many runs, which one run cannot tell."""
    st.markdown("##### Over many runs")
    record = state.detector_sweep()
    if record is None or not record.get("detection"):
        st.info(
            "One run proves little. The recorded sweep over many seeds is not there yet; "
            "`python benchmarks/detector_sweep.py` makes it (it trains some thirty networks).",
            icon=":material/info:",
        )
        return
    from concept_tuning.figures.detection import detection_figure

    caption = (
        "How often a run with the shortcut gets a higher score from a detector than a clean run (AUC: 0.5 is chance, 1 "
        "always). Bars are 95 % intervals over runs; at 0 and 1 they have no width, whatever the number of runs, which "
        "is told on hover. Only the dotted line is told the habitats."
    )
    show_figure(detection_figure(record["detection"]), key="spurious-sweep", alt=caption)
    commands = "`, `".join(re.sub(r"[`\n]", "", text) for text in record.get("commands", []))
    st.caption(caption + (f" Made by `{commands}`." if commands else ""))
