"""How a run's work ended: in its status, and in words where the failure can be foreseen."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from concept_tuning.engine.checkpoint import is_disk_full, is_out_of_memory, storage_message, what_is_left
from concept_tuning.engine.runs import RunFolder, StatusWriter, write_atomically
from concept_tuning.engine.trainer import Stopped
from concept_tuning.errors import MachineError, StudioError, TrainingError

#: How torch tells of a loader process that is gone; not of one that a shutdown ends.
_LOST_LOADER = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal: (Killed|Aborted|Bus error))")


@contextlib.contextmanager
def recorded(folder: RunFolder, status: StatusWriter) -> Iterator[None]:
    """Write how the work ended into the run's status, and turn failures that can be foreseen into words.

    Raises:
        RunError: before the work, if something in the folder could lead what is written out of it.
    """
    folder.refuse_links()
    try:
        yield
    except (Stopped, KeyboardInterrupt) as stop:
        status.update(state="stopped", message="Stopped; resume goes on from here", force=True)
        raise Stopped(folder.path) from stop
    except StudioError as error:
        _record_failure(status, str(error))
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            write_atomically(folder.path / "error.log", traceback.format_exc())
        kind, message = TrainingError, _in_words(error, folder.path)
        if message is None:
            kind, message = MachineError, _of_the_machine(error, folder.path)
        _record_failure(status, message or f"Unexpected error, see error.log: {error}")
        if message is None:
            raise
        raise kind(message) from error


def _in_words(error: Exception, path: Path) -> str | None:
    """Say what went wrong and what to do, for the failures that can be foreseen and come again if nothing is done."""
    text, checkpoints = str(error), RunFolder(path).checkpoints
    left = what_is_left(checkpoints)
    if is_out_of_memory(error):
        return (
            f"Out of memory. {left}. Start a new run with a smaller batch "
            "(`batch_size`), smaller pictures (`image_size`) or fewer loader processes (`workers`)."
        )
    if is_disk_full(error):
        return storage_message(error, path, checkpoints=checkpoints)
    if "Connection closed by peer" in text or "Connection reset by peer" in text:
        return (
            f"Another process of this run has ended, and with it the run. {left}; go on by "
            "`resume` under the same launcher."
        )
    if "Expected more than 1 value per channel" in text:
        return (
            "Batch norm needs more than one value of each channel, and one small picture gives only one. "
            "Start a new run with a larger batch (`batch_size`) or larger pictures (`image_size`)."
        )
    return None


def _of_the_machine(error: Exception, path: Path) -> str | None:
    """Say what went wrong where it may be gone when the run is tried again; None if it is not of that kind."""
    checkpoints = RunFolder(path).checkpoints
    if _LOST_LOADER.search(str(error)):
        return (
            f"A loader process has ended, most likely for lack of memory. {what_is_left(checkpoints)}; go on "
            "with `concept-tuning resume`, or start a new run with fewer loader processes (`workers`), a "
            "smaller batch (`batch_size`) or smaller pictures (`image_size`)."
        )
    told = isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)
    if told or isinstance(error, SafetensorError):
        unstored = Path(getattr(error, "filename", None) or path)
        return storage_message(error, unstored, checkpoints=checkpoints, done="read or written")
    return None


def _record_failure(status: StatusWriter, message: str) -> None:
    with contextlib.suppress(OSError):  # the disk may be full: the message still reaches the screen
        status.update(state="failed", message=message, force=True)
