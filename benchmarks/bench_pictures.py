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
    parser.add_argument("--data", nargs="+", default=[], help="of these data; default: all")
    parser.add_argument("--only", nargs="+", default=[], metavar="FIGURE", help="these figures, such as accuracy")
    options = parser.parse_args(arguments)
    try:
        spec = load_spec(options.spec)
        rows = read_record(spec.name)["cells"] if options.bench is None else _rows(spec, options.bench)
        chosen = [row for row in rows if not options.data or row["data"] in options.data]
        if not chosen:
            raise RunError(f"There are no runs of {', '.join(options.data)}.")
        page = render_figures(spec, chosen)
    except StudioError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    written = take(page, options.out, only=options.only)
    for path in written:
        print(path)
    missing = set(options.only) - {path.stem for path in written}
    if missing:
        print(f"There is no figure {', '.join(sorted(missing))}.", file=sys.stderr)
    return 2 if missing else 0


def _rows(spec: BenchSpec, folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder of a bench; run `concept-tuning benchmark` first.")
    return cell_rows(spec, folder)


def take(html: str, out: Path, *, only: Sequence[str] = ()) -> list[Path]:
    """Write a picture of each figure of a page (or of some), named as the figure; returns the files."""
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
            name = figure.get_attribute("data-figure")
            if only and name not in only:
                continue
            figure.locator(".main-svg").first.wait_for()
            path = out / f"{name}.png"
            figure.screenshot(path=path)
            written.append(path)
        browser.close()
    return written


if __name__ == "__main__":
    sys.exit(main())
