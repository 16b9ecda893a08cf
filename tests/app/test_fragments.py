"""Fragments run again without their page, and so without its guard: each must show its errors as sentences itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from streamlit.errors import FragmentHandledException
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[2] / "app"


def fragments(path: Path) -> list[ast.FunctionDef]:
    """Return the functions of a file that are decorated with ``st.fragment`` or given to it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    given = {
        argument.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "st.fragment"
        for argument in call.args
        if isinstance(argument, ast.Name)
    }
    decorated = [
        one for one in functions if any(ast.unparse(each).startswith("st.fragment") for each in one.decorator_list)
    ]
    return decorated + [one for one in functions if one.name in given]


def is_guarded(function: ast.FunctionDef) -> bool:
    """Whether a function ends in ``with shown_errors()``, and shows nothing before that."""
    *before, last = function.body[1:] if ast.get_docstring(function) else function.body
    if any(re.search(r"\bst\.(?!session_state|rerun)", ast.unparse(part)) for part in before):
        return False
    return isinstance(last, ast.With) and any(ast.unparse(item.context_expr) == "shown_errors()" for item in last.items)


def test_every_fragment_shows_its_errors_as_sentences() -> None:
    found = {(path.name, one.name): is_guarded(one) for path in APP.rglob("*.py") for one in fragments(path)}
    assert ("train_runs.py", "_live") in found
    assert len(found) > 10
    assert [place for place, guarded in found.items() if not guarded] == []


def test_what_streamlit_raises_for_a_failed_fragment_passes() -> None:
    from app.errors import shown_errors

    with pytest.raises(FragmentHandledException), shown_errors():
        raise FragmentHandledException(ValueError())


def test_names_in_a_message_are_no_markdown() -> None:
    page = AppTest.from_function(_fail).run()
    assert page.error[0].value == "There is no !\\[x\\](evil)."


def _fail() -> None:
    from app.errors import shown_errors
    from concept_tuning.errors import RunError

    with shown_errors():
        raise RunError("There is no ![x](evil).")
