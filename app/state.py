"""What the dashboard's pages share: cached results and runs, the chosen diagnosis, and locks.

No other module of the dashboard caches for all sessions or locks; the Gradio demo, a process of its own, is apart.

Cached functions take the file's time of change as a key, so that a diagnosis or run that was made anew is read anew.
They take paths as bytes, since Streamlit makes no key of a name that is not UTF-8.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import streamlit as st
from pydantic import TypeAdapter

from app.markdown import plain
from concept_tuning.data.printable import as_unicode
from concept_tuning.diagnostics.words import MINUS
from concept_tuning.engine.runs import read_whole
from concept_tuning.errors import StudioError

if TYPE_CHECKING:
    import numpy as np
    import plotly.graph_objects as go

    from concept_tuning.config import PlantedConfig, RunConfig
    from concept_tuning.data.registry import DataBundle
    from concept_tuning.data.survey import Survey
    from concept_tuning.diagnostics.diagnose import Diagnosis
    from concept_tuning.diagnostics.lessons import HabitatGuess
    from concept_tuning.diagnostics.pictures import Pictures, Subject
    from concept_tuning.diagnostics.showcase import Showcase
    from concept_tuning.engine.records import RunRecord
    from concept_tuning.models.weights import BackboneEntry
    from concept_tuning.settings import Setting

AnswerT = TypeVar("AnswerT")

#: Folder of runs and diagnoses, and the demo that comes with the repository.
ROOT = Path(os.environ.get("CONCEPT_TUNING_RUNS", "runs"))
DEMO = Path(__file__).resolve().parents[1] / "assets" / "demo"
#: Record of `benchmarks/detector_sweep.py`.
SWEEP = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "detector_sweep.json"
DEMO_LABEL = "Demo: planted birds"
_FOLDER, _CHOICE = "diagnosis-folder", "diagnosis-choice"
#: Most letters of a diagnosis in words, and bytes that are read for them.
_WORDS, _MOST_READ = 200, 1 << 22


@dataclass(frozen=True)
class Source:
    """A diagnosis that can be shown.

    Attributes:
        label: What it is called in the choice.
        path: Its folder.
    """

    label: str
    path: Path


def diagnoses() -> list[Source]:
    """Return the diagnoses there are: the demo, then those below the folder of runs, newest first."""
    found = [Source(DEMO_LABEL, DEMO / "diagnosis")] if (DEMO / "diagnosis" / "diagnosis.json").is_file() else []
    files = sorted(ROOT.glob("**/diagnosis.json"), key=lambda path: -_stamp(path)) if ROOT.is_dir() else []
    return found + [Source(_label(path.parent), path.parent) for path in files]


def _label(folder: Path) -> str:
    """Return what a diagnosis below the folder of runs is called, which is never the demo's label."""
    name = as_unicode(str(folder.relative_to(ROOT)))
    return f"./{name}" if name == DEMO_LABEL else name


def choose_diagnosis() -> Diagnosis | None:
    """Let the user choose a diagnosis in the sidebar and return it; None, with a way on, where there is none.

    The choice is in the address (``?diagnosis=``) and holds on every page.

    Raises:
        RunError: if the chosen one is damaged.
    """
    known = {source.label: source.path for source in diagnoses()}
    if not known:
        st.info(
            "There is nothing to look at yet: train runs on the page Train, and diagnose them there.",
            icon=":material/info:",
        )
        return None
    wanted = st.session_state.get("diagnosis", st.query_params.get("diagnosis"))
    labels, words = list(known), _all_words(known)
    if wanted is not None and wanted not in known:
        st.warning(f"There is no diagnosis {plain(wanted)}; this is {plain(labels[0])}.", icon=":material/warning:")
    # Not by ``index``: each choice would make another field of it, which forgets the choice after that.
    st.session_state[_CHOICE] = wanted if wanted in known else labels[0]
    label = st.sidebar.selectbox(
        "Diagnosis",
        labels,
        key=_CHOICE,
        on_change=_choose,
        format_func=words.__getitem__,
        help="Which runs to look at. Make others on the Train page, or with `concept-tuning diagnose`.",
    )
    st.session_state["diagnosis"] = label
    st.session_state[_FOLDER] = known[label]
    if label == DEMO_LABEL:
        st.query_params.pop("diagnosis", None)
    else:
        st.query_params["diagnosis"] = label
    return read_diagnosis(known[label])


