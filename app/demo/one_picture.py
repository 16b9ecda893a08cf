"""The tab of one picture: what is on it, and which function answers what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.demo import words
from app.demo.answered import KEPT_SECONDS, OPACITY, PUT_AWAY, answered, answered_event, checked
from app.demo.intake import MAX_BYTES, MAX_PIXELS, UploadError
from app.demo.pair import Looked, Pair
from app.demo.switches import Switches
from app.markdown import plain
from concept_tuning.diagnostics.attribution import METHODS
from concept_tuning.diagnostics.example_pictures import ExamplePicture

_CLASSES = 5
_BEGIN = "### Choose a picture or an example to begin."
_PICTURE_NOTE = (
    f"PNG, JPEG, WebP, GIF, BMP, TIFF or PPM, at most {MAX_BYTES >> 20} MB and {MAX_PIXELS // 1_000_000} million "
    "pixels; of an animation the first frame. The networks see the middle square. Uploads are deleted after ten "
    "minutes."
)
_KINDS = (
    "The first three are read off the last feature map and come at once; the last two ask the network many times and "
    "take a second or two."
)


class OnePicture:
    """The tab of one picture, laid out where it is made; examples are offered under the picture."""

    def __init__(self, pair: Pair, examples: Sequence[ExamplePicture]) -> None:
        self._pair, self._examples = pair, examples
        self._looked = gr.State(None, time_to_live=KEPT_SECONDS)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self._picture, self._gallery = self._choice()
            with gr.Column(scale=3, min_width=320):
                self._sentence, self._labels, self._slider = self._answer()
                self._kind, self._opacity = self._map_settings()
        self._switches = Switches(pair)
        with gr.Row():
            self._patches = [_patch_gallery(side, name) for side, name in zip("ab", pair.names, strict=True)]
        gr.Markdown(
            "The bright patch is where one of the run's concepts, channels that speak for the class it says, is "
            "strongest. Concepts whose patches are the same share a picture.",
            elem_classes="note",
        )

    def listen(self) -> None:
        """Answer what is done on the tab."""
        settings = [self._kind, self._opacity, *self._switches.inputs]
        shown = [self._looked, self._sentence, *self._labels, self._slider, *self._patches, *self._switches.outputs]
        own: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "preprocess": False}
        self._picture.upload(
            answered(self._look),
            [self._picture, *settings],
            shown,
            api_name="page_look",
            show_progress_on=[*self._labels, self._slider],
            **own,
        )
        # Without the picture, which at its first removal is still sent as it was (Gradio 6.31).
        self._picture.clear(answered(self._forget), None, shown, api_name="page_forget", **own)
        self._gallery.select(
            answered_event(self._look_at_example),
            settings,
            [self._picture, *shown],
            api_name="page_example",
            show_progress_on=[self._slider],
            **own,
        )
        gr.on(
            [self._kind.input, self._opacity.release],
            answered(self._redraw),
            [self._looked, self._kind, self._opacity],
            [self._looked, self._sentence, self._slider],
            api_name="page_redraw",
            show_progress_on=[self._slider],
            **own,
        )
        self._switches.listen(self._looked, self._opacity, own)

    def _choice(self) -> tuple[gr.Image, gr.Gallery]:
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
        if self._examples:
            gr.Markdown("**Examples**" + (", those first on which the two disagree" if self._pair.comparable else ""))
        gallery = gr.Gallery(
            [(example.pixels, example.name) for example in self._examples],
            label="Examples",
            show_label=False,
            columns=3,
            height=300,
            allow_preview=False,
            interactive=False,
            buttons=[],
            visible=bool(self._examples),
            elem_id="examples",
        )
        return picture, gallery

    def _answer(self) -> tuple[gr.Markdown, list[gr.Label], gr.ImageSlider]:
        sentence = gr.Markdown(_BEGIN, elem_id="sentence")
        with gr.Row():
            labels = [
                gr.Label(
                    label=name, num_top_classes=_CLASSES, show_heading=False, min_width=220, elem_id=f"says-{side}"
                )
                for side, name in zip("ab", self._pair.names, strict=True)
            ]
        left, right = self._pair.names
        gr.Markdown(f"**Where they look**: left {plain(left)}, right {plain(right)}; move the slider")
        slider = gr.ImageSlider(
            label="Where they look",
            show_label=False,
            type="numpy",
            interactive=False,
            buttons=[],
            elem_id="maps",
        )
        return sentence, labels, slider

    @staticmethod
    def _map_settings() -> tuple[gr.Radio, gr.Slider]:
        with gr.Row():
            kind = gr.Radio(list(METHODS), value=METHODS[0], label="Kind of map", info=_KINDS, scale=3, elem_id="kind")
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity", scale=2, min_width=160)
        return kind, opacity

    def _show(self, found: Looked | None, name: str, share: float, *setting: bool) -> list[Any]:
        if found is None:
            return [None, _BEGIN, None, None, None, None, None, *self._switches.empty]
        found = self._pair.with_map(found, name)
        return [
            found,
            words.difference(found, name),
            *(dict(answer.ranking) for answer in found.answers),
            words.maps_for_slider(found.answers, name, share),
            *(words.patches(answer) for answer in found.answers),
            *self._switches.show(found, share, *setting),
        ]

    def _look(self, upload: object, name: str, share: float, *setting: bool) -> list[Any]:
        name, share = checked(name, share)
        try:
            return self._show(self._pair.look_at_upload(upload), name, share, *setting)
        except UploadError as error:  # said where the answer would stand, and nothing stays of an earlier one
            nothing = self._forget()
            nothing[1] = f"### {plain(str(error))}"
            return nothing

    def _forget(self) -> list[Any]:
        return self._show(None, METHODS[0], OPACITY)

    def _look_at_example(self, name: str, share: float, *setting: bool, event: gr.SelectData) -> list[Any]:
        if not isinstance(event.index, int) or not 0 <= event.index < len(self._examples):
            raise UploadError("There is no such example.")
        example = self._examples[event.index]
        return [example.pixels, *self._show(self._pair.look(example.pixels, example), *checked(name, share), *setting)]

    def _redraw(self, found: Looked | None, name: str, share: float) -> list[Any]:
        name, share = checked(name, share)
        if found is None:
            return [None, f"### {PUT_AWAY}", None]
        found = self._pair.with_map(found, name)
        return [found, words.difference(found, name), words.maps_for_slider(found.answers, name, share)]


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
