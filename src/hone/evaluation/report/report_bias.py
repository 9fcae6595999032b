"""Groups and flips in words and as data: the report, the terminal and the model card show these.

All functions take the content of a metrics.json; one of an earlier release has neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hone.evaluation.judging.gap_names import METRIC, ODDS, PARITY
from hone.evaluation.report import figures
from hone.evaluation.report.figures import View
from hone.evaluation.report.report_results import system_name

NAMED = 5  # groups that a sentence names
GAPS = {METRIC: "", PARITY: "Demographic parity", ODDS: "Equalised odds"}
NOT_GROUPS = "Groups of rows were not compared (evaluation.groups)."
NOT_FLIPS = "Words were not swapped to see whether answers change (evaluation.flips)."
BASES = {"untuned": "the untuned base model", "neighbours": "nearest neighbours by the base model"}


def groups(metrics: Mapping[str, Any]) -> list[View]:
    """Each column of groups: its judged groups with figures, a line for each gap, and its sentences."""
    share, main = _is_share(metrics), metrics["main_metric"]
    return [
        {
            "title": figures.words(column),
            "systems": [(name, system_name(name)) for name in _list_systems(entry)],
            "rows": [
                {**row, **{name: {**row[name][main], "share": share} for name in _list_systems(entry)}}
                for row in entry["judged"]
            ],
            "lines": [_view_gap(metrics, entry, name) for name in GAPS if name in entry["gaps"].get("model", {})],
            "sentences": _list_sentences(column, entry, metrics),
        }
        for column, entry in (metrics.get("groups") or {}).items()
    ]


def flips(metrics: Mapping[str, Any]) -> View | None:
    """The rate of changed answers, of all pairs and of each, the rows with changes, and the sentence on them."""
    entry = metrics.get("flips")
    if not entry:
        return None
    return {
        **entry,
        "sentence": _describe_flips(entry),
        "by_pair": [{**pair, "name": " / ".join(pair["pair"])} for pair in entry["by_pair"]],
        "more": entry["changed"] - len(entry["listed"]),
    }


def describe_bias(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on the gap of each column of groups and what fine-tuning did to it, and one on flips."""
    sentences = [
        sentence
        for column, entry in (metrics.get("groups") or {}).items()
        for sentence in (_describe_worst(column, entry, metrics), _describe_change(entry, METRIC, metrics))
        if sentence
    ]
    entry = metrics.get("flips")
    return [*sentences, _describe_flips(entry)] if entry else sentences


def describe_all(metrics: Mapping[str, Any]) -> list[str]:
    """Everything on groups and flips in sentences, and what of them was not measured, for the model card."""
    entries, entry = metrics.get("groups") or {}, metrics.get("flips")
    sentences = [
        sentence for column, of_column in entries.items() for sentence in _list_sentences(column, of_column, metrics)
    ] or [NOT_GROUPS]
    return [*sentences, *([_describe_flips(entry), *entry["limits"]] if entry else [NOT_FLIPS])]


def list_gap_figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """The gaps and the rate of flips as figures: system, name (`group_gap_COLUMN`) and interval."""
    names = {METRIC: "group_gap", PARITY: PARITY, ODDS: ODDS}
    listed = [
        (system, f"{names[name]}_{column}", gap)
        for column, entry in (metrics.get("groups") or {}).items()
        for system, gaps in entry["gaps"].items()
        for name, gap in gaps.items()
    ]
    rate = (metrics.get("flips") or {}).get("rate")
    return [*listed, ("model", "flip_rate", rate)] if rate else listed


