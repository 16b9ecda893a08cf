"""The worker: one thing at a time, so many places, and a limit for every caller."""

from __future__ import annotations

import threading
import time

import pytest

from app.demo.worker import BusyError, TookTooLongError, Worker


def test_it_returns_what_the_function_returns_and_raises_what_it_raises() -> None:
    worker = Worker(waiting=1, seconds=5)
    assert worker.ask(max, 3, 7) == 7
    with pytest.raises(ZeroDivisionError):
        worker.ask(lambda: 1 / 0)
    with pytest.raises(TimeoutError, match="its own"):
        worker.ask(_raise, TimeoutError("its own"))
    assert worker.ask(max, 1, 2) == 2  # places were given back after errors


def test_two_functions_never_run_at_once() -> None:
    worker = Worker(waiting=8, seconds=10)
    inside, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        with lock:
            inside[0] -= 1

    threads = [threading.Thread(target=worker.ask, args=(work,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_full_worker_says_busy_at_once_and_one_that_waits_too_long_is_not_begun() -> None:
    worker = Worker(waiting=2, seconds=0.3)
    go, begun = threading.Event(), []
    holder = threading.Thread(target=_swallow, args=(worker, go.wait, 5))
    holder.start()
    _until(lambda: worker._places._value == 1)
    waiter_error: list[Exception] = []
    waiter = threading.Thread(target=_swallow, args=(worker, begun.append, 1), kwargs={"errors": waiter_error})
    waiter.start()
    _until(lambda: worker._places._value == 0)
    start = time.monotonic()
    with pytest.raises(BusyError, match="busy"):
        worker.ask(begun.append, 2)
    assert time.monotonic() - start < 0.2
    waiter.join()
    assert isinstance(waiter_error[0], BusyError)
    go.set()
    holder.join()
    _until(lambda: worker._places._value == 2)
    assert begun == []


def test_a_function_that_takes_too_long_is_given_up_and_keeps_its_place_until_it_ends() -> None:
    worker = Worker(waiting=1, seconds=5)
    go = threading.Event()
    with pytest.raises(TookTooLongError, match="longer"):
        worker.ask(go.wait, 10, seconds=0.2)
    with pytest.raises(BusyError):
        worker.ask(max, 1, 2)
    go.set()
    _until(lambda: worker._places._value == 1)
    assert worker.ask(max, 1, 2) == 2


def _raise(error: Exception) -> None:
    raise error


def _swallow(worker: Worker, *args: object, errors: list[Exception] | None = None) -> None:
    try:
        worker.ask(*args)
    except Exception as error:
        if errors is not None:
            errors.append(error)


def _until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
