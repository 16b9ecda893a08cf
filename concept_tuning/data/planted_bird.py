"""Painting a planted bird: plumage, shading, and the part that tells its species."""

from __future__ import annotations

import numpy as np

from concept_tuning.data.planted_drawing import BIRD, SAMPLES, Canvas, Colour, closed_curve, mixed, open_curve
from concept_tuning.data.planted_figure import Figure
from concept_tuning.data.planted_species import PARTS, PartName

PART_LABELS: dict[str, int] = {name: label for label, name in enumerate(PARTS, start=BIRD + 1)}

_DARK: Colour = (16, 10, 24)
_LIGHT: Colour = (255, 252, 240)

# In head radii from the head's centre; shares of the body's half length and depth; shares of the wing.
_STRIPE = np.array([(0.98, -0.2), (0.3, -0.42), (-0.55, -0.2), (-0.85, 0.12), (-0.4, 0.14), (0.35, 0.16), (0.98, 0.12)])
_BELLY = np.array([(-0.97, 0.1), (-0.3, 0.35), (0.4, 0.05)])
_FLECKS = np.array([(0.2, 0.35), (0.42, 0.35), (0.64, 0.35), (0.05, 0.62), (0.3, 0.62), (0.52, 0.62)])
_FLECK = np.array([(-0.05, -0.05), (0.0, 0.04), (0.05, -0.05)])
_FEATHERS = tuple(
    np.array([(0.6, y - 0.22), (0.8, y - 0.2), (x, y - 0.02), (x - 0.06, y + 0.05), (0.62, y - 0.06)])
    for x, y in ((0.98, 0.07), (0.9, 0.18), (0.8, 0.27))
)
_COVERTS = np.array([(0.03, -0.04), (0.13, -0.38), (0.38, -0.52), (0.56, -0.36), (0.46, -0.04), (0.24, 0.08)])
_BARS = tuple(
    np.array([(x0, y0), (x0 + 0.05, y0 + 0.02), (x1 + 0.045, y1), (x1, y1 - 0.02)])
    for x0, y0, x1, y1 in ((0.52, -0.36, 0.36, 0.16), (0.66, -0.3, 0.54, 0.24))
)
_QUILLS = tuple(np.array([(0.3, y - 0.1), (0.6, y), (0.86, 0.6 * y + 0.04)]) for y in (0.02, 0.14, 0.26))


def paint_bird(canvas: Canvas, figure: Figure) -> None:
    """Paint the bird and enter it and its parts in the canvas's map.

    Where the part that tells the species is hidden, nothing painted depends on the species: feet are folded
    away, a crest is laid flat, the beak is tucked in with the eyes closed, the tail's end is drawn under.
    """
    _paint_tail(canvas, figure)
    _paint_crest(canvas, figure)
    _paint_legs(canvas, figure)
    _paint_body(canvas, figure)
    _paint_head(canvas, figure)
    _paint_wing(canvas, figure)
    canvas.shade(figure.pose.place(figure.silhouette), light=figure.pose.light)
    _paint_beak(canvas, figure)
    _paint_eye(canvas, figure)


def _tinted(figure: Figure, colour: Colour) -> Colour:
    r, g, b = (min(255, round(value * gain)) for value, gain in zip(colour, figure.pose.tint, strict=True))
    return r, g, b


def _part_colour(figure: Figure, part: PartName, usual: Colour) -> Colour:
    return _tinted(figure, figure.variant.colour if figure.design.part == part else usual)


def _paint_tail(canvas: Canvas, figure: Figure) -> None:
    pose, colour = figure.pose, figure.design.plumage.tail
    plain = _tinted(figure, colour)
    canvas.polygon(pose.place(figure.tail()), plain, label=BIRD)
    if figure.hidden != "tail tip":
        tip = _part_colour(figure, "tail tip", colour)
        canvas.polygon(pose.place(figure.tail_tip()), tip, label=PART_LABELS["tail tip"])
    end = 0.96 - figure.design.build.tip
    for side in (-0.4, 0.4):
        quill = figure.on_tail(np.array([(0.0, side), (end, side)]))
        canvas.line(pose.place(quill), mixed(plain, _DARK, 0.4), width=0.012 * pose.scale)


def _paint_crest(canvas: Canvas, figure: Figure) -> None:
    if figure.hidden == "crest":
        return
    colour = _part_colour(figure, "crest", figure.design.plumage.cap)
    for number, feather in enumerate(figure.crest()):
        tone = mixed(colour, _DARK, 0.12 * (number % 2))
        canvas.polygon(figure.pose.place(feather), tone, label=PART_LABELS["crest"])


