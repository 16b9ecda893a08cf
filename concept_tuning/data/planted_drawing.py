"""The drawing tools of the planted birds: a supersampled canvas, smooth curves and smooth noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = Sequence[float] | np.ndarray

SUPERSAMPLING = 2
SAMPLES = 6
"""Points of a smooth curve between two of its control points."""

BACKGROUND, BIRD = 0, 1

_SHADING_STEP = 4


class Canvas:
    """A picture being painted at ``SUPERSAMPLING`` times its size, with a map of what lies where.

    Coordinates are canvas pixels: x to the right, y down, 0 at the upper left corner, ``side`` at the far one.

    Attributes:
        side: Side of the canvas, in canvas pixels.
        image: RGB picture.
        labels: 8-bit map: 0 background, 1 bird, 2 and up its parts.
    """

    def __init__(self, size: int) -> None:
        """Start an empty canvas for a picture of ``size`` pixels a side."""
        self.size = size
        self.side = size * SUPERSAMPLING
        self.labels = Image.new("L", (self.side, self.side), BACKGROUND)
        self._pen_labels = ImageDraw.Draw(self.labels)
        self._start(Image.new("RGB", (self.side, self.side)))

    def fill(self, picture: Image.Image) -> None:
        """Cover the whole canvas with an RGB picture of ``size`` pixels a side."""
        self._start(picture.resize((self.side, self.side), Image.Resampling.NEAREST))

    def _start(self, image: Image.Image) -> None:
        self.image = image
        self._pen = ImageDraw.Draw(self.image)
        self._glaze = ImageDraw.Draw(self.image, "RGBA")

    def _brush(self, colour: Colour, alpha: int) -> tuple[ImageDraw.ImageDraw, tuple[int, ...]]:
        """Mixing with what lies below is several times slower, so that opaque colours are painted without."""
        return (self._pen, colour) if alpha == 255 else (self._glaze, (*colour, alpha))

    def polygon(self, points: np.ndarray, colour: Colour, *, alpha: int = 255, label: int | None = None) -> None:
        """Fill a polygon of (P, 2) points; with a label, also in the map."""
        flat = points.ravel().tolist()
        pen, fill = self._brush(colour, alpha)
        pen.polygon(flat, fill=fill)
        if label is not None:
            self._pen_labels.polygon(flat, fill=label)

    def line(self, points: np.ndarray, colour: Colour, *, width: float, alpha: int = 255) -> None:
        """Draw a line through (P, 2) points, ``width`` canvas pixels wide; the map stays as it is."""
        pen, fill = self._brush(colour, alpha)
        pen.line(points.ravel().tolist(), fill=fill, width=max(1, round(width)), joint="curve")

    def ellipse(self, centre: Point, radii: Point, colour: Colour, *, alpha: int = 255) -> None:
        """Fill an upright ellipse; the map stays as it is."""
        (x, y), (rx, ry) = centre, radii
        pen, fill = self._brush(colour, alpha)
        pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def shade(self, outline: np.ndarray, *, light: tuple[float, float]) -> None:
        """Make what lies within a polygon look round: darker away from the light, lighter towards it.

        Args:
            outline: (P, 2) points.
            light: Unit vector towards the light.
        """
        low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 2, self.side)
        width, height = (int(extent) for extent in high - low)
        mask = Image.new("L", (width, height), 0)
        ImageDraw.Draw(mask).polygon((outline - low).ravel().tolist(), fill=255)
        facing = _roundness(mask, light)
        for tone, amount in (((22, 16, 34), -0.75 * facing), ((255, 250, 232), 0.45 * facing)):
            share = (np.clip(amount, 0, 0.6) * 255).astype(np.uint8)
            alpha = Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR)
            self.image.paste(tone, (int(low[0]), int(low[1])), ImageChops.multiply(alpha, mask))

    def picture(self) -> Image.Image:
        """Return the RGB picture at its own size."""
        return self.image.reduce(SUPERSAMPLING)

    def mask(self, *labels: int) -> np.ndarray:
        """Return where at least half of a pixel carries one of the labels, (size, size) bool."""
        found = self.labels.point([255 if label in labels else 0 for label in range(256)])
        return np.asarray(found.reduce(SUPERSAMPLING)) >= 128


def _roundness(mask: Image.Image, light: tuple[float, float]) -> np.ndarray:
    """How far the surface of a cushion over the mask faces the light, -1..1, at a quarter of the mask's size."""
    radius = min(mask.size) / (5.0 * _SHADING_STEP)
    pad = int(3 * radius) + 2
    small = mask.reduce(_SHADING_STEP)
    padded = Image.new("L", (small.width + 2 * pad, small.height + 2 * pad), 0)
    padded.paste(small, (pad, pad))
    depth = np.asarray(padded.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    inner = slice(pad, -pad)
    slope_x = depth[inner, pad + 1 : 1 - pad] - depth[inner, pad - 1 : -pad - 1]
    slope_y = depth[pad + 1 : 1 - pad, inner] - depth[pad - 1 : -pad - 1, inner]
    return (slope_x * np.float32(light[0]) + slope_y * np.float32(light[1])) * np.float32(-1.25 * radius / 255)


def closed_curve(control: np.ndarray) -> np.ndarray:
    """Catmull-Rom curve through K control points and back; control point k is sample ``k * SAMPLES``.

    Args:
        control: (K, 2).

    Returns:
        (K * SAMPLES, 2).
    """
    return _basis(len(control), True) @ control


def open_curve(control: np.ndarray) -> np.ndarray:
    """Catmull-Rom curve from the first to the last of K control points: ((K - 1) * SAMPLES + 1, 2)."""
    return _basis(len(control), False) @ control


@lru_cache(maxsize=64)
def _basis(count: int, closed: bool) -> np.ndarray:
    segments = count if closed else count - 1
    matrix = np.zeros((segments * SAMPLES + (not closed), count))
    for row in range(len(matrix)):
        start = row // SAMPLES
        t = row / SAMPLES - start
        weights = (
            (-t + 2 * t**2 - t**3) / 2,
            (2 - 5 * t**2 + 3 * t**3) / 2,
            (t + 4 * t**2 - 3 * t**3) / 2,
            (t**3 - t**2) / 2,
        )
        for offset, weight in enumerate(weights, start=-1):
            place = (start + offset) % count if closed else min(max(start + offset, 0), count - 1)
            matrix[row, place] += weight
    return matrix


def smooth_noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Random values on a coarse grid, blown up smoothly: (size, size) float32, most of them in 0..1."""
    return (_stretch(rows, size) @ rng.random((rows, columns)) @ _stretch(columns, size).T).astype(np.float32)


@lru_cache(maxsize=64)
def _stretch(count: int, size: int) -> np.ndarray:
    """(size, count) matrix that interpolates ``count`` values, cubically, at ``size`` places."""
    grid = Image.fromarray(np.eye(count, dtype=np.float32))
    return np.asarray(grid.resize((count, size), Image.Resampling.BICUBIC, (0, 0, count, count)), dtype=np.float64)


def tinted(values: np.ndarray, stops: Sequence[Colour]) -> Image.Image:
    """Map (h, w) values in 0..1 (clipped) to colours spaced evenly between the stops, as an RGB picture."""
    picture = grey(values)
    picture.putpalette(_ramp(tuple(stops)))
    return picture.convert("RGB")


def grey(values: np.ndarray) -> Image.Image:
    """Turn (h, w) values in 0..1 (clipped) into a grey picture."""
    return Image.fromarray(np.clip(values * 255, 0, 255).astype(np.uint8))


@lru_cache(maxsize=64)
def _ramp(stops: tuple[Colour, ...]) -> bytes:
    at = np.linspace(0, 1, len(stops))
    table = np.array(stops, dtype=np.float64)
    columns = [np.interp(np.linspace(0, 1, 256), at, table[:, channel]) for channel in range(3)]
    return np.stack(columns, axis=1).round().astype(np.uint8).tobytes()


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour ``share`` of the way from the first to the second."""
    r, g, b = (round(low + share * (high - low)) for low, high in zip(first, second, strict=True))
    return r, g, b


def developed(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Give a picture a random brightness, warmth of light and camera noise: (h, w, 3) uint8."""
    warmth = rng.uniform(-0.05, 0.05)
    gains = rng.uniform(0.85, 1.05) * np.array([[1 + warmth], [1.0], [1 - warmth]])
    table = np.clip(np.arange(256) * gains + 0.5, 0, 255).astype(np.uint8)
    lit = np.asarray(picture.point(table.ravel().tolist()), dtype=np.int16)
    grain = np.rint(_normal_quantiles() * rng.uniform(1.5, 4.5)).astype(np.int16)
    noise = grain[np.frombuffer(rng.bytes(lit.size), dtype=np.uint8)]
    return np.clip(lit + noise.reshape(lit.shape), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _normal_quantiles() -> np.ndarray:
    """256 equally likely values that follow the standard normal distribution."""
    return np.array([NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256)])
