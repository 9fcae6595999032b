"""Validate: what must hold for the rows before a model may learn from them."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.curation.dedup.near import near_pairs
from hone.errors import ValidationFailed
from hone.objectives.base import Objective
from hone.objectives.shared.tokenizer import count_tokens, load_tokenizer
from hone.process_environment import ALL_CORES, NO_ANALYTICS, environment
from hone.progress import OnProgress, Progress, ignore
from hone.store.artifact import Product
from hone.store.tables import cut_rows, filter_rows
from hone.validation.suites import SPLITS, Expected, file_suite, settings_suite
from hone.validation.verdicts import Finding, Judge

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

DATA_DOCS = "data_docs"
SHOWN = 10  # expectations that an error shows; it counts the rest
ROWS_PER_GROUP = 1 << 20  # what pyarrow writes by default; a group of long texts has fewer
BATCH_ROWS = 2048


def validate(
    splits: Path,
    out: Path,
    *,
    base: Path,
    objective: Objective,
    near_duplicate: float,
    settings: Mapping[str, Any],
    docs_on_failure: Path | None = None,
    on_progress: OnProgress = ignore,
) -> Product:
    """The three splits in the directory `splits`, less the rows that were set aside, with Data Docs on them.

    `settings` is the config's `validation` section. Raises ConfigError for a suite that cannot be used, and
    ValidationFailed, as `settings["on_failure"]` says, with the Data Docs kept in `docs_on_failure` if that is given.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = {split: pq.read_table(splits / f"{split}.parquet") for split in SPLITS}
    tokenizer = load_tokenizer(base)
    quarantine: list[pa.Table] = []
    with environment(NO_ANALYTICS | ALL_CORES):
        asked = file_suite(Path(settings["suite"]).expanduser()) if settings["suite"] else []
        judge = Judge(out / DATA_DOCS)
        while True:
            suite = settings_suite(objective, _labels(tables["train"], objective), settings) + asked
            frames = _frames(tables, objective, tokenizer, near_duplicate, on_progress)
            findings, failing = judge.verdict(frames, suite, objective, settings["on_failure"] == "quarantine")
            tables, aside = _set_aside(tables, failing)
            quarantine.append(aside)
            if not len(aside):
                break
        judge.build_docs()
    aside = pa.concat_tables(quarantine, promote_options="permissive")
    failed = [(finding, expected) for finding, expected in zip(findings, suite, strict=True) if not finding.success]
    if failed and settings["on_failure"] != "warn":
        raise _failure(failed, len(findings), aside, _kept(out / DATA_DOCS, docs_on_failure))
    for finding, _ in failed:
        log.warning("does not hold: %s", "\n".join(_lines(finding)))
    return _write(out, tables, aside, findings)


def _frames(
    tables: Mapping[str, pa.Table],
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    near_duplicate: float,
    on_progress: OnProgress,
) -> dict[str, pd.DataFrame]:
    """The splits as Great Expectations looks at them: Python objects, and the computed columns of `suites`."""
    import pandas as pd

    total, done = sum(map(len, tables.values())), 0
    same_as = _same_as(tables, objective, near_duplicate)
    frames = {}
    for split, table in tables.items():
        columns = {name: pd.Series(table[name].to_pylist(), dtype=object) for name in table.column_names}
        frame = frames[split] = pd.DataFrame(columns, columns=table.column_names)
        frame["hone_same_as"] = pd.Series(same_as[split], dtype=object)
        if objective.label in frame:
            frame["hone_label_rows"] = frame.groupby(objective.label)[objective.label].transform("size")
            frame["hone_label_share"] = frame["hone_label_rows"] / len(frame)
        if _has_text(table, objective):
            texts = objective.row_texts(table)
            frame["hone_tokens"] = pd.Series(0, index=frame.index)
            for start in range(0, len(texts), BATCH_ROWS):
                batch = texts[start : start + BATCH_ROWS]
                frame.loc[start : start + len(batch) - 1, "hone_tokens"] = count_tokens(tokenizer, batch)
                on_progress(Progress(done + start + len(batch), total, note=split))
        done += len(table)
    return frames


def _has_text(table: pa.Table, objective: Objective) -> bool:
    import pyarrow as pa

    return all(
        name in table.column_names and (pa.types.is_string(kind := table[name].type) or pa.types.is_large_string(kind))
        for name in objective.text
    )


