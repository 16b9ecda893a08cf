"""The dashboard's pages in their order; views are imported when they are shown, so that the first opens at once."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import streamlit as st

from app.errors import shown_errors

#: Name in the address, title and icon of each page; the view is the module of that name with dashes as underscores.
PAGES: tuple[tuple[str, str, str], ...] = (
    ("start", "Start", "home"),
    ("train", "Train", "model_training"),
    ("attention", "Concept attention", "visibility"),
    ("rare", "Rare features", "diamond"),
    ("spurious", "Spurious correlations", "link_off"),
    ("embedding", "Embedding", "scatter_plot"),
    ("compare", "Compare and report", "balance"),
    ("learn", "Learn", "school"),
)


def pages() -> list[st.Page]:
    """Return the pages for ``st.navigation``; the first is the default."""
    return [
        st.Page(
            _view(name),
            title=title,
            icon=f":material/{icon}:",
            url_path=name,
            default=name == PAGES[0][0],
        )
        for name, title, icon in PAGES
    ]


def page(name: str) -> st.Page:
    """Return a page by its name in the address, for links."""
    return next(found for (known, _, _), found in zip(PAGES, pages(), strict=True) if known == name)


def _view(name: str) -> Callable[[], None]:
    def show() -> None:
        with shown_errors():
            import_module(f"app.views.{name}").render()

    show.__name__ = name
    return show
