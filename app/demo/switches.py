"""The front-door switches on the tab of one picture: what is laid out, and what a flipped one changes."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.demo import words
from app.demo.answered import PUT_AWAY, answered, checked
from app.demo.pair import Looked, Pair
from app.markdown import plain
from concept_tuning.diagnostics.attribution import METHODS


class Switches:
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
                "trained with its attentions on: an answer that stays does not say that an attention does nothing "
                "here, and one that changes does not say that it removes a shortcut.",
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
            share = checked(METHODS[0], share)[1]
            if found is None:
                return [PUT_AWAY] * len(self._words) + [None] * len(self._sliders)
            return self.show(found, share, *setting)

        gr.on(
            [switch.input for switch in self.inputs] + [opacity.release],
            answered(flip),
            [looked, opacity, *self.inputs],
            self.outputs,
            api_name="page_switch",
            show_progress_on=self._sliders,
            **own,
        )
