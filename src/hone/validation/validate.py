"""Validate: checks the rows before a model is trained on them."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.curation.columns import texts_of, with_texts
from hone.curation.dedup.similar_rows import find_repeats
from hone.curation.parallel import cut_texts
from hone.display import escape_controls
from hone.errors import ValidationFailed
from hone.objectives.base import Objective
from hone.objectives.shared.label_account import count_unseen_labels, name_labels
from hone.objectives.shared.tokenizer import count_tokens, load_tokenizer
from hone.process_environment import ALL_CORES, NO_ANALYTICS, environment
from hone.progress import OnProgress, Progress, ignore
from hone.splits import FLAW, SPLITS, TEST, TRAIN, VALID
from hone.store import layout
from hone.store.artifact import Product
from hone.store.tables import cut_rows, filter_rows, take_rows, write_table
from hone.validation.data_docs import write_single_page
from hone.validation.suites import Expected, file_suite, settings_suite
from hone.validation.verdicts import Finding, Judge, describe_expectation

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

SHOWN = 10  # expectations, or labels, that an error shows; it counts the rest
# Rows and characters whose tokens are counted at once: an encoded text takes many times its size.
BATCH_ROWS, BATCH_CHARACTERS = 2048, 4 << 20


def validate(
    splits: Path,
    out: Path,
    *,
    base: Path,
    objective: Objective,
    near_duplicate: float,
    settings: Mapping[str, Any],
    emptied: Sequence[str] = (),
    docs_on_failure: Path | None = None,
    on_progress: OnProgress = ignore,
) -> Product:
    """Validate the three splits in the directory `splits`; writes them, without quarantined rows, and Data Docs.

    `settings` is the config's `validation` section. `emptied` has curation's sentences on labels of which it dropped
    all training rows: messages on missing labels have them, and the facts. Raises ConfigError for a suite that cannot
    be used, and, unless `settings["on_failure"]` is warn, ValidationFailed; the Data Docs then replace those in
    `docs_on_failure`, if given.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = {split: pq.read_table(splits / layout.rows_file(split)) for split in SPLITS}
    if settings["unseen_labels"] == "stop" and not objective.label:
        _check_unseen_labels(tables, objective, emptied, only_warn=settings["on_failure"] == "warn")
    tokenizer = load_tokenizer(base)
    quarantine: list[pa.Table] = []
    # Great Expectations adds 4 MB of styles and images, which the single page does not use.
    with environment(NO_ANALYTICS | ALL_CORES), tempfile.TemporaryDirectory() as docs:
        user_suite = file_suite(Path(settings["suite"]).expanduser()) if settings["suite"] else []
        judge = Judge(Path(docs))
        # Repeated until no row is set aside: without quarantined rows, label shares and duplicates change.
        while True:
            suite = settings_suite(objective, _list_labels(tables[TRAIN], objective), settings) + user_suite
            frames = _build_frames(tables, objective, tokenizer, near_duplicate, on_progress)
            findings, failing = judge.evaluate_suite(frames, suite, objective, settings["on_failure"] == "quarantine")
            tables, removable, tolerated = _keep_given_rows(tables, failing)
            tables, aside = _set_aside(tables, removable)
            quarantine.append(aside)
            if not len(aside):
                break
        judge.build_docs()
        write_single_page(Path(docs), out / layout.DATA_DOCS)
    aside = pa.concat_tables(quarantine, promote_options="permissive")
    failed = [(finding, expected) for finding, expected in zip(findings, suite, strict=True) if not finding.success]
    fatal = [
        (finding, expected)
        for finding, expected in failed
        if (expected.split, describe_expectation(expected)) not in tolerated
    ]
    if fatal and settings["on_failure"] != "warn":
        docs_url = _save_docs(out / layout.DATA_DOCS, docs_on_failure)
        raise _build_error(fatal, len(findings), aside, emptied, docs_url)
    for finding, _ in failed:
        log.warning("does not hold: %s", escape_controls("\n".join(_describe_finding(finding))))
    return _write_results(out, tables, aside, findings, emptied)


