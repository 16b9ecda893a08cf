"""One concept: its strongest patches, the classes that have it, and what the networks make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_figure
from app.markdown import plain

if TYPE_CHECKING:
    from concept_tuning.diagnostics.rare_choice import RareChoice
    from concept_tuning.diagnostics.rare_results import RareFeatures
    from concept_tuning.report.blocks import Source


def chosen_concept(names: Sequence[str], place: int) -> str:
    """Return the name of the chosen concept, by default the first, also where another was chosen that is not there."""
    key = _key(place)
    wanted = st.session_state.get(key, st.query_params.get(key))
    return wanted if wanted in names else names[0]


def choose(name: str, place: int) -> None:
    """Choose a concept; for callbacks."""
    st.session_state[_key(place)] = name


def show(source: Source, result: RareFeatures, choice: RareChoice | None, names: Sequence[str], place: int) -> None:
    """Let the user choose a concept, and show it; ``names`` in the order in which they are offered."""
    from concept_tuning.figures.rare_features import gallery_figure

    key = _key(place)
    if st.session_state.get(key, names[0]) not in names:
        del st.session_state[key]
    with st.container(border=True):
        name = st.selectbox(
            "Concept", names, key=key, bind="query-params", help="Rare ones first, the most telling at the top."
        )
        concept = result.concepts.index(name)
        st.markdown(_words(result, choice, concept))
        left, right = st.columns([3, 2])
        with left:
            kept = [result.gallery.keys[int(at)] in source.thumbnails for at in result.gallery.pictures[concept]]
            caption = f"Its strongest patches on the pre-trained network, strongest first. Units: {result.units}."
            if not all(kept):
                caption += f" {sum(kept)} of {len(kept)} pictures were kept; the others are empty."
            figure = gallery_figure(result, source.thumbnails, concepts=[concept])
            show_figure(figure, key=f"rare-patches-{place}-{concept}", alt=caption)
            st.caption(plain(caption))
        with right:
            _classes(result, concept)


def _words(result: RareFeatures, choice: RareChoice | None, concept: int) -> str:
    """Return what is known of the concept in sentences."""
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.labels import listed, number
    from concept_tuning.figures.rare_features import classes_with

    presence = result.presence
    kind = ""
    if choice is not None:
        kind = "**Rare.** " if choice.rare[concept] else "Seldom seen. " if choice.low[concept] else "Not rare. "
    seen = f"here in {number(100 * float(result.target_frequency[concept]), 2)} % of patches"
    if not isinstance(result.source, Unavailable):
        seen = f"Pre-training saw it in {number(100 * float(result.source.frequency[concept]), 2)} % of patches, {seen}"
    above = "above" if presence.useful[concept] else "within"
    aucs = ", ".join(f"{network.name} {number(float(network.auc[concept]), 2)}" for network in result.networks)
    names = classes_with(result, concept)
    all_of_them = " (every class has it in most pictures)" if len(names) == len(result.class_names) else ""
    return (
        f"{kind}Marks **{plain(listed(names))}**{all_of_them}. {seen[0].upper()}{seen[1:]}. "
        f"It says {number(float(presence.information[concept]))} nats of the class, {above} its band of "
        f"{number(float(presence.band[concept]))}. By it alone {plain(names[0])} "
        f"is told from all other classes with these AUCs (0.5 is chance): {plain(aucs)}."
    )


def _classes(result: RareFeatures, concept: int) -> None:
    """Show which share of each class's pictures has the concept."""
    order = (-result.class_frequency[:, concept]).argsort(kind="stable")
    caption = "Share of each class's pictures that have the concept."
    st.dataframe(
        [
            {"class": result.class_names[label], "have it": 100 * float(result.class_frequency[label, concept])}
            for label in order
        ],
        hide_index=True,
        width="stretch",
        column_config={"have it": st.column_config.ProgressColumn(format="%.0f %%", min_value=0, max_value=100)},
        alt=caption,
    )
    st.caption(caption)


def _key(place: int) -> str:
    return f"rare-concept-{place}"
