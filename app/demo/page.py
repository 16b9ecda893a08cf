"""The demo as a Gradio application: its three tabs, and the one of several pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.demo import words
from app.demo.answered import answered
from app.demo.endpoints import BATCHES, csv_file, make_endpoints
from app.demo.explained import CAVEATS, FIGURE, NEITHER, TEXT
from app.demo.intake import MAX_PICTURES
from app.demo.one_picture import OnePicture
from app.demo.pair import Pair
from app.markdown import plain
from app.method_words import method_label
from concept_tuning.diagnostics.example_pictures import ExamplePicture

_AT_ONCE = 4
#: Questions that wait for their turn; whoever comes then is told that the demo is busy.
QUEUE = 32


def build_demo(pair: Pair, examples: Sequence[ExamplePicture]) -> gr.Blocks:
    """Lay out the demo of two runs; examples are offered under the picture.

    Every function that it exposes takes pictures and settings of the page alone: none trains, writes but to its own
    folder of answers, or reads a path that is no upload.
    """
    title = _title(pair)
    with gr.Blocks(title=title, analytics_enabled=False) as demo:
        gr.Markdown(f"# {plain(title)}\n{_introduction(pair)}")
        with gr.Tab("One picture"):
            OnePicture(pair, examples).listen()
        with gr.Tab("Several"):
            _several_pictures(pair)
        with gr.Tab("Method"):
            gr.Markdown(TEXT if "concept-tuning" in pair.methods else f"{NEITHER}\n{TEXT}")
            gr.HTML(FIGURE)
            gr.Markdown(CAVEATS)
        make_endpoints(pair)
    demo.queue(max_size=QUEUE, default_concurrency_limit=_AT_ONCE, api_open=False)
    return demo


def _title(pair: Pair) -> str:
    """Say what is compared: two methods, or two runs where both were trained by the same one."""
    if set(pair.methods) == {"vanilla", "concept-tuning"}:
        return "Vanilla against Concept-Tuning" if pair.methods[0] == "vanilla" else "Concept-Tuning against vanilla"
    first, second = pair.names if len(set(pair.methods)) == 1 else map(method_label, pair.methods)
    return f"{first} against {second}"


def _introduction(pair: Pair) -> str:
    first, second = (
        f"**{plain(subject.name)}** ({plain(config.method)}, {plain(config.backbone.architecture)})"
        for subject, config in ((subject, subject.run.config) for subject in pair.subjects)
    )
    names = [subject.run.class_names for subject in pair.subjects]
    shown = ", ".join(plain(name) for name in names[0][:12]) + (", …" if len(names[0]) > 12 else "")
    if pair.comparable:
        return f"{first} and {second} look at the same picture. Both know {len(names[0])} classes: {shown}."
    common = len(set(names[0]) & set(names[1]))
    return (
        f"{first} and {second} look at the same picture. They were trained on different classes ({len(names[0])} and "
        f"{len(names[1])}, {common} of them in common), so whether they agree cannot be said."
    )


def _several_pictures(pair: Pair) -> None:
    gr.Markdown(
        f"Up to {MAX_PICTURES} pictures, or a zip archive of them. Those on which the two disagree come first, the "
        "least certain at the top."
    )
    files = gr.File(label="Pictures or a zip archive", file_count="multiple", height=160, elem_id="batch-files")
    button = gr.Button("Compare them", variant="primary", elem_id="batch-go")
    summary = gr.Markdown(elem_id="batch-summary")
    table = gr.Dataframe(
        headers=["picture", "agree", *pair.names, "note"],
        column_widths=["160px", "80px", "200px", "200px", "280px"],
        datatype="str",
        interactive=False,
        wrap=True,
        max_height=480,
        buttons=[],
        label="What both say",
        elem_id="batch-table",
    )
    download = gr.DownloadButton("Download as CSV", visible=False, elem_id="batch-csv")

    def compare(uploads: object) -> list[Any]:
        rows = pair.compare_batch(uploads)
        return [
            words.batch_summary(rows, comparable=pair.comparable),
            words.batch_table(rows),
            gr.update(value=str(csv_file(pair, rows)), visible=True),
        ]

    button.click(
        answered(compare),
        [files],
        [summary, table, download],
        api_name="page_batch",
        concurrency_id=BATCHES,
        concurrency_limit=1,
        api_visibility="private",
        preprocess=False,
        show_progress_on=[table],
    )
