"""Small and read-only disks for the tests of storage, in a namespace of their own: no rights needed, nothing left.

Each function is called by a script that runs by :func:`run_apart`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_APART = ("unshare", "--user", "--map-root-user", "--mount")


def disks_required() -> bool:
    """Whether a disk that cannot be mounted is a failure: where REQUIRE_SMALL_DISKS is set."""
    return os.environ.get("REQUIRE_SMALL_DISKS", "").lower() not in ("", "0", "false")


def run_apart(code: str, *arguments: object, timeout: float = 250) -> str:
    """Run a script where disks can be mounted, and return what it printed.

    Where that is not allowed, skip the test, or fail it if :func:`disks_required`.
    """
    allowed = shutil.which("unshare") is not None and (
        subprocess.run([*_APART, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode
        == 0
    )
    if not allowed:
        if disks_required():
            pytest.fail("no disk can be mounted here, and REQUIRE_SMALL_DISKS is set", pytrace=False)
        pytest.skip("no disk can be mounted here")
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "engine"), *sys.path]
    done = subprocess.run(
        [*_APART, sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def mount_small(place: Path, size: int) -> None:
    """Put an empty disk of some bytes in the place of a folder."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))


def resize(place: Path, size: int) -> None:
    """Give a small disk another size."""
    _mount("-o", f"remount,size={size}", str(place))


def unmount(place: Path) -> None:
    """Take a disk away."""
    subprocess.run(["umount", str(place)], check=True)


def make_read_only(place: Path, *, again: bool = False) -> None:
    """Let nobody write in a folder, or, ``again``, let them."""
    if not again:
        _mount("--bind", str(place), str(place))
    _mount("-o", f"remount,bind,{'rw' if again else 'ro'}", str(place))


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)
