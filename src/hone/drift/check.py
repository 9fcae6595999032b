"""The check: all tests on two samples of rows, corrected for their number, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hone.drift.compare import Finding, domain, holm, missing, numbers, shares, vocabulary
from hone.registry.reference import Sample

if TYPE_CHECKING:
    pass

Decision = Literal["drift", "no drift", "too few rows"]


@dataclass(frozen=True)
class Settings:
    """How the check is done: the level of all tests together, the least rows of each sample, permutations, seed."""

    level: float = 0.05
    min_rows: int = 100
    permutations: int = 500
    seed: int = 17


@dataclass(frozen=True)
class Verdict:
    """What the check says, of how many rows, and each test's finding."""

    decision: Decision
    reference: int
    recent: int
    findings: Sequence[Finding] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def drifted(self) -> list[str]:
        """The names of the tests that say so."""
        return [finding.name for finding in self.findings if finding.drifted]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings], "facts": dict(self.facts)}


def judge(reference: Sample, held_out: Sample, recent: Sample, settings: Settings) -> Verdict:
    """The verdict on `recent`: against rows of the training, and against `held_out` ones for what training changes.

    What the model says of rows it learned from differs from what it says of others, whether anything drifted or not:
    predictions are compared with those of rows that it has not seen. Embeddings are compared with those of `reference`
    where it has any, else of `held_out`. With fewer than `min_rows` rows in a sample nothing is decided.
    """
    sizes = len(reference.texts), len(recent.texts)
    if min(sizes) < settings.min_rows:
        return Verdict("too few rows", *sizes)
    chance = settings.permutations, settings.seed
    findings = [
        numbers("length", reference.lengths, recent.lengths, "characters"),
        vocabulary(reference.texts, recent.texts, *chance),
        shares("language", reference.languages, recent.languages),
    ]
    findings += [
        missing(f"missing {name}", reference.missing[name], counts)
        for name, counts in recent.missing.items()
        if name in reference.missing
    ]
    if len(held_out.texts) >= settings.min_rows:
        findings += [
            _predicted(name, held_out.predictions[name], said)
            for name, said in recent.predictions.items()
            if name in held_out.predictions
        ]
    known = reference.embeddings if reference.embeddings is not None else held_out.embeddings
    if known is not None and recent.embeddings is not None and len(known) >= settings.min_rows:
        findings.append(domain(known, recent.embeddings, *chance))
    corrected = holm(findings, settings.level)
    return Verdict("drift" if any(finding.drifted for finding in corrected) else "no drift", *sizes, corrected)


def _predicted(name: str, then: Sequence[Any], now: Sequence[Any]) -> Finding:
    """The test of what a model says: of numbers their distribution, of names their shares."""
    if all(isinstance(value, int | float) for value in (*then, *now)):
        return numbers(f"predicted {name}", then, now, "")
    return shares(f"predicted {name}", list(map(str, then)), list(map(str, now)))
