"""In which rows the measured test split differs from the one that came, and from what a served model gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from hone.curation.account import list_emptied
from hone.evaluation.judging.wilson import wilson
from hone.evaluation.report import figures
from hone.splits import TEST, VALID

SHOWN = 5  # labels that a sentence names
Z = 2.576  # of a 99% interval: the validation rows have chosen the weights, which favours them a little


def describe_population(facts: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on the validation and test rows for people, from the facts of ingest, curate, tokenize and train, and
    the evaluation's `metrics`: what of them is not as it came, and the figure of the validation rows, if it is known.

    They are shown beside the headline figure: in the report, in the model card and at the end of a run.
    """
    curate, tokenize = facts["curate"], facts["tokenize"]
    sentences = _describe_given_rows(facts["ingest"], curate, tokenize)
    for reason, count in ((tokenize.get("dropped") or {}).get(TEST) or {}).items():
        sentences.append(f"Test rows left out, because {reason}: {count:,}.")
    if flawed := (curate.get("flawed") or {}).get(TEST):
        sentences.append(
            f"Test rows that would have been dropped as training rows: {flawed:,} (see the slice curation)."
        )
    if unseen := (tokenize.get("unseen_labels") or {}).get(TEST):
        names = ", ".join(list(unseen)[:SHOWN]) + (", ..." if len(unseen) > SHOWN else "")
        count = sum(unseen.values())
        sentences.append(f"Test rows with labels that no training row has, which count as errors: {count:,} ({names}).")
        sentences += [f"{sentence[0].upper()}{sentence[1:]}." for sentence in list_emptied(curate)]
    if any(step["step"] == "redact" and step.get("notes") for step in curate["funnel"]):
        sentences.append(
            "In test rows too, redact replaced personal data, as the served model does in what is sent to it."
        )
    return sentences + _describe_validation(facts["train"], metrics)


def count_given_rows(ingest: Mapping[str, Any], curate: Mapping[str, Any]) -> dict[str, int]:
    """The number of rows with which each validation and test split came, from the facts of ingest and curate.

    Rows that ingest refused or skipped are among them; artifacts of earlier releases did not count those by split.
    """
    return {split: rows + _count_unread(ingest, split) for split, rows in (curate.get("given") or {}).items()}


def _describe_given_rows(
    ingest: Mapping[str, Any], curate: Mapping[str, Any], tokenize: Mapping[str, Any]
) -> list[str]:
    """How many of the rows of each given split were used, where these are not all of them."""
    given_rows, came_with_splits = count_given_rows(ingest, curate), len(ingest.get("splits") or {}) > 1
    sentences = []
    for split, title in ((TEST, "test"), (VALID, "validation")):
        came, used = given_rows.get(split), tokenize["splits"].get(split, {}).get("rows")
        if came and used is not None and used != came:
            sentences.append(f"{used:,} of {came:,} given {title} rows were used.")
        unread = _count_unread(ingest, split)
        if split not in given_rows and came_with_splits and unread:
            sentences.append(f"None of the {unread:,} given {title} rows was used: other rows took their place.")
    return sentences


def _count_unread(ingest: Mapping[str, Any], split: str) -> int:
    """The number of a given split's rows that ingest refused or skipped."""
    counts = (ingest.get("splits") or {}).get(split, {})
    return sum(counts.get(outcome, 0) for outcome in ("refused", "skipped"))


def _describe_validation(train: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The main metric on the validation rows, and whether it differs from that on the test rows by more than chance.

    The loss, if no metric is computed while training; [] without validation rows.
    """
    name, rows = metrics["main_metric"], train.get("valid_rows")
    valid, loss, measure = (train.get("valid") or {}).get(name), train.get("valid_loss"), metrics["measures"][name]
    where = f"On the {figures.counted(rows, 'validation row')}"
    if not rows or (valid is None and loss is None):
        return []
    if valid is None:
        return [f"{where} the loss was {figures.number(loss)}."]
    share = measure["share"]
    sentence = f"{where} {figures.within_sentence(measure['title'])} was {figures.shown({'value': valid, **measure})}"
    test = metrics["systems"]["model"][name]
    reach = _share_reach if share else _number_reach
    if abs(difference := valid - test["value"]) <= reach(valid, rows, test, metrics):
        return [f"{sentence}."]
    which = "above" if difference > 0 else "below"
    return [
        f"{sentence}, {figures.amount(difference, share)} {which} that on the test rows: more than chance explains."
        " The two splits may hold rows of different kinds."
    ]


def _share_reach(valid: float, rows: int, test: Mapping[str, float], metrics: Mapping[str, Any]) -> float:
    """How far two shares may differ by chance: Newcombe's hybrid score interval of their difference (Statistics in
    Medicine 17, 1998, method 10)."""
    low, high = wilson(valid, rows, Z)
    test_low, test_high = wilson(test["value"], metrics["rows"], Z)
    if valid > test["value"]:
        return math.hypot(valid - low, test_high - test["value"])
    return math.hypot(high - valid, test["value"] - test_low)


def _number_reach(valid: float, rows: int, test: Mapping[str, float], metrics: Mapping[str, Any]) -> float:
    """How far two other figures may differ by chance, if a row varies as much in both splits.

    The test figure's interval, on its side of the validation figure, as wide as it would be at Z, and for a difference:
    its variance is that of the test rows times 1 + test rows / validation rows.
    """
    width = test["high"] - test["value"] if valid > test["value"] else test["value"] - test["low"]
    z = NormalDist().inv_cdf((1 + metrics["confidence"]) / 2)
    return width * Z / z * math.sqrt(1 + metrics["rows"] / rows) if width > 0 else math.inf
