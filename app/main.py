"""The dashboard's router: page configuration and navigation, nothing else.

streamlit run app/main.py
"""

from __future__ import annotations

import sys
from pathlib import Path

# `streamlit run` puts this file's folder on the path, not the repository's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import streamlit as st

from app.pages import pages

# A file, since browsers fetch the icon of a name from the network.
icon = Path(__file__).resolve().parents[1] / "assets" / "icon.svg"
st.set_page_config(page_title="Concept-Tuning Studio", page_icon=str(icon), layout="wide")
st.navigation(pages()).run()
