"""The endpoints for programs, and the CSV file of a comparison."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.demo import words
from app.demo.answered import answered
from app.demo.intake import MAX_PICTURES
from app.demo.pair import BatchRow, Pair

#: Questions that programs may ask, by the names of their addresses; all else belongs to the page.
PUBLIC = ("about", "compare", "compare_batch")
#: Batches are read one at a time, those of the page and of programs together.
BATCHES = "batches"


def make_endpoints(pair: Pair) -> None:
    """Make the endpoints for programs; they have no place on the page."""
    picture = gr.Image(label="picture", type="filepath", image_mode=None, visible=False)
    files = gr.File(label="pictures", file_count="multiple", visible=False)
    answer, table = gr.JSON(visible=False, label="answer"), gr.File(visible=False, label="table")

    def compare(picture: object) -> dict[str, Any]:
        return pair.compare(picture)

    def compare_batch(pictures: object) -> list[Any]:
        rows = pair.compare_batch(pictures)
        return [[words.batch_values(row) for row in rows], str(csv_file(pair, rows))]

    gr.Button(visible=False).click(
        answered(compare),
        [picture],
        [answer],
        api_name="compare",
        api_description="What both networks say of a picture: `a` and `b`, each with name, probabilities by class and "
        "top class, and whether they agree (null where they know different classes).",
        preprocess=False,
    )
    gr.Button(visible=False).click(
        answered(compare_batch),
        [files],
        [answer, table],
        api_name="compare_batch",
        concurrency_id=BATCHES,
        concurrency_limit=1,
        api_description=f"The same of up to {MAX_PICTURES} pictures or a zip archive of them, disagreements first, and "
        "as a CSV file.",
        preprocess=False,
    )
    gr.Button(visible=False).click(
        answered(pair.about),
        None,
        [answer],
        api_name="about",
        api_description="The two networks: name, method, backbone, input size and classes of each.",
    )


def csv_file(pair: Pair, rows: Sequence[BatchRow]) -> Path:
    """Write the comparison of several pictures into a new folder among the answers and return where it is."""
    folder = pair.folder / uuid.uuid4().hex
    folder.mkdir(parents=True)
    return words.write_csv(pair, rows, folder / "comparison.csv")
