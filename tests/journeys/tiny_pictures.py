"""Pictures to upload: three classes that a tiny network can tell apart, small enough for a training of seconds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "stripes")
SIDE = 64


def pictures_zip(path: Path, *, each: int = 16, seed: int = 0) -> Path:
    """Write a zip with a folder for each class and return its path."""
    generator = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive:
        for name in CLASSES:
            for number in range(each):
                content = io.BytesIO()
                _draw(name, generator).save(content, "PNG")
                archive.writestr(f"shapes/{name}/{number:02}.png", content.getvalue())
    return path


def _draw(name: str, generator: np.random.Generator) -> Image.Image:
    ground, colour = (tuple(int(part) for part in generator.integers(low, low + 90, 3)) for low in (20, 150))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    pen = ImageDraw.Draw(image)
    x, y, size = (int(value) for value in generator.integers((6, 6, 24), (20, 20, 36)))
    if name == "circle":
        pen.ellipse((x, y, x + size, y + size), fill=colour)
    elif name == "square":
        pen.rectangle((x, y, x + size, y + size), fill=colour)
    else:
        for offset in range(0, size, 8):
            pen.rectangle((x, y + offset, x + size, y + offset + 3), fill=colour)
    return image
