"""Training goes on whatever happens to its watcher: a refresh, a killed server. Killed itself, it can be resumed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from console_watch import ConsoleWatch
from journey_server import Server, started_on
from journey_steps import choose, keyed, press, set_everything, settle, visit
from playwright.sync_api import Locator, Page, expect

from concept_tuning.engine.records import list_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_RUN = "journey-vanilla"
_PROGRESS = re.compile(r"^step [1-9]\d* of ")
_WORK_MS, _RECONNECT_MS = 150_000, 60_000
#: Small steps, but enough of them to be interrupted three times, and a checkpoint every second.
_SETTINGS = {
    "Data": {"data.image_size": "64"},
    "Planted birds": {"planted.validation_images": "16", "planted.test_images": "16"},
    "Optimiser": {"optim.epochs": "40", "optim.max_steps": "320", "optim.batch_size": "8"},
    "Computer": {"engine.threads": "1", "engine.checkpoint_seconds": "1", "engine.evaluate_every": "10"},
}


def _start_run(page: Page, url: str) -> None:
    """Start one run on planted birds that takes a while."""
    visit(page, url, "train")
    choose(page, "train_methods", "Concept-Tuning")  # takes it back
    keyed(page, "train_images").locator("input").fill("64")
    keyed(page, "train_images").locator("input").press("Enter")
    settle(page)
    set_everything(page, _SETTINGS)
    name = page.get_by_label("Name of this comparison")
    name.fill("journey")
    name.press("Enter")
    settle(page)
    press(page, "train_start")
    expect(page.get_by_text(_PROGRESS)).to_be_visible(timeout=_WORK_MS)


def _connected(page: Page) -> Locator:
    """The application, while it is connected to its server: what it shows stays in place when it is not."""
    return page.locator("[data-test-connection-state=CONNECTED]")


def _step(server: Server) -> int:
    (run,) = list_runs(server.runs)
    assert run.state == "training", f"{run.state}: {run.message}"
    return run.step


def _wait_for_steps(server: Server, *, after: int) -> None:
    until = time.monotonic() + _WORK_MS / 1000
    while _step(server) <= after:
        assert time.monotonic() < until, "the run does not go on"
        time.sleep(0.1)


def _kill_training(runs: Path) -> None:
    trainers = [process for process in started_on(runs) if "work" in process.cmdline()]
    assert len(trainers) == 1
    trainers[0].kill()


def test_training_outlives_a_refresh_and_a_killed_server_and_is_resumed(
    server: Server, new_page: Callable[..., Page]
) -> None:
    watch = ConsoleWatch(server.url)
    page = new_page(watch)
    _start_run(page, server.url)

    page.reload()
    settle(page)
    expect(page.get_by_text(_RUN, exact=True).first).to_be_visible()
    _wait_for_steps(server, after=_step(server))
    assert watch.complaints == []

    server.kill()
    expect(_connected(page)).to_have_count(0, timeout=_RECONNECT_MS)
    _wait_for_steps(server, after=_step(server))
    server.start()
    expect(_connected(page)).to_have_count(1, timeout=_RECONNECT_MS)  # the page finds its server by itself
    settle(page)
    expect(page.get_by_text(_PROGRESS)).to_be_visible()
    watch.forgive_outage()
    page.reload()
    settle(page)
    expect(page.get_by_text(_PROGRESS)).to_be_visible()
    _wait_for_steps(server, after=_step(server))

    _kill_training(server.runs)
    expect(page.get_by_text("interrupted", exact=True)).to_be_visible()
    press(page, f"train_play_arrow_{_RUN}")
    expect(page.get_by_text("Test accuracy")).to_be_visible(timeout=_WORK_MS)
    settle(page)
    assert watch.complaints == []
