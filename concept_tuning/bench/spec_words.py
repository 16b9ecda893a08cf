"""What is wrong with a bench's values, in sentences in place of the validator's."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from concept_tuning.bench.spec import BenchSpec, DataSpec, Range, Variant

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_LACKING = ("missing", "missing_argument", "missing_keyword_only_argument")
#: What a value must be, by the validator's name for the fault: of one value, and of those of a list.
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), ("a whole number", "whole numbers")),
    **dict.fromkeys(("float_type", "float_parsing"), ("a number", "numbers")),
    "finite_number": ("a finite number", "finite numbers"),
    **dict.fromkeys(("bool_type", "bool_parsing"), ("true or false", "true or false")),
    "string_type": ("text; put it in quotes", "text; put it in quotes"),
    **dict.fromkeys(("tuple_type", "list_type"), ("a list", "lists")),
}
#: What stands for each of the bench's classes, by a setting that holds one or several.
_EXAMPLES = {
    Range: ("a range such as {low: 0.001, high: 0.1} or {choices: [...]}", "ranges"),
    DataSpec: ("data", "data such as {name: birds, source: planted}"),
    Variant: ("a variant such as {method: vanilla, set: {lr: 0.01}}", "variants"),
}
_SETTINGS = "settings by name, such as {lr: 0.01}"
_SPACE = "settings by name with a range each, such as {lr: {low: 0.001, high: 0.1}}"
#: Characters of a value that are shown.
_MOST_SHOWN = 80
_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a fault is.

    Attributes:
        owner: What holds the setting, in words.
        kind: The class of what holds it; None in a search space, where the settings are the methods' own.
        path: Names and numbers from there to the fault.
    """

    owner: str
    kind: type | None
    path: tuple[str | int, ...]

    @property
    def subject(self) -> str:
        """The faulty setting as the beginning of a sentence."""
        names = ".".join(str(part) for part in self.path if isinstance(part, str))
        if self.kind is BenchSpec:
            return f"The bench's {names}"
        return f"In {self.owner}, {names}" if names else _begun(self.owner)


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return the end of a sentence about an unknown name, with the nearest of those there are, if one is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def explain(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Return what is wrong with a bench's plain values in one sentence.

    An unknown name comes before all else, since what is misspelt is missing too.
    """
    faults = error.errors(include_url=False)
    for kinds in (_UNKNOWN, _LACKING):
        named = [fault for fault in faults if fault["type"] in kinds]
        if named:
            place = _place(named[0]["loc"], values)
            names = [str(fault["loc"][-1]) for fault in named if fault["loc"][:-1] == named[0]["loc"][:-1]]
            return _unknown(place, names[0]) if kinds == _UNKNOWN else _lacking(place, names)
    return _faulty(_place(faults[0]["loc"], values), faults[0])


def _unknown(place: _Place, name: str) -> str:
    names = [field.name for field in dataclasses.fields(place.kind)] if place.kind is not None else []
    end = did_you_mean(name, names)
    there_are = f" It may have: {', '.join(names)}." if end == "." else ""
    return f"{_begun(place.owner)} has no setting {name!r}{end}{there_are}"


def _lacking(place: _Place, names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:-1])) + (" and " if names[1:] else "") + repr(names[-1])
    return f"{_begun(place.owner)} lacks {listed}."


def _place(loc: tuple[str | int, ...], values: Mapping[str, Any]) -> _Place:
    match loc:
        case ("data", int(number), *rest):
            given = values["data"][number]
            name = given.get("name") if isinstance(given, Mapping) else None
            called = repr(name) if isinstance(name, str) else f"number {number + 1}"
            # what is no data at all is a fault of the list
            if isinstance(given, Mapping):
                return _Place(f"the bench's data {called}", DataSpec, tuple(rest))
        case ("variants", str(name), *rest) if rest:
            return _Place(f"the bench's variant {name!r}", Variant, tuple(rest))
        case ("search", method, key, *rest) if rest or key != "[key]":
            if rest and rest != ["[key]"]:
                return _Place(f"the bench's search of {key!r} for {method!r}", Range, tuple(rest))
            return _Place(f"the bench's search for {method!r}", None, (key, *rest))
    return _Place("the bench", BenchSpec, loc)


def _faulty(place: _Place, fault: Any) -> str:
    """Return a sentence about a value that is of the wrong kind or out of range."""
    kind, value, in_list = fault["type"], fault["input"], bool(place.path) and isinstance(place.path[-1], int)
    got = "nothing" if value is None else repr(value)
    got = got if len(got) <= _MOST_SHOWN else f"{got[:_MOST_SHOWN]}..."
    if kind == "value_error":
        return f"{place.subject}: {fault['ctx']['error']}."
    if kind == "string_pattern_mismatch":
        return _misnamed(place, value)
    if kind == "invalid_key" or place.path[-1:] == ("[key]",):
        name = place.path[-1] if kind == "invalid_key" else value
        return f"{_begun(place.owner)} has a name that is no text: {name!r}; put it in quotes."
    if kind == "too_short":
        return f"{place.subject} must not be empty; write at least one."
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{place.subject} must be {words} {fault['ctx'][key]}, got {got}."
    if kind in _KINDS:
        must = _KINDS[kind][in_list]
    elif kind in {"dataclass_type", "dict_type"}:
        must = _example(place)[in_list]
    else:
        return f"{place.subject} cannot be used: {fault['msg'][0].lower()}{fault['msg'][1:]}."
    return f"{place.subject} must {'hold only' if in_list else 'be'} {must} (got {got})."


def _example(place: _Place) -> tuple[str, str]:
    """Return what one value and several of a list must be where the bench has a class or settings of its own."""
    first = place.path[0] if place.kind is BenchSpec and place.path else None
    if place.kind is None:
        return _EXAMPLES[Range]
    if first == "variants" and len(place.path) == 2:
        return _EXAMPLES[Variant]
    if first == "data":
        return _EXAMPLES[DataSpec]
    words = _SPACE if first == "search" and len(place.path) == 2 else "given by name" if first != "set" else _SETTINGS
    return words, words


def _misnamed(place: _Place, name: str) -> str:
    most = 60 if place.kind is BenchSpec else 40
    return (
        f"{_begun(place.owner)} cannot be named {name!r}: the name may hold letters, digits, '_', '.' and '-', begins "
        f"with none of the last two, and has at most {most} characters."
    )


def _begun(text: str) -> str:
    return text[0].upper() + text[1:]
