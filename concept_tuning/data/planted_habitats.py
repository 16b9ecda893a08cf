"""The four habitats of the planted birds, each painted from its own stream around the place where the bird stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from concept_tuning.data.planted_drawing import (
    BACKGROUND,
    Canvas,
    Colour,
    closed_curve,
    grey,
    mixed,
    smooth_noise,
    tinted,
)

# A stone around the place where the bird stands, in body units, and a trunk's left edge, shade and right edge,
# at its top, above its foot and at its foot, in trunk widths.
_STONE = np.array(
    [(-0.4, 0.12), (-0.36, 0), (-0.2, -0.045), (0, -0.05), (0.2, -0.045), (0.36, 0), (0.42, 0.12), (0.2, 0.17),
     (-0.2, 0.17)]
)  # fmt: skip
_TRUNK = np.array([(-0.8, -1.0, -1.6), (0.25, 0.25, 0.4), (0.8, 1.0, 1.6)])


@dataclass(frozen=True, kw_only=True)
class Perch:
    """Where the bird stands or sits, in canvas pixels.

    Attributes:
        x: Middle between the feet.
        y: Height of what it stands on.
        unit: Canvas pixels for one body unit.
        cover: Outline, (P, 2), of what hides folded feet; None where the feet are shown.
    """

    x: float
    y: float
    unit: float
    cover: np.ndarray | None


def paint_habitat(canvas: Canvas, habitat: int, rng: np.random.Generator, perch: Perch) -> None:
    """Paint the habitat and what the bird stands on."""
    _PAINTERS[habitat](canvas, rng, perch)


def paint_cover(canvas: Canvas, habitat: int, rng: np.random.Generator, perch: Perch) -> None:
    """Paint what hides folded feet: a wave, moss, a hollow in the sand or a nest, alike in outline."""
    if perch.cover is None:
        return
    look = _COVERS[habitat]
    canvas.polygon(perch.cover, look.base, label=BACKGROUND)
    low, high = perch.cover.min(axis=0), perch.cover.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    canvas.polygon(middle + (perch.cover - middle) * (0.92, 0.5) - (0, 0.3 * half[1]), look.light, alpha=70)
    for _ in range(look.strokes):
        x, y = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0.75)
        turn = rng.uniform(*look.turns)
        start = np.array([x, y * (1 - x * x)])
        along = np.array([np.cos(turn) * look.reach, np.sin(turn) * 0.35])
        tone = mixed(look.base, look.light if rng.random() < 0.6 else (20, 24, 20), float(rng.uniform(0.25, 0.8)))
        stroke = middle + np.stack([start - along / 2, start + along / 2]) * half
        canvas.line(stroke, tone, width=0.016 * perch.unit)


@dataclass(frozen=True, kw_only=True)
class _Cover:
    """Look of what hides folded feet: two colours, and strokes by number, angles (radians) and length."""

    base: Colour
    light: Colour
    strokes: int
    turns: tuple[float, float]
    reach: float


def _water(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    size, side = canvas.size, canvas.side
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    horizon = rng.uniform(0.1, 0.26)
    depth = np.clip((rows - horizon) / (1 - horizon), 0, 1)
    swell = smooth_noise(rng, size, 9, 4)
    chop = smooth_noise(rng, size, 36, 9)
    waves = np.sin(46 * depth**0.55 + 7 * swell + rng.uniform(0, 6.28)) * (0.35 + 0.65 * chop)
    tone = 0.62 - 0.34 * depth + 0.17 * waves * (0.35 + depth) + 0.14 * (chop - 0.5)
    pixels = tinted(tone, ((8, 52, 88), (22, 104, 140), (70, 160, 184), (176, 222, 226)))
    strip = round(horizon * size)
    pixels.paste(tinted(rows[:strip] / horizon + 0.25 * (swell[:strip] - 0.5), ((186, 214, 232), (240, 236, 220))))
    canvas.fill(pixels)
    shore = np.arange(0, 1.05, 0.05)
    heights = horizon - 0.012 - 0.05 * np.abs(np.sin(shore * rng.uniform(3, 7) + rng.uniform(0, 6)))
    bank = np.concatenate([np.stack([shore, heights], 1), [[1.05, horizon + 0.008], [0.0, horizon + 0.008]]])
    canvas.polygon(bank * side, (86, 120, 112))
    for _ in range(16):
        y = horizon + (1 - horizon) * rng.random() ** 0.8
        width = (0.015 + 0.05 * y) * rng.uniform(0.5, 1.5)
        glint = (width * side, max(1.0, 0.004 * side))
        canvas.ellipse((rng.random() * side, y * side), glint, (232, 246, 246), alpha=150)
    _reflection(canvas, perch)
    if perch.cover is None:
        _rock(canvas, rng, perch)


def _reflection(canvas: Canvas, perch: Perch) -> None:
    for number in range(6):
        y = perch.y + (0.09 + 0.05 * number) * perch.unit
        reach = (0.46 - 0.055 * number) * perch.unit * (1.0 if number % 2 else 0.82)
        canvas.ellipse((perch.x, y), (reach, 0.022 * perch.unit), (8, 34, 58), alpha=95 - 9 * number)


def _rock(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    base = np.array([perch.x, perch.y])
    jitter = rng.uniform(-0.03, 0.03, _STONE.shape)
    jitter[_STONE[:, 1] < 0, 1] = 0
    stone = closed_curve(_STONE + jitter)
    tone: Colour = mixed((122, 116, 112), (96, 104, 116), float(rng.random()))
    foam = (0.52 * perch.unit, 0.055 * perch.unit)
    canvas.ellipse((perch.x, perch.y + 0.15 * perch.unit), foam, (226, 242, 244), alpha=120)
    canvas.polygon(base + stone * perch.unit, mixed(tone, (20, 20, 30), 0.35))
    canvas.polygon(base + (stone * (0.93, 0.72) - (0, 0.012)) * perch.unit, tone)
    for _ in range(10):
        spot = base + rng.uniform((-0.32, -0.02), (0.32, 0.1)) * perch.unit
        canvas.ellipse(spot, (0.03 * perch.unit, 0.01 * perch.unit), mixed(tone, (226, 224, 214), 0.35), alpha=130)


def _forest(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    size, side = canvas.size, canvas.side
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    foliage = 0.6 * smooth_noise(rng, size, 6, 6) + 0.4 * smooth_noise(rng, size, 18, 18)
    tone = 0.88 - 0.75 * rows + 0.75 * (foliage - 0.5)
    canvas.fill(tinted(tone, ((16, 40, 24), (34, 78, 38), (84, 136, 58), (176, 204, 108))))
    for _ in range(9):
        spot = rng.random(2) * [side, 0.55 * side]
        reach = rng.uniform(0.02, 0.055) * side
        canvas.ellipse(spot, (reach, reach), (214, 232, 140), alpha=46)
    for number in range(5):
        _trunk(canvas, rng, (number + rng.uniform(0.1, 0.9)) / 5, nearness=rng.random())
    _undergrowth(canvas, rng, perch)
    _log(canvas, rng, perch)


def _trunk(canvas: Canvas, rng: np.random.Generator, x: float, *, nearness: float) -> None:
    side = canvas.side
    width = (0.022 + 0.045 * nearness) * side
    foot = (0.6 + 0.25 * nearness) * side
    lean = rng.uniform(-0.04, 0.04) * side
    x = x * side
    bark = mixed((112, 122, 84), (66, 48, 36), nearness)
    down = np.array([0.0, 0.9 * foot, foot])
    left, dark, right = x + width * _TRUNK + np.array([lean, 0.0, 0.0])
    canvas.polygon(_between(left, right, down)[:, ::-1], bark)
    canvas.polygon(_between(dark, right, down)[:, ::-1], mixed(bark, (14, 18, 14), 0.4))


def _between(low: np.ndarray, high: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Outline, (2 P, 2), of the band between two lines given by P heights each over the same P places."""
    return np.concatenate([np.stack([along, low], axis=1), np.stack([along, high], axis=1)[::-1]])


