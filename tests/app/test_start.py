from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import state
from concept_tuning.diagnostics.results import save_result
from concept_tuning.diagnostics.showcase import Showcase, ShowcaseRun

MAIN = Path(__file__).parents[2] / "app" / "main.py"

#: Opens the first page as a new server would, and tells what it had to import.
OPEN = """
import sys, time
from pathlib import Path
from streamlit.testing.v1 import AppTest
from app import state
state.DEMO = Path(sys.argv[2])
started = time.monotonic()
page = AppTest.from_file(sys.argv[1], default_timeout=60).run()
print(len(page.exception), len(page.error), page.title[0].value)
print(sorted({"torch", "torchvision", "timm", "captum", "sklearn", "umap", "scipy"} & set(sys.modules)))
print(time.monotonic() - started)
"""


def run(method: str, predicted: int, outside: float | None) -> ShowcaseRun:
    probabilities = np.array([0.2, 0.2], np.float32)
    probabilities[predicted] = 0.8
    return ShowcaseRun(
        name=method,
        method=method,
        probabilities=probabilities,
        predicted=predicted,
        values=np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7),
        outside=outside,
        accuracy=0.5,
    )


def example(outside: float | None = 0.6) -> Showcase:
    return Showcase(
        key="test/000001",
        image=np.full((64, 64, 3), 120, np.uint8),
        label=0,
        group="water",
        usual=1,
        class_names=("owl", "tern"),
        map_name="grad-cam",
        pictures=10,
        runs=(run("vanilla", 1, outside), run("concept-tuning", 0, outside)),
    )


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "DEMO", tmp_path)
    monkeypatch.setattr(state, "ROOT", tmp_path / "runs")
    return tmp_path


def opened() -> AppTest:
    return AppTest.from_file(str(MAIN), default_timeout=60).run()


@pytest.mark.parametrize("outside", [0.6, None])
def test_it_shows_the_picture_the_predictions_and_both_maps(demo: Path, outside: float | None) -> None:
    save_result(example(outside), demo / "showcase.json")
    page = opened()
    assert not page.exception
    assert not page.error
    assert example(outside).sentence in page.success[0].value
    assert len(page.get("image")) == 3
    words = " ".join(part.value for part in page.markdown)
    assert "says **tern** :orange-badge" in words
    assert "says **owl** :green-badge" in words
    assert {"tern 80 %", "owl 20 %", "owl 80 %", "tern 20 %"} == {bar.text for bar in page.get("progress")}
    assert "negative" in words


def write_verdict(demo: Path, names: list[str]) -> None:
    folder = demo / "diagnosis" / "results"
    folder.mkdir(parents=True)
    sentence = "No difference shown between this run and that: -4.2 points."
    verdict = {"names": names, "accuracy": {"sentence": sentence}}
    text = json.dumps({"verdicts": [{"analysis": "verdict", "reason": "none"}, verdict]})
    (folder / "04_verdict.json").write_text(text)


@pytest.mark.parametrize(("other", "said"), [("vanilla", True), ("scratch", False)])
def test_the_accuracies_stand_beside_their_verdict(demo: Path, other: str, said: bool) -> None:
    save_result(example(), demo / "showcase.json")
    write_verdict(demo, ["concept-tuning", other])
    page = opened()
    (caption,) = [part.value for part in page.caption if "test pictures looked at" in part.value]
    assert ("No difference shown between this run and that\\: −4.2 points." in caption) is said


def test_a_damaged_verdict_is_left_out(demo: Path) -> None:
    save_result(example(), demo / "showcase.json")
    write_verdict(demo, ["vanilla", "concept-tuning"])
    (demo / "diagnosis" / "results" / "04_verdict.json").write_text("{")
    page = opened()
    assert not page.exception
    assert any("concept-tuning 50 %." in part.value for part in page.caption)


def test_it_has_three_doors(demo: Path) -> None:
    links = opened().get("page_link")
    assert [link.proto.label.strip("*") for link in links] == [
        "Look at the demo",
        "Train on my pictures",
        "Compare runs",
    ]
    assert [link.proto.page for link in links] == ["attention", "train", "compare"]


def test_without_the_demo_it_says_how_to_make_it(demo: Path) -> None:
    page = opened()
    assert not page.exception
    assert "python assets/demo.py" in page.info[0].value


def test_a_damaged_showcase_is_a_sentence(demo: Path) -> None:
    (demo / "showcase.json").write_text("{")
    page = opened()
    assert not page.exception
    assert "showcase.json is not a saved Showcase" in page.error[0].value


def test_it_opens_within_five_seconds_without_the_heavy_libraries(demo: Path) -> None:
    save_result(example(), demo / "showcase.json")
    folder = str(MAIN.parents[1])
    found = subprocess.run(
        [sys.executable, "-c", OPEN, str(MAIN), str(demo)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": folder},
    ).stdout.splitlines()
    assert found[:2] == ["0 0 What does your network look at?", "[]"]
    assert float(found[2]) < 5
