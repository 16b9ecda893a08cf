"""The demo as a Gradio application: what is on its three tabs, and which function answers what."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np

from app.demo import words
from app.demo.explained import CAVEATS, FIGURE, TEXT
from app.demo.intake import MAX_BYTES, MAX_PICTURES, MAX_PIXELS, UploadError
from app.demo.pair import BatchRow, Looked, Pair
from app.markdown import plain
from concept_tuning.diagnostics.attribution import METHODS
from concept_tuning.diagnostics.example_pictures import ExamplePicture
from concept_tuning.errors import StudioError

_LOG = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")

TITLE = "Vanilla against Concept-Tuning"
#: Questions that programs may ask, by the names of their addresses; all else belongs to the page.
PUBLIC = ("about", "compare", "compare_batch")
_STATE_SECONDS, _AT_ONCE = 1800, 4
#: Questions that wait for their turn; whoever comes then is told that the demo is busy.
QUEUE = 32
_CLASSES = 5
#: Batches are read one at a time, those of the page and of programs together.
_BATCHES = "batches"
_OPACITY = 0.5
_PICTURE_NOTE = (
    f"PNG, JPEG, WebP, GIF, BMP, TIFF or PPM, at most {MAX_BYTES >> 20} MB and {MAX_PIXELS // 1_000_000} million "
    "pixels; of an animation the first frame. The networks see the middle square. Uploads are deleted after ten "
    "minutes."
)


_KINDS = (
    "The first three are read off the last feature map and come at once; the last two ask the network many times and "
    "take a second or two."
)


def build_demo(pair: Pair, examples: Sequence[ExamplePicture]) -> gr.Blocks:
    """Lay out the demo of two runs; examples are offered under the picture.

    Every function that it exposes takes pictures and settings of the page alone: none trains, writes but to its own
    folder of answers, or reads a path that is no upload.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        gr.Markdown(f"# {TITLE}\n{_introduction(pair)}")
        with gr.Tab("One picture"):
            _one_picture(pair, examples)
        with gr.Tab("Several"):
            _several_pictures(pair)
        with gr.Tab("Method"):
            gr.Markdown(TEXT)
            gr.HTML(FIGURE)
            gr.Markdown(CAVEATS)
        _api(pair)
    demo.queue(max_size=QUEUE, default_concurrency_limit=_AT_ONCE, api_open=False)
    return demo


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


