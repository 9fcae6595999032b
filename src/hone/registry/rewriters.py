"""Records of the curation steps that rewrite what a model reads: in its files, and beside its rows for drift checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hone.curation import STEPS
from hone.errors import ModelError
from hone.parts.plugins import kind_of
from hone.rewriting import Rewriter


def describe_rewriters(rewriters: Iterable[Rewriter]) -> list[dict[str, Any]]:
    """The record of each rewriter, JSON-able: its kind and its options."""
    steps: Iterable[Any] = rewriters
    return [{"kind": kind_of(STEPS, step), "options": asdict(step)} for step in steps]


def build_rewriters(records: Sequence[Mapping[str, Any]], where: str) -> list[Any]:
    """The steps of these records, each also a `Rewriter`. Raises ModelError, about `where`, for one that is unknown."""
    steps: list[Any] = []
    for record in records:
        if record["kind"] not in STEPS:
            raise ModelError(
                f"its inputs are rewritten by the curation step {record['kind']}, which is not installed",
                where=where,
                fix="Install the package that provides it.",
            )
        try:
            steps.append(STEPS[record["kind"]](**record["options"]))
        except TypeError as fault:
            raise ModelError(
                f"the curation step {record['kind']} has options that are not known here: {fault}",
                where=where,
                fix="Use the release of Hone that registered it, or train it again.",
            ) from fault
    return steps
