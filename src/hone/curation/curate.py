"""The curate stage: run the steps on the rows, record a reason for each drop, then split into train, valid and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hone.curation.account import Account, Limits, StepsProgress
from hone.curation.columns import labels_of, splits_of, texts_of, with_texts
from hone.curation.split import find_contaminated_rows, group_rows, normalize_splits, split_rows
from hone.curation.step import Fields, Step, Verdict
from hone.errors import DataError
from hone.progress import OnProgress, ignore
from hone.rewriting import Rewriter
from hone.splits import FLAW, SPLITS, TEST, TRAIN, VALID
from hone.store import layout
from hone.store.artifact import Product
from hone.store.tables import filter_rows, take_rows, write_table

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_LIMITS = Limits()


def curate(
    rows: Path,
    out: Path,
    *,
    steps: Sequence[tuple[str, Step]],
    fields: Fields,
    valid: float,
    test: float,
    seed: int,
    near_duplicate: float,
    limits: Limits = DEFAULT_LIMITS,
    on_progress: OnProgress = ignore,
) -> Product:
    """Write train.parquet, valid.parquet, test.parquet and rejects.parquet to `out`.

    Runs `steps` in order on the rows of the file `rows`; each row ends up in one of the four files. Splits that came
    with the rows are kept: what is wrong with their validation and test rows is in the column `curation_flaw`, and
    training rows that repeat them are dropped. Missing splits are taken from the training rows. Validation and test
    rows have the text that came, as a served model gets it, except for what that rewrites too (`Rewriter`).

    The facts are the funnel (rows before and after each step, drops by reason, examples), the sizes and classes of the
    splits, of the validation and test splits that came with the data how many rows they had, and, if rows were drawn,
    their number and the sizes of `split.Groups`.
    Raises DataError if too few rows are left to train and test on, with the drops by step.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read = pq.read_table(rows, memory_map=False)
    table = with_texts(read, "split", normalize_splits(splits_of(read)))
    rows_by_split = Counter(split for split in splits_of(table) if split in (VALID, TEST))
    if rows_by_split and not limits.curate_held_out:
        table = table.append_column(FLAW, pa.array([""] * table.num_rows, pa.string()))
    account = Account(fields, StepsProgress(on_progress, table.num_rows, len(steps) + 1), limits)
    for kind, step in steps:
        table = account.run_step(kind, table, step)
    _check_rows(table, account)
    _check_two_classes(table, fields, account)
    tables = _split(table, fields, account, valid=valid, test=test, seed=seed, threshold=near_duplicate)
    for split in (VALID, TEST):
        tables[split] = _restore_texts(tables[split], read, steps, fields)
    for split, split_table in tables.items():
        write_table(split_table, out / layout.rows_file(split))
    write_table(account.build_rejects(), out / "rejects.parquet")
    account.progress.finish()
    facts = {
        "funnel": account.funnel,
        "splits": {split: split_table.num_rows for split, split_table in tables.items()},
        "given": dict(rows_by_split),
        "flawed": {split: _count_flaws(tables[split]) for split in rows_by_split},
        "groups": account.groups,
        "classes": {split: _count_classes(split_table, fields) for split, split_table in tables.items()},
    }
    row_count = sum(split_table.num_rows for split_table in tables.values())
    return Product(row_count, tuple(layout.rows_file(split) for split in SPLITS), facts)


def _split(
    table: pa.Table, fields: Fields, account: Account, *, valid: float, test: float, seed: int, threshold: float
) -> dict[str, pa.Table]:
    """The table of each split: the splits the rows came with, decontaminated, and missing ones taken from training."""
    import pyarrow.compute as pc

    if any(splits_of(table)):
        training_rows = _training_rows(table)
        table = account.apply_verdict(
            "decontaminate",
            table,
            _decontamination(table, fields, threshold),
            where="curation.split",
            fix="Raise curation.split.near_duplicate",
        )
        account.note_emptied_classes(_list_emptied(training_rows, _training_rows(table), fields))
    named_splits = set(splits_of(table)) - {""}
    open_rows = [i for i, split in enumerate(splits_of(table)) if split in ("", TRAIN)]
    if not named_splits:
        _check_class_sizes(table, fields)
    if not named_splits or not {VALID, TEST} <= named_splits:
        training_rows = filter_rows(table, open_rows)
        groups = group_rows(training_rows, fields, threshold)  # before the texts, which take as much memory again
        account.note_groups(training_rows.num_rows, groups.largest, groups.divided)
        new_splits = split_rows(
            fields.row_texts(training_rows),
            fields.strata(training_rows),
            groups.leaders,
            valid=0.0 if VALID in named_splits else valid,
            test=0.0 if TEST in named_splits else test,
            seed=seed,
        )
        splits = splits_of(table)
        for row, split in zip(open_rows, new_splits, strict=True):
            splits[row] = split
        table = with_texts(table, "split", splits)
    tables = {split: table.filter(pc.equal(table["split"], split)) for split in SPLITS}
    _check_splits(tables, fields, account)
    return tables


