"""Mutation check: change one place of the code at a time, and see which changes no test notices.

``make mutants`` runs it on the files and tests named in ``[tool.mutmut]`` of ``pyproject.toml``. It writes
``benchmarks/results/mutation.json`` anew: how many mutants of each file were killed, and those that survived, each
with the reason why it may. A survivor without a reason gets an empty one, to be filled in or to be killed by a test,
and lets the command fail. mutmut works in ``mutants/``, which is removed before and after.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import libcst
import mutmut.__main__
from libcst import matchers
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "mutation.json"
WORK = ROOT / "mutants"
_NO_GRAD = matchers.FunctionDef(
    decorators=[
        matchers.Decorator(
            decorator=matchers.Call(
                func=matchers.Attribute(value=matchers.Name("torch"), attr=matchers.Name("no_grad"))
            )
        )
    ]
)
_skips = MutationVisitor._skip_node_and_children

#: A mutant that makes the tests run for ever is noticed too.
_NOTICED = ("killed", "timeout")

#: What mutmut finds in a file: status and text of each mutant.
Mutants = list[tuple[str, str]]


def mutate_no_grad() -> None:
    """Let mutmut into functions under ``torch.no_grad()``; by itself it leaves out all that are decorated."""

    def skips(visitor: MutationVisitor, node: libcst.CSTNode) -> bool:
        return not matchers.matches(node, _NO_GRAD) and _skips(visitor, node)

    MutationVisitor._skip_node_and_children = skips


def described(name: str, path: Path) -> str:
    """Return a mutant as ``function: old lines -> new lines``, which stays the same when others are added or go."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    old, new = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    function = name.rpartition(".")[2].rpartition("__mutmut_")[0][2:].replace("ǁ", ".")
    return f"{function}: {old} -> {new}"


def found_mutants() -> dict[str, Mutants]:
    """Return what the finished run says of the mutants of each file."""
    found: dict[str, Mutants] = {}
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code]
            found.setdefault(str(path), []).append((status, "" if status in _NOTICED else described(name, path)))
    return found


def record(found: dict[str, Mutants], reasons: dict[str, list[str]]) -> dict[str, Any]:
    """Return counts by file, and the mutants that were not killed by the reason why they may live.

    Args:
        found: Mutants by file.
        reasons: By reason the mutants, as ``file, function: old -> new``, that it was given for so far.
    """
    reason_of = {mutant: why for why, mutants in reasons.items() for mutant in mutants}
    left: dict[str, list[str]] = {}
    for path, mutants in found.items():
        for status, text in mutants:
            if status not in _NOTICED:
                left.setdefault(reason_of.get(f"{path}, {text}", ""), []).append(f"{path}, {text}")
    return {
        "files": {
            path: dict(sorted(Counter(status for status, _ in mutants).items())) for path, mutants in found.items()
        },
        "total": dict(sorted(Counter(status for mutants in found.values() for status, _ in mutants).items())),
        "left": {why: left[why] for why in sorted(left)},
    }


def commit() -> str:
    """Return the commit, marked where code or tests are not those of the commit."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "concept_tuning", "tests", "pyproject.toml")
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")


def main() -> int:
    """Run the check; return 1 if a mutant lives without a reason."""
    os.chdir(ROOT)
    shutil.rmtree(WORK, ignore_errors=True)
    mutate_no_grad()
    mutmut.__main__._run((), None)
    os.chdir(ROOT)
    reasons = json.loads(RECORD.read_text(encoding="utf-8"))["left"] if RECORD.exists() else {}
    made = record(found_mutants(), reasons)
    head = {
        "command": "make mutants",
        "commit": commit(),
        "mutmut": importlib.metadata.version("mutmut"),
        "not_mutated": "Constants of modules, and functions under decorators other than torch.no_grad: properties, "
        "cached functions and hand-written backward passes.",
    }
    RECORD.write_text(json.dumps(head | made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(WORK)
    unanswered = made["left"].get("", [])
    print("\n".join(["", *unanswered, f"{made['total']}, {len(unanswered)} left without a reason; see {RECORD}"]))
    return bool(unanswered)


if __name__ == "__main__":
    sys.exit(main())
