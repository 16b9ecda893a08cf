from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from concept_tuning.diagnostics.results import load_result, save_result
from concept_tuning.diagnostics.showcase import Showcase, ShowcaseRun


def run(name: str, predicted: int, outside: float | None) -> ShowcaseRun:
    return ShowcaseRun(
        name=name,
        method=name,
        probabilities=np.eye(2, dtype=np.float32)[predicted],
        predicted=predicted,
        values=np.zeros((4, 4), np.float32),
        outside=outside,
        accuracy=0.5,
    )


NO_MASKS = (run("a", 1, None), run("b", 0, 0.5))


def showcase(**changes: object) -> Showcase:
    fields: dict[str, object] = {
        "key": "a.png",
        "image": np.zeros((4, 4, 3), np.uint8),
        "label": 0,
        "group": "water",
        "usual": 1,
        "class_names": ("owl", "tern"),
        "map_name": "grad-cam",
        "pictures": 10,
        "runs": (run("vanilla", 1, 0.71), run("concept-tuning", 0, 0.25)),
    }
    return Showcase(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "The picture is of the class owl before water, where training mostly showed the class tern: vanilla says "
            "tern, concept-tuning says owl. Of the first map, 71 % lies outside the object, of the second 25 %.",
        ),
        ({"usual": 0, "runs": NO_MASKS}, "The picture is of the class owl before water: a says tern, b says owl."),
        ({"group": None, "usual": None, "runs": NO_MASKS}, "The picture is of the class owl: a says tern, b says owl."),
    ],
)
def test_the_sentence_says_what_to_notice(changes: dict[str, object], sentence: str) -> None:
    assert showcase(**changes).sentence == sentence


def test_it_is_read_back_equal_and_without_torch(tmp_path) -> None:
    path = tmp_path / "showcase.json"
    save_result(showcase(), path)
    read = load_result(Showcase, path)
    assert np.array_equal(read.runs[1].probabilities, showcase().runs[1].probabilities)
    assert dataclasses.replace(read, image=showcase().image, runs=showcase().runs).sentence == showcase().sentence
    code = (
        "import sys; from pathlib import Path\n"
        "from concept_tuning.diagnostics.results import load_result\n"
        "from concept_tuning.diagnostics.showcase import Showcase\n"
        "load_result(Showcase, Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'sklearn', 'captum', 'umap', 'scipy'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
