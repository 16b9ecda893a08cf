"""Names from data inside Markdown, for both interfaces."""

from __future__ import annotations

import re

#: What browsers would make a link of even if its signs are escaped; a word joiner, which is not seen, keeps it apart.
_LINKS, _JOINER = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=\w)", re.IGNORECASE), "\u2060"


def plain(text: str) -> str:
    """Return text, on one line, in which names from data cannot act as Markdown or become links."""
    text = _LINKS.sub(_JOINER, re.sub(r"\s*[\r\n]+\s*", " ", text))
    for sign in "\\`*_[]<>$:#|~&":
        text = text.replace(sign, f"\\{sign}")
    return text
