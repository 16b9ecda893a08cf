"""What a person does on the dashboard, one function for each."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from app.pages import PAGES

TITLES = {name: title for name, title, _ in PAGES}
NAMES = list(TITLES)
#: Whether an image is there for the eye, as a function of it for the browser.
IS_LOADED = "image => image.complete && image.naturalWidth > 0"
_RESTING = "[data-testid=stApp][data-test-script-state=notRunning]"


def visit(page: Page, url: str, name: str = NAMES[0], query: str = "") -> None:
    """Open a page by its address and wait until all of it is there."""
    page.goto(f"{url}/{'' if name == NAMES[0] else name}{query}")
    settle(page)


def turn_to(page: Page, name: str) -> None:
    """Go to a page by the navigation at the side."""
    nav_link(page, name).click()
    address = "" if name == NAMES[0] else name
    expect(page).to_have_url(re.compile(rf"^http://[^/]+/{address}(\?.*)?$"))
    settle(page)


def nav_link(page: Page, name: str) -> Locator:
    """Return a page's link in the navigation at the side."""
    return page.get_by_test_id("stSidebarNav").get_by_role("link", name=TITLES[name], exact=True)


def settle(page: Page, *, seconds: float = 60) -> None:
    """Wait until a page shows its heading and its script rests, and see that it shows no exception."""
    page.locator("h1").first.wait_for(timeout=1000 * seconds)
    page.wait_for_timeout(150)  # a click reaches the server a moment after it
    page.locator(_RESTING).wait_for(timeout=1000 * seconds)
    expect_sound(page)


def expect_sound(page: Page) -> None:
    """See that a page shows no exception, and no sentence that stands for one."""
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.get_by_text("Something unexpected went wrong")).to_have_count(0)


def keyed(page: Page, key: str) -> Locator:
    """Return the element of a key, as Streamlit names its class."""
    plain = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "_-") else "-" for sign in key)
    return page.locator(f".st-key-{plain}")


def press(page: Page, key: str) -> None:
    """Press the button of a key."""
    keyed(page, key).get_by_role("button").click()
    settle(page)


def choose(page: Page, key: str, label: str) -> None:
    """Choose one of the pills or segments of a key."""
    keyed(page, key).get_by_text(label, exact=True).click()
    settle(page)


def set_everything(page: Page, settings: dict[str, dict[str, str]]) -> None:
    """Open `All settings` of Train and type settings, given by the name of their tab."""
    page.get_by_text("All settings").click()
    settle(page)
    for tab, fields in settings.items():
        page.get_by_role("tab", name=tab, exact=True).click()
        for key, value in fields.items():
            field = keyed(page, f"train_set_{key}").locator("input")
            field.fill(value)
            field.press("Enter")
            settle(page)


def upload(page: Page, file: Path) -> None:
    """Choose an archive of pictures on Train."""
    choose(page, "train_kind", "Upload an archive")
    keyed(page, "train_upload").locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text("Pictures of each class")).to_be_visible(timeout=60_000)
    settle(page)
