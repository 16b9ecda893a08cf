"""Take the README's pictures of the dashboard: headless Chromium opens every page of a running one.

streamlit run app/main.py --server.headless true
python assets/app_screenshots.py http://localhost:8501
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.pages import PAGES

FOLDER = Path(__file__).parent / "screenshots"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
_RESTING = "[data-testid=stApp][data-test-script-state=notRunning]"
#: What stands where an element is still to be drawn, which takes a busy machine longer than the script.
_PLACEHOLDER = "[data-testid=stSkeleton]"


def main() -> None:
    """Write a picture of each page, or of the chosen ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument(
        "--pages", nargs="+", choices=[name for name, *_ in PAGES], default=[name for name, *_ in PAGES]
    )
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--phone", action="store_true", help="390 pixels wide instead of 1280")
    parser.add_argument("--dark", action="store_true", help="dark theme")
    parser.add_argument("--full", action="store_true", help="the whole page instead of its top")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True, parents=True)
    marks = "".join(f"_{name}" for name in ("phone", "dark") if getattr(options, name))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in options.pages:
            path = options.out / f"app_{name}{marks}.png"
            size = PHONE if options.phone else DESKTOP
            take(browser, options.address, name, path, size=size, dark=options.dark, full=options.full)
            print(path)
        browser.close()


def take(
    browser: Browser, address: str, name: str, path: Path, *, size: dict[str, int], dark: bool, full: bool
) -> None:
    """Write one page's picture once it rests; a whole page is as high as what it scrolls."""
    page = browser.new_page(
        viewport={"width": size["width"], "height": size["height"]}, color_scheme="dark" if dark else "light"
    )
    page.goto(f"{address.rstrip('/')}/{'' if name == PAGES[0][0] else name}")
    page.locator("h1").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    page.locator(_RESTING).wait_for(timeout=60_000)
    if full:
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(height))})
    page.wait_for_timeout(2000)
    page.wait_for_function(f"document.querySelectorAll('{_PLACEHOLDER}').length === 0", timeout=60_000)
    page.screenshot(path=path)
    page.close()


if __name__ == "__main__":
    main()
