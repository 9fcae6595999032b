"""Accounts for every row: the funnel with reasons and examples, the dropped rows, and the overall progress."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hone.curation.columns import splits_of, texts_of, with_texts
from hone.curation.step import Fields, Step, Verdict
from hone.display import escape_controls
from hone.errors import DataError
from hone.progress import OnProgress, Progress
from hone.splits import FLAW, TEST, VALID
from hone.store.tables import build_text_column, filter_rows

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

SHOWN = 3  # reasons and groups that a warning lists
EXAMPLES = 3  # dropped rows shown per reason
EXAMPLE_CHARACTERS = 300  # of an example's text


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a step may drop.

    max_dropped      the share of rows above which a step is reported
    stop             whether such a step stops the run
    curate_held_out  whether steps may drop rows of a validation or test split that came with the data
    """

    max_dropped: float = 0.2
    stop: bool = False
    curate_held_out: bool = False


@dataclass
class Account:
    """Accounts for every row: the funnel, the dropped rows of each step, and the sizes of groups of similar rows."""

    fields: Fields
    progress: StepsProgress
    limits: Limits
    funnel: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[pa.Table] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)

    def run_step(self, kind: str, table: pa.Table, step: Step) -> pa.Table:
        """Run a step and return the rows that it keeps."""
        verdict = step.apply(table, self.fields, self.progress.start_step(kind))
        return self.apply_verdict(kind, table, verdict, limited=not getattr(step, "drops_by_design", False))

    def apply_verdict(
        self,
        kind: str,
        table: pa.Table,
        verdict: Verdict,
        *,
        limited: bool = True,
        where: str = "",
        fix: str = "Loosen the step",
    ) -> pa.Table:
        """Return the rows that a verdict keeps; count the others by reason and collect them.

        Held-out rows that came with the data are kept, with the reason in the column FLAW. A step that drops more than
        the allowed share of rows, if `limited`, is logged as a warning, or raises DataError with `where` and `fix`.
        """
        import pyarrow as pa

        flagged: Counter[str] = Counter()
        if FLAW in table.column_names:
            verdict, flagged = _keep_held_out(kind, verdict)
        kept_rows = verdict.rows.filter(pa.array([not reason for reason in verdict.reasons], pa.bool_()))
        dropped_rows = self._rejects(kind, verdict)
        self.dropped.append(dropped_rows)
        entry = {
            "step": kind,
            "before": table.num_rows,
            "after": kept_rows.num_rows,
            "dropped": dict(Counter(dropped_rows["reason"].to_pylist()).most_common()),
            "flagged": dict(flagged.most_common()),
            "notes": dict(sorted(verdict.notes.items())),
            "summary": verdict.summary,
            "examples": self._examples(dropped_rows),
        }
        if limited and dropped_rows.num_rows > self.limits.max_dropped * table.num_rows:
            entry["warning"] = _describe_excess(kind, verdict, self.limits.max_dropped)
            if self.limits.stop:
                raise DataError(
                    str(entry["warning"]),
                    where=where or f"curation.steps, {kind}",
                    fix=f"{fix}, or set curation.max_dropped or curation.on_excess=warn.",
                )
            log.warning("%s", escape_controls(entry["warning"]))
        self.funnel.append(entry)
        return kept_rows

    def note_emptied_classes(self, labels: Sequence[str]) -> None:
        """Note that the last step dropped all training rows with these labels, in the funnel and as a warning."""
        if labels:
            entry = self.funnel[-1]
            entry["emptied"] = list(labels)
            log.warning("%s", escape_controls(describe_emptied(entry)))

    def note_groups(self, rows: int, largest: int, divided: int) -> None:
        """Note the sizes of the groups of similar rows among the rows that are split, and a divided one as a warning.

        `largest` and `divided` are those of `split.Groups`.
        """
        self.groups = {"rows": rows, "largest": largest, "divided": divided}
        if divided:
            log.warning("split: %s", describe_groups(self.groups))

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
            + (f"; all training rows with the labels {', '.join(entry['emptied'])}" if "emptied" in entry else "")
            + ")"
            for entry in self.funnel
            if entry["dropped"]
        )

    def _rejects(self, kind: str, verdict: Verdict) -> pa.Table:
        import pyarrow as pa

        dropped_indices = [row for row, reason in enumerate(verdict.reasons) if reason]
        rows = filter_rows(verdict.rows, dropped_indices)
        details = verdict.details or [f"repeats {name}" if name else "" for name in verdict.repeated]
        columns = {
            "id": texts_of(rows, "id"),
            "source": texts_of(rows, "source"),
            "step": [kind] * len(dropped_indices),
            "reason": [verdict.reasons[row] for row in dropped_indices],
            "detail": [details[row] if details else "" for row in dropped_indices],
        }
        for name in (*self.fields.text, self.fields.label):
            if name:
                columns[name] = texts_of(rows, name)
        return pa.table({name: build_text_column(values) for name, values in columns.items()})

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


