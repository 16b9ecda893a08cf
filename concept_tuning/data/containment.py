"""Whether files that a list names lie in the folder that was given for them, links followed."""

from __future__ import annotations

import os
import stat

LEADS_OUT = "it leads out of the data folder; put a copy inside"


class Containment:
    """Judges files by the folders that they must lie in; can be pickled, and asked by several threads.

    The folders themselves may be reached through links. Each folder on the way to a file is resolved once, so that a
    file costs one look at itself, and two more if it is a link.
    """

    def __init__(self, *folders: str | os.PathLike[str]) -> None:
        """Take the folders, one of which a file must lie in; they need not be there."""
        self._roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
        self._known: dict[str, bool] = {}

    def fault(self, file: str) -> str | None:
        """Say why a file cannot be opened as a picture; None if nothing speaks against it.

        Args:
            file: Its path, absolute or from the working folder.

        Returns:
            :data:`LEADS_OUT` for whatever lies elsewhere, whether it is there or not; or the reasons of
            :func:`file_fault`.
        """
        try:
            if not self._holds_folder(os.path.dirname(file)):
                return LEADS_OUT
            if not stat.S_ISLNK(mode := os.lstat(file).st_mode):
                return _fault_of(mode)
            if not self._holds(os.path.realpath(file)):
                return LEADS_OUT
        except FileNotFoundError:
            return _MISSING
        except (OSError, ValueError) as error:
            return _unreadable(error)
        return file_fault(file)

    def _holds_folder(self, folder: str) -> bool:
        if folder not in self._known:
            self._known[folder] = self._holds(os.path.realpath(folder))
        return self._known[folder]

    def _holds(self, real: str) -> bool:
        return os.path.join(real, "").startswith(self._roots)


def file_fault(file: str) -> str | None:
    """Say why a file cannot be opened as a picture, wherever it lies; None if nothing speaks against it."""
    try:
        return _fault_of(os.stat(file).st_mode)
    except FileNotFoundError:
        return _MISSING
    except (OSError, ValueError) as error:
        return _unreadable(error)


def _fault_of(mode: int) -> str | None:
    return None if stat.S_ISREG(mode) else "not a regular file"


def _unreadable(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


_MISSING = "there is no such file"