def _check_unseen_labels(
    tables: Mapping[str, pa.Table], objective: Objective, emptied: Sequence[str], *, only_warn: bool
) -> None:
    """Raise ValidationFailed, or log it, for labels or types of validation and test rows that no training row has.

    For objectives without a label column: there no expectation about one column can check it.
    """
    targets = objective.build_targets(tables[TRAIN])
    for split, counts in count_unseen_labels(objective, tables.__getitem__, targets).items():
        fault = f"{split}: {counts.total()} rows have labels that no training row has: {name_labels(counts, SHOWN)}"
        fault = "; ".join([fault, *emptied])
        if only_warn:
            log.warning("does not hold: %s", escape_controls(fault))
            continue
        raise ValidationFailed(
            fault,
            where="validation",
            fix="Add training rows with them, or set validation.unseen_labels=report to count such rows as errors.",
        )


def _build_frames(
    tables: Mapping[str, pa.Table],
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    near_duplicate: float,
    on_progress: OnProgress,
) -> dict[str, pd.DataFrame]:
    """The splits as DataFrames of Python objects for Great Expectations, with the computed columns of `suites`."""
    import numpy as np
    import pandas as pd

    total, done = sum(map(len, tables.values())), 0
    same_as = _find_duplicates(tables, objective, near_duplicate)
    frames = {}
    for split, table in tables.items():
        columns = {name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names}
        frame = frames[split] = pd.DataFrame(columns, columns=table.column_names)
        frame["hone_same_as"] = pd.Series(same_as[split], dtype=object)
        if objective.label in frame:
            frame["hone_label_rows"] = frame.groupby(objective.label)[objective.label].transform("size")
            frame["hone_label_share"] = frame["hone_label_rows"] / len(frame)
        if _has_text(table, objective):
            lengths = [np.zeros(0, np.int32)]
            for piece in cut_rows(table, BATCH_ROWS):
                for texts in cut_texts(objective.row_texts(piece), BATCH_ROWS, BATCH_CHARACTERS):
                    lengths.append(count_tokens(tokenizer, texts))
                    done += len(texts)
                    on_progress(Progress(done, total, note=split))
            frame["hone_tokens"] = pd.Series(np.concatenate(lengths), index=frame.index, dtype=int)
        else:
            done += len(table)
    return frames


def _has_text(table: pa.Table, objective: Objective) -> bool:
    import pyarrow as pa

    return all(
        name in table.column_names and (pa.types.is_string(kind := table[name].type) or pa.types.is_large_string(kind))
        for name in objective.text
    )


def _find_duplicates(
    tables: Mapping[str, pa.Table], objective: Objective, threshold: float
) -> dict[str, list[str | None]]:
    """For each row the id of a duplicate in an earlier split: the same text, or a similarity of `threshold` or more."""
    import pyarrow as pa

    same_as: dict[str, list[str | None]] = {split: [None] * len(table) for split, table in tables.items()}
    usable = {
        split: table for split, table in tables.items() if _has_text(table, objective) and "id" in table.column_names
    }
    for held_out, earlier in ((VALID, (TRAIN,)), (TEST, (TRAIN, VALID))):
        earlier_tables = [_exclude_known_repeats(usable[split]) for split in earlier if split in usable]
        if held_out not in usable or not earlier_tables:
            continue
        others = pa.concat_tables(earlier_tables, promote_options="permissive")
        repeats = find_repeats(usable[held_out], others, objective, threshold)
        texts = objective.row_texts(take_rows(usable[held_out], [row for row, _ in repeats]))
        for (row, other), text in zip(repeats, texts, strict=True):
            if text.strip():
                same_as[held_out][row] = others["id"][other].as_py()
    return same_as


def _exclude_known_repeats(rows: pa.Table) -> pa.Table:
    """The rows without given validation rows that repeat test rows: curation keeps these and reports them."""
    import pyarrow.compute as pc

    if FLAW not in rows.column_names:
        return rows
    return rows.filter(pc.invert(pc.match_substring(rows[FLAW].fill_null(""), "decontaminate:")))


def _list_labels(train: pa.Table, objective: Objective) -> list[str]:
    if objective.label not in train.column_names:
        return []
    return sorted(train[objective.label].unique().drop_null().to_pylist())


