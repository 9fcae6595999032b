"""The curate stage: rows through the steps, each drop with its reason, and then into train, valid and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hone.curation.account import Account, Steady
from hone.curation.columns import labels_of, splits_of, texts_of, with_texts
from hone.curation.split import SPLITS, TEST, TRAIN, VALID, contaminated, divide, known_splits
from hone.curation.step import Fields, Step, Verdict
from hone.errors import DataError
from hone.progress import OnProgress, ignore
from hone.store.artifact import Product

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 100_000  # of a Parquet file


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
    on_progress: OnProgress = ignore,
) -> Product:
    """Writes train.parquet, valid.parquet, test.parquet and rejects.parquet into `out`.

    `steps` are done in order on the rows of the file `rows`, and each row goes into one of the four files. Splits
    that came with the rows are kept and decontaminated; missing ones are taken from the training rows. The facts are
    the funnel (rows before and after each step, drops by reason, examples) and the splits' sizes and classes.
    Raises DataError where nothing is left to learn from, and says which step dropped what.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(rows, memory_map=False)
    table = with_texts(table, "split", known_splits(splits_of(table)))
    account = Account(fields, Steady(on_progress, table.num_rows, len(steps) + 1))
    for kind, step in steps:
        table = account.run(kind, table, step)
    _check_rows(table, account)
    _check_two_classes(table, fields, account)
    parts = _part(table, fields, account, valid=valid, test=test, seed=seed, threshold=near_duplicate)
    for split, part in parts.items():
        write(part, out / f"{split}.parquet")
    write(account.rejects(), out / "rejects.parquet")
    account.progress.done()
    facts = {
        "funnel": account.funnel,
        "splits": {split: part.num_rows for split, part in parts.items()},
        "classes": {split: _classes(part, fields) for split, part in parts.items()},
    }
    kept = sum(part.num_rows for part in parts.values())
    return Product(kept, tuple(f"{split}.parquet" for split in SPLITS), facts)


def write(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whose bytes depend on the rows alone."""
    import pyarrow.parquet as pq

    plain = table.combine_chunks().replace_schema_metadata(None)
    pq.write_table(plain, path, compression="zstd", row_group_size=ROWS_PER_GROUP)


def _part(
    table: pa.Table, fields: Fields, account: Account, *, valid: float, test: float, seed: int, threshold: float
) -> dict[str, pa.Table]:
    """The table of each split: those the rows came with, decontaminated, and the missing ones parted from training."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if any(splits_of(table)):
        table = account.take("decontaminate", table, _decontamination(table, fields, threshold))
    given = set(splits_of(table)) - {""}
    open_rows = [i for i, split in enumerate(splits_of(table)) if split in ("", TRAIN)]
    if not given:
        _check_large_classes(table, fields)
    if not given or not {VALID, TEST} <= given:
        part = table.take(pa.array(open_rows, pa.int64()))  # an empty list alone has no type
        divided = divide(
            fields.row_texts(part),
            fields.strata(part),
            valid=0.0 if VALID in given else valid,
            test=0.0 if TEST in given else test,
            seed=seed,
            threshold=threshold,
        )
        splits = splits_of(table)
        for row, split in zip(open_rows, divided, strict=True):
            splits[row] = split
        table = with_texts(table, "split", splits)
    parts = {split: table.filter(pc.equal(table["split"], split)) for split in SPLITS}
    _check_splits(parts, fields, account)
    return parts


def _decontamination(table: pa.Table, fields: Fields, threshold: float) -> Verdict:
    found = contaminated(fields.row_texts(table), splits_of(table), threshold)
    ids = texts_of(table, "id")
    reasons, details = [""] * table.num_rows, [""] * table.num_rows
    for row, (reason, other) in found.items():
        reasons[row], details[row] = reason, f"repeats {ids[other]}"
    return Verdict(table, reasons, details)


def _check_rows(table: pa.Table, account: Account) -> None:
    """Raises DataError where no row is left."""
    if not table.num_rows:
        raise DataError(
            f"no rows are left after curation\n{account.told()}" if account.told() else "there are no rows to curate",
            where="curation",
            fix="Loosen the step that drops too much, or check what ingest gave it.",
        )


def _check_two_classes(table: pa.Table, fields: Fields, account: Account) -> None:
    """Raises DataError where all rows have one label."""
    classes = set(labels_of(table, fields))
    if fields.label and len(classes) == 1:
        raise DataError(
            f"one class only: all {table.num_rows} rows have the label {next(iter(classes))!r}"
            + (f"; dropped before:\n{account.told()}" if account.told() else ""),
            where=f"curation, column {fields.label}",
            fix="It takes two to tell them apart. Check ingest.columns.label, and the step that dropped the others.",
        )


def _check_large_classes(table: pa.Table, fields: Fields) -> None:
    """Raises DataError where a class has one row, which cannot be learned from and tested on."""
    classes = Counter(labels_of(table, fields))
    single = sorted(label for label, count in classes.items() if count == 1) if fields.label else []
    if single:
        count = "1 class has" if len(single) == 1 else f"{len(single)} classes have"
        more = ", ..." if len(single) > 5 else ""
        raise DataError(
            f"{count} one row only, which cannot be in both train and test: {', '.join(single[:5])}{more}",
            where=f"curation, column {fields.label}",
            fix="Add rows, or drop such classes: a step {kind: balance, min_rows: 2} in curation.steps.",
        )


def _check_splits(parts: dict[str, pa.Table], fields: Fields, account: Account) -> None:
    """Raises DataError where nothing is left to train or to test on."""
    for split in (TRAIN, TEST):
        if not parts[split].num_rows:
            sizes = ", ".join(f"{name} {part.num_rows}" for name, part in parts.items())
            raise DataError(
                f"no rows are left for {split} (rows: {sizes})" + (f"\n{account.told()}" if account.told() else ""),
                where="curation",
                fix="Add rows, or loosen the steps and curation.split.near_duplicate.",
            )
    _check_two_classes(parts[TRAIN], fields, account)


def _classes(part: pa.Table, fields: Fields) -> dict[str, int]:
    return dict(sorted(Counter(labels_of(part, fields)).items())) if fields.label else {}
