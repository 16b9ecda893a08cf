"""The whole way with one's own pictures: upload, train two methods, diagnose, look, take the report away."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from console_watch import ConsoleWatch
from journey_server import Server
from journey_steps import IS_LOADED, choose, expect_sound, keyed, press, set_everything, settle, turn_to, upload, visit
from playwright.sync_api import Page, expect
from tiny_pictures import CLASSES, pictures_zip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: What makes the preset `quick` a matter of seconds: small pictures, few of them.
_SETTINGS = {
    "Data": {"data.image_size": "64"},
    "Concept-Tuning": {"concept_tuning.queue_size": "4"},
    "Optimiser": {"optim.epochs": "3", "optim.batch_size": "8"},
    "Computer": {"engine.threads": "1"},
}
_TRAINING_MS, _DIAGNOSIS_MS = 180_000, 240_000


def test_from_an_upload_to_the_report(server: Server, new_page: Callable[..., Page], tmp_path: Path) -> None:
    watch = ConsoleWatch(server.url)
    page = new_page(watch, accept_downloads=True)
    visit(page, server.url, "train")
    _train(page, pictures_zip(tmp_path / "shapes.zip"))
    _diagnose(page)
    _look_at_maps(page)
    _look_at_features(page)
    _look_at_shortcuts(page)
    report = _download_report(page, tmp_path)
    assert watch.complaints == []
    _read(report, new_page)


def _train(page: Page, archive: Path) -> None:
    upload(page, archive)
    for name in CLASSES:
        expect(page.get_by_alt_text(name).first).to_be_visible()
    set_everything(page, _SETTINGS)
    expect(keyed(page, "train_preset").get_by_role("radio", name="quick")).to_be_checked()
    expect(page.get_by_role("button", name="Start 2 runs")).to_be_enabled()
    press(page, "train_start")
    expect(page.get_by_text("Test accuracy")).to_have_count(2, timeout=_TRAINING_MS)
    settle(page)


def _diagnose(page: Page) -> None:
    press(page, "train_diagnose_start")
    to_maps = keyed(page, "train_open_diagnosis-1_attention")
    expect(to_maps).to_be_visible(timeout=_DIAGNOSIS_MS)
    to_maps.get_by_role("button").click()
    expect(page).to_have_url(re.compile("/attention"))
    settle(page)


_DIAGNOSIS = re.compile("^diagnosis-1: ")


def _look_at_maps(page: Page) -> None:
    expect(page.get_by_test_id("stSidebar").get_by_role("combobox")).to_have_value(_DIAGNOSIS)
    maps = page.get_by_alt_text("bright places counted most")
    expect(maps).to_have_count(2)
    for place in range(2):
        page.wait_for_function(IS_LOADED, arg=maps.nth(place).element_handle())
    expect_sound(page)


def _look_at_features(page: Page) -> None:
    turn_to(page, "rare")
    expect(page.get_by_test_id("stSidebar").get_by_role("combobox")).to_have_value(_DIAGNOSIS)
    expect(page.get_by_test_id("stPlotlyChart").first.locator(".main-svg").first).to_be_visible()
    expect_sound(page)


def _look_at_shortcuts(page: Page) -> None:
    turn_to(page, "spurious")
    choose(page, "spurious-part", "Properties")
    expect(page.get_by_test_id("stPlotlyChart").first.locator(".main-svg").first).to_be_visible()
    expect_sound(page)


def _download_report(page: Page, folder: Path) -> Path:
    turn_to(page, "compare")
    with page.expect_download(timeout=60_000) as started:
        keyed(page, "compare-report").get_by_role("button").click()
    assert started.value.suggested_filename == "diagnosis-1-report.html"
    report = folder / started.value.suggested_filename
    started.value.save_as(report)
    return report


def _read(report: Path, new_page: Callable[..., Page]) -> None:
    watch = ConsoleWatch(report.as_uri())
    page = new_page(watch, offline=True)
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    for method in ("vanilla", "concept-tuning"):
        expect(page.get_by_text(method).first).to_be_visible()
    page.wait_for_timeout(1000)  # what is drawn when it is scrolled to is left alone
    assert watch.complaints == []
