"""Two people at one dashboard: they see the same runs, and neither disturbs what the other is doing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from console_watch import ConsoleWatch
from journey_server import Server
from journey_steps import choose, keyed, press, set_everything, settle, turn_to, visit
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_RUN = "shared-vanilla"
_SEEN_MS, _STOPPED_MS = 30_000, 60_000


def test_two_sessions_share_the_runs_and_nothing_else(server: Server, new_page: Callable[..., Page]) -> None:
    watch = ConsoleWatch(server.url)
    first, second = new_page(watch), new_page(watch)
    visit(first, server.url, "train")
    visit(second, server.url, "train")
    _name(second, "mine")
    choose(second, "train_preset", "smoke")

    _start(first)
    expect(second.get_by_text(_RUN, exact=True).first).to_be_visible(timeout=_SEEN_MS)
    _expect_own_choices(second)

    press(second, f"train_stop_{_RUN}")
    expect(first.get_by_text("stopped", exact=True)).to_be_visible(timeout=_STOPPED_MS)
    settle(second)
    keyed(second, f"train_delete_{_RUN}").get_by_role("button").click()
    press(second, f"train_delete_forever_{_RUN}")
    expect(first.get_by_text(_RUN, exact=True)).to_have_count(0, timeout=_SEEN_MS)
    _expect_own_choices(second)

    turn_to(first, "spurious")
    turn_to(second, "spurious")
    choose(first, "spurious-part", "Properties")
    for page, part in ((first, "Properties"), (second, "Worst group")):
        page.reload()
        settle(page)
        expect(keyed(page, "spurious-part").get_by_role("radio", name=part)).to_be_checked()
    assert watch.complaints == []


def _name(page: Page, name: str) -> None:
    field = page.get_by_label("Name of this comparison")
    field.fill(name)
    field.press("Enter")
    settle(page)


def _start(page: Page) -> None:
    """Start one run that would take long."""
    choose(page, "train_methods", "Concept-Tuning")  # takes it back
    set_everything(page, {"Computer": {"engine.threads": "1"}})
    _name(page, "shared")
    press(page, "train_start")


def _expect_own_choices(page: Page) -> None:
    """See that what the second person typed and chose is as it was."""
    expect(page.get_by_label("Name of this comparison")).to_have_value("mine")
    expect(keyed(page, "train_preset").get_by_role("radio", name="smoke")).to_be_checked()
    expect(page.get_by_role("button", name="Start 2 runs")).to_be_visible()
