"""The look that all figures share: colours, fonts, and how pictures and maps are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np
import plotly.graph_objects as go
import plotly.io

#: Colours that people with any colour vision tell apart (Okabe and Ito, 2008), strongest contrast first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B8A800")
#: Of what is good, bad and neither.
GOOD, BAD, NEUTRAL = "#009E73", "#D55E00", "#7F7F7F"
#: Scale of activation and attention maps, of rates 0..1, and of values around zero.
MAP_SCALE, RATE_SCALE, SIGNED_SCALE = "Inferno", "Blues", "RdBu"
FONT = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

Size = Literal["small", "medium", "tall"]
_HEIGHTS: Mapping[Size, int] = {"small": 260, "medium": 380, "tall": 560}
#: Of the layout of Plotly's white look, what flat figures without maps of the world use.
_PARTS = (
    "annotationdefaults",
    "autotypenumbers",
    "coloraxis",
    "font",
    "hoverlabel",
    "hovermode",
    "paper_bgcolor",
    "plot_bgcolor",
    "shapedefaults",
    "title",
    "xaxis",
    "yaxis",
)


def run_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each run, by its place among the names, the same in every figure."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def finish(figure: go.Figure, *, size: Size | int = "medium", legend: bool = True) -> go.Figure:
    """Give a figure the common look; titles are the business of the page it stands on."""
    figure.update_layout(template=_look(), height=_HEIGHTS[size] if isinstance(size, str) else size, showlegend=legend)
    return figure


@cache
def _look() -> str:
    """Register Plotly's white look, cut to what the figures have in them, with the common one; returns its name.

    Plotly copies a template whole into every figure, and twice on the way.
    """
    white = plotly.io.templates["plotly_white"].to_plotly_json()
    look = go.layout.Template(
        data={kind: white["data"][kind] for kind in ("bar", "heatmap", "scatter")},
        layout={part: white["layout"][part] for part in _PARTS},
    )
    look.layout.update(
        font={"family": FONT, "size": 13},
        margin={"l": 60, "r": 20, "t": 36, "b": 50},
        hoverlabel={"font": {"family": FONT}},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
        colorway=COLOURS,
    )
    plotly.io.templates["concept-tuning"] = look
    return "concept-tuning"


def overlay(image: np.ndarray, values: np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
    """Lay a map over a picture in the colours of :data:`MAP_SCALE`.

    Args:
        image: (s, s, 3) uint8 RGB.
        values: (h, w), shown from its least to its greatest value, resized smoothly to the picture.
        opacity: Of the map, 0..1.

    Returns:
        (s, s, 3) uint8.
    """
    from PIL import Image

    span = float(np.ptp(values))
    scaled = (values - values.min()) / span if span > 0 else np.zeros_like(values, dtype=float)
    small = Image.fromarray((scaled * 255).astype(np.uint8)).resize(image.shape[1::-1], Image.Resampling.BICUBIC)
    mixed = (1 - opacity) * image + opacity * _map_colours()[np.asarray(small)]
    return mixed.round().astype(np.uint8)


def laid_over(image: np.ndarray, values: np.ndarray | None, opacity: float = 0.5, *, side: int = 320) -> np.ndarray:
    """Return a square picture, enlarged, with a map over it by :func:`overlay`; without a map that is blank.

    Args:
        image: (s, s, 3) uint8 RGB.
        values: (h, w); blank if None, not finite or the same everywhere.
        opacity: Of the map, 0..1.
        side: Of the result, in pixels.

    Returns:
        (side, side, 3) uint8.
    """
    from PIL import Image

    large = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    if values is None or not (np.isfinite(values).all() and values.max() > values.min()):
        return large
    return overlay(large, values, opacity=opacity)


@cache
def _map_colours() -> np.ndarray:
    """Return (256, 3) float64, the colours of :data:`MAP_SCALE`."""
    from plotly.colors import sample_colorscale

    colours = sample_colorscale(MAP_SCALE, np.linspace(0, 1, 256).tolist())
    return np.array([[int(part) for part in colour[4:-1].split(",")] for colour in colours], dtype=np.float64)
