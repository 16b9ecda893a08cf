"""What can be taken away: the report, the predictions, the results as a bundle that can be checked, the models.

Files are made when their button is clicked, away from the page, which stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app import state
from app.markdown import plain
from app.views.compare_runs import run_places
from concept_tuning.errors import StudioError

if TYPE_CHECKING:
    from concept_tuning.diagnostics.diagnose import RunCard
    from concept_tuning.report.blocks import Source

_FAILED = "compare-failed"
_FORMATS = {"safetensors": "Weights (safetensors)", "onnx": "Whole model (ONNX)"}


def show(source: Source, folder: Path) -> None:
    """Show the buttons; ``folder`` is that of the diagnosis."""
    if not (folder / "diagnosis.json").is_file():
        st.info(
            f"The folder {plain(folder.name)} of this diagnosis is not there any more, so that there is nothing to "
            "take away. Put it back, or choose another diagnosis.",
            icon=":material/info:",
        )
        return
    failed: list[str] = st.session_state.setdefault(_FAILED, [])
    while failed:
        st.error(plain(failed.pop(0)), icon=":material/error:")
    cards = source.diagnosis.overview.runs
    places = {card.name: found for card in cards if (found := run_places(folder, card))}
    name = re.sub(r"[^\w.-]+", "-", folder.name)
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            "Report (HTML)",
            kept_errors(lambda: state.drawn_report(source.diagnosis, folder), failed),
            f"{name}-report.html",
            "text/html",
            key="compare-report",
            on_click="ignore",
            icon=":material/description:",
            help="One file that opens offline.",
        )
        st.download_button(
            "Predictions (CSV)",
            kept_errors(lambda: predictions_file(source), failed),
            f"{name}-predictions.csv",
            "text/csv",
            key="compare-csv",
            on_click="ignore",
            icon=":material/table:",
            help="A row for each picture, with what every run says of it.",
        )
        st.download_button(
            "Results (zip)",
            kept_errors(lambda: bundle(folder, places), failed),
            f"{name}-bundle.zip",
            "application/zip",
            key="compare-bundle",
            on_click="ignore",
            icon=":material/inventory_2:",
            help="All results as JSON, with settings, seeds and data fingerprints of the runs that are still there.",
        )
    st.caption(
        "The report is one page of up to some 20 MB, and takes some seconds to be drawn. In the CSV, names that a "
        "spreadsheet might take for a formula get an apostrophe. The zip holds a sum of every file: unpack it and run "
        "`sha256sum --check SHA256SUMS`; `manifest.json` names what was too large for it. Settings in it name folders "
        "of this machine."
    )
    _models(cards, places, failed)


def kept_errors(make: Callable[[], bytes], failed: list[str]) -> Callable[[], bytes]:
    """Return a function that makes a file, and keeps what went wrong in words until the page is shown again.

    A file is made away from the page, and the browser is told no more than that it could not be made.
    """

    def made() -> bytes:
        try:
            return make()
        except StudioError as error:
            failed.append(f"The file could not be made: {error}")
            raise
        except OSError as error:
            failed.append(f"The file could not be made ({error.strerror}): its folder may be gone. Reload the page.")
            raise

    return made


def predictions_file(source: Source) -> bytes:
    """Return the predictions as CSV with a mark at the beginning, without which spreadsheets misread accents."""
    from concept_tuning.report.predictions_csv import predictions_csv

    return predictions_csv(source).encode("utf-8-sig")


def bundle(folder: Path, places: dict[str, list[Path]]) -> bytes:
    """Return the bundle with the settings of the runs whose folder is known for sure."""
    from concept_tuning.report.bundle import make_bundle

    return make_bundle(folder, {name: found[0] for name, found in places.items() if len(found) == 1})


def _models(cards: tuple[RunCard, ...], places: dict[str, list[Path]], failed: list[str]) -> None:
    st.markdown("##### Models")
    missing = [card.name for card in cards if card.name not in places]
    if missing:
        st.caption(
            f":material/info: No folder is known for {plain(', '.join(missing))}: a diagnosis knows names alone, and "
            f"below {plain(str(state.ROOT))} no trained run fits. Export it by `concept-tuning export FOLDER --format "
            "onnx --out model.onnx`."
        )
    if not places:
        return
    first, second = st.columns(2)
    name = first.selectbox("Run", list(places), key="compare-model")
    path = places[name][0]
    if len(places[name]) > 1:
        path = second.selectbox(
            "Its folder (several fit)", places[name], format_func=_short, key=f"compare-folder-{name}"
        )
    _model_buttons(name, path, failed)


def _model_buttons(name: str, path: Path, failed: list[str]) -> None:
    lacking = [package for package in ("onnx", "onnxscript") if find_spec(package) is None]
    with st.container(horizontal=True, gap="small"):
        for kind, label in _FORMATS.items():
            st.download_button(
                label,
                kept_errors(partial(state.exported_model, path, kind), failed),
                f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.{kind}",
                "application/octet-stream",
                key=f"compare-{kind}",
                on_click="ignore",
                icon=":material/download:",
                disabled=kind == "onnx" and bool(lacking),
            )
    st.caption(
        f"Best weights of {plain(_short(path))}. Both files carry the class names; the ONNX file takes pictures of "
        "0 to 255 and gives probabilities, and needs some ten seconds to be made."
    )
    if lacking:
        st.caption(f":material/info: ONNX needs `pip install {' '.join(lacking)}` on this server.")


def _short(path: Path) -> str:
    """Return a run's folder as it is below the folder of runs, or in the demo."""
    for root, word in ((state.ROOT.resolve(), ""), (state.DEMO.resolve(), "demo: ")):
        if path.is_relative_to(root):
            return word + path.relative_to(root).as_posix()
    return str(path)
