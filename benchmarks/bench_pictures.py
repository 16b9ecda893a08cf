"""Take the README's pictures of a bench: headless Chromium opens its figures offline and cuts out each.

python benchmarks/bench_pictures.py benchmarks/specs/offline.yaml runs/bench/offline --out assets/bench
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from concept_tuning.bench.figures import render_figures
from concept_tuning.bench.spec import load_spec
from concept_tuning.bench.tables import cell_rows
from concept_tuning.errors import RunError, StudioError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="the bench, a YAML file")
    parser.add_argument("bench", type=Path, help="its folder")
    parser.add_argument(
        "--out", type=Path, required=True, help="where the pictures go; those of the README: assets/bench"
    )
    options = parser.parse_args(arguments)
    try:
        spec = load_spec(options.spec)
        if not options.bench.is_dir():
            raise RunError(f"{options.bench} is no folder of a bench; run `concept-tuning benchmark` first.")
        page = render_figures(spec, cell_rows(spec, options.bench))
    except StudioError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for path in take(page, options.out):
        print(path)
    return 0


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
