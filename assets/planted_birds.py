"""Draw the README's picture of planted birds: eight species in the four habitats.

python assets/planted_birds.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from concept_tuning.config import PlantedConfig
from concept_tuning.data.planted import SceneKey, render
from concept_tuning.data.planted_species import HABITATS, PAIRS

SIDE, GAP, CAPTION = 148, 6, 22


def main() -> None:
    """Write ``planted_birds.png`` beside this file: a row a habitat, a column a species, pairs side by side."""
    config = PlantedConfig(species=8, draw_size=SIDE)
    names = [name for pair in PAIRS for name in pair.names()][: config.species]
    width = config.species * (SIDE + GAP) + GAP * config.species // 2
    sheet = Image.new("RGB", (width, len(HABITATS) * (SIDE + GAP) + CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    for species, name in enumerate(names):
        left = GAP + species * (SIDE + GAP) + species // 2 * GAP
        pen.text((left + SIDE / 2, 4), name, fill="black", font=ImageFont.load_default(13), anchor="ma")
        for habitat in range(len(HABITATS)):
            # both species of a pair get the same scene, so that only the part differs
            scene = SceneKey(seed=0, split=2, number=100 * habitat + species // 2)
            drawn = render(config, species=species, habitat=habitat, scene=scene, part_visible=True).image
            sheet.paste(Image.fromarray(np.asarray(drawn)), (left, CAPTION + habitat * (SIDE + GAP)))
    sheet.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
