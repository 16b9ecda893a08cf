"""Errors as sentences: what was wrong and what to do, never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st
from streamlit.errors import FragmentHandledException

from app.markdown import plain
from concept_tuning.errors import StudioError

_LOG = logging.getLogger(__name__)


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show an error of the block as a sentence; an unexpected one goes to the server's log besides."""
    try:
        yield
    except StudioError as error:
        # Two blanks before the end of a line keep it, such as those of a folder's layout.
        text = "  \n".join(plain(line) for line in str(error).splitlines())
        st.error(text, icon=":material/error:")
    except Exception as error:
        # Streamlit stops and reruns scripts, and ends failed fragments, by exceptions of its own, which are no errors.
        if isinstance(error, FragmentHandledException) or type(error).__module__.startswith("streamlit.runtime"):
            raise
        _LOG.exception("The page failed")
        st.error(
            f"Something unexpected went wrong ({type(error).__name__}). The details are in the server's log; reload "
            "the page, and please report it if it comes again.",
            icon=":material/error:",
        )
