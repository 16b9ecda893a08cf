"""The summary of a bench as markdown: a table, and the verdicts in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from concept_tuning import __version__
from concept_tuning.bench.over_data import OverData, over_data, pictures_of
from concept_tuning.bench.spec import BenchSpec
from concept_tuning.bench.verdicts import NOT_FINISHED
from concept_tuning.diagnostics.statistics import false_alarms
from concept_tuning.diagnostics.verdict import ROUGH
from concept_tuning.diagnostics.words import signed
from concept_tuning.errors import ConfigError
from concept_tuning.settings import resolve_key

_NONE = "–"
_PUBLISHED = (
    "Figures published elsewhere are of the same data and test pictures, network, pre-trained weights, picture size "
    "and sample rate, but of another training and choice, as the notes say: they tell what to expect, and are no rows "
    "of this comparison."
)


def markdown(
    spec: BenchSpec,
    rows: Sequence[dict[str, Any]],
    pictures: Sequence[dict[str, Any]],
    versions: Sequence[Mapping[str, str]] = (),
) -> str:
    """Return the text of a bench's summary.

    Args:
        spec: The bench.
        rows: Its rows, as :func:`~concept_tuning.bench.tables.summary` returns them.
        pictures: Rows on its pictures, as :func:`~concept_tuning.bench.tables.picture_rows` returns them.
        versions: Of the runs, as :func:`~concept_tuning.bench.tables.versions_of` returns them.
    """
    begun, left = ([row for row in rows if _begun(spec, row) is wanted] for wanted in (True, False))
    sets = {data.name: pictures_of(data.source, {**spec.set, **data.set}) for data in spec.data}
    sources = list(dict.fromkeys(_note(row["published"]) for row in begun if row["published"]))
    parts = [
        f"# {spec.name}",
        f"Accuracy on validation and test and of the test's worst group in percent, mean (standard deviation over "
        f"seeds); the differences to `{spec.methods[0]}` in points, with their 95 % intervals, paired by picture and "
        f"seed. {budget(spec)} {_conditions(spec, versions)}",
        _variants(spec),
        "\n".join(_table(spec, begun, sources)),
        _PUBLISHED if sources else "",
        "\n".join(f"[^{number}]: {source}" for number, source in enumerate(sources, 1)),
        _fitted_to_validation(begun),
        "\n".join(_pictures(spec, pictures)),
        _comparisons(spec, rows),
        over_data_text(over_data(rows, spec.methods[0], len(spec.seeds), sets), spec.methods[0]),
        "\n".join(_verdicts(begun)),
        _not_begun(left, begun),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _begun(spec: BenchSpec, row: dict[str, Any]) -> bool:
    """Return whether a setting has a run of its own that ended, or a reason to have none."""
    searched = spec.trials > 1 and row["tuned_as"] is None and row["open_trials"] < row["trials"]
    return bool(row["seeds"] or row["failed_seeds"] or searched or row["verdict"] not in ("", NOT_FINISHED))


def _not_begun(left: Sequence[dict[str, Any]], begun: Sequence[dict[str, Any]]) -> str:
    """Name the settings that the table leaves out, data of which nothing was run by their names alone."""
    if not left:
        return ""
    known = {row["data"] for row in begun}
    texts = []
    for data, group in groupby(left, lambda row: row["data"]):
        methods = dict.fromkeys(f"`{row['method']}`" for row in group)
        texts.append(f"{data} ({', '.join(methods)})" if data in known else str(data))
    return f"Not begun are {len(left)} of {len(left) + len(begun)} settings: {'; '.join(texts)}."


def _conditions(spec: BenchSpec, versions: Sequence[Mapping[str, str]]) -> str:
    """Say what all runs have in common, and by which versions they were learnt."""
    changed = _changed_elsewhere(spec)
    common = [f"{name} = {value}" for name, value in spec.set.items() if name not in changed]
    told = [f"{name} = {value}" for name, value in spec.set.items() if name in changed]
    but = f"; unless a variant or data below has another, {', '.join(told)}" if told else ""
    return (
        f"All runs: preset {spec.preset or 'none'}{''.join(f', {text}' for text in common)}{but}; seeds "
        f"{', '.join(map(str, spec.seeds))}, which share one split and one sample of each data. "
        f"{_versions(versions)} Equal trials are not equal time, nor are equal steps."
    )


def _changed_elsewhere(spec: BenchSpec) -> set[str]:
    """Return which of the settings that every run has are changed by data or a variant of the bench."""
    method = spec.variant(spec.methods[0]).method
    own = [data.set for data in spec.data] + [spec.variant(name).set for name in spec.methods]
    changed = {_full(name, method) for values in own for name in values}
    return {name for name in spec.set if _full(name, method) in changed}


def _full(name: str, method: str) -> str:
    try:
        return resolve_key(name, method)
    except ConfigError:  # a setting that another method has
        return name


def _versions(found: Sequence[Mapping[str, str]]) -> str:
    """Say which versions learnt the runs; that of this program where no run tells."""
    if not found:
        return f"Version {__version__}."
    texts = [", ".join(f"{name} {number}" for name, number in one.items()) for one in found]
    if len(texts) == 1:
        return f"Versions: {texts[0]}."
    return f"The runs are of different versions, by which they may differ too: {'; '.join(texts)}."


def _variants(spec: BenchSpec) -> str:
    """Say what each variant is."""
    lines = []
    for name in spec.methods:
        if name in spec.variants:
            one = spec.variants[name]
            values = ", ".join(f"{key} = {value}" for key, value in one.set.items())
            lines.append(f"- `{name}` is `{one.method}`{f' with {values}' if values else ''}.")
    return "\n".join(lines)


def _fitted_to_validation(rows: Iterable[Mapping[str, Any]]) -> str:
    """Name the methods whose validation accuracy is of pictures that they were fitted to."""
    names = dict.fromkeys(f"`{row['method']}`" for row in rows if row.get("fitted_to_validation"))
    if not names:
        return ""
    return (
        f"The validation accuracy of {', '.join(names)} is of pictures that the last layer was fitted to, after the "
        "settings and the epoch had been chosen, and is too good."
    )


def budget(spec: BenchSpec) -> str:
    """Say how a bench's settings were chosen."""
    if spec.trials < 2:
        return "Nothing was searched."
    if all(data.choices for data in spec.data):
        names = [f"`{data.name}`" + (f" on `{data.tuned_on}`" if data.tuned_on else "") for data in spec.data]
        return f"What is searched was chosen before, and is not searched again, for {', '.join(names)}."
    text = f"Each method had {spec.trials} trials, the best of which was chosen on validation"
    if spec.share_search:
        text += " with the first backbone and sample rate of each data, for the others too"
    elsewhere = [f"`{data.name}` on `{data.tuned_on}`" for data in spec.data if data.tuned_on and not data.choices]
    if elsewhere:
        text += f"; tuned on other data: {', '.join(elsewhere)}"
    before = [
        f"`{data.name}`" + (f" on `{data.tuned_on}`" if data.tuned_on else "") for data in spec.data if data.choices
    ]
    if before:
        text += f"; chosen before, and not searched again, for {', '.join(before)}"
    taken = [f"`{name}`" for name, one in spec.variants.items() if one.tuned_as is not None and name in spec.methods]
    return f"{text}. Tuned as another, without a search of their own: {', '.join(taken)}." if taken else f"{text}."