def _paint_legs(canvas: Canvas, figure: Figure) -> None:
    plumage, place = figure.design.plumage, figure.pose.place_upright
    long_legged = figure.design.build.legs[0] > 0
    foot_colour = _part_colour(figure, "feet", plumage.feet)
    thigh_colour = _tinted(figure, plumage.feet if long_legged else plumage.belly)
    folded = figure.hidden == "feet"
    for (thigh, foot), depth in zip(figure.legs(), (0.28, 0.0), strict=True):
        if not folded:
            canvas.polygon(place(foot), mixed(foot_colour, _DARK, depth), label=PART_LABELS["feet"])
        if long_legged or not folded:
            canvas.polygon(place(thigh), mixed(thigh_colour, _DARK, depth + 0.1), label=BIRD)


def _paint_body(canvas: Canvas, figure: Figure) -> None:
    plumage, pose, body = figure.design.plumage, figure.pose, figure.design.build.body
    canvas.polygon(pose.place(figure.silhouette), _tinted(figure, plumage.back), label=BIRD)
    inner = open_curve(np.concatenate([_BELLY * body, figure.arc(9.5, 9.5)]))
    canvas.polygon(pose.place(np.concatenate([figure.arc(9.5, 15), inner])), _tinted(figure, plumage.belly))
    fleck_colour = _tinted(figure, plumage.spots or mixed(plumage.belly, plumage.back, 0.35))
    width = (0.022 if plumage.spots else 0.012) * pose.scale
    for place in _FLECKS:
        canvas.line(pose.place((place + _FLECK) * body), fleck_colour, width=width)


def _paint_head(canvas: Canvas, figure: Figure) -> None:
    plumage, place = figure.design.plumage, figure.pose.place
    head, radius = figure.head, figure.design.build.head_radius
    throat, brow = head + radius * np.array([[(0.0, 1.25)], [(0.1, -0.42)]])
    collar = open_curve(np.concatenate([figure.arc(10.3, 10.3), throat, figure.arc(3.2, 3.2)]))
    canvas.polygon(place(np.concatenate([figure.arc(3.2, 10.3), collar])), _tinted(figure, plumage.head))
    brow_line = open_curve(np.concatenate([figure.arc(7.4, 7.4), brow, figure.arc(4.0, 4.0)]))
    canvas.polygon(place(np.concatenate([figure.arc(4.0, 7.4), brow_line])), _tinted(figure, plumage.cap))
    if plumage.stripe is not None:
        canvas.polygon(place(head + radius * _STRIPE), _tinted(figure, plumage.stripe))


def _paint_wing(canvas: Canvas, figure: Figure) -> None:
    plumage, pose = figure.design.plumage, figure.pose
    wing, colour = figure.wing(), _tinted(figure, plumage.wing)

    def placed(rows: np.ndarray) -> np.ndarray:
        return pose.place(figure.on_wing(rows))

    shadow = np.array([0.0, 0.02 * pose.scale])
    canvas.polygon(pose.place(wing * (0.985, 1.0)) + shadow, _DARK, alpha=70)
    canvas.polygon(pose.place(wing), colour, label=BIRD)
    for feather in _FEATHERS:
        canvas.polygon(placed(feather), _tinted(figure, plumage.wing_tip))
    canvas.polygon(placed(closed_curve(_COVERTS)), mixed(colour, _LIGHT, 0.16))
    if plumage.bar is not None:
        for bar in _BARS:
            canvas.polygon(placed(bar), _tinted(figure, plumage.bar), alpha=200)
    for quill in _QUILLS:
        canvas.line(placed(open_curve(quill)), mixed(colour, _DARK, 0.45), width=0.011 * pose.scale)
    canvas.line(pose.place(wing[: 3 * SAMPLES]), mixed(colour, _LIGHT, 0.35), width=0.012 * pose.scale)


def _paint_beak(canvas: Canvas, figure: Figure) -> None:
    if figure.hidden == "beak":
        return
    colour = _part_colour(figure, "beak", figure.design.plumage.beak)
    whole, upper = figure.beak()
    canvas.polygon(figure.pose.place(whole), mixed(colour, _DARK, 0.3), label=PART_LABELS["beak"])
    canvas.polygon(figure.pose.place(upper), colour)


def _paint_eye(canvas: Canvas, figure: Figure) -> None:
    pose, radius = figure.pose, figure.design.build.head_radius
    middle = figure.head + radius * np.array([0.36, -0.1])
    if figure.hidden == "beak":
        lid = open_curve(middle + radius * np.array([(-0.24, -0.02), (0.0, 0.12), (0.24, 0.0)]))
        canvas.line(pose.place(lid), _DARK, width=0.022 * pose.scale)
        return
    x, y = pose.place(middle[None])[0].tolist()
    size = max(radius, 0.145) * pose.scale
    canvas.ellipse((x, y), (0.29 * size, 0.29 * size), (250, 236, 196))
    canvas.ellipse((x, y), (0.23 * size, 0.23 * size), (18, 14, 20))
    canvas.ellipse((x + 0.07 * size, y - 0.08 * size), (0.075 * size, 0.075 * size), (255, 255, 255))
