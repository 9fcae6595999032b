"""The drift check: all tests on two samples of rows, corrected for multiple testing, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hone.drift.compare import (
    Finding,
    compare_embeddings,
    compare_missing,
    compare_numbers,
    compare_shares,
    compare_vocabulary,
    correct_p_values,
)
from hone.registry.reference import Sample

Decision = Literal["drift", "no drift", "too few rows"]


@dataclass(frozen=True)
class Settings:
    """Settings of the check: family-wise level, minimum number of rows of a sample, permutations, seed."""

    level: float = 0.05
    min_rows: int = 100
    permutations: int = 500
    seed: int = 17


@dataclass(frozen=True)
class Verdict:
    """The decision, the sizes of both samples (rows), and each test's finding."""

    decision: Decision
    reference: int
    recent: int
    findings: Sequence[Finding] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drifted(self) -> list[str]:
        """The names of the tests that found drift."""
        return [finding.name for finding in self.findings if finding.drifted]

    def as_dict(self) -> dict[str, Any]:
        """The verdict as values that JSON can hold."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings], "facts": dict(self.facts)}


def compute_verdict(reference: Sample, held_out: Sample, recent: Sample, settings: Settings) -> Verdict:
    """The verdict on `recent`, compared with `reference` (training rows) and, for predictions, with `held_out` rows.

    A model's predictions for its training rows differ from those for other rows even without drift, so recent
    predictions are compared with those for held-out rows. Embeddings are compared with those of `reference` if it has
    any, else of `held_out`. With fewer than `min_rows` rows in a sample the decision is `too few rows`.
    """
    sizes = len(reference.texts), len(recent.texts)
    if min(sizes) < settings.min_rows:
        return Verdict("too few rows", *sizes)
    permutation = settings.permutations, settings.seed
    findings = [
        compare_numbers("length", reference.lengths, recent.lengths, "characters"),
        compare_vocabulary(reference.texts, recent.texts, *permutation),
        compare_shares("language", reference.languages, recent.languages),
    ]
    findings += [
        compare_missing(f"missing {name}", reference.missing[name], counts)
        for name, counts in recent.missing.items()
        if name in reference.missing
    ]
    if len(held_out.texts) >= settings.min_rows:
        findings += [
            _compare_predictions(name, held_out.predictions[name], predictions)
            for name, predictions in recent.predictions.items()
            if name in held_out.predictions
        ]
    reference_embeddings = reference.embeddings if reference.embeddings is not None else held_out.embeddings
    if (
        reference_embeddings is not None
        and recent.embeddings is not None
        and len(reference_embeddings) >= settings.min_rows
    ):
        findings.append(compare_embeddings(reference_embeddings, recent.embeddings, *permutation))
    corrected = correct_p_values(findings, settings.level)
    return Verdict("drift" if any(finding.drifted for finding in corrected) else "no drift", *sizes, corrected)


def _compare_predictions(name: str, reference: Sequence[Any], recent: Sequence[Any]) -> Finding:
    """The test of one output of a model: of the distribution of numbers, or of the shares of names."""
    if all(isinstance(value, int | float) for value in (*reference, *recent)):
        return compare_numbers(f"predicted {name}", reference, recent, "")
    return compare_shares(f"predicted {name}", list(map(str, reference)), list(map(str, recent)))