def _choose() -> None:
    st.session_state["diagnosis"] = st.session_state[_CHOICE]


def _all_words(known: Mapping[str, Path]) -> dict[str, str]:
    """Return the diagnoses in words by label, with the label where two have the same: the page sends back the words."""
    words = {name: _words(name, os.fsencode(path), _stamp(path / "diagnosis.json")) for name, path in known.items()}
    often = Counter(words.values())
    return {
        name: text if often[text] == 1 or name == DEMO_LABEL else f"{text} ({name})" for name, text in words.items()
    }


@st.cache_resource(max_entries=64, show_spinner=False)
def _words(label: str, path: bytes, stamp: int) -> str:
    """Return a diagnosis in words: the demo's label, else its folder's name and its runs, cut where that is long."""
    if label == DEMO_LABEL:
        return label
    folder = _path(path)
    try:
        runs = json.loads(read_whole(folder / "diagnosis.json", _MOST_READ))["runs"]
        return as_unicode(f"{folder.name}: {', '.join(str(run['name']) for run in runs)}"[:_WORDS])[:_WORDS]
    except (OSError, ValueError, TypeError, KeyError, RecursionError, StudioError):
        return label


def chosen_folder() -> Path:
    """Return the folder of the diagnosis that :func:`choose_diagnosis` returned."""
    folder: Path = st.session_state[_FOLDER]
    return folder


def read_diagnosis(path: Path) -> Diagnosis:
    """Return a diagnosis, read once for all sessions; raises RunError if it is missing or damaged."""
    return _diagnosis(os.fsencode(path), _stamp(path / "diagnosis.json"))


def read_showcase() -> Showcase | None:
    """Return the demo's showcase, or None where the demo is missing."""
    path = DEMO / "showcase.json"
    return _showcase(os.fsencode(path), _stamp(path)) if path.is_file() else None


def demo_verdict(methods: set[str]) -> str | None:
    """Return what the demo's diagnosis says of the accuracies of two methods; None where it says nothing.

    Read without the libraries that the whole diagnosis needs, so that the first page opens at once.
    """
    for path in sorted((DEMO / "diagnosis" / "results").glob("*_verdict.json")):
        try:
            verdicts = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
            found = [one["accuracy"]["sentence"] for one in verdicts if set(one.get("names", ())) == methods]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
        if found:
            return re.sub(r"(?<= )-(?=\d)", MINUS, str(found[0]))
    return None


@dataclass(frozen=True, eq=False)
class SharedRun:
    """A run's model that sessions share; hold the lock while it is used, since explanations put hooks on it."""

    subject: Subject
    lock: threading.Lock
    _named: dict[str, Subject] = field(default_factory=dict)

    def named(self, name: str) -> Subject:
        """Return the run under the name that a diagnosis gives it; what is computed of the model once is kept."""
        return self._named.setdefault(name, replace(self.subject, name=name))


def shared_run(path: Path) -> SharedRun:
    """Return a run's model, loaded once for all sessions; raises RunError if it cannot be."""
    return _run(os.fsencode(path), _stamp(path / "best" / "model.safetensors"))


def run_data(path: Path) -> DataBundle:
    """Return a run's data with its own splits, opened once for all sessions.

    Raises:
        StudioError: if the run cannot be loaded or its pictures are not there any more.
    """
    return _data(os.fsencode(path), _stamp(path / "best" / "model.safetensors"))


def ask_run(
    path: Path,
    name: str,
    keys: Sequence[str],
    split: str,
    question: Callable[..., AnswerT],
    *more: str,
) -> AnswerT:
    """Return what a function of :mod:`~concept_tuning.diagnostics.one_picture` says of pictures, asked once.

    Args:
        path: Folder of the run.
        name: What the run is called in the answer.
        keys: Names of the pictures.
        split: The split they are of.
        question: The function; it has the model for itself.
        more: What it takes besides run and pictures.

    Raises:
        StudioError: as :func:`run_data`, or if there is no such picture.
    """
    stamp = _stamp(path / "best" / "model.safetensors")
    answer: AnswerT = _asked(
        os.fsencode(path),
        stamp,
        name,
        tuple(keys),
        split,
        (question.__name__, *more),
        lambda *known: question(*known, *more),
    )
    return answer