def _list_sentences(column: str, entry: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    sentences = [
        _describe_worst(column, entry, metrics),
        *(_describe_class_gap(entry, name) for name in (PARITY, ODDS)),
        *(_describe_change(entry, name, metrics) for name in GAPS),
        _describe_labels(entry),
        _describe_left_out(entry),
    ]
    return [sentence for sentence in sentences if sentence]


def _describe_worst(column: str, entry: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """`gender: accuracy is lowest for f, 71.2% (120 rows), and highest for m, 83.0% (200 rows): a gap of ...`."""
    if not entry["gaps"]:
        few = "no group has" if not entry["judged"] else "one group alone has"
        return f"Groups by {column}: {few} {entry['min_rows']} test rows or more, so that none are compared."
    share, main = _is_share(metrics), metrics["main_metric"]
    title = figures.within_sentence(metrics["measures"][main]["title"])
    rows = {row["name"]: row for row in entry["judged"]}
    values = {name: figures.shown({**row["model"][main], "share": share}) for name, row in rows.items()}
    worst, best = (
        f"{name}: {values[name]} ({figures.counted(rows[name]['rows'], 'row')})"
        for name in (entry["worst"], entry["best"])
    )
    gap = entry["gaps"]["model"][METRIC]
    return (
        f"Groups by {column}: {title} is worst for {worst}, and best for {best}, a gap of"
        f" {_format_gap(gap, share)} ({figures.amount_interval({**gap, 'share': share})})."
    )


def _describe_class_gap(entry: Mapping[str, Any], name: str) -> str:
    """What the largest gap of demographic parity or equalised odds is of; '' without classes."""
    gap = entry["gaps"].get("model", {}).get(name)
    if not gap:
        return ""
    ends = " and ".join(f"{figures.percent(gap[end]['value'])} for {gap[end]['name']}" for end in ("highest", "lowest"))
    sentence = (
        f"{GAPS[name]} difference: {_format_gap(gap)} ({figures.amount_interval(gap)}), the {gap['rate']} of the class"
        f" {gap['class']}: {ends}."
    )
    if gap["undefined"]:
        lacking = "rows of another class" if gap["rate"].startswith("false") else "row of it"
        sentence += f" {_name(gap['undefined'])} has no {lacking}: the rate counts as 0 there, as in fairlearn."
    return sentence


def _describe_change(entry: Mapping[str, Any], name: str, metrics: Mapping[str, Any]) -> str:
    """`Fine-tuning widened the gap from 5.0 points (nearest neighbours ...) to 11.8 points; the change is ...`

    '' without a base, and for a gap of a rate that is undefined in a group: how that counts is a convention.
    """
    change = entry["changes"].get(name)
    if not change or any(entry["gaps"][system][name]["undefined"] for system in _list_systems(entry)):
        return ""
    share = _is_share(metrics) if name == METRIC else True
    before, after = (_format_gap(entry["gaps"][system][name], share) for system in (entry["base"], "model"))
    gap = "gap" if name == METRIC else f"{figures.within_sentence(GAPS[name])} difference"
    verb = "widened" if change["low"] > 0 else "narrowed" if change["high"] < 0 else ""
    between = f"between {figures.points(change['low'], share)} and {figures.points(change['high'], share)}"
    origin = f"from {before} ({BASES[entry['base']]}) to {after}"
    if verb:
        return f"Fine-tuning {verb} the {gap} {origin}; the change is {between}."
    return f"The {gap} went {origin} by fine-tuning, which may be chance: the change is {between}."


def _describe_labels(entry: Mapping[str, Any]) -> str:
    """How far apart the training labels are, and the model's answers for the same class; '' without classes."""
    labels = entry["labels"]
    if not labels:
        return ""
    return (
        f"In the {figures.counted(labels['rows'], 'training row')} of these groups the share of the class"
        f" {labels['class']} differs by {_format_gap(labels)} (highest for {labels['highest']}, lowest for"
        f" {labels['lowest']}); in the model's answers by {figures.amount(labels['answers'])}."
    )


def _describe_left_out(entry: Mapping[str, Any]) -> str:
    left_out = entry["left_out"]
    if not left_out:
        return ""
    rows = sum(group["rows"] for group in left_out)
    names = _name([f"{group['name']} ({group['rows']:,})" for group in left_out])
    return (
        f"Not judged: {figures.counted(len(left_out), 'group')} with {figures.counted(rows, 'row')} in all, each with"
        f" fewer than {entry['min_rows']} test rows or an undefined metric: {names}. Nothing is known of these."
    )


def _describe_flips(entry: Mapping[str, Any]) -> str:
    """`Swapping the words of gender-en changed 12 of 340 answers, 3.5% (2.0–6.1%); ...`."""
    lexicon, rows = entry["lexicon"], entry["rows"]
    if not rows:
        return f"Swapped words: none of {figures.counted(entry['of'], 'test row')} contains a word of {lexicon}."
    rate, changed = entry["rate"], figures.count(entry["changed"])
    return (
        f"Swapping the words of {lexicon} changed {changed} of {figures.counted(rows, 'answer')}:"
        f" {figures.percent(rate['value'])} ({figures.interval(rate)}). Of {figures.counted(entry['of'], 'test row')}"
        f" {figures.count(entry['of'] - rows)} contain none of these words and were not asked again."
    )


def _view_gap(metrics: Mapping[str, Any], entry: Mapping[str, Any], name: str) -> View:
    """A line of the table of gaps: its title, and each system's value."""
    share = _is_share(metrics) if name == METRIC else True
    title = metrics["measures"][metrics["main_metric"]]["title"] if name == METRIC else GAPS[name]
    return {
        "title": title,
        "class": entry["gaps"]["model"][name]["class"],
        "gaps": [{**entry["gaps"][system][name], "share": share} for system in _list_systems(entry)],
        "change": {**entry["changes"][name], "share": share} if name in entry["changes"] else None,
    }


def _list_systems(entry: Mapping[str, Any]) -> list[str]:
    return ["model", *([entry["base"]] if entry["base"] else [])]


def _is_share(metrics: Mapping[str, Any]) -> bool:
    return bool(metrics["measures"][metrics["main_metric"]]["share"])


def _format_gap(gap: Mapping[str, Any], share: bool = True) -> str:
    return figures.amount(gap["value"], share)


def _name(names: Sequence[str]) -> str:
    """At most NAMED names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