def _one_picture(pair: Pair, examples: Sequence[ExamplePicture]) -> None:
    looked = gr.State(None, time_to_live=_STATE_SECONDS)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = gr.Image(
                label="Your picture",
                type="filepath",
                image_mode=None,
                format="png",
                sources=["upload", "clipboard", "webcam"],
                height=300,
                buttons=[],
                elem_id="picture",
            )
            gr.Markdown(_PICTURE_NOTE, elem_classes="note")
            if examples:
                gr.Markdown("**Examples**" + (", those first on which the two disagree" if pair.comparable else ""))
            gallery = gr.Gallery(
                [(example.pixels, example.name) for example in examples],
                label="Examples",
                show_label=False,
                columns=3,
                height=300,
                allow_preview=False,
                interactive=False,
                buttons=[],
                visible=bool(examples),
                elem_id="examples",
            )
        with gr.Column(scale=3, min_width=320):
            sentence = gr.Markdown("### Choose a picture or an example to begin.", elem_id="sentence")
            with gr.Row():
                labels = [
                    gr.Label(
                        label=name, num_top_classes=_CLASSES, show_heading=False, min_width=220, elem_id=f"says-{side}"
                    )
                    for side, name in zip("ab", pair.names, strict=True)
                ]
            gr.Markdown(
                f"**Where they look**: left {plain(pair.names[0])}, right {plain(pair.names[1])}; move the slider"
            )
            slider = gr.ImageSlider(
                label="Where they look",
                show_label=False,
                type="numpy",
                interactive=False,
                buttons=[],
                elem_id="maps",
            )
            with gr.Row():
                kind = gr.Radio(
                    list(METHODS), value=METHODS[0], label="Kind of map", info=_KINDS, scale=3, elem_id="kind"
                )
                opacity = gr.Slider(0, 1, _OPACITY, step=0.05, label="Opacity", scale=2, min_width=160)
    switches = _Switches(pair)
    with gr.Row():
        patches = [_patch_gallery(side, name) for side, name in zip("ab", pair.names, strict=True)]
    gr.Markdown(
        "The bright patch is where one of the run's concepts, channels that speak for the class it says, is "
        "strongest. Concepts whose patches are the same share a picture.",
        elem_classes="note",
    )
    settings = [kind, opacity, *switches.inputs]
    shown = [looked, sentence, *labels, slider, *patches, *switches.outputs]

    def show(found: Looked | None, name: str, share: float, *setting: bool) -> list[Any]:
        if found is None:
            return [None, "### Choose a picture or an example to begin.", None, None, None, None, None, *switches.empty]
        found = pair.with_map(found, name)
        return [
            found,
            words.difference(found, name),
            *(dict(answer.ranking) for answer in found.answers),
            words.maps_for_slider(found.answers, name, share),
            *(words.patches(answer) for answer in found.answers),
            *switches.show(found, share, *setting),
        ]

    def look(upload: object, name: str, share: float, *setting: bool) -> list[Any]:
        name, share = _checked(name, share)
        try:
            return show(pair.look_at_upload(upload), name, share, *setting)
        except UploadError as error:  # said where the answer would stand, and nothing stays of an earlier one
            nothing = forget()
            nothing[1] = f"### {plain(str(error))}"
            return nothing

    def forget() -> list[Any]:
        return show(None, METHODS[0], _OPACITY)

    def look_at_example(name: str, share: float, *setting: bool, event: gr.SelectData) -> list[Any]:
        if not isinstance(event.index, int) or not 0 <= event.index < len(examples):
            raise UploadError("There is no such example.")
        example = examples[event.index]
        return [example.pixels, *show(pair.look(example.pixels, example), *_checked(name, share), *setting)]

    def redraw(found: Looked | None, name: str, share: float) -> list[Any]:
        name, share = _checked(name, share)
        if found is None:
            return [None, gr.skip(), None]
        found = pair.with_map(found, name)
        return [found, words.difference(found, name), words.maps_for_slider(found.answers, name, share)]

    own: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "preprocess": False}
    picture.upload(
        _answered(look),
        [picture, *settings],
        shown,
        api_name="page_look",
        show_progress_on=[*labels, slider],
        **own,
    )
    # Without the picture, which at its first removal is still sent as it was (Gradio 6.31).
    picture.clear(_answered(forget), None, shown, api_name="page_forget", **own)
    gallery.select(
        _answered_event(look_at_example),
        settings,
        [picture, *shown],
        api_name="page_example",
        show_progress_on=[slider],
        **own,
    )
    gr.on(
        [kind.input, opacity.release],
        _answered(redraw),
        [looked, kind, opacity],
        [looked, sentence, slider],
        api_name="page_redraw",
        show_progress_on=[slider],
        **own,
    )
    switches.listen(looked, opacity, own)


def _patch_gallery(side: str, name: str) -> gr.Gallery:
    with gr.Column(min_width=280):
        gr.Markdown(f"**Concept patches of {plain(name)}**")
        return gr.Gallery(
            label=f"Concept patches of {name}",
            show_label=False,
            columns=4,
            height=210,
            fit_columns=False,
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id=f"patches-{side}",
        )


