"""The dashboard's router: page configuration and navigation, nothing else.

streamlit run app/main.py
"""

from __future__ import annotations

import sys
from pathlib import Path

# `streamlit run` puts this file's folder on the path, not the repository's.
if str(Path(__file__).resolve().parents[1]) not in sys.path:  # this file runs again and again in one process
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import streamlit as st

from app.look import show_look
from app.pages import pages

# A file, since browsers fetch the icon of a name from the network.
icon = Path(__file__).resolve().parents[1] / "assets" / "icon.svg"
st.set_page_config(page_icon=str(icon), layout="wide")  # before the navigation, which would take the page's icon
page = st.navigation(pages())
st.set_page_config(page_title=f"{page.title} · Concept-Tuning Studio")
show_look()
page.run()