def _table(spec: BenchSpec, rows: Sequence[dict[str, Any]], sources: Sequence[str]) -> Iterable[str]:
    heads = ["data", "backbone", "rate", "method", "trials", "seeds", "validation", "accuracy", "worst group"]
    against = f"against `{spec.methods[0]}`"
    heads += [f"accuracy {against}", f"worst group {against}", *(["published elsewhere"] if sources else [])]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        cells = [row["data"], row["backbone"], f"{row['sample_rate']:g}", f"`{row['method']}`", _trials(row)]
        cells += [_seeds(row), *(percent(row[name]) for name in ("validation", "accuracy", "worst_group"))]
        cells += [points(row[name]) for name in ("difference", "worst_group_difference")]
        if sources:
            known = row["published"]
            cells.append(f"{100 * known['accuracy']:.1f} [^{sources.index(_note(known)) + 1}]" if known else _NONE)
        yield f"| {' | '.join(cells)} |"


def _note(known: Mapping[str, str]) -> str:
    """Say where a published figure is from, and what was otherwise there."""
    return f"{known['source']}. Otherwise than here: {known['otherwise']}."


def _pictures(spec: BenchSpec, rows: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Say of each data where it is from, how many pictures it has, and what is wrong with its files."""
    for row in rows:
        train, val, test = (f"{row['counts'][name]:,}" for name in ("train", "val", "test"))
        place = f"{row['data']} ({spec.data_named(row['data']).origin}), {row['sample_rate']:g} %"
        text = f"- {place}: training pictures {train}, validation {val}, test {test}"
        if row["problems"]:
            first, count = row["problems"][0], len(row["problems"])
            name = " ".join(first["key"].replace("`", "'").split())
            found = "1 problem with its files," if count == 1 else f"{count} problems with its files, the first"
            text += f"; {found} `{name}`: {first['reason'].rstrip('.')}"
        if row["copies"]:
            text += f"; copies of training pictures among validation and test pictures: {row['copies']}, which "
            text += "flatters all methods"
        if row.get("conflicts"):
            text += f"; pictures that are in two classes: {row['conflicts']}, one of which is wrong"
        yield f"{text}."


def _comparisons(spec: BenchSpec, rows: Sequence[dict[str, Any]]) -> str:
    """Say how many comparisons were made, and of how many of them chance may make a difference."""
    seeds = [
        row["paired_seeds"]
        for row in rows
        for name in ("difference", "worst_group_difference")
        if row[name] is not None
    ]
    if not seeds:
        return ""
    fewest = min(seeds)
    share, few = f"{100 * false_alarms(fewest):.0f} %", "1 seed" if fewest == 1 else f"{fewest} seeds"
    return (
        f"{len(seeds)} comparisons are made here, accuracy and worst group counted apart, those of one data with the "
        f"same runs of `{spec.methods[0]}`, and no interval is corrected for their number. Few seeds make them too "
        f"narrow: where nothing differs, up to {share} of them leave zero out with {few}, and 5 % with very many "
        f"(`benchmarks/interval_coverage.py`). So up to {sum(map(false_alarms, seeds)):.1f} of these may leave zero by "
        "chance. All this is given the settings as they were chosen and the one split: another search or split may "
        "come out otherwise, which no interval here holds, however many the seeds. A single one is a hint; what holds "
        "on several data is more."
    )


def over_data_text(found: Sequence[OverData], base: str) -> str:
    """Return a table of methods over several data, and how to read it; empty without any."""
    if not found:
        return ""
    heads = ["over several data", "sets of pictures", f"accuracy against `{base}`", "above it", "p"]
    heads.append(f"worst group against `{base}`")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in found:
        difference, worst = (None if mean is None else vars(mean) for mean in (one.difference, one.worst_group))
        p_value = "< 0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}"
        cells = [f"`{one.method}`", str(one.difference.n), points(difference), f"in {one.above:g}", p_value]
        lines.append(f"| {' | '.join([*cells, points(worst)])} |")
    told = (
        "Of the settings (data, backbone and sample rate) those where the method and "
        f"`{base}` are finished with every seed; which they are differs from method to method. Settings of the same "
        "pictures (splits, samples and backbones of one source; planted birds of one `data_seed`) count once, with "
        "their mean. Means in points with Student's 95 % interval over the sets of pictures, and p of Wilcoxon's "
        "signed-rank test of accuracy, which is above 0.05 with fewer than six of them. Neither is corrected for the "
        "number of methods."
    )
    return "\n".join(lines) + f"\n\n{told}"


def _verdicts(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    for place, group in groupby(rows, lambda row: (row["data"], row["backbone"], row["sample_rate"])):
        where, own = f"- {place[0]}, {place[1]}, {place[2]:g} %", list(group)
        told = [row for row in own if row["verdict"] and row["verdict"] != NOT_FINISHED]
        texts = [" ".join(text for text in (row["verdict"], row["worst_group_verdict"]) if text) for row in told]
        rough = bool(texts) and all(ROUGH in text for text in texts)
        for text in texts:
            yield f"{where}: {text.replace(f' {ROUGH}', '') if rough else text}"
        if rough:  # said once for all, and not in every sentence
            yield f"{where}: these intervals are rough, since seeds are few."
        waiting = [f"`{row['method']}`" for row in own if row["verdict"] == NOT_FINISHED]
        if waiting:
            yield f"{where}: {NOT_FINISHED}: {', '.join(waiting)}"
        for caveat in dict.fromkeys(row["worst_group_caveat"] for row in own if row["worst_group_caveat"]):
            yield f"{where}, worst group: {caveat}"
        for row in own:
            if row.get("caution"):
                yield f"{where}, `{row['method']}`: {row['caution']}"


def _trials(row: dict[str, Any]) -> str:
    """Say how many trials chose for a row: its own, or which other setting's; or that it was chosen before."""
    if not row["trials"]:
        return "chosen before"
    count, left, failed = (row[key] for key in ("trials", "open_trials", "failed_trials"))
    text = f"{count - left} of {count}" if left else str(count)
    text += f", {failed} failed" if failed else ""
    other = row["tuned_as"]
    if other is None:
        return text
    words = [other["data"], other["backbone"], f"{other['sample_rate']:g} %", f"`{other['method']}`"]
    own = [row["data"], row["backbone"], f"{row['sample_rate']:g} %", f"`{row['method']}`"]
    return f"{text} of {', '.join(word for word, mine in zip(words, own, strict=True) if word != mine)}"


def _seeds(row: dict[str, Any]) -> str:
    return f"{row['seeds']}, {row['failed_seeds']} failed" if row["failed_seeds"] else str(row["seeds"])


def points(found: Mapping[str, float] | None) -> str:
    """Return a difference in points with its interval, or a dash for None."""
    if found is None:
        return _NONE
    value, low, high = (signed(100 * found[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def percent(spread: Mapping[str, float] | None) -> str:
    """Return a mean in percent with its deviation, as far as there is one, or a dash for None."""
    if spread is None:
        return _NONE
    deviation = "" if spread["deviation"] is None else f" ({100 * spread['deviation']:.1f})"
    return f"{100 * spread['mean']:.1f}{deviation}"
