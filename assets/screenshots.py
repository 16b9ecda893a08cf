"""Take the README's pictures of a report: headless Chromium opens it offline and cuts out single figures.

concept-tuning report assets/demo/diagnosis
python assets/screenshots.py assets/demo/diagnosis/report.html
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "screenshots"
#: Name of the picture, chapter, and which figures of it, from 0.
FIGURES = (
    ("maps_vanilla", "picture-maps", 0),
    ("maps_concept-tuning", "picture-maps", 1),
    ("rare_features", "rare-features", 0),
    ("backgrounds", "counterfactuals", 2),
)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    report = parser.parse_args().report.resolve()
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.context.set_offline(True)
        page.goto(report.as_uri())
        page.screenshot(path=FOLDER / "report_summary.png")
        for name, chapter, place in FIGURES:
            cut_out(page, chapter, place, FOLDER / f"report_{name}.png")
        browser.close()


def cut_out(page: Page, chapter: str, place: int, path: Path) -> None:
    """Write one figure of a chapter, without its caption."""
    figure = page.locator(f"section:has(> h2#{chapter}) figure").nth(place).locator(".plot")
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    page.wait_for_timeout(1500)
    figure.screenshot(path=path)


if __name__ == "__main__":
    main()
