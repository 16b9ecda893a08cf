"""Names that a stranger chose, as they may be printed."""

from __future__ import annotations

import re

#: Controls of terminals (C0, C1), breaks of lines, signs that turn the direction of writing, and halves of characters.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text in which characters that act on a terminal or log are written out, such as ``\\x1b`` or ``\\n``.

    For names of files, classes and groups, and reasons that quote them, on their way to a terminal, log or message.
    What is compared or stored (keys, names, fingerprints) stays as it is.
    """
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def as_unicode(text: str) -> str:
    """Return a text with escapes (``\\udcXX``) for what is no Unicode, as in a file's name of other bytes.

    No page can show such halves of characters, nor any file in UTF-8 store them.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable_lines(text: str) -> str:
    """Return a message of several lines, each as :func:`printable` gives it."""
    return "\n".join(printable(line) for line in text.splitlines())
