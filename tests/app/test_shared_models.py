"""Models that sessions share: one at a time looks into a model, whatever the cache forgets meanwhile."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from app import state


@pytest.fixture
def copies(subjects, tmp_path) -> list[Path]:
    """Return the folders of seven copies of a run, one more than are kept."""
    made = [tmp_path / f"run{number}" for number in range(7)]
    for path in made:
        shutil.copytree(subjects[0].run.folder.path, path)
    state._run.clear()
    state._asked.clear()
    return made


class Watch:
    """A question that notes which models it is asked of at once."""

    def __init__(self) -> None:
        self.inside: dict[int, int] = {}
        self.clashes = 0
        self.first, self.leave = threading.Event(), threading.Event()
        self.models: list[int] = []
        self.__name__ = "watch"

    def __call__(self, subject, pictures, *more: str) -> str:
        model = id(subject.run.method)
        self.inside[model] = self.inside.get(model, 0) + 1
        self.clashes += self.inside[model] > 1
        self.models.append(model)
        self.first.set()
        self.leave.wait(20)
        self.inside[model] -= 1
        return subject.name


def ask(path: Path, watch: Watch, number: int) -> threading.Thread:
    thread = threading.Thread(target=state.ask_run, args=(path, f"name {number}", [picture(path)], "test", watch))
    thread.start()
    return thread


def picture(path: Path) -> str:
    return state.run_data(path).splits["test"].keys[0]


def test_two_questions_to_one_model_follow_each_other(copies) -> None:
    watch = Watch()
    lock = state.shared_run(copies[0]).lock
    first = ask(copies[0], watch, 1)
    assert watch.first.wait(20)
    assert lock.locked()
    second = ask(copies[0], watch, 2)
    time.sleep(0.3)
    assert len(watch.models) == 1
    watch.leave.set()
    for thread in (first, second):
        thread.join(20)
    assert len(watch.models) == 2
    assert watch.clashes == 0
    assert not lock.locked()


def test_a_model_that_the_cache_forgot_is_never_shared_with_its_successor(copies) -> None:
    watch = Watch()
    first = ask(copies[0], watch, 1)
    assert watch.first.wait(20)
    before = watch.models[0]
    for path in copies[1:]:
        state.shared_run(path)
    assert id(state.shared_run(copies[0]).subject.run.method) != before
    second = ask(copies[0], watch, 2)
    deadline = time.monotonic() + 20
    while len(watch.models) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    watch.leave.set()
    for thread in (first, second):
        thread.join(20)
    assert len(set(watch.models)) == 2
    assert watch.clashes == 0


def test_a_run_keeps_one_subject_for_each_name(copies) -> None:
    shared = state.shared_run(copies[0])
    assert shared.named("a") is shared.named("a")
    assert shared.named("a").name == "a"
    assert shared.named("a").run is shared.subject.run