def _restore_texts(table: pa.Table, read: pa.Table, steps: Sequence[tuple[str, Step]], fields: Fields) -> pa.Table:
    """The rows with the columns that were read, rewritten only by the steps that the served model applies too."""
    position_of = {name: position for position, name in enumerate(texts_of(read, "id"))}
    original = take_rows(read, [position_of[name] for name in texts_of(table, "id")])
    for kind, step in steps:
        if isinstance(step, Rewriter):
            verdict = step.apply(original, fields, ignore)
            original = verdict.rows
            if FLAW in table.column_names:
                table = _add_flaws(table, [f"{kind}: {reason}" if reason else "" for reason in verdict.reasons])
    for name in read.column_names:
        if name != "split":
            table = table.set_column(table.column_names.index(name), name, original[name])
    return table


def _add_flaws(table: pa.Table, flaws: Sequence[str]) -> pa.Table:
    """The rows with further entries in the column FLAW; one that a row has already is not repeated."""
    entries = [old.split("; ") if old else [] for old in texts_of(table, FLAW)]
    joined = [
        "; ".join(dict.fromkeys([*old, *([new] if new else [])])) for old, new in zip(entries, flaws, strict=True)
    ]
    return with_texts(table, FLAW, joined)


def _training_rows(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["split"], TRAIN))


def _list_emptied(before: pa.Table, after: pa.Table, fields: Fields) -> list[str]:
    """The labels, or combinations of labels or types, that no training row has after a step, but some had before."""
    import pyarrow.compute as pc

    if fields.label:
        return sorted(set(labels_of(before, fields)) - set(labels_of(after, fields)))
    if after.num_rows in (0, before.num_rows):
        return []
    dropped_rows = before.filter(pc.invert(pc.is_in(before["id"], value_set=after["id"])))
    return sorted(set(fields.list_unseen_labels(dropped_rows, fields.build_targets(after))))


def _decontamination(table: pa.Table, fields: Fields, threshold: float) -> Verdict:
    contaminated_rows = find_contaminated_rows(table, fields, threshold)
    ids = texts_of(table, "id")
    reasons, repeated = [""] * table.num_rows, [""] * table.num_rows
    for row, (reason, other) in contaminated_rows.items():
        reasons[row], repeated[row] = reason, ids[other]
    return Verdict(table, reasons, repeated=repeated)


def _check_rows(table: pa.Table, account: Account) -> None:
    """Raise DataError if no row is left."""
    if not table.num_rows:
        raise DataError(
            f"no rows are left after curation\n{account.describe_drops()}"
            if account.describe_drops()
            else "there are no rows to curate",
            where="curation",
            fix="Loosen the step that drops too much, or check the rows from ingest.",
        )


def _check_two_classes(table: pa.Table, fields: Fields, account: Account) -> None:
    """Raise DataError if all rows have the same label."""
    classes = set(labels_of(table, fields))
    if fields.label and len(classes) == 1:
        raise DataError(
            f"only one class: all {table.num_rows} rows have the label {next(iter(classes))!r}"
            + (f"; dropped rows:\n{account.describe_drops()}" if account.describe_drops() else ""),
            where=f"curation, column {fields.label}",
            fix="At least two classes are needed. Check ingest.columns.label, and the step that dropped the others.",
        )


def _check_class_sizes(table: pa.Table, fields: Fields) -> None:
    """Raise DataError if a class has a single row, which cannot be in both train and test."""
    classes = Counter(labels_of(table, fields))
    single = sorted(label for label, count in classes.items() if count == 1) if fields.label else []
    if single:
        count = "1 class has" if len(single) == 1 else f"{len(single)} classes have"
        ellipsis = ", ..." if len(single) > 5 else ""
        raise DataError(
            f"{count} only one row, which cannot be in both train and test: {', '.join(single[:5])}{ellipsis}",
            where=f"curation, column {fields.label}",
            fix="Add rows, or drop such classes: a step {kind: balance, min_rows: 2} in curation.steps.",
        )


def _check_splits(tables: dict[str, pa.Table], fields: Fields, account: Account) -> None:
    """Raise DataError if nothing is left to train or test on."""
    for split in (TRAIN, TEST):
        if not tables[split].num_rows:
            sizes = ", ".join(f"{name} {split_table.num_rows}" for name, split_table in tables.items())
            raise DataError(
                f"no rows are left for {split} (rows: {sizes})"
                + (f"\n{account.describe_drops()}" if account.describe_drops() else ""),
                where="curation",
                fix="Add rows, or loosen the steps and curation.split.near_duplicate.",
            )
    _check_two_classes(tables[TRAIN], fields, account)


def _count_flaws(table: pa.Table) -> int:
    return sum(map(bool, texts_of(table, FLAW))) if FLAW in table.column_names else 0


def _count_classes(part: pa.Table, fields: Fields) -> dict[str, int]:
    return dict(sorted(Counter(labels_of(part, fields)).items())) if fields.label else {}