class _Switches:
    """The front-door switches of those of the two runs that have that head."""

    def __init__(self, pair: Pair) -> None:
        self._places = [
            place
            for place, subject in enumerate(pair.subjects)
            if getattr(subject.method, "front_door", None) is not None
        ]
        self.inputs: list[Any] = []
        self._words: list[Any] = []
        self._sliders: list[Any] = []
        with gr.Group(), gr.Accordion("Front-door switches", open=True, elem_id="switches"):
            if not self._places:
                gr.Markdown("Neither network has a front-door head, so there is nothing to switch.")
                return
            with gr.Row():
                self.inputs = [
                    gr.Checkbox(True, label="Attention over patches", elem_id="switch-patches"),
                    gr.Checkbox(True, label="Attention over channels", elem_id="switch-channels"),
                ]
            with gr.Row():
                for place in self._places:
                    with gr.Column(min_width=300):
                        self._words.append(gr.Markdown(elem_id=f"switched-{'ab'[place]}"))
                        gr.Markdown(
                            f"Map of this head of {plain(pair.names[place])}: left as trained, right as switched"
                        )
                        self._sliders.append(
                            gr.ImageSlider(
                                label=f"Front-door head of {pair.names[place]}",
                                show_label=False,
                                type="numpy",
                                interactive=False,
                                buttons=[],
                                max_height=320,
                                elem_id=f"switched-maps-{'ab'[place]}",
                            )
                        )
            gr.Markdown(
                "The map is Grad-CAM of that head alone, of the class that it says with everything on. The head was "
                "trained with its attentions on: no change says that an attention does nothing here, a change does "
                "not say that it removes a shortcut.",
                elem_classes="note",
            )

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`show` fills."""
        return [*self._words, *self._sliders]

    @property
    def empty(self) -> list[Any]:
        """What stands there without a picture."""
        return [""] * len(self._words) + [None] * len(self._sliders)

    def show(self, looked: Looked, opacity: float, *setting: bool) -> list[Any]:
        """Return what fills the outputs for a picture and the two switches."""
        if not self._places:
            return []
        patch, channel = (bool(value) for value in setting)
        answers = [looked.answers[place] for place in self._places]
        said = [words.switched_words(one, patch_attention=patch, channel_attention=channel) for one in answers]
        maps = [
            words.switched_for_slider(one, patch_attention=patch, channel_attention=channel, opacity=opacity)
            for one in answers
        ]
        return [*said, *maps]

    def listen(self, looked: gr.State, opacity: gr.Slider, own: dict[str, Any]) -> None:
        """Answer a switch that is flipped."""
        if not self._places:
            return

        def flip(found: Looked | None, share: float, *setting: bool) -> list[Any]:
            share = _checked(METHODS[0], share)[1]
            return self.empty if found is None else self.show(found, share, *setting)

        gr.on(
            [switch.input for switch in self.inputs] + [opacity.release],
            _answered(flip),
            [looked, opacity, *self.inputs],
            self.outputs,
            api_name="page_switch",
            show_progress_on=self._sliders,
            **own,
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
            gr.update(value=str(_csv_file(pair, rows)), visible=True),
        ]

    button.click(
        _answered(compare),
        [files],
        [summary, table, download],
        api_name="page_batch",
        concurrency_id=_BATCHES,
        concurrency_limit=1,
        api_visibility="private",
        preprocess=False,
        show_progress_on=[table],
    )


def _api(pair: Pair) -> None:
    """Make the endpoints for programs; they have no place on the page."""
    picture = gr.Image(label="picture", type="filepath", image_mode=None, visible=False)
    files = gr.File(label="pictures", file_count="multiple", visible=False)
    answer, table = gr.JSON(visible=False, label="answer"), gr.File(visible=False, label="table")

    def compare(picture: object) -> dict[str, Any]:
        return pair.compare(picture)

    def compare_batch(pictures: object) -> list[Any]:
        rows = pair.compare_batch(pictures)
        return [[words.batch_values(row) for row in rows], str(_csv_file(pair, rows))]

    gr.Button(visible=False).click(
        _answered(compare),
        [picture],
        [answer],
        api_name="compare",
        api_description="What both networks say of a picture: `a` and `b`, each with name, probabilities by class and "
        "top class, and whether they agree (null where they know different classes).",
        preprocess=False,
    )
    gr.Button(visible=False).click(
        _answered(compare_batch),
        [files],
        [answer, table],
        api_name="compare_batch",
        concurrency_id=_BATCHES,
        concurrency_limit=1,
        api_description=f"The same of up to {MAX_PICTURES} pictures or a zip archive of them, disagreements first, and "
        "as a CSV file.",
        preprocess=False,
    )
    gr.Button(visible=False).click(
        _answered(pair.about),
        None,
        [answer],
        api_name="about",
        api_description="The two networks: name, method, backbone, input size and classes of each.",
    )


def _csv_file(pair: Pair, rows: Sequence[BatchRow]) -> Path:
    folder = pair.folder / uuid.uuid4().hex
    folder.mkdir(parents=True)
    return words.write_csv(pair, rows, folder / "comparison.csv")


def _checked(name: object, opacity: object) -> tuple[str, float]:
    """Return settings of the page, which a stranger's program may have sent, as what they should be."""
    if name not in METHODS:
        raise UploadError(f"There is no such kind of map; choose one of {', '.join(METHODS)}.")
    try:
        share = float(opacity) if isinstance(opacity, int | float) else _OPACITY
    except OverflowError:
        share = _OPACITY
    return str(name), min(max(share, 0.0), 1.0) if np.isfinite(share) else _OPACITY


def _answered(function: Callable[..., AnswerT]) -> Callable[..., AnswerT]:
    """Return the function with errors as sentences: those foreseen as they are, all others without their inside."""

    @functools.wraps(function)
    def answer(*args: Any) -> AnswerT:
        return _in_words(function, *args)

    return answer


def _answered_event(function: Callable[..., AnswerT]) -> Callable[..., AnswerT]:
    """Return :func:`_answered` of a function that is told which thing was chosen."""

    def answer(event: gr.SelectData, *args: Any) -> AnswerT:
        return _in_words(function, *args, event=event)

    answer.__name__ = function.__name__
    return answer


def _in_words(function: Callable[..., AnswerT], *args: Any, **more: Any) -> AnswerT:
    try:
        return function(*args, **more)
    except StudioError as error:
        raise gr.Error(str(error), duration=8, print_exception=False) from error
    except Exception as error:
        _LOG.exception("A request failed")
        text = "Something unexpected went wrong here; it was written to the server's log. Try another picture."
        raise gr.Error(text, print_exception=False) from error
