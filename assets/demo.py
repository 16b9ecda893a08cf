"""Make the demo: a vanilla and a Concept-Tuning run on planted birds, packed, their diagnosis and a showcase.

python assets/demo.py [--work FOLDER]

The runs are trained below the work folder (default runs/demo/planted), or taken from there if they are finished.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from concept_tuning.diagnostics.diagnose import Diagnosis, diagnose, load_subjects
from concept_tuning.diagnostics.results import save_result
from concept_tuning.diagnostics.showcase import Showcase, ShowcaseRun
from concept_tuning.diagnostics.workbench import Workbench
from concept_tuning.engine.pack import pack_run

DEMO = Path(__file__).parent / "demo"
METHODS = ("vanilla", "concept-tuning")
#: The map that the first page shows, and pictures of the diagnosis.
MAP, PICTURES = "grad-cam", 240


def main() -> None:
    """Train what is not trained yet, and make everything in ``assets/demo`` anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/demo/planted"))
    options = parser.parse_args()
    for method in METHODS:
        train(options.work / method, method)
    shutil.rmtree(DEMO, ignore_errors=True)
    packed = [pack_run(options.work / method, DEMO / method).path for method in METHODS]
    subjects = load_subjects(packed)
    bench = Workbench(subjects=subjects, bundle=subjects[0].run.data(), count=PICTURES)
    found = diagnose(bench, DEMO / "diagnosis", report=print)
    for name in ("timings.json", ".lock"):
        (DEMO / "diagnosis" / name).unlink(missing_ok=True)
    save_result(showcase(found, bench), DEMO / "showcase.json")


def train(folder: Path, method: str) -> None:
    """Train one run unless it is finished."""
    if (folder / "results.json").is_file():
        return
    command = [sys.executable, "-m", "concept_tuning", "train", "--data", "planted", "--preset", "quick"]
    subprocess.run([*command, "--method", method, "--run-dir", str(folder)], check=True)


def showcase(found: Diagnosis, bench: Workbench) -> Showcase:
    """Take the shown picture that the first run has wrong and the second right, both as surely as any."""
    first, second = (found.results["predictions", name] for name in METHODS)
    maps = {name: found.results["picture-maps", name] for name in METHODS}
    places = {key: place for place, key in enumerate(first.keys)}
    told = [key for key in maps[METHODS[0]].keys if second.right[places[key]] and not first.right[places[key]]]
    if not told:
        raise SystemExit("No shown picture is wrong by the first run and right by the second; take another seed.")
    sure = {key: min(float(part.probabilities[places[key]].max()) for part in (first, second)) for key in told}
    key = max(told, key=lambda name: sure[name])
    place = places[key]
    group = None if first.groups is None else int(first.groups[place])
    runs = [_run(found, bench, name, key) for name in METHODS]
    return Showcase(
        key=key,
        image=bench.pictures.image(place, 224).permute(1, 2, 0).contiguous().numpy(),
        label=int(first.labels[place]),
        group=None if group is None else bench.bundle.group_names[group],
        usual=None if group is None else _usual_class(bench, group),
        class_names=bench.bundle.class_names,
        map_name=MAP,
        pictures=len(first.keys),
        runs=(runs[0], runs[1]),
    )


def _run(found: Diagnosis, bench: Workbench, name: str, key: str) -> ShowcaseRun:
    predictions, maps = found.results["predictions", name], found.results["picture-maps", name]
    place = predictions.keys.index(key)
    values = maps.values[maps.names.index(MAP), maps.keys.index(key)]
    outside = None
    if bench.pictures.has_masks:
        inside = bench.pictures.masks(place, values.shape[-1])["object"].numpy()
        outside = float(values[~inside].sum() / values.sum())
    card = next(card for card in found.overview.runs if card.name == name)
    return ShowcaseRun(
        name=name,
        method=card.method,
        probabilities=predictions.probabilities[place],
        predicted=int(predictions.predicted[place]),
        values=values,
        outside=outside,
        accuracy=predictions.accuracy.value,
    )


def _usual_class(bench: Workbench, group: int) -> int:
    split = bench.bundle.splits["train"]
    return int(np.bincount(split.labels[split.groups == group]).argmax())


if __name__ == "__main__":
    main()
