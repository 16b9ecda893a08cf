"""The look of all pages beyond the theme: charts that fit, pictures in full rows, and a menu that closes on a phone."""

from __future__ import annotations

import math

import streamlit as st

#: Charts are fitted to their width in steps of their height for a width, so many to the double.
_PER_DOUBLE, _STEPS = 16, range(-32, 49)
#: Of the margins about the tiles of a chart, across and down.
_ACROSS, _DOWN = 8, 16

_STYLE = """
[data-testid="stMainBlockContainer"] {padding-top: 4rem;}
[data-testid="stMainBlockContainer"] h1 {padding: 0 0 0.5rem; font-size: clamp(1.9rem, 4vw, 2.5rem);}
[data-testid="stPlotlyChart"] {background: #FFFFFF; border-radius: 0.5rem; overflow: hidden; color-scheme: light;}
/* Streamlit's own CSV holds names as they are, which a spreadsheet may take for formulas. */
[data-testid="stElementToolbarButton"]:has(button[aria-label^="Download as CSV"]) {display: none;}
[class*="st-key-fit-"] {container-type: inline-size;}
[class*="st-key-fit-"] > div {overflow: hidden; border-radius: 0.5rem;}
[class*="st-key-pictures-"] {display: grid !important; gap: 0.75rem;
 grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr));}
[class*="st-key-pictures-"] > div {width: auto !important; min-width: 0 !important;}
"""

# Streamlit keeps the menu as the visitor left it, also where it covers the page.
_SCRIPT = """
if (!window.closesMenuOnPhones) {
  window.closesMenuOnPhones = true;
  const narrow = () => window.innerWidth < 768;
  const forget = () => Object.keys(localStorage)
    .filter(key => key.startsWith("stSidebarCollapsed")).forEach(key => localStorage.removeItem(key));
  const close = () => {
    const menu = document.querySelector('[data-testid="stSidebar"]');
    const button = document.querySelector('[data-testid="stSidebarCollapseButton"] button');
    if (menu && button && menu.getBoundingClientRect().right > 0) button.click();
  };
  if (narrow()) close();
  document.addEventListener("click", event => {
    if (!narrow()) return;
    if (event.target.closest('[data-testid="stSidebarNavLink"]')) close();
    setTimeout(forget);
  });
  if (narrow()) forget();
}
"""


def show_look() -> None:
    """Give a page the look; it takes no room."""
    st.html(f"<style>{_STYLE}{_fits()}</style>")
    st.html(f"<script>{_SCRIPT}</script>", unsafe_allow_javascript=True)


def fit_key(height: float, key: str) -> str:
    """Return the key of a container that cuts what is below a chart's tiles on a page narrower than the chart is for.

    Args:
        height: Of the tiles, as a multiple of their width.
        key: Of the chart.
    """
    step = min(max(math.ceil(_PER_DOUBLE * math.log2(height)), _STEPS.start), _STEPS.stop - 1)
    return f"fit-{step - _STEPS.start}-{key}"


def _fits() -> str:
    return "".join(
        f'[class*="st-key-fit-{step - _STEPS.start}-"] > div '
        f"{{max-height: calc((100cqw - {_ACROSS}px) * {2 ** (step / _PER_DOUBLE):.3f} + {_DOWN}px);}}\n"
        for step in _STEPS
    )
