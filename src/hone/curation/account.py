"""What became of every row: the funnel with its reasons and examples, the rows dropped, and how far all that is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hone.curation.columns import texts_of
from hone.curation.step import Fields, Step, Verdict
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLES = 3  # of dropped rows, for each reason
SHOWN = 300  # characters of an example's text


@dataclass
class Account:
    """What became of every row: the funnel, and the rows dropped."""

    fields: Fields
    progress: Steady
    funnel: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[pa.Table] = field(default_factory=list)

    def run(self, kind: str, table: pa.Table, step: Step) -> pa.Table:
        """The rows that `step` keeps."""
        return self.take(kind, table, step.apply(table, self.fields, self.progress.step(kind)))

    def take(self, kind: str, table: pa.Table, verdict: Verdict) -> pa.Table:
        """The rows that a verdict keeps; the others are counted by their reasons and put aside."""
        import pyarrow as pa

        kept = verdict.rows.filter(pa.array([not reason for reason in verdict.reasons], pa.bool_()))
        gone = self._rejects(kind, verdict)
        self.dropped.append(gone)
        self.funnel.append(
            {
                "step": kind,
                "before": table.num_rows,
                "after": kept.num_rows,
                "dropped": dict(Counter(gone["reason"].to_pylist()).most_common()),
                "notes": dict(sorted(verdict.notes.items())),
                "examples": self._examples(gone),
            }
        )
        return kept

    def rejects(self) -> pa.Table:
        """All rows dropped: id, source, step, reason, detail, and the objective's columns."""
        import pyarrow as pa

        if self.dropped:
            return pa.concat_tables(self.dropped)
        names = ["id", "source", "step", "reason", "detail", *self.fields.text]
        return pa.table({name: pa.array([], pa.string()) for name in [*names, *filter(None, [self.fields.label])]})

    def told(self) -> str:
        """One line on each step that dropped rows."""
        return "\n".join(
            f"  {entry['step']}: {entry['before']} -> {entry['after']} rows ("
            + ", ".join(f"{reason}: {count}" for reason, count in entry["dropped"].items())
            + ")"
            for entry in self.funnel
            if entry["dropped"]
        )

    def _rejects(self, kind: str, verdict: Verdict) -> pa.Table:
        import pyarrow as pa

        at = [row for row, reason in enumerate(verdict.reasons) if reason]
        rows = verdict.rows.take(pa.array(at, pa.int64()))
        details = [verdict.details[row] for row in at] if verdict.details else [""] * len(at)
        columns = {
            "id": texts_of(rows, "id"),
            "source": texts_of(rows, "source"),
            "step": [kind] * len(at),
            "reason": [verdict.reasons[row] for row in at],
            "detail": details,
        }
        for name in (*self.fields.text, self.fields.label):
            if name:
                columns[name] = texts_of(rows, name)
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def _examples(self, gone: pa.Table) -> list[dict[str, str]]:
        examples: list[dict[str, str]] = []
        shown: Counter[str] = Counter()
        texts, reasons = self.fields.row_texts(gone), texts_of(gone, "reason")
        for row, reason in enumerate(reasons):
            shown[reason] += 1
            if shown[reason] <= EXAMPLES:
                told = {"id": gone["id"][row].as_py(), "reason": reason, "detail": gone["detail"][row].as_py()}
                examples.append({**told, "text": texts[row][:SHOWN]})
        return examples


class Steady:
    """Progress over all steps: each counts for all the rows there were at first, however many are left."""

    def __init__(self, listener: OnProgress, rows: int, steps: int) -> None:
        self._listener, self._rows, self._total = listener, rows, rows * steps
        self._before = -rows

    def step(self, kind: str) -> OnProgress:
        """What the next step reports to."""
        self._before += self._rows
        before = self._before

        def on_progress(progress: Progress) -> None:
            done = before + self._rows * progress.done // max(1, progress.total)
            self._listener(Progress(done, self._total, note=kind))

        on_progress(Progress(0, 1))
        return on_progress

    def done(self) -> None:
        """All is done."""
        self._listener(Progress(self._total, self._total, note="split"))
