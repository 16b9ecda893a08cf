"""The chapters of a report in their order: what each asks, and which results answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from concept_tuning.diagnostics.catalogue import BY_NAME
from concept_tuning.report import comparing, looking, rare, spurious
from concept_tuning.report.blocks import Block, Chapter, Source

Maker = Callable[[Source], list[Block]]

#: For each analysis, what its chapter asks, and what makes its blocks.
CHAPTERS: Mapping[str, tuple[str, Maker]] = {
    "predictions": ("How often is each run right, and which classes does it mistake for which?", comparing.predictions),
    "verdict": ("Is one method better than the other, over pictures and seeds?", comparing.verdict),
    "groups": (
        "Is a run that is right on average wrong in some group? A shortcut shows as a class that fails where its usual "
        "surroundings are missing.",
        comparing.groups,
    ),
    "ledger": (
        "Negative transfer: which pictures does fine-tuning get wrong that training from scratch gets right?",
        comparing.ledger,
    ),
    "picture-maps": (
        "Which places of a picture did the answer come from? Methods differ, and all can mislead: read them with the "
        "controls of the next chapter. Pictures on which runs disagree come first.",
        looking.picture_maps,
    ),
    "controls": (
        "Does a map show more than one that knows nothing: of a network with random weights, at random, the middle of "
        "the picture, its edges?",
        looking.controls,
    ),
    "sanity": ("Do the maps depend on what the network has learnt at all?", looking.sanity),
    "concept-maps": (
        "Concept-Tuning takes patches as concepts. Which patches do the most discriminative channels pick?",
        looking.concept_maps,
    ),
    "position-attention": ("From where does each patch read in the front-door head?", looking.position_attention),
    "channel-attention": ("Which concepts read from which in the front-door head?", looking.channel_attention),
    "transport": ("Which patches of two pictures would the concept contrast pull together?", looking.transport),
    "rare-features": (
        "Rare features are those that pre-training hardly saw and that tell the classes of this data apart. Which are "
        "they, and did fine-tuning learn them?",
        rare.rare_features,
    ),
    "counterfactuals": (
        "Does the prediction follow the object or its background? The same objects before other backgrounds.",
        spurious.counterfactuals,
    ),
    "switches": ("What do the attentions of the front-door head do for the predictions?", spurious.switches),
    "properties": (
        "Can brightness, colour, sharpness or size alone tell the classes? Then a network can use them as a shortcut.",
        spurious.properties,
    ),
    "concept-effects": (
        "Which patches sway the prediction all by themselves, wherever they are pasted? Found without any labels of "
        "groups.",
        spurious.concept_effects,
    ),
    "slices": ("Do mistakes gather in pictures that look alike?", spurious.slices),
    "embedding": (
        "How does the network lay out the pictures, before and after fine-tuning?",
        comparing.layout("embedding"),
    ),
    "concept-embedding": (
        "How does it lay out concept patches, before and after fine-tuning?",
        comparing.layout("concept-embedding"),
    ),
}


def chapters(source: Source) -> list[Chapter]:
    """Return the chapter of every analysis that was made or asked for, with what it lacks."""
    asked = {entry.analysis for entry in source.diagnosis.overview.entries}
    return [
        Chapter(
            name=name,
            title=BY_NAME[name].title,
            lead=lead,
            blocks=[*make(source), *source.closing(name)],
        )
        for name, (lead, make) in CHAPTERS.items()
        if name in asked
    ]