def _keep_held_out(kind: str, verdict: Verdict) -> tuple[Verdict, Counter[str]]:
    """The verdict without drops of held-out rows, which have all reasons in the column FLAW; their counts by reason.

    Rows drawn for validation or test later are not held out yet.
    """
    reasons, flaws = list(verdict.reasons), texts_of(verdict.rows, FLAW)
    flagged: Counter[str] = Counter()
    for row, split in enumerate(splits_of(verdict.rows)):
        if reasons[row] and split in (VALID, TEST):
            flagged[reasons[row]] += 1
            flaws[row] = "; ".join(filter(None, [flaws[row], f"{kind}: {reasons[row]}"]))
            reasons[row] = ""
    return replace(verdict, rows=with_texts(verdict.rows, FLAW, flaws), reasons=reasons), flagged


def _describe_excess(kind: str, verdict: Verdict, max_dropped: float) -> str:
    """What was dropped, by reason, and the rows that most of the dropped rows repeat."""
    before, reasons = verdict.rows.num_rows, Counter(filter(None, verdict.reasons))
    repeated = zip(verdict.repeated, verdict.reasons, strict=False)  # most steps have no `repeated`
    clusters = Counter(name for name, reason in repeated if name and reason).most_common(SHOWN)
    count = reasons.total()
    text = (
        f"{kind} drops {count} of {before} rows ({count / before:.0%}; curation.max_dropped is {max_dropped:.0%}): "
        + ", ".join(f"{number} {reason}" for reason, number in reasons.most_common(SHOWN))
    )
    if clusters and clusters[0][1] > 1:
        text += "; largest groups: " + ", ".join(f"{number} repeats {name}" for name, number in clusters)
    return text


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


def list_emptied(curate: Mapping[str, Any]) -> list[str]:
    """The warnings of steps that dropped all training rows with some labels, from the facts of curate."""
    return [describe_emptied(entry) for entry in curate["funnel"] if "emptied" in entry]


def describe_emptied(entry: Mapping[str, Any]) -> str:
    """The warning of a step, an entry of the funnel, that dropped all training rows with some labels."""
    return f"{entry['step']} drops all training rows with the labels {', '.join(entry['emptied'])}"


def describe_groups(groups: Mapping[str, int]) -> str:
    """What to know of the groups of similar rows that were split, from the fact `groups`; '' if there is nothing."""
    if groups.get("largest", 0) <= 1:
        return ""
    rows, largest, divided = groups["rows"], groups["largest"], groups["divided"]
    if not divided:
        return f"the largest group of similar rows has {largest:,} of {rows:,} rows"
    return (
        f"{divided:,} of {rows:,} rows are each similar to another of them; they are divided into groups of up to"
        f" {largest:,} rows, and similar rows of two groups may be in different splits"
    )
