"""Do planted rare parts come out as rare features, and do shuffled labels raise flags at the nominal rate?

Nothing is trained: the pre-trained network looks at test pictures of planted birds, whose species come in pairs that
differ in one part, and the analysis of rare features runs on them at its default settings. All definitions were fixed
before the first run:

- The concept of a part of a pair's birds (`coverage`, the definition that counts) is the concept whose activation map
  covers the part best on that pair's pictures, both species together, without labels: the highest mean, over the
  pictures that show the part, of the chance that a pixel of the part has a higher activation than one of the rest
  (AUC; a pixel has its cell's activation, ties count half). Like Network Dissection (arXiv 1704.05796), but without a
  threshold. Channels are cut at the level where the network's ReLU is silent.
- A second definition (`hiding`) is causal: the concept whose strongest activation best tells the pair's pictures from
  the same pictures drawn with the part hidden (AUC). It is the less pure one: a bird hides its beak by turning its
  head and its feet by sitting in something, so more than the part changes (as was seen only after the first run).
- A hit is a pair in a data set whose telling part's concept is in the rare quadrant (low source frequency and useful).
- Chance is the share of all concepts of the same data set there. The p value deals the concepts' names out anew, the
  same way for all pairs and data sets: pairs share a network, data sets of other seeds show the same species, and so
  they mostly choose the same concept again. Groups are matched to those of the first data set by shared channels.
  The Wilson interval and the binomial p take every hit as independent and are too good; there are as many pair
  designs as there are pairs, not pairs times data sets. `over pairs` is a bootstrap over these (percentiles of eight
  are a little narrow).
- A harder baseline (`coverage` only): concepts of the other parts of the same birds. Its p value exchanges which part
  of a pair is the telling one, the same way in all data sets. Within a pair these parts tell nothing; among all
  species they do, since the pairs differ in them.
- `all species` is the analysis as it is: useful means telling any of the C species. `within pair` runs the same test
  on a pair's pictures alone, two classes, where the telling part is all there is to tell.

    python benchmarks/rare_parts.py run
    python benchmarks/rare_parts.py report
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import commit
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest, rankdata
from torch import Tensor

from concept_tuning.config import RunConfig
from concept_tuning.data.planted import SceneKey, SpeciesPair, render, species_pairs
from concept_tuning.data.planted_species import PARTS
from concept_tuning.data.registry import load_data
from concept_tuning.data.table import SPLITS
from concept_tuning.data.transforms import eval_view
from concept_tuning.diagnostics.concept_activations import ConceptSet, define_concepts, strongest_patches
from concept_tuning.diagnostics.pictures import Pictures, choose_pictures
from concept_tuning.diagnostics.rare_selection import (
    LevelFrequency,
    RareFeatureSettings,
    analysed_maps,
    lowest_frequencies,
    presence_test,
    raise_to_floor,
    source_of_levels,
)
from concept_tuning.diagnostics.results import Unavailable
from concept_tuning.diagnostics.source_frequency import PretrainedMaps, pretrained_maps
from concept_tuning.diagnostics.statistics import auc_columns, bootstrap_interval, permutation_p, wilson
from concept_tuning.models.backbone import build_backbone
from concept_tuning.settings import build_config

RECORD = Path(__file__).parent / "results" / "rare_parts.json"
VIEWS = ("channels", "groups")
DRAWS = 5_000
#: What is taken off an observed mean, so that equal means count as equal whatever their rounding.
TINY = 1e-9
#: Places of a part's concept in the quadrants.
QUADRANTS = ("rare", "low only", "useful only", "neither")


@dataclass(frozen=True, eq=False, kw_only=True)
class Birds:
    """One data set as the pre-trained network sees it.

    Attributes:
        labels: (n,) species.
        pairs: The pairs of species.
        frozen: The network's view of the pictures.
        hidden: Its view of the same pictures with each pair's telling part hidden.
        parts: (n, P, h, w) share 0..1 of each cell that is each of :data:`PARTS`.
    """

    labels: np.ndarray
    pairs: tuple[SpeciesPair, ...]
    frozen: PretrainedMaps
    hidden: PretrainedMaps
    parts: np.ndarray


def look_at(config: RunConfig, count: int) -> Birds:
    """Draw the birds of a configuration and run ``count`` test pictures through the pre-trained network."""
    size = config.data.image_size
    pictures = choose_pictures(load_data(config), split="test", count=count)
    with torch.random.fork_rng(devices=[]):
        network = build_backbone(config.backbone, image_size=size).eval()
    frozen = pretrained_maps(network, lambda places: pictures.images(places, size), len(pictures))
    hidden = pretrained_maps(
        network,
        lambda places: torch.stack([hidden_picture(config, pictures, place) for place in places]),
        len(pictures),
    )
    return Birds(
        labels=pictures.labels,
        pairs=species_pairs(config.planted),
        frozen=frozen,
        hidden=hidden,
        parts=np.stack([part_cells(pictures, i, size, frozen.maps.shape[2:]) for i in range(len(pictures))]),
    )


def hidden_picture(config: RunConfig, pictures: Pictures, place: int) -> Tensor:
    """Return a picture with its pair's telling part hidden and all else as it is, (3, S, S) uint8."""
    split, number = pictures.keys[place].split("/")
    scene = render(
        config.planted,
        species=int(pictures.labels[place]),
        habitat=int(pictures.groups[place]),
        scene=SceneKey(config.data.data_seed, SPLITS.index(split), int(number)),
        part_visible=False,
    )
    return eval_view(torch.from_numpy(scene.image.copy()).permute(2, 0, 1), size=config.data.image_size)