def exported_model(path: Path, format: str) -> bytes:
    """Return a run's model as the bytes of a file, see :func:`~concept_tuning.engine.export.export_run`.

    Raises:
        RunError: if the run cannot be read, or a package for the format is missing.
    """
    return _exported(os.fsencode(path), _stamp(path / "best" / "model.safetensors"), format)


def drawn_report(diagnosis: Diagnosis, folder: Path) -> bytes:
    """Return the report of the diagnosis in a folder as HTML, drawn once: it takes some seconds.

    One that lies in the folder is never handed out: in a foreign diagnosis it may hold scripts, or lead elsewhere.
    """
    return _report(os.fsencode(folder), _stamp(folder / "diagnosis.json"), diagnosis)


def detector_sweep() -> dict[str, Any] | None:
    """Return the recorded sweep of the shortcut detectors over rho, or None where it is missing or damaged."""
    return _sweep(os.fsencode(SWEEP), _stamp(SWEEP))


def drawn_birds(config: PlantedConfig, seed: int, count: int) -> list[tuple[str, np.ndarray]]:
    """Return the first training pictures of planted birds, each with its class and habitat in words."""
    return _birds(TypeAdapter(type(config)).dump_json(config), seed, count)


@st.cache_resource(ttl=60, show_spinner=False)
def backbones() -> tuple[BackboneEntry, ...]:
    """Return the common backbones, those that work offline first."""
    from concept_tuning.models.weights import list_backbones

    return tuple(sorted(list_backbones(), key=lambda entry: not entry.offline))


@st.cache_resource(show_spinner=False)
def setting_rows() -> tuple[Setting, ...]:
    """Return every setting of a run with its help text."""
    from concept_tuning.settings import settings

    return settings()


@st.cache_resource(max_entries=256, show_spinner=False)
def run_config(source: str, backbone: str, method: str, preset: str, overrides: tuple[str, ...]) -> RunConfig:
    """Return the settings of a run; raises ConfigError where they are not valid."""
    from concept_tuning.settings import build_config

    return build_config(data=source, backbone=backbone, method=method, preset=preset, overrides=overrides)


@st.cache_resource(show_spinner="Guessing")
def habitat_guesses() -> list[HabitatGuess]:
    """Return what guessing by the habitat gets right, for rho from 0 to 1 in steps of 0.05."""
    from concept_tuning.diagnostics.lessons import guess_by_habitat

    return [guess_by_habitat(step / 20) for step in range(21)]


def survey_data(config: RunConfig) -> Survey:
    """Return what the data of a run holds, kept a minute; for five after :func:`check_data`, with all pictures checked.

    Raises:
        DataError: if the data cannot be used, or is a CSV file that names pictures outside its folder.
    """
    key = _data_key(config)
    checked = _checked(key)
    return checked[0] if checked else _survey(key)


def check_data(config: RunConfig, progress: Callable[[int, int], None]) -> Survey:
    """Decode every picture of the data of a run, and keep what was found; raises DataError as :func:`survey_data`."""
    from concept_tuning.data.survey import survey

    found = survey(config, check=True, progress=progress, contained=True)
    _checked(_data_key(config))[:] = [found]
    return found


def training_figures(runs: Sequence[RunRecord]) -> tuple[go.Figure, dict[str, go.Figure]]:
    """Return the accuracy curves of runs, and the loss curves of each; raises RunError if a file is damaged."""
    stamps = tuple((os.fsencode(run.path), _stamp(run.path / "metrics.jsonl")) for run in runs)
    return _training_figures(stamps, tuple(runs))


def _data_key(config: RunConfig) -> str:
    """Return what decides about the data, as text: the settings, and when source and the folders in it last changed."""
    values = {name: part for name, part in config.to_dict().items() if name in ("data", "planted", "elpv")}
    source = Path(config.data.source)
    try:
        inner = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
        inner += [path for folder in inner for path in sorted(folder.iterdir()) if path.is_dir()]
    except OSError:
        inner = []
    return json.dumps([values, [_stamp(path) for path in (source, *inner)]])


