"""Accounts for every row: the funnel with reasons and examples, the dropped rows, and the overall progress."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hone.curation.columns import texts_of
from hone.curation.step import Fields, Step, Verdict
from hone.progress import OnProgress, Progress
from hone.store.tables import filter_rows

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 3  # dropped rows shown per reason
EXAMPLE_CHARACTERS = 300  # of an example's text


@dataclass
class Account:
    """Accounts for every row: the funnel, and the dropped rows of each step."""

    fields: Fields
    progress: StepsProgress
    funnel: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[pa.Table] = field(default_factory=list)

    def run_step(self, kind: str, table: pa.Table, step: Step) -> pa.Table:
        """Run a step and return the rows that it keeps."""
        return self.apply_verdict(kind, table, step.apply(table, self.fields, self.progress.start_step(kind)))

    def apply_verdict(self, kind: str, table: pa.Table, verdict: Verdict) -> pa.Table:
        """Return the rows that a verdict keeps; count the others by reason and collect them."""
        import pyarrow as pa

        kept_rows = verdict.rows.filter(pa.array([not reason for reason in verdict.reasons], pa.bool_()))
        dropped_rows = self._rejects(kind, verdict)
        self.dropped.append(dropped_rows)
        self.funnel.append(
            {
                "step": kind,
                "before": table.num_rows,
                "after": kept_rows.num_rows,
                "dropped": dict(Counter(dropped_rows["reason"].to_pylist()).most_common()),
                "notes": dict(sorted(verdict.notes.items())),
                "examples": self._examples(dropped_rows),
            }
        )
        return kept_rows

    def build_rejects(self) -> pa.Table:
        """A table of all dropped rows: id, source, step, reason, detail, and the objective's text and label columns."""
        import pyarrow as pa

        if self.dropped:
            return pa.concat_tables(self.dropped)
        names = ["id", "source", "step", "reason", "detail", *self.fields.text]
        return pa.table({name: pa.array([], pa.string()) for name in [*names, *filter(None, [self.fields.label])]})

    def describe_drops(self) -> str:
        """One line per step that dropped rows, for error messages."""
        return "\n".join(
            f"  {entry['step']}: {entry['before']} -> {entry['after']} rows ("
            + ", ".join(f"{reason}: {count}" for reason, count in entry["dropped"].items())
            + ")"
            for entry in self.funnel
            if entry["dropped"]
        )

    def _rejects(self, kind: str, verdict: Verdict) -> pa.Table:
        import pyarrow as pa

        dropped_indices = [row for row, reason in enumerate(verdict.reasons) if reason]
        rows = filter_rows(verdict.rows, dropped_indices)
        details = [verdict.details[row] for row in dropped_indices] if verdict.details else [""] * len(dropped_indices)
        columns = {
            "id": texts_of(rows, "id"),
            "source": texts_of(rows, "source"),
            "step": [kind] * len(dropped_indices),
            "reason": [verdict.reasons[row] for row in dropped_indices],
            "detail": details,
        }
        for name in (*self.fields.text, self.fields.label):
            if name:
                columns[name] = texts_of(rows, name)
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def _examples(self, dropped_rows: pa.Table) -> list[dict[str, str]]:
        examples: list[dict[str, str]] = []
        shown_by_reason: Counter[str] = Counter()
        texts, reasons = self.fields.row_texts(dropped_rows), texts_of(dropped_rows, "reason")
        for row, reason in enumerate(reasons):
            shown_by_reason[reason] += 1
            if shown_by_reason[reason] <= EXAMPLES:
                example = {
                    "id": dropped_rows["id"][row].as_py(),
                    "reason": reason,
                    "detail": dropped_rows["detail"][row].as_py(),
                }
                examples.append({**example, "text": texts[row][:EXAMPLE_CHARACTERS]})
        return examples


class StepsProgress:
    """Progress over all steps. Each step counts for the initial number of rows, so that the total stays fixed."""

    def __init__(self, listener: OnProgress, rows: int, steps: int) -> None:
        self._listener, self._rows, self._total = listener, rows, rows * steps
        self._before = -rows

    def start_step(self, kind: str) -> OnProgress:
        """Start the next step; returns the callback for its progress."""
        self._before += self._rows
        done_before = self._before

        def on_progress(progress: Progress) -> None:
            done = done_before + self._rows * progress.done // max(1, progress.total)
            self._listener(Progress(done, self._total, note=kind))

        on_progress(Progress(0, 1))
        return on_progress

    def finish(self) -> None:
        """Report that all steps are done."""
        self._listener(Progress(self._total, self._total, note="split"))
