"""The browser of journeys and pictures: Debian's Chromium where there is one, otherwise the one Playwright installs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Error, Playwright, sync_playwright

HOW = (
    "This test needs a browser: install Debian's (`apt-get install chromium`), or Playwright's own "
    "(`.venv/bin/playwright install --with-deps chromium`)."
)
# The tests' cache folder is one of their own, in which Playwright would look for its browser in vain.
if sys.platform.startswith("linux"):
    _cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(_cache / "ms-playwright"))

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def launch_chromium(playwright: Playwright) -> Browser:
    """Start Chromium headless; raises playwright's Error where there is none."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # for whom Chromium has no sandbox
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"] if root else [])


def browser_required() -> bool:
    """Whether a missing browser is a failure: where REQUIRE_BROWSER is set, otherwise where CI is."""
    return os.environ.get("REQUIRE_BROWSER", os.environ.get("CI", "")).lower() not in ("", "0", "false")


def need_browser() -> None:
    """Skip the test where there is no browser, or fail it where one is required (in CI)."""
    with sync_playwright() as playwright:
        try:
            launch_chromium(playwright).close()
        except Error as error:
            missing_browser(error)


def missing_browser(error: Error) -> NoReturn:
    """End the test as :func:`need_browser` does."""
    if not browser_required():
        pytest.skip(HOW)
    pytest.fail(f"{HOW}\n{error}", pytrace=False)
