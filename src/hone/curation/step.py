"""The interface of a curation step: options in, a verdict on each row out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa


class Fields(Protocol):
    """The part of `hone.objectives.base.Objective` that steps use; every member is documented there."""

    @property
    def text(self) -> tuple[str, ...]:
        """See `Objective.text`."""

    @property
    def generated(self) -> tuple[str, ...]:
        """See `Objective.generated`."""

    @property
    def word_lists(self) -> tuple[str, ...]:
        """See `Objective.word_lists`."""

    @property
    def label(self) -> str:
        """See `Objective.label`."""

    def row_texts(self, rows: pa.Table) -> list[str]:
        """See `Objective.row_texts`."""

    @property
    def single_answer(self) -> bool:
        """See `Objective.single_answer`."""

    @property
    def near_repeats(self) -> bool:
        """See `Objective.near_repeats`."""

    @property
    def split_contexts(self) -> bool:
        """See `Objective.split_contexts`."""

    def identity_texts(self, rows: pa.Table) -> list[str]:
        """See `Objective.identity_texts`."""

    def context_texts(self, rows: pa.Table) -> list[str]:
        """See `Objective.context_texts`."""

    def answer_keys(self, rows: pa.Table) -> list[str]:
        """See `Objective.answer_keys`."""

    def extract_texts(self, column: str, value: str) -> list[str]:
        """See `Objective.extract_texts`."""

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """See `Objective.replace_texts`."""

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """See `Objective.realign_annotations`."""

    def strata(self, rows: pa.Table) -> list[str]:
        """See `Objective.strata`."""

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """See `Objective.build_targets`."""

    def list_unseen_labels(self, rows: pa.Table, targets: Mapping[str, Any]) -> list[str]:
        """See `Objective.list_unseen_labels`."""


@dataclass(frozen=True)
class Verdict:
    """The result of a step for a table of n rows.

    `rows`: the n rows in the same order, with possibly rewritten texts. `reasons`: n entries; '' keeps the row, a
    short lower-case phrase drops it ("shorter than 20 characters", "near-duplicate"). Reasons are counted, so they
    must not name a row; `details` (n entries, or empty) may. `repeated` (n entries, or empty) has the id of the row
    that a dropped row repeats. `notes` counts the changes to kept rows ({"e-mail": 12}), `summary` is a sentence on the
    rows as a whole.
    """

    rows: pa.Table
    reasons: list[str]
    details: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    summary: str = ""


class Step(Protocol):
    """A frozen dataclass of options (`hone.parts.options.option`) that judges rows.

    A class variable is optional. `drops_by_design`: the number of rows that it drops is chosen, not a finding.
    What a step rewrites in training rows stays as it came in validation and test rows, unless the served model does the
    same: a step that is a `hone.rewriting.Rewriter`, as `redact` is.
    """

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """A verdict on each row; deterministic, whatever the number of cores."""
