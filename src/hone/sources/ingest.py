"""The ingest stage: from a source's raw rows to rows.parquet; every input row is accounted for."""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from hone.errors import ConfigError, DataError, SkippedRow
from hone.parts.moments import parse_time
from hone.progress import OnProgress, Progress, ignore
from hone.sources.formats.likeness import guess_objective
from hone.sources.renaming import has_column, rename_columns
from hone.sources.source import RawRow, Source, Unreadable, printable
from hone.sources.splits import read_splits
from hone.splits import get_split
from hone.store import layout
from hone.store.artifact import Product

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Shape = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Finish = Callable[[], Mapping[str, int]]


OWN_COLUMNS = ("id", "source", "split")  # columns that ingest adds
_GROUP_ROWS, _GROUP_CHARACTERS = 10_000, 1 << 25


@dataclass
class _Account:
    """Counts of the rows read so far.

    `later`: rows after `until`; `skipped`: rows that are not meant to be used, by reason; `notes`: what the objective
    counted in the others; `renamed_columns`: the objective's columns that some row has under its source's name;
    `forms`: columns of other forms; `source_columns`: columns of the source's rows; `shaped_columns`: columns of shaped
    rows; `example`: the first row; `first_refused`: up to five lines for the error message; `splits`: by the split that
    rows came with, how many are used, refused and skipped."""

    objective: str
    forms: tuple[str, ...] = ()
    read: int = 0
    refused: int = 0
    later: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Mapping[str, int] = field(default_factory=dict)
    renamed_columns: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    source_columns: dict[str, None] = field(default_factory=dict)
    shaped_columns: set[str] = field(default_factory=set)
    example: Mapping[str, Any] = field(default_factory=dict)
    first_refused: list[str] = field(default_factory=list)
    refused_sources: Counter[str] = field(default_factory=Counter)
    splits: dict[str, Counter[str]] = field(default_factory=dict)
    source: str = ""

    def facts(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "rows": self.read - self.refused,
            "refused": self.refused,
            **({"later": self.later} if self.later else {}),
            **({"skipped": dict(self.skipped)} if self.skipped else {}),
            **({"notes": dict(self.notes)} if self.notes else {}),
            "reasons": dict(self.reasons.most_common()),
            "sources": dict(self.sources),
            **({"splits": {split: dict(counts) for split, counts in self.splits.items()}} if self.splits else {}),
        }

    def count_in_split(self, row: RawRow, outcome: Literal["rows", "refused", "skipped"]) -> None:
        """Count what became of a row in its split, where that is known."""
        if row.split:
            self.splits.setdefault(get_split(row.split) or row.split, Counter())[outcome] += 1


def ingest(
    source: Source,
    out: Path,
    *,
    columns: Sequence[str],
    rename: Mapping[str, str],
    keep: Sequence[str],
    max_refused: float,
    forms: Sequence[str] = (),
    shape: Shape = dict,
    finish: Finish = dict,
    objective: str = "",
    time: str = "",
    until: datetime | None = None,
    split_column: str = "",
    on_progress: OnProgress = ignore,
) -> Product:
    """Write the usable rows of `source` to out/rows.parquet and the refused ones to out/refused.parquet.

    `columns` must have a value in each row; `rename` maps them to the source's names where these differ; `keep` names
    additional columns, which may be null. All values are written as strings, nested ones as JSON text. `shape` takes a
    row with renamed columns and returns columns to add or replace, or raises ValueError to refuse the row, SkippedRow
    to leave it out; it may read the columns `forms`, which `rename` may map too. `finish` is called after the last row:
    it returns notes, counts by kind, or raises DataError if the rows cannot be right together. Errors mention when rows
    look like data of an objective other than `objective`. With `until`, rows with a later time in the source's column
    `time` are left out, and rows without a time are refused. `split_column` names the source's column with each row's
    split (`read_splits`). Facts: read, rows, refused (read = rows + refused), reasons, sources; if there are any, later
    (rows), skipped (rows by reason, which are in refused.parquet too), notes, splits (of each that rows came with, the
    numbers of rows, refused and skipped ones). Raises DataError if a column is in no
    row, or if more than `max_refused` (a share) of the rows are refused; ConfigError for a wrong `rename` or `keep`.
    """
    required, extra = _resolve_columns(columns, forms, rename, keep)
    account = _Account(objective, tuple(forms))
    with (
        _Writer(out / layout.ROWS, (*OWN_COLUMNS, *required, *extra)) as rows,
        _Writer(out / layout.REFUSED, ("where", "source", "reason", "raw")) as refused,
    ):
        for source_row in read_splits(source.rows(), split_column):
            if until and not source_row.refused:
                source_row, late = _check_time(source_row, time, until)
                account.later += late
                if late:
                    continue
            try:
                shaped_row = _shape_row(source_row, shape, rename)
            except SkippedRow as skipped:
                account.skipped[str(skipped)] += 1
                account.count_in_split(source_row, "skipped")
                refused.write((source_row.where, source_row.source, str(skipped), _raw_text(source_row.values)))
                continue
            values, reason = _convert(shaped_row, required, extra)
            _count(account, source_row, shaped_row, reason, rename)
            if reason:
                refused.write((shaped_row.where, shaped_row.source, reason, _raw_text(source_row.values)))
            else:
                rows.write((shaped_row.where, shaped_row.source, shaped_row.split, *values))
            if account.read % _GROUP_ROWS == 0:
                on_progress(Progress(account.read, 0))
    _check_account(account, required, extra, rename, max_refused)
    account.notes = finish()
    on_progress(Progress(account.read, account.read))
    return Product(account.read - account.refused, (layout.ROWS,), account.facts())