def _same_as(tables: Mapping[str, pa.Table], objective: Objective, threshold: float) -> dict[str, list[str | None]]:
    """For each row the id of one in an earlier split that says the same or, from `threshold` on, nearly the same."""
    same: dict[str, list[str | None]] = {split: [None] * len(table) for split, table in tables.items()}
    known = {
        split: table for split, table in tables.items() if _has_text(table, objective) and "id" in table.column_names
    }
    texts = {split: objective.row_texts(table) for split, table in known.items()}
    for held_out, earlier in (("valid", ("train",)), ("test", ("train", "valid"))):
        others = [(split, row) for split in earlier if split in known for row in range(len(texts[split]))]
        if held_out not in known:
            continue
        for row, other in near_pairs(texts[held_out], [texts[split][i] for split, i in others], threshold):
            if texts[held_out][row].strip():
                split, i = others[other]
                same[held_out][row] = known[split]["id"][i].as_py()
    return same


def _labels(train: pa.Table, objective: Objective) -> list[str]:
    if objective.label not in train.column_names:
        return []
    return sorted(train[objective.label].unique().drop_null().to_pylist())


def _set_aside(
    tables: Mapping[str, pa.Table], failing: Mapping[str, Mapping[int, Sequence[str]]]
) -> tuple[dict[str, pa.Table], pa.Table]:
    """The splits without the failing rows, and those rows, with the split and the expectations that put them there."""
    import numpy as np
    import pyarrow as pa

    left, aside = {}, []
    for split, table in tables.items():
        rows = sorted(failing[split])
        keep = np.ones(len(table), bool)
        keep[rows] = False
        left[split] = table.filter(pa.array(keep))
        taken = filter_rows(table, rows)
        # Text, whatever was found where text should be: columns of the three splits stand below each other.
        columns = {name: taken[name].cast(pa.string()) for name in taken.column_names}
        columns["quarantined_from"] = pa.array([split] * len(rows), pa.string())
        columns["expectations"] = pa.array(["; ".join(failing[split][row]) for row in rows], pa.string())
        aside.append(pa.table(columns))
    return left, pa.concat_tables(aside, promote_options="permissive")


def _write(out: Path, tables: Mapping[str, pa.Table], aside: pa.Table, findings: Sequence[Finding]) -> Product:
    import pyarrow.parquet as pq

    for split, table in tables.items():
        with pq.ParquetWriter(out / f"{split}.parquet", table.schema) as writer:
            for piece in cut_rows(table, ROWS_PER_GROUP):
                writer.write_table(piece)
    pq.write_table(aside, out / "quarantine.parquet")
    facts = {
        "success": all(finding.success for finding in findings),
        "expectations": [asdict(finding) for finding in findings],
        "quarantined": len(aside),
        "quarantined_by": _reasons(aside),
        "data_docs": f"{DATA_DOCS}/index.html",
    }
    (out / "validation.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), "utf8")
    return Product(sum(map(len, tables.values())), tuple(f"{split}.parquet" for split in SPLITS), facts)


def _reasons(aside: pa.Table) -> dict[str, int]:
    """Rows set aside for each expectation; a row may have several."""
    return dict(Counter(name for names in aside["expectations"].to_pylist() for name in names.split("; ")))


def _failure(failed: Sequence[tuple[Finding, Expected]], of: int, aside: pa.Table, docs: str) -> ValidationFailed:
    """The error of a suite that does not hold: each expectation, its figure and its example rows."""
    lines = [line for finding, _ in failed[:SHOWN] for line in _lines(finding)]
    if len(failed) > SHOWN:
        lines.append(f"and {len(failed) - SHOWN} more")
    if len(aside):
        reasons = ", ".join(f"{name} {count}" for name, count in _reasons(aside).items())
        lines.append(f"after {len(aside)} rows were set aside: {reasons}")
    return ValidationFailed(
        f"{len(failed)} of {of} expectations do not hold\n" + "\n".join(f"  {line}" for line in lines),
        where="validation",
        fix="\n  ".join([*dict.fromkeys(expected.fix for _, expected in failed[:SHOWN]), *([docs] if docs else [])]),
    )


def _lines(finding: Finding) -> list[str]:
    head = f"{finding.split}: {finding.expectation}({finding.column}): {finding.observed}; expected {finding.expected}"
    return [head, *("    " + "   ".join(example.values()) for example in finding.examples)]


def _kept(docs: Path, docs_on_failure: Path | None) -> str:
    """Copy the Data Docs to where they outlive the failed stage, and say where that is."""
    if docs_on_failure is None:
        return ""
    shutil.copytree(docs, docs_on_failure, dirs_exist_ok=True)
    return f"Data Docs: {(docs_on_failure / 'index.html').as_uri()}"
