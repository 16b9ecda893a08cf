"""The file of a bench as YAML, in which no name may stand twice in one place: the last would win without a word."""

from __future__ import annotations

from typing import Any

import yaml

#: Most values that a bench's file may stand for, references followed.
_MOST = 100_000


def plain_values(text: str) -> Any:
    """Return the values of a YAML text.

    Raises:
        yaml.YAMLError: for what is no YAML, for a name that is given twice in one place, and for values that refer
            to themselves, or by references of references to very many.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_names_given_twice(node)
        _count(node, {}, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_names_given_twice(document: yaml.Node) -> None:
    left, met = [document], set()
    while left:
        node = left.pop()
        if id(node) in met or isinstance(node, yaml.ScalarNode):
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
            continue
        names = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.constructor.ConstructorError(
                        "while reading settings", node.start_mark, f"{key.value!r} is given twice", key.start_mark
                    )
                names.add(key.value)
            left += [key, value]


def _count(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Return how many values a node stands for, references followed; refuses one in itself, and more than fit."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in above:
        raise yaml.constructor.ConstructorError(
            "while reading settings", node.start_mark, "the value refers to itself", node.start_mark
        )
    if id(node) not in known:
        inside = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_count(part, known, above | {id(node)}) for part in inside)
    if known[id(node)] > _MOST:
        raise yaml.constructor.ConstructorError(
            "while reading settings", node.start_mark, f"this stands for over {_MOST:,} values", node.start_mark
        )
    return known[id(node)]