def _check_time(raw: RawRow, time: str, until: datetime) -> tuple[RawRow, bool]:
    """The row, refused if its time is invalid, and whether its time is after `until`."""
    try:
        return raw, parse_time(raw.values.get(time)) > until
    except ValueError as fault:
        return replace(raw, refused=f"{time} has no valid time: {fault}"), False


def text_of(value: Any) -> str | None:
    """Convert a value to text: strings unchanged, None and nan to None, dates to ISO 8601, other values to JSON.

    Raises ValueError for what cannot be text: bytes that are not UTF-8, half of a surrogate pair.
    """
    if isinstance(value, str):
        value.encode()
        return value
    if isinstance(value, Unreadable):
        raise ValueError(value.reason)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bool, int, float, list, tuple, dict)):
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except RecursionError:
            raise ValueError("lists or objects are nested too deeply") from None
        text.encode()
        return text
    return str(value)


def value_as_text(value: Any) -> str | None:
    """Any value as text; `repr` if it has no text form."""
    try:
        return text_of(value)
    except ValueError:
        return repr(value)


def _resolve_columns(
    columns: Sequence[str], forms: Sequence[str], rename: Mapping[str, str], keep: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Maps from column names to the source's names: of the required columns, and of those to keep."""
    for name in rename.keys() - {*columns, *forms}:
        others = f" Rows in another form may have {', '.join(forms)}." if forms else ""
        raise ConfigError(
            f"the objective has no column {name}",
            where="ingest.columns",
            fix=f"Its columns are {', '.join(columns)}.{others} Write OBJECTIVE_COLUMN: SOURCE_COLUMN.",
        )
    _check_each_column_once([*columns, *(name for name in forms if name in rename and name not in columns)], rename)
    taken_names = [*OWN_COLUMNS, *columns]
    for name in keep:
        if name in taken_names or keep.count(name) > 1:
            raise ConfigError(
                f"duplicate column {name}: rows already have {', '.join(taken_names)}",
                where="ingest.keep",
                fix="Remove it.",
            )
    return {name: rename.get(name, name) for name in columns}, {name: name for name in keep}


def _check_each_column_once(columns: Sequence[str], rename: Mapping[str, str]) -> None:
    """Raise ConfigError if two of the objective's columns would be read from one of the source's."""
    ours_by_theirs: dict[str, str] = {}
    for ours in columns:
        theirs = rename.get(ours, ours)
        if theirs in ours_by_theirs:
            raise ConfigError(
                f"{ours_by_theirs[theirs]} and {ours} would both be read from the source's column {theirs!r}",
                where="ingest.columns",
                fix="Give each its own column. If the file has only one, check ingest.source.delimiter.",
            )
        ours_by_theirs[theirs] = ours


def _shape_row(raw: RawRow, shape: Shape, rename: Mapping[str, str]) -> RawRow:
    """The row with the objective's columns, or refused with the reason why it does not have them."""
    if raw.refused:
        return raw
    renamed = rename_columns(raw.values, rename)
    try:
        return replace(raw, values={**renamed, **shape(renamed)})
    except SkippedRow:
        raise
    except ValueError as fault:
        return replace(raw, values=renamed, refused=printable(str(fault)))
    except RecursionError:
        return replace(raw, values=renamed, refused="lists or objects are nested too deeply")


def _convert(raw: RawRow, required: Mapping[str, str], extra: Mapping[str, str]) -> tuple[list[str | None], str]:
    """The values to write, and '' or the reason to refuse the row, in terms of the source's column names."""
    if raw.refused:
        return [], raw.refused
    values: list[str | None] = []
    for ours, theirs in (*required.items(), *extra.items()):
        try:
            values.append(text_of(raw.values.get(ours)))
        except ValueError as fault:
            return [], f"{theirs} is not text: {fault}"
    for (ours, theirs), value in zip(required.items(), values, strict=False):
        if value is None:
            return [], f"{theirs} is null" if ours in raw.values else f"there is no {theirs}"
    return values, ""


def _count(account: _Account, source_row: RawRow, shaped_row: RawRow, reason: str, rename: Mapping[str, str]) -> None:
    """Count `source_row`, which was shaped to `shaped_row` and is refused for `reason`, if any."""
    account.renamed_columns.update(
        ours for ours in rename.keys() - account.renamed_columns if has_column(source_row.values, rename[ours])
    )
    account.read += 1
    account.source = account.source or shaped_row.source
    if not source_row.refused:
        account.example = account.example or shaped_row.values
    if not shaped_row.refused:
        account.source_columns.update(dict.fromkeys(source_row.values))
        account.shaped_columns.update(shaped_row.values)
    account.count_in_split(source_row, "refused" if reason else "rows")
    if not reason:
        account.sources[shaped_row.source] += 1
        return
    account.refused += 1
    account.reasons[reason.partition(":")[0]] += 1
    account.refused_sources[shaped_row.source] += 1
    if len(account.first_refused) < 5:
        account.first_refused.append(f"  {shaped_row.where}  {reason}  {_raw_text(source_row.values)[:120]}")


def _check_account(
    account: _Account,
    required: Mapping[str, str],
    extra: Mapping[str, str],
    rename: Mapping[str, str],
    max_refused: float,
) -> None:
    if not account.read:
        message = f"all of its {account.later} rows are later than as_of" if account.later else "the source has no rows"
        if account.skipped:
            message = f"all of its {account.skipped.total()} rows are left out: {', '.join(account.skipped)}"
        raise DataError(message, where="ingest.source", fix="Check its paths or query, and as_of.")
    _check_mapped_columns(account, rename)
    if account.source_columns:
        for ours, theirs in (*required.items(), *extra.items()):
            if ours not in account.shaped_columns:
                raise _missing_column_error(ours, theirs, account, "keep" if ours in extra else "columns")
    if account.refused > max_refused * account.read or account.refused == account.read:
        share = account.refused / account.read
        raise DataError(
            f"{account.refused} of {account.read} rows are refused ({share:.2%}; max_refused is {max_refused:.2%}):\n"
            + "\n".join(account.first_refused),
            where=_describe_sources(account.refused_sources),
            fix="Fix these rows, or raise ingest.max_refused to continue without them." + _suggest_objective(account),
        )


def _describe_sources(rows_by_source: Counter[str]) -> str:
    """The sources with the most of these rows, and how many others there are."""
    names = [name for name, _ in rows_by_source.most_common(3)]
    others = len(rows_by_source) - len(names)
    return ", ".join(names) + (f" and {others} more" if others else "")


def _check_mapped_columns(account: _Account, rename: Mapping[str, str]) -> None:
    """Raise DataError if a column is mapped to another name that no row has, even if it is optional."""
    for ours, theirs in rename.items() if account.example else ():
        if ours != theirs and ours not in account.renamed_columns:
            raise _missing_column_error(ours, theirs, account, "columns")


def _missing_column_error(ours: str, theirs: str, account: _Account, setting: str) -> DataError:
    names = account.source_columns or account.example  # the latter where all rows are refused
    close_names = difflib.get_close_matches(theirs, names, 1, cutoff=0.5)
    hint = f"Did you mean {close_names[0]!r}? " if close_names else ""
    source_columns = ", ".join(map(repr, names))
    example = (
        f"ingest.columns: {{{ours}: {close_names[0] if close_names else 'NAME'}}}"
        if setting == "columns"
        else "ingest.keep"
    )
    is_mapped = setting == "keep" or ours in account.forms or not account.forms
    other_forms = "" if is_mapped else f", or map the columns of another form: {', '.join(account.forms)}"
    return DataError(
        f"no row has a column {theirs!r}; the columns are {source_columns}",
        where=account.source,
        fix=f"{hint}Set {example} to the right column{other_forms}." + _suggest_objective(account),
    )


def _suggest_objective(account: _Account) -> str:
    """A suggestion if the rows look like data of another objective, else ''."""
    likely = guess_objective(account.example)
    if likely in ("", account.objective):
        return ""
    return f" These rows look like data for {likely}: if so, set objective.kind to {likely}."


def _raw_text(values: Mapping[str, Any]) -> str:
    try:
        return json.dumps(values, default=str)
    except RecursionError:
        return json.dumps({name: str(type(value).__name__) for name, value in values.items()})


class _Writer:
    """Writes rows of strings to a Parquet file, in row groups of 10,000 rows or about 32 million characters."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._rows: list[Sequence[str | None]] = []
        self._characters = 0

    def __enter__(self) -> _Writer:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([(name, pa.string()) for name in self._names])
        self._file = self._path.open("wb")
        self._parquet: pq.ParquetWriter = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        return self

    def write(self, row: Sequence[str | None]) -> None:
        self._rows.append(row)
        self._characters += sum(len(value) for value in row if value)
        if len(self._rows) == _GROUP_ROWS or self._characters > _GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            arrays = [pa.array(column, pa.string()) for column in zip(*self._rows, strict=True)]
            self._parquet.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows, self._characters = [], 0

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        # Closed in any case: pyarrow would write to the closed file when it frees the writer.
        with self._file, self._parquet:
            if kind is None:
                self._flush()
