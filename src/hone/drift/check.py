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
from hone.drift.outliers import compare_outliers, find_visible_share
from hone.registry.reference import Sample

Decision = Literal["drift", "no drift", "too few rows"]


@dataclass(frozen=True)
class Settings:
    """Settings of the check, as in the section `monitoring` of a configuration."""

    level: float = 0.05
    least_effect: float = 0.02
    min_rows: int = 100
    permutations: int = 500
    seed: int = 17


@dataclass(frozen=True)
class Verdict:
    """The decision, the sizes of both samples (rows), and each test's finding.

    `visible` is the least share of recent rows, all unlike the training's, that such a check finds in 4 of 5 cases;
    None if it was not tested by embeddings, or if no share is found.
    """

    decision: Decision
    reference: int
    recent: int
    findings: Sequence[Finding] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    visible: float | None = None

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
    visible = None
    reference_embeddings = reference.embeddings if reference.embeddings is not None else held_out.embeddings
    if (
        reference_embeddings is not None
        and recent.embeddings is not None
        and len(reference_embeddings) >= settings.min_rows
    ):
        findings.append(compare_embeddings(reference_embeddings, recent.embeddings, *permutation))
        findings.append(compare_outliers(reference_embeddings, recent.embeddings, *permutation))
        first_level = settings.level / len(findings)  # of Holm's method: that of the smallest p-value
        visible = find_visible_share(
            len(reference_embeddings), len(recent.texts), settings.permutations, first_level, 0
        )
    corrected = correct_p_values(findings, settings.level, settings.least_effect)
    decision: Decision = "drift" if any(finding.drifted for finding in corrected) else "no drift"
    return Verdict(decision, *sizes, corrected, visible=visible)


def _compare_predictions(name: str, reference: Sequence[Any], recent: Sequence[Any]) -> Finding:
    """The test of one output of a model: of the distribution of numbers, or of the shares of names."""
    if all(isinstance(value, int | float) for value in (*reference, *recent)):
        return compare_numbers(f"predicted {name}", reference, recent, "")
    return compare_shares(f"predicted {name}", list(map(str, reference)), list(map(str, recent)))
