"""What fine-tuning makes of rare concepts: before and after, coverage, the rarest pictures, information."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app.blocks import show_blocks, show_figure
from app.markdown import plain

if TYPE_CHECKING:
    from concept_tuning.diagnostics.rare_results import RareFeatures, Rarity
    from concept_tuning.report.blocks import Source


def show(source: Source, result: RareFeatures, place: int) -> None:
    """Show the charts that set the runs against the network they began with."""
    from concept_tuning.diagnostics.rare_results import Rarity
    from concept_tuning.figures.labels import percent

    share = f", at {percent(result.rarity.threshold.share, 0)}" if isinstance(result.rarity, Rarity) else ""
    st.subheader(f"What fine-tuning makes of them{share}")
    if share:
        st.info(
            f"From here on the rare concepts are those of the {share.removeprefix(', at ')} seen least, with which the "
            "diagnosis was made, whatever the slider above says: to measure others, the pictures must be looked at "
            "anew.",
            icon=":material/info:",
        )
    _probes(source, result, place)
    if isinstance(result.rarity, Rarity):
        _uses(source, result.rarity, place)
        _changes(result.rarity, place)
    _bounds(result)


def _probes(source: Source, result: RareFeatures, place: int) -> None:
    from concept_tuning.figures.rare_probes import has_probes, probe_figure
    from concept_tuning.report.blocks import Note
    from concept_tuning.report.rare import NO_PROBES

    if not has_probes(result):
        show_blocks([Note(text=NO_PROBES)], key=f"rare-no-probes-{place}")
        return
    _draw(
        probe_figure(result, runs=source.runs),
        f"rare-probes-{place}",
        "How well one concept alone tells the class it marks, before fine-tuning (open circle) and after (filled); "
        "lines join the two. To the right is better, 0.5 is chance. The first rows are medians with their middle half.",
        "Before and after",
    )


def _draw(figure: object, key: str, caption: str, heading: str) -> None:
    st.markdown(f"##### {heading}")
    show_figure(figure, key=key, alt=caption)
    st.caption(plain(caption))


def _uses(source: Source, rarity: Rarity, place: int) -> None:
    from concept_tuning.figures.rare_use import coverage_figure, rarest_figure

    if rarity.threshold.rare and any(use.coverage is not None for use in rarity.uses):
        _draw(
            coverage_figure(rarity.uses, runs=source.runs),
            f"rare-coverage-{place}",
            "Share of pictures (0–1) with a rare concept among those that count most for the answer, with 95 % "
            "intervals; the bar is the share if concepts were drawn at random. More means that the network uses them.",
            "Coverage: are they used?",
        )
    if any(use.rarest_tenth is not None for use in rarity.uses):
        _draw(
            rarest_figure(rarity.uses, runs=source.runs),
            f"rare-tenth-{place}",
            "Accuracy (0–1) on the tenth of the pictures whose concepts pre-training saw least, and on the others, "
            "with 95 % intervals. Lower on the rarest tenth means that rare looks cost.",
            "The rarest tenth of the pictures",
        )


def _changes(rarity: Rarity, place: int) -> None:
    from concept_tuning.diagnostics.results import Unavailable
    from concept_tuning.figures.rare_use import change_figure
    from concept_tuning.report.blocks import Note

    if isinstance(rarity.changes, Unavailable):
        show_blocks([Note(text=rarity.changes.reason)], key=f"rare-no-change-{place}")
        return
    _draw(
        change_figure(rarity.changes),
        f"rare-change-{place}",
        "Did fine-tuning raise what rare concepts say of the class? Nats per concept, with 95 % bootstrap intervals; "
        "right of 0 is more. Concepts are chosen on some of the pictures and measured on others.",
        "Change of information",
    )


def _bounds(result: RareFeatures) -> None:
    from concept_tuning.figures.labels import number
    from concept_tuning.report.rare import BOUND_TITLE

    rows = [
        {
            "run": network.name,
            "pictures set against each other": bound.batch,
            "bound (nats)": number(bound.value),
            "cannot pass (nats)": number(bound.cap),
        }
        for network in result.networks
        for bound in network.contrast
    ]
    if rows and st.toggle(BOUND_TITLE, key="rare-bounds"):
        caption = (
            "InfoNCE is a lower bound on the information between picture and label, and cannot pass the logarithm of "
            "the number of pictures: never the information itself."
        )
        st.dataframe(rows, hide_index=True, width="stretch", alt=caption)
        st.caption(caption)
