"""A small real diagnosis for the pages, and a way to run one page on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import state

#: Quick analyses; rare features and the ledger have no result for runs that began at random.
ANALYSES = (
    "predictions", "groups", "verdict", "ledger", "picture-maps", "concept-maps", "position-attention",
    "rare-features", "switches", "slices", "embedding",
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_diagnosis(subjects, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a diagnosis of two runs of a few steps."""
    from concept_tuning.diagnostics.diagnose import diagnose
    from concept_tuning.diagnostics.workbench import Workbench

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    diagnose(Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=None), folder, only=ANALYSES)
    return folder


@pytest.fixture
def show(tiny_diagnosis: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., AppTest]:
    """Return a function that runs a view once; ``root`` is the folder of runs, by default that of the diagnosis."""
    monkeypatch.setattr(state, "DEMO", tmp_path / "no-demo")

    def run(name: str, root: Path = tiny_diagnosis.parent, **query: str) -> AppTest:
        monkeypatch.setattr(state, "ROOT", root)
        test = AppTest.from_function(_render, default_timeout=120, kwargs={"name": name})
        for key, value in query.items():
            test.query_params[key] = value
        return test.run()

    return run


def _render(name: str) -> None:
    import importlib as loader

    from app.errors import shown_errors

    with shown_errors():
        loader.import_module(f"app.views.{name}").render()