def _keep_given_rows(
    tables: Mapping[str, pa.Table], failing: Mapping[str, Mapping[int, Sequence[str]]]
) -> tuple[dict[str, pa.Table], dict[str, Mapping[int, Sequence[str]]], set[tuple[str, str]]]:
    """The splits and the failing rows without validation and test rows that came with the data: these stay.

    They get the expectations as their flaw. The last value has the splits and expectations that they fail.
    """
    kept_tables, others = dict(tables), dict(failing)
    tolerated: set[tuple[str, str]] = set()
    for split in (VALID, TEST):
        if FLAW in tables[split].column_names and failing[split]:
            flaws = texts_of(tables[split], FLAW)
            for row, expectations in failing[split].items():
                flaws[row] = "; ".join(filter(None, [flaws[row], f"validation: {', '.join(expectations)}"]))
                tolerated.update((split, expectation) for expectation in expectations)
            kept_tables[split], others[split] = with_texts(tables[split], FLAW, flaws), {}
    return kept_tables, others, tolerated


def _set_aside(
    tables: Mapping[str, pa.Table], failing: Mapping[str, Mapping[int, Sequence[str]]]
) -> tuple[dict[str, pa.Table], pa.Table]:
    """The splits without the failing rows, and a table of those rows with their split and failed expectations."""
    import numpy as np
    import pyarrow as pa

    remaining, aside = {}, []
    for split, table in tables.items():
        rows = sorted(failing[split])
        remaining[split] = filter_rows(table, np.setdiff1d(np.arange(len(table)), np.array(rows, np.int64)))
        taken = filter_rows(table, rows)
        # Cast to text whatever the type is: the columns of the three splits are concatenated.
        columns = {name: taken[name].cast(pa.string()) for name in taken.column_names}
        columns["quarantined_from"] = pa.array([split] * len(rows), pa.string())
        columns["expectations"] = pa.array(["; ".join(failing[split][row]) for row in rows], pa.string())
        aside.append(pa.table(columns))
    return remaining, pa.concat_tables(aside, promote_options="permissive")


def _write_results(
    out: Path, tables: Mapping[str, pa.Table], aside: pa.Table, findings: Sequence[Finding], emptied: Sequence[str]
) -> Product:
    for split, table in tables.items():
        write_table(table, out / layout.rows_file(split))
    write_table(aside, out / "quarantine.parquet")
    facts = {
        "success": all(finding.success for finding in findings),
        "expectations": [asdict(finding) for finding in findings],
        "quarantined": len(aside),
        "quarantined_by": _count_reasons(aside),
        "emptied": list(emptied),
        "data_docs": layout.DATA_DOCS,
    }
    (out / "validation.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), "utf8")
    return Product(sum(map(len, tables.values())), tuple(layout.rows_file(split) for split in SPLITS), facts)


def _count_reasons(aside: pa.Table) -> dict[str, int]:
    """The number of rows set aside for each expectation; a row may count for several."""
    return dict(Counter(name for names in aside["expectations"].to_pylist() for name in names.split("; ")))


def _build_error(
    failed: Sequence[tuple[Finding, Expected]], total: int, aside: pa.Table, emptied: Sequence[str], docs: str
) -> ValidationFailed:
    """The error for expectations that do not hold: each with its observed value and example rows."""
    lines = [line for finding, _ in failed[:SHOWN] for line in _describe_finding(finding)]
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more")
    if len(aside):
        reasons = ", ".join(f"{name} {count}" for name, count in _count_reasons(aside).items())
        lines.append(f"after {len(aside)} rows were set aside: {reasons}")
    lines.extend(emptied)
    return ValidationFailed(
        f"{len(failed)} of {total} expectations do not hold\n" + "\n".join(f"  {line}" for line in lines),
        where="validation",
        fix="\n  ".join([*dict.fromkeys(expected.fix for _, expected in failed[:SHOWN]), *([docs] if docs else [])]),
    )


def _describe_finding(finding: Finding) -> list[str]:
    head = f"{finding.split}: {finding.expectation}({finding.column}): {finding.observed}; expected {finding.expected}"
    return [head, *("    " + "   ".join(example.values()) for example in finding.examples)]


def _save_docs(page: Path, docs_on_failure: Path | None) -> str:
    """Copy the Data Docs to `docs_on_failure`, which outlives the failed stage; returns their URL for the error."""
    if docs_on_failure is None:
        return ""
    shutil.rmtree(docs_on_failure, ignore_errors=True)  # of an earlier failure
    docs_on_failure.mkdir(parents=True)
    copy = docs_on_failure / "index.html"
    shutil.copyfile(page, copy)
    return f"Data Docs: {copy.as_uri()}"
