"""Numbers in sentences: one minus sign everywhere, and signs only where there is something to sign."""

from __future__ import annotations

MINUS = "−"


def true_minus(text: str) -> str:
    """Return a number's text with the sign U+2212 in place of the hyphen."""
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign and so many decimals; what rounds to 0 has no sign."""
    text = f"{value:+.{digits}f}"
    return true_minus(text) if float(text) else text[1:]