def part_cells(pictures: Pictures, place: int, size: int, grid: Sequence[int]) -> np.ndarray:
    """Return the share of each cell that is each part, (P, h, w) float32."""
    masks = pictures.masks(place, size)
    stacked = torch.stack([masks[f"part:{name}"] for name in PARTS])[None].float()
    return torch.nn.functional.adaptive_avg_pool2d(stacked, tuple(grid))[0].numpy()


def coverage(maps: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return how well activation maps cover parts, (n, P, K): AUC of pixels, NaN where a part is not to be seen.

    Args:
        maps: (n, K, h, w) activations.
        parts: (n, P, h, w) share of each cell that is the part, 0..1.
    """
    found = np.full((len(maps), parts.shape[1], maps.shape[1]), np.nan)
    inside = parts.reshape(*parts.shape[:2], -1).astype(np.float64)
    for i, cells in enumerate(maps.reshape(*maps.shape[:2], -1)):
        shown = inside[i].sum(1) > 0
        if not shown.any():
            continue
        here = inside[i][shown] / inside[i][shown].sum(1, keepdims=True)
        rest = (1 - inside[i][shown]) / (1 - inside[i][shown]).sum(1, keepdims=True)
        wins = (cells[:, :, None] > cells[:, None, :]) + 0.5 * (cells[:, :, None] == cells[:, None, :])
        found[i, shown] = np.einsum("pi,kij,pj->pk", here, wins, rest, optimize=True)
    return found


def examine(birds: Birds, view: str, settings: RareFeatureSettings, shuffles: int) -> dict[str, Any]:
    """Run the analysis on one view and find the concepts of the parts; arrays are by pair, part and concept."""
    frozen = birds.frozen
    concepts = define_concepts(
        view, frozen.maps, standardised=frozen.standardised, count=settings.groups, seed=settings.seed
    )
    source = source_of_levels(concepts, frozen, None)
    if isinstance(source, Unavailable):
        raise SystemExit(source.reason)
    activations = strongest(concepts, frozen)
    maps = analysed_maps(concepts, frozen)
    covered = coverage(np.maximum(maps, frozen.floor[:, None, None]) if view == "channels" else maps, birds.parts)
    gone = strongest(concepts, birds.hidden)
    answers = []
    for pair in birds.pairs:
        of_pair = np.isin(birds.labels, pair.species)
        shown = np.repeat([True, False], of_pair.sum())
        both = np.concatenate([activations[of_pair], gone[of_pair]])
        within = rarity(activations[of_pair], birds.labels[of_pair] - pair.species[0], source, settings)
        answers.append((mean_where_shown(covered[of_pair]), auc_columns(both, shown), *within))
    mean_cover, hiding, *within_pair = (np.stack(column) for column in zip(*answers, strict=True))
    dealt = [np.random.default_rng(1000 + number).permutation(birds.labels) for number in range(shuffles)]
    flags = [rarity(activations, labels, source, settings)[:2] for labels in dealt]
    return {
        "members": concepts.members,
        "coverage": mean_cover,
        "hiding": hiding,
        "all species": rarity(activations, birds.labels, source, settings),
        "within pair": within_pair,
        "shuffled": [(float(useful.mean()), float(useful[low].mean())) for low, useful in flags],
    }


def strongest(concepts: ConceptSet, frozen: PretrainedMaps) -> np.ndarray:
    """Return the activations that the analysis looks at, (n, K)."""
    return raise_to_floor(strongest_patches(analysed_maps(concepts, frozen)), concepts, frozen).activations


def rarity(
    activations: np.ndarray, labels: np.ndarray, source: LevelFrequency, settings: RareFeatureSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which concepts are of low frequency, which are useful, and their source frequency, (K,) each.

    These are ``measure_rare_features``' own (a test compares them), without the rest of what it measures.
    """
    found = presence_test(activations, labels, settings)
    frequency = source.frequency(found.levels)
    return (
        lowest_frequencies(frequency, np.ptp(activations, axis=0) > 0, settings.rare_share),
        found.useful,
        frequency,
    )


def mean_where_shown(covered: np.ndarray) -> np.ndarray:
    """Return the mean over pictures of (n, P, K) coverage; NaN for a part that no picture shows."""
    shown = ~np.isnan(covered)
    total = np.where(shown, covered, 0).sum(0)
    return np.divide(total, shown.sum(0), out=np.full_like(total, np.nan), where=shown.any(0))


def aligned(members: Sequence[Sequence[int]], first: Sequence[Sequence[int]]) -> np.ndarray:
    """Return, for each concept of the first data set, the one here that shares most channels, one to one, (K,)."""
    overlap = np.array([[len(set(a) & set(b)) / len(set(a) | set(b)) for b in members] for a in first])
    if overlap.shape[0] != overlap.shape[1]:
        raise ValueError(f"expected as many concepts in every data set, got {overlap.shape}")
    return linear_sum_assignment(-overlap)[1]


def relabelled(flags: np.ndarray, chosen: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Return (draws,) mean flags of the chosen concepts when concepts swap their names, the same way throughout.

    Args:
        flags: (d, p, K) of each concept by data set and pair; bool or numbers.
        chosen: (d, p) concepts.
        seed: Of the draws.
        draws: Number of draws.
    """
    distinct, place = np.unique(chosen, return_inverse=True)
    place = place.reshape(chosen.shape)
    sets, pairs = np.ogrid[: flags.shape[0], : flags.shape[1]]
    rng = np.random.default_rng(seed)
    dealt = (rng.choice(flags.shape[2], len(distinct), replace=False) for _ in range(draws))
    return np.array([flags[sets, pairs, names[place]].mean() for names in dealt])


def exchanged(hits: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Return (draws,) hit rates when any of a pair's parts may be the telling one, the same in all data sets.

    Args:
        hits: (d, p, P) 0 or 1 for each part's concept; NaN for a part that the pair has not.
        seed: Of the draws.
        draws: Number of draws.
    """
    rates = hits.mean(0)
    rng = np.random.default_rng(seed)
    return np.mean([rng.choice(rate[~np.isnan(rate)], draws) for rate in rates], axis=0)


def summarise(found: Sequence[Mapping[str, Any]], pairs: Sequence[SpeciesPair]) -> list[dict[str, Any]]:
    """Set hits against chance for each definition and analysis, over data sets of one kind."""
    orders = [aligned(one["members"], found[0]["members"]) for one in found]
    telling = np.array([PARTS.index(pair.part) for pair in pairs])
    own = np.arange(len(pairs))
    covered = np.stack([one["coverage"][:, :, order] for one, order in zip(found, orders, strict=True)])
    cover = np.where(np.isnan(covered).any(3), -1, covered.argmax(3))
    hide = np.stack([one["hiding"][:, order] for one, order in zip(found, orders, strict=True)]).argmax(2)
    rows = []
    for analysis in ("all species", "within pair"):
        stacked = []
        for one, order in zip(found, orders, strict=True):
            columns = [np.broadcast_to(v, (len(pairs), len(order))) for v in one[analysis]]
            stacked.append([column[:, order] for column in columns])
        low, useful, frequency = (np.stack(column) for column in zip(*stacked, strict=True))
        flags = {"low": low.astype(bool), "useful": useful.astype(bool), "rank": ranked(frequency)}
        for definition, chosen in (("coverage", cover[:, own, telling]), ("hiding", hide)):
            rows.append({"analysis": analysis, "definition": definition, **against_chance(flags, chosen)})
            rows[-1]["pairs"] = [describe(pair, flags, chosen, p) for p, pair in enumerate(pairs)]
        rows[-2]["other parts"] = against_parts(flags["low"] & flags["useful"], cover, telling)
    return rows


def ranked(frequency: np.ndarray) -> np.ndarray:
    """Return the rank of source frequencies among the K concepts, 0 the rarest, 1 the commonest."""
    return (rankdata(frequency, axis=2) - 1) / (frequency.shape[2] - 1)


def against_chance(flags: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, Any]:
    """Return hit rate, chance and p value of the (d, p) chosen concepts."""
    sets, pairs = np.ogrid[: chosen.shape[0], : chosen.shape[1]]
    low, useful, rank = flags["low"], flags["useful"], flags["rank"]
    rare = low & useful
    hits, mine = rare[sets, pairs, chosen], (low[sets, pairs, chosen], useful[sets, pairs, chosen])
    at = np.where(mine[0], np.where(mine[1], 0, 1), np.where(mine[1], 2, 3))
    rate, chance = wilson(int(hits.sum()), hits.size), float(rare.mean())
    mean_rank = float(rank[sets, pairs, chosen].mean())
    return {
        "hits": int(hits.sum()),
        "n": hits.size,
        "rate": [rate.value, rate.low, rate.high],
        "chance": chance,
        "p": permutation_p(rate.value - TINY, relabelled(rare, chosen)),
        "binomial p": float(binomtest(int(hits.sum()), hits.size, chance, alternative="greater").pvalue),
        "quadrants": {name: int((at == q).sum()) for q, name in enumerate(QUADRANTS)},
        "low chance": float(low.mean()),
        "useful chance": float(useful.mean()),
        "mean rank": mean_rank,
        "rank p": permutation_p(-mean_rank - TINY, -relabelled(rank, chosen)),
    }


def against_parts(rare: np.ndarray, cover: np.ndarray, telling: np.ndarray) -> dict[str, Any]:
    """Return the rate of the other parts' concepts, and the p value of the telling part's above it.

    Args:
        rare: (d, p, K) flags.
        cover: (d, p, P) the concept of each part; -1 for a part that the pair has not.
        telling: (p,) the part that tells.
    """
    hits = np.where(cover < 0, np.nan, np.take_along_axis(rare, np.maximum(cover, 0), axis=2))
    mine = np.arange(cover.shape[2]) == telling[:, None]
    others = hits[:, ~mine][~np.isnan(hits[:, ~mine])]
    rate = wilson(int(others.sum()), others.size)
    p = permutation_p(float(hits[:, mine].mean()) - TINY, exchanged(hits))
    return {"hits": int(others.sum()), "n": others.size, "rate": [rate.value, rate.low, rate.high], "p": p}


def describe(pair: SpeciesPair, flags: Mapping[str, np.ndarray], chosen: np.ndarray, p: int) -> dict[str, Any]:
    """Return what became of one pair over the data sets."""
    sets = np.arange(len(chosen))
    picked = chosen[:, p]
    return {
        "species": pair.names,
        "part": pair.part,
        "concepts": picked.tolist(),
        **{name: flags[name][sets, p, picked].tolist() for name in ("low", "useful")},
        "rank": flags["rank"][sets, p, picked].round(3).tolist(),
    }


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Run the analysis on every data set, recording what is done after each number of species."""
    settings, started = RareFeatureSettings(), time.monotonic()
    shared = {"seeds": options.seeds, "pictures": options.count, "backbone": options.backbone, "draws": DRAWS}
    record: dict[str, Any] = {"command": command, "commit": commit(), "seconds": 0, **shared, "blocks": []}
    for size, species in itertools.product(options.image_sizes, options.species):
        found: dict[str, list[dict[str, Any]]] = {view: [] for view in VIEWS}
        for seed in options.seeds:
            birds = look_at(planted_config(options, species, size, seed), options.count)
            for view in VIEWS:
                found[view].append(examine(birds, view, settings, options.shuffles))
            print(f"{size} px, {species} species, seed {seed}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        for view in VIEWS:
            block = {"image_size": size, "species": species, "view": view, "concepts": len(found[view][0]["members"])}
            block |= {"parts": summarise(found[view], birds.pairs), "shuffled": nominal(found[view], settings)}
            record["blocks"].append(block)
        record["seconds"] = round(time.monotonic() - started)
        options.record.parent.mkdir(exist_ok=True)
        options.record.write_text(json.dumps(record, indent=1) + "\n")
    return record


def planted_config(options: argparse.Namespace, species: int, size: int, seed: int) -> RunConfig:
    """Return the settings of a data set: all at default but for what is varied, and next to no training pictures."""
    few = max(8, species)
    values = {"species": species, "image_size": size, "data_seed": seed, "images": few, "validation_images": few}
    extra = dict(item.split("=", 1) for item in options.extra)
    return build_config(data="planted", method="vanilla", backbone=options.backbone, overrides={**values, **extra})


def nominal(found: Sequence[Mapping[str, Any]], settings: RareFeatureSettings) -> dict[str, Any]:
    """Return the shares flagged with shuffled labels, with bootstrap intervals over shufflings.

    The concepts of one shuffling are correlated, so a shuffling is the unit.
    """
    shares = np.array([flags for one in found for flags in one["shuffled"]])
    record: dict[str, Any] = {"shuffles": len(shares), "nominal": 1 - settings.band_level}
    for name, values in zip(("useful", "useful of low"), shares.T, strict=True):
        interval = bootstrap_interval(values)
        record[name] = [interval.value, interval.low, interval.high]
    return record


def report(record: Mapping[str, Any]) -> str:
    """Return a record as Markdown."""
    lines = [
        "| px | species | view | analysis | concept by | in the rare quadrant | over pairs | chance | p | "
        "other parts | p | low / useful (chance) | mean source rank (p) |",
        "|---" * 13 + "|",
    ]
    for block in record["blocks"]:
        for row in block["parts"]:
            other = row.get("other parts")
            seen, n = row["quadrants"], row["n"]
            low, useful = (seen["rare"] + seen[f"{name} only"] for name in ("low", "useful"))
            cells = [
                f"{block['image_size']} | {block['species']} | {block['view']}",
                f"{row['analysis']} | {row['definition']}",
                f"{row['hits']} of {n}: {percent(row['rate'])} | {over_pairs(row['pairs'])}",
                f"{100 * row['chance']:.1f} | {row['p']:.2g}",
                f"{percent(other['rate'])} | {other['p']:.2g}" if other else "- | -",
                f"{100 * low / n:.0f} ({100 * row['low chance']:.0f}) / "
                f"{100 * useful / n:.0f} ({100 * row['useful chance']:.0f})",
                f"{row['mean rank']:.2f} ({row['rank p']:.2g})",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| px | species | view | shufflings | useful | useful of low | nominal |", "|---" * 7 + "|"]
    for block in record["blocks"]:
        flags = block["shuffled"]
        cells = [str(block["image_size"]), str(block["species"]), block["view"], str(flags["shuffles"])]
        cells += [percent(flags["useful"]), percent(flags["useful of low"]), f"{100 * flags['nominal']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def over_pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Return the interval of the hit rate, in percent, with pairs and not hits drawn again; none for fewer than 8."""
    if len(pairs) < 8:
        return "-"
    rates = [np.mean(np.array(pair["low"]) & np.array(pair["useful"])) for pair in pairs]
    found = bootstrap_interval(np.array(rates))
    return f"{100 * found.low:.0f} to {100 * found.high:.0f}"


def percent(interval: Sequence[float]) -> str:
    """Return an estimate with its interval in percent."""
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * value for value in interval))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and record, or print what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("run", "report"))
    parser.add_argument("--species", type=int, nargs="+", default=[16, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="seeds of the data sets")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[128])
    parser.add_argument("--count", type=int, default=500, help="test pictures of each data set")
    parser.add_argument("--shuffles", type=int, default=5, help="shufflings of the labels for each data set")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--set", dest="extra", nargs="*", default=[], metavar="KEY=VALUE", help="other settings")
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    if options.stage == "run":
        run(options, "python benchmarks/rare_parts.py " + " ".join(sys.argv[1:] if arguments is None else arguments))
    elif not options.record.is_file():
        raise SystemExit(f"{options.record} is missing; `python benchmarks/rare_parts.py run` makes it.")
    print(report(json.loads(options.record.read_text())))


if __name__ == "__main__":
    main()
