"""Take the README's pictures of a bench: headless Chromium opens its figures offline and cuts out each.

python benchmarks/bench_pictures.py benchmarks/specs/offline.yaml --out assets/bench                    # of the record
python benchmarks/bench_pictures.py benchmarks/specs/quick.yaml runs/bench/quick --out runs/pictures    # of a folder
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_record import read_record
from playwright.sync_api import sync_playwright

from concept_tuning.bench.figures import render_figures
from concept_tuning.bench.spec import BenchSpec, load_spec
from concept_tuning.bench.tables import cell_rows
from concept_tuning.errors import RunError, StudioError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="the bench, a YAML file")
    parser.add_argument("bench", type=Path, nargs="?", help="its folder; default: its record in benchmarks/results")
    parser.add_argument(
        "--out", type=Path, required=True, help="where the pictures go; those of the README: assets/bench"
    )
    options = parser.parse_args(arguments)
    try:
        spec = load_spec(options.spec)
        page = render_figures(
            spec, read_record(spec.name)["cells"] if options.bench is None else _rows(spec, options.bench)
        )
    except StudioError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for path in take(page, options.out):
        print(path)
    return 0


def _rows(spec: BenchSpec, folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder of a bench; run `concept-tuning benchmark` first.")
    return cell_rows(spec, folder)


def take(html: str, out: Path) -> list[Path]:
    """Write a picture of each figure of a page, named as the figure; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "figures.html"
        file.write_text(html, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900}, device_scale_factor=1.5)
        page.context.set_offline(True)
        page.goto(file.as_uri())
        for figure in page.locator(".plot").all():
            figure.locator(".main-svg").first.wait_for()
            path = out / f"{figure.get_attribute('data-figure')}.png"
            figure.screenshot(path=path)
            written.append(path)
        browser.close()
    return written


if __name__ == "__main__":
    sys.exit(main())
