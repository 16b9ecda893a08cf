"""The lock file, the ranges in pyproject.toml and requirements.txt say the same."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LINES = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
]
LOCKED = {canonicalize_name(need.name): need for need in map(Requirement, LINES)}
RANGES = sorted(
    line
    for lines in (PROJECT["dependencies"], *EXTRAS.values())
    for line in lines
    if Requirement(line).name != PROJECT["name"]
)
#: The tools of `make audit` should be the newest that their ranges allow.
UNLOCKED = set(EXTRAS["audit"])


def version(name: str) -> str:
    (only,) = LOCKED[canonicalize_name(name)].specifier
    return only.version


def locked_required() -> bool:
    """Whether the locked versions must be the installed ones: where LOCKED is set, as in CI."""
    return os.environ.get("LOCKED", "").lower() not in ("", "0", "false")


@pytest.mark.parametrize("line", RANGES)
def test_every_range_has_a_lower_and_an_upper_end(line: str) -> None:
    assert sorted(end.operator for end in Requirement(line).specifier) == ["<", ">="]


@pytest.mark.parametrize("line", [line for line in RANGES if line not in UNLOCKED])
def test_every_range_contains_the_locked_version(line: str) -> None:
    need = Requirement(line)
    assert need.specifier.contains(version(need.name), prereleases=True)


def test_the_locked_versions_are_the_installed_ones() -> None:
    if not locked_required():
        pytest.skip("any versions within the ranges may be installed; LOCKED=1 asks for those of requirements.lock")
    # a torch for CPUs alone comes without the packages that are marked for Linux
    bare = installed_version("torch").endswith("+cpu")
    wanted = [name for name, need in LOCKED.items() if need.marker is None or (need.marker.evaluate() and not bare)]
    installed = {}
    for name in wanted:
        try:
            installed[name] = installed_version(name).partition("+")[0]
        except PackageNotFoundError:
            installed[name] = "not installed"
    assert installed == {name: version(name) for name in wanted}


def test_every_line_of_the_lock_file_is_one_exact_version_from_no_particular_place() -> None:
    assert len(LINES) == len(LOCKED) > 100
    for line in LINES:
        assert re.fullmatch(r'[a-z0-9-]+==[0-9][\w.]*( ; sys_platform == "linux")?', line), line
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--index|--hash|@", text)
    # as a constraint, the file must not hold back `pip install --upgrade pip`
    assert not {canonicalize_name(PROJECT["name"]), "pip"} & set(LOCKED)


def test_the_lock_file_has_all_that_its_packages_need() -> None:
    checked = 0
    for name in LOCKED:
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for need in map(Requirement, lines):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in LOCKED, f"{name} needs {need}"
                assert need.specifier.contains(version(need.name), prereleases=True), f"{name} needs {need}"
                checked += 1
    assert checked > 100


def test_requirements_txt_installs_extras_that_there_are_and_nothing_else() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (only,) = [line for line in lines if line and not line.startswith("#")]
    found = re.fullmatch(r"-e \.\[([\w,]+)\]", only)
    assert found is not None
    assert set(found[1].split(",")) <= set(EXTRAS) - {"dev", "audit"}
    assert {"app", "demo"} <= set(found[1].split(","))


def test_the_development_extra_has_every_other() -> None:
    (own,) = [need for need in map(Requirement, EXTRAS["dev"]) if need.name == PROJECT["name"]]
    assert own.extras == set(EXTRAS) - {"dev", "audit"}
