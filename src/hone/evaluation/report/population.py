"""In which rows the measured test split differs from the one that came, and from what a served model gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.splits import TEST, VALID

SHOWN = 5  # labels that a sentence names


def describe_population(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on the validation and test rows for people, from the facts of curate and tokenize; [] if all are as
    they came.

    They are shown beside the headline figure: in the report, in the model card and at the end of a run.
    """
    curate, tokenize = facts["curate"], facts["tokenize"]
    sentences = []
    for split, title in ((TEST, "test"), (VALID, "validation")):
        came, used = (curate.get("given") or {}).get(split), tokenize["splits"].get(split, {}).get("rows")
        if came and used is not None and used != came:
            sentences.append(f"{used:,} of {came:,} given {title} rows were used.")
    if flawed := (curate.get("flawed") or {}).get(TEST):
        sentences.append(
            f"Test rows that would have been dropped as training rows: {flawed:,} (see the slice curation)."
        )
    if unseen := (tokenize.get("unseen_labels") or {}).get(TEST):
        names = ", ".join(list(unseen)[:SHOWN]) + (", ..." if len(unseen) > SHOWN else "")
        count = sum(unseen.values())
        sentences.append(f"Test rows with labels that no training row has, which count as errors: {count:,} ({names}).")
    if any(step["step"] == "redact" and step.get("notes") for step in curate["funnel"]):
        sentences.append("Personal data was removed from test rows too; a served model gets the text that is sent.")
    return sentences
