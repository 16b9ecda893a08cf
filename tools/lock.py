"""Write ``requirements.lock``: the exact version of every package that the project with all its extras needs.

``make lock`` runs it in an environment in which the tests pass. Packages that nothing in ``pyproject.toml`` leads to
are left out, and so is the extra ``audit``, whose tools should be the newest.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
#: Extras that are not locked.
UNLOCKED = ("audit",)
#: Packages of these beginnings come with torch on Linux alone.
_LINUX = ("nvidia-", "cuda-", "triton")
_HEAD = """\
# Exact versions with which the tests were run, on Linux and Python 3.11; ranges are in pyproject.toml.
# Made by `make lock`. Use: pip install -r requirements.lock && pip install --no-deps -e .
"""


def direct(root: Path = ROOT) -> list[Requirement]:
    """Return the requirements that ``pyproject.toml`` names, those of all locked extras included."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in extras if name not in UNLOCKED for line in extras[name])]
    return [need for need in map(Requirement, lines) if canonicalize_name(need.name) != project["name"]]


def locked(needs: Iterable[Requirement]) -> dict[str, str]:
    """Return name and installed version of requirements and of all that they need in turn.

    Raises:
        SystemExit: if one is not installed.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(needs)
    while waiting:
        need = waiting.pop()
        if str(need) in seen:
            continue
        seen.add(str(need))
        try:
            package = distribution(need.name)
        except PackageNotFoundError:
            sys.exit(f"{need.name} is not installed; run `pip install -e '.[dev]'` first.")
        found[canonicalize_name(need.name)] = package.version.partition("+")[0]
        waiting += _needs_of(package.requires or (), need.extras)
    return dict(sorted(found.items()))


def _needs_of(lines: Iterable[str], extras: Iterable[str]) -> Iterator[Requirement]:
    for need in map(Requirement, lines):
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield need


def _line(name: str, version: str) -> str:
    marker = ' ; sys_platform == "linux"' if name.startswith(_LINUX) else ""
    return f"{name}=={version}{marker}\n"


if __name__ == "__main__":
    LOCK.write_text(_HEAD + "".join(_line(*one) for one in locked(direct()).items()), encoding="utf-8")
