"""Gather what a Gradio Space needs of this repository in one folder: the demo, the core, two runs, a list of packages.

    python assets/space.py out/space
    python assets/space.py out/space --run-a runs/birds-vanilla --run-b runs/birds-concept-tuning

Push the folder to a Space of kind Gradio. Runs other than the two demo models are copied as far as the demo reads
them: settings, names of the classes, and the best weights; their pictures are not, so a Space of own runs has planted
birds for its examples.
"""

from __future__ import annotations

import argparse
import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = ("app", "concept_tuning")
_OF_A_RUN = ("config.json", "data.json", "split.json", "status.json", "best")
_HEADER = """---
title: Vanilla against Concept-Tuning
sdk: gradio
sdk_version: {gradio}
app_file: app/gradio_demo.py
python_version: "3.11"
license: apache-2.0
---
Two networks look at the same picture: one fine-tuned as usual, one by Concept-Tuning (ICCV 2023).
"""


def main() -> None:
    """Read the command line and gather the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--run-a", type=Path, default=ROOT / "assets" / "demo" / "vanilla")
    parser.add_argument("--run-b", type=Path, default=ROOT / "assets" / "demo" / "concept-tuning")
    options = parser.parse_args()
    gather(options.out, options.run_a, options.run_b)
    print(f"Gathered {options.out}; try it by `python {options.out}/app/gradio_demo.py`.")


def gather(out: Path, run_a: Path, run_b: Path) -> None:
    """Copy the demo, the core and two runs into a new folder; raises SystemExit if it exists or a run is not whole."""
    if out.exists():
        raise SystemExit(f"{out} exists already; name a folder that does not.")
    for run in (run_a, run_b):
        if not (run / "best" / "model.safetensors").is_file():
            raise SystemExit(f"{run} is no finished run.")
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, out / name, ignore=shutil.ignore_patterns("__pycache__"))
    (out / "assets").mkdir()
    shutil.copy(ROOT / "assets" / "icon.svg", out / "assets" / "icon.svg")
    for run, name in ((run_a, "vanilla"), (run_b, "concept-tuning")):
        target = out / "assets" / "demo" / name
        target.mkdir(parents=True)
        for part in _OF_A_RUN:
            source = run / part
            if source.is_dir():
                shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("predictions*"))
            elif source.is_file():
                shutil.copy(source, target / part)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    (out / "requirements.txt").write_text("\n".join(packages) + "\n", encoding="utf-8")
    least = project["optional-dependencies"]["demo"][0].split(">=")[1].split(",")[0]
    (out / "README.md").write_text(_HEADER.format(gradio=f"{least}.0"), encoding="utf-8")


if __name__ == "__main__":
    main()
