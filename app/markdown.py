"""Names from data inside Markdown, for both interfaces."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return text in which names from data cannot act as Markdown."""
    for sign in "\\`*_[]<>$:#|~":
        text = text.replace(sign, f"\\{sign}")
    return text