@st.cache_resource(max_entries=16, ttl=300, show_spinner=False)
def _checked(key: str) -> list[Survey]:
    """Return a place for what was found of the data of this key; empty until it was checked."""
    return []


@st.cache_resource(max_entries=16, show_spinner=False)
def _training_figures(
    stamps: tuple[tuple[bytes, int], ...], _runs: tuple[RunRecord, ...]
) -> tuple[go.Figure, dict[str, go.Figure]]:
    from concept_tuning.engine.records import read_metrics
    from concept_tuning.figures.training_curves import accuracy_figure, loss_figure

    metrics = {run.name: read_metrics(run) for run in _runs}
    return accuracy_figure(metrics), {name: loss_figure(found) for name, found in metrics.items()}


@st.cache_resource(max_entries=16, ttl=60, show_spinner="Counting the pictures")
def _survey(key: str) -> Survey:
    from concept_tuning.config import RunConfig
    from concept_tuning.data.survey import survey

    return survey(RunConfig.from_dict(json.loads(key)[0]), contained=True)


@st.cache_resource(max_entries=32, show_spinner=False)
def _birds(config: bytes, seed: int, count: int) -> list[tuple[str, np.ndarray]]:
    from concept_tuning.config import PlantedConfig
    from concept_tuning.data.planted import planted_table

    table = planted_table(TypeAdapter(PlantedConfig).validate_json(config), seed=seed)
    if table.groups is None:
        return []
    return [
        (f"{table.class_names[table.labels[row]]}, {table.group_names[table.groups[row]]}", table.read(row))
        for row in range(min(count, len(table)))
    ]


@st.cache_resource(max_entries=4, show_spinner=False)
def _exported(path: bytes, stamp: int, format: str) -> bytes:
    from concept_tuning.engine.export import export_run
    from concept_tuning.engine.loading import load_run

    with tempfile.TemporaryDirectory() as folder:
        return export_run(load_run(_path(path)), format, Path(folder) / f"model.{format}").read_bytes()


@st.cache_resource(max_entries=2, show_spinner=False)
def _report(path: bytes, stamp: int, _diagnosis: Diagnosis) -> bytes:
    from concept_tuning.report.page import render_report

    return render_report(_diagnosis).encode()


@st.cache_resource(max_entries=1, show_spinner=False)
def _sweep(path: bytes, stamp: int) -> dict[str, Any] | None:
    try:
        return dict(json.loads(_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(name: bytes) -> Path:
    return Path(os.fsdecode(name))


def _stamp(path: Path) -> int:
    """Return the time of a file's last change in nanoseconds, 0 where it is missing."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_resource(max_entries=8, show_spinner="Reading the diagnosis")
def _diagnosis(path: bytes, stamp: int) -> Diagnosis:
    from concept_tuning.diagnostics.diagnose import load_diagnosis

    return load_diagnosis(_path(path))


@st.cache_resource(max_entries=1, show_spinner=False)
def _showcase(path: bytes, stamp: int) -> Showcase:
    from concept_tuning.diagnostics.results import load_result
    from concept_tuning.diagnostics.showcase import Showcase

    return load_result(Showcase, _path(path))


@st.cache_resource(max_entries=6, show_spinner="Loading the model")
def _run(path: bytes, stamp: int) -> SharedRun:
    from concept_tuning.diagnostics.diagnose import load_subjects

    return SharedRun(load_subjects([_path(path)])[0], threading.Lock())


@st.cache_resource(max_entries=6, show_spinner="Opening the pictures")
def _data(path: bytes, stamp: int) -> DataBundle:
    return shared_run(_path(path)).subject.run.data()


@st.cache_resource(max_entries=256, show_spinner="Asking the network")
def _asked(
    path: bytes,
    stamp: int,
    name: str,
    keys: tuple[str, ...],
    split: str,
    told: tuple[str, ...],
    _question: Callable[[Subject, Pictures], Any],
) -> Any:
    from concept_tuning.diagnostics.one_picture import pick_pictures

    pictures = pick_pictures(run_data(_path(path)), keys, split=split)
    shared = shared_run(_path(path))
    with shared.lock:
        return _question(shared.named(name), pictures)
