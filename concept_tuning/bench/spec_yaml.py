"""The file of a bench as YAML, in which no name may stand twice in one place: the last would win without a word."""

from __future__ import annotations

from typing import Any

import yaml


def plain_values(text: str) -> Any:
    """Return the values of a YAML text.

    Raises:
        yaml.YAMLError: for what is no YAML, and for a name that is given twice in one place.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_names_given_twice(node)
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