def _undergrowth(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    side = canvas.side
    top = min(0.8 * side, perch.y + 0.02 * side)
    across = np.linspace(-0.02, 1.02, 14)
    edge = np.stack([across * side, top + rng.uniform(-0.03, 0.03, 14) * side], 1)
    ground = np.concatenate([edge, [[1.02 * side, side * 1.01], [-0.02 * side, side * 1.01]]])
    canvas.polygon(ground, (40, 66, 34), alpha=215)
    roots = rng.uniform((0, 0), (1, 1), (46, 2))
    for x, y in roots[np.argsort(roots[:, 1])]:
        base = np.array([x * side, top + y * (side * 1.04 - top)])
        tall = (0.035 + 0.05 * y) * side
        bend = rng.uniform(-0.5, 0.5) * tall
        blade = base + np.array([[-0.1 * tall, 0], [bend, -tall], [0.1 * tall, 0]])
        canvas.polygon(blade, mixed((36, 82, 36), (122, 168, 66), float(rng.random())))


def _log(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    unit, side = perch.unit, canvas.side
    thick = 0.17 * unit
    slope = rng.uniform(-0.03, 0.03)
    xs = np.array([-0.05, 0.25, 0.5, 0.75, 1.05]) * side
    wobble = rng.uniform(-0.012, 0.012, 5) * side
    top = perch.y - 0.04 * unit + slope * (xs - perch.x) + wobble * (np.abs(xs - perch.x) > 0.3 * unit)
    bark: Colour = (104, 76, 52)

    canvas.polygon(_between(top, top + thick, xs), bark)
    canvas.polygon(_between(top + 0.6 * thick, top + thick, xs), mixed(bark, (20, 16, 14), 0.5))
    canvas.polygon(_between(top, top + 0.16 * thick, xs), (118, 142, 66))
    for _ in range(12):
        x = rng.random() * side
        y = float(np.interp(x, xs, top)) + rng.uniform(0.25, 0.85) * thick
        canvas.ellipse((x, y), (0.07 * unit, 0.008 * unit), (58, 42, 32), alpha=170)


def _sand(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    size = canvas.size
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    horizon = rng.uniform(0.12, 0.24)
    slow = smooth_noise(rng, size, 4, 4)
    grain = rng.random((size, size), dtype=np.float32)
    depth = np.clip((rows - horizon) / (1 - horizon), 0, 1)
    ripples = np.sin(64 * depth**0.6 + (3 + 13 * depth) * slow + rng.uniform(0, 6.28))
    tone = 0.6 + 0.11 * ripples * (0.1 + depth) + 0.42 * (slow - 0.5) * depth - 0.1 * depth + 0.12 * (grain - 0.5)
    first = rows - (horizon - _swing(rng, size))
    second = first - (0.055 - _swing(rng, size))
    for below in (first, second):
        tone += np.where((below > 0) & (below < 0.16), 0.2 - 1.25 * below, 0)
    pixels = tinted(tone, ((150, 104, 58), (208, 160, 98), (236, 200, 142), (252, 232, 190)))
    haze = tinted(rows / horizon, ((196, 216, 228), (250, 236, 208))).resize((size, size))
    pixels.paste(haze, mask=grey(first < 0))
    canvas.fill(pixels)
    _pebbles(canvas, rng, horizon)
    shadow = (perch.x + rng.uniform(-0.1, 0.25) * perch.unit, perch.y + 0.005 * perch.unit)
    canvas.ellipse(shadow, (0.5 * perch.unit, 0.055 * perch.unit), (96, 62, 40), alpha=105)


def _swing(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rise and fall of a dune's crest over the picture's width, (size,) float32, as a share of its height."""
    across = np.linspace(0, 1, size, dtype=np.float32)
    return 0.045 * np.sin(across * rng.uniform(4, 8) + rng.uniform(0, 6.28))


def _pebbles(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    side = canvas.side
    for _ in range(12):
        spot = np.array([rng.random(), rng.uniform(horizon + 0.2, 1)]) * side
        reach = rng.uniform(0.004, 0.012) * side
        canvas.ellipse(spot + reach * 0.4, (reach, 0.6 * reach), (128, 90, 58), alpha=150)
        canvas.ellipse(spot, (reach, 0.6 * reach), (212, 190, 160))
    for _ in range(2):
        _tuft(canvas, rng, np.array([rng.random(), rng.uniform(horizon + 0.12, 0.95)]) * side)


def _tuft(canvas: Canvas, rng: np.random.Generator, base: np.ndarray) -> None:
    for _ in range(7):
        tall = rng.uniform(0.05, 0.11) * canvas.side
        bend = rng.uniform(-0.6, 0.6) * tall
        blade = base + np.array([[-0.006 * canvas.side, 0], [bend, -tall], [0.006 * canvas.side, 0]])
        canvas.polygon(blade, mixed((146, 136, 70), (196, 176, 100), float(rng.random())))


def _sky(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    size = canvas.size
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    clouds = 0.55 * smooth_noise(rng, size, 4, 3) + 0.3 * smooth_noise(rng, size, 9, 6)
    clouds += 0.15 * smooth_noise(rng, size, 22, 14)
    cover = np.clip((clouds - rng.uniform(0.46, 0.56)) * 5, 0, 1)
    blue = tinted(rows, ((66, 132, 214), (120, 176, 234), (190, 220, 244))).resize((size, size))
    white = tinted(0.35 + 1.3 * (clouds - 0.45), ((206, 216, 232), (255, 253, 248)))
    blue.paste(white, mask=grey(cover * cover * (3 - 2 * cover)))
    canvas.fill(blue)
    _branch(canvas, rng, perch)


def _branch(canvas: Canvas, rng: np.random.Generator, perch: Perch) -> None:
    unit, side = perch.unit, canvas.side
    slope = rng.uniform(-0.1, 0.1)
    start = -0.05 if rng.random() < 0.5 else 1.05
    xs = np.linspace(start * side, perch.x + (0.55 if start < 0 else -0.55) * unit, 7)
    ys = perch.y + slope * (xs - perch.x) * (np.abs(xs - perch.x) > 0.25 * unit) + rng.uniform(-0.008, 0.008, 7) * side
    half = np.linspace(0.07, 0.03, 7) * unit
    bark: Colour = (108, 80, 60)
    ys = ys + 0.02 * unit
    canvas.polygon(_between(ys - half, ys + half, xs), bark)
    canvas.polygon(_between(ys + 0.25 * half, ys + half, xs), mixed(bark, (24, 16, 16), 0.45))
    for place in range(7):
        root = np.array([xs[place], ys[place]])
        for _ in range(2):
            turn = rng.uniform(0.2, 2.9) * (1 if rng.random() < 0.7 else -1)
            reach = rng.uniform(0.12, 0.2) * unit
            along = np.array([np.cos(turn), np.sin(turn)]) * reach
            across = np.array([-along[1], along[0]]) * 0.3
            middle = root + 0.45 * along
            leaf = closed_curve(np.array([root, middle + across, root + along, middle - across]))
            canvas.polygon(leaf, mixed((62, 118, 48), (150, 186, 74), float(rng.random())))


_PAINTERS: tuple[Callable[[Canvas, np.random.Generator, Perch], None], ...] = (_water, _forest, _sand, _sky)
_COVERS: tuple[_Cover, ...] = (
    _Cover(base=(44, 122, 152), light=(206, 234, 236), strokes=12, turns=(-0.1, 0.1), reach=0.4),
    _Cover(base=(66, 98, 44), light=(158, 186, 84), strokes=34, turns=(1.1, 2.0), reach=0.3),
    _Cover(base=(206, 160, 100), light=(248, 220, 170), strokes=0, turns=(0.0, 0.0), reach=0.0),
    _Cover(base=(116, 84, 54), light=(214, 178, 122), strokes=34, turns=(-0.5, 0.5), reach=0.5),
)
