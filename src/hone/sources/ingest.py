"""The first stage: from a source's raw rows to rows.parquet, every row of the input accounted for."""

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
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError, DataError
from hone.parts.moments import when
from hone.progress import OnProgress, Progress, ignore
from hone.sources.formats.likeness import looks_like
from hone.sources.source import RawRow, Source
from hone.store.artifact import Product

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Shape = Callable[[Mapping[str, Any]], Mapping[str, Any]]

ROWS, REFUSED = "rows.parquet", "refused.parquet"
OWN = ("id", "source", "split")
_GROUP_ROWS, _GROUP_CHARACTERS = 10_000, 1 << 25


@dataclass
class _Account:
    """What has been read so far: `seen` are the source's columns, `had` those of rows as shaped."""

    objective: str
    read: int = 0
    refused: int = 0
    later: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    seen: dict[str, None] = field(default_factory=dict)
    had: set[str] = field(default_factory=set)
    example: Mapping[str, Any] = field(default_factory=dict)
    first: list[str] = field(default_factory=list)
    source: str = ""

    def facts(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "rows": self.read - self.refused,
            "refused": self.refused,
            **({"later": self.later} if self.later else {}),
            "reasons": dict(self.reasons.most_common()),
            "sources": dict(self.sources),
        }


def ingest(
    source: Source,
    out: Path,
    *,
    columns: Sequence[str],
    rename: Mapping[str, str],
    keep: Sequence[str],
    max_refused: float,
    shape: Shape = dict,
    objective: str = "",
    time: str = "",
    until: datetime | None = None,
    on_progress: OnProgress = ignore,
) -> Product:
    """Write the rows of `source` to out/rows.parquet and those that cannot be used to out/refused.parquet.

    `columns` must have a value in each row; `rename` gives the source's names for them where they differ; `keep`
    names further columns, which may be null. All are strings; what was nested is JSON text. `shape` gives a raw row,
    whose columns have our names, those that it has in another form, or raises ValueError, which refuses it. Where rows
    look like data of another objective than the one called `objective`, errors say so. With `until` rows are left out
    whose time, in the source's column `time`, is after it; a row without one is refused.
    Facts: read, rows, refused (read = rows + refused), later (left out, if any), reasons, sources. Raises DataError
    where a column is in no row, and where more than `max_refused` (a share) of the rows are refused; ConfigError at a
    mapping of no column.
    """
    required, kept = _wanted(columns, rename, keep)
    account = _Account(objective)
    with (
        _Writer(out / ROWS, (*OWN, *required, *kept)) as rows,
        _Writer(out / REFUSED, ("where", "source", "reason", "raw")) as refused,
    ):
        for found in source.rows():
            if until and not found.refused:
                found, late = _timed(found, time, until)
                account.later += late
                if late:
                    continue
            raw = _shaped(found, shape, rename)
            values, reason = _convert(raw, required, kept)
            _count(account, found, raw, reason)
            if reason:
                refused.write((raw.where, raw.source, reason, _raw_text(found.values)))
            else:
                rows.write((raw.where, raw.source, raw.split, *values))
            if account.read % _GROUP_ROWS == 0:
                on_progress(Progress(account.read, 0))
    _check(account, required, kept, max_refused)
    on_progress(Progress(account.read, account.read))
    return Product(account.read - account.refused, (ROWS,), account.facts())


def _timed(raw: RawRow, time: str, until: datetime) -> tuple[RawRow, bool]:
    """The row, refused where its time cannot be read, and whether it came after `until`."""
    try:
        return raw, when(raw.values.get(time)) > until
    except ValueError as fault:
        return replace(raw, refused=f"{time} says not when it came: {fault}"), False


def text_of(value: Any) -> str | None:
    """A value as text: strings as they are, None and nan as None, dates in ISO 8601, all else as JSON.

    Raises ValueError at what no text can hold: bytes that are not UTF-8, half of a surrogate pair.
    """
    if isinstance(value, str):
        value.encode()
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bool, int, float, list, tuple, dict)):
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
        return text
    return str(value)


def _wanted(
    columns: Sequence[str], rename: Mapping[str, str], keep: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Our names and the source's, of the columns that are required and of those that are kept."""
    for name in rename.keys() - set(columns):
        raise ConfigError(
            f"the objective has no column {name}",
            where="ingest.columns",
            fix=f"It has {', '.join(columns)}. On the left stands the objective's column, on the right the source's.",
        )
    taken = [*OWN, *columns]
    for name in keep:
        if name in taken or keep.count(name) > 1:
            raise ConfigError(
                f"{name} stands there already: rows have {', '.join(taken)}", where="ingest.keep", fix="Leave it out."
            )
    return {name: rename.get(name, name) for name in columns}, {name: name for name in keep}


def _shaped(raw: RawRow, shape: Shape, rename: Mapping[str, str]) -> RawRow:
    """The row with the objective's columns under its names, or refused for what keeps it from having them."""
    if raw.refused:
        return raw
    named = {name: value for name, value in raw.values.items() if name not in rename}
    named |= {ours: raw.values[theirs] for ours, theirs in rename.items() if theirs in raw.values}
    try:
        return replace(raw, values={**named, **shape(named)})
    except ValueError as fault:
        return replace(raw, values=named, refused=str(fault))


def _convert(raw: RawRow, required: Mapping[str, str], kept: Mapping[str, str]) -> tuple[list[str | None], str]:
    """The values to write, and '' or why the row is refused, in the source's names."""
    if raw.refused:
        return [], raw.refused
    values: list[str | None] = []
    for ours, theirs in (*required.items(), *kept.items()):
        try:
            values.append(text_of(raw.values.get(ours)))
        except ValueError as fault:
            return [], f"{theirs} is not text: {fault}"
    for (ours, theirs), value in zip(required.items(), values, strict=False):
        if value is None:
            return [], f"{theirs} is null" if ours in raw.values else f"there is no {theirs}"
    return values, ""


def _count(account: _Account, found: RawRow, raw: RawRow, reason: str) -> None:
    """Count the row `found`, which became `raw` and is refused for `reason`, if any."""
    account.read += 1
    account.source = account.source or raw.source
    if not found.refused:
        account.example = account.example or raw.values
    if not raw.refused:
        account.seen.update(dict.fromkeys(found.values))
        account.had.update(raw.values)
    if not reason:
        account.sources[raw.source] += 1
        return
    account.refused += 1
    account.reasons[reason.partition(":")[0]] += 1
    if len(account.first) < 5:
        account.first.append(f"  {raw.where}  {reason}  {_raw_text(found.values)[:120]}")


def _check(account: _Account, required: Mapping[str, str], kept: Mapping[str, str], max_refused: float) -> None:
    if not account.read:
        what = f"all of its {account.later} rows came later than as_of" if account.later else "the source has no rows"
        raise DataError(what, where="ingest.source", fix="Check its paths or its query, and as_of.")
    if account.seen:
        for ours, theirs in (*required.items(), *kept.items()):
            if ours not in account.had:
                raise _no_such_column(ours, theirs, account, "keep" if ours in kept else "columns")
    if account.refused > max_refused * account.read or account.refused == account.read:
        share = account.refused / account.read
        raise DataError(
            f"{account.refused} of {account.read} rows are refused ({share:.2%}, allowed are {max_refused:.2%}):\n"
            + "\n".join(account.first),
            where=account.source,
            fix="Mend these rows, or raise ingest.max_refused to go on without them." + _other_objective(account),
        )


def _no_such_column(ours: str, theirs: str, account: _Account, setting: str) -> DataError:
    near = difflib.get_close_matches(theirs, account.seen, 1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    there = ", ".join(map(repr, account.seen))
    example = f"ingest.columns: {{{ours}: {near[0] if near else 'NAME'}}}" if setting == "columns" else "ingest.keep"
    return DataError(
        f"there is no column {theirs!r} in any row; there are {there}",
        where=account.source,
        fix=f"{hint}Set {example} to the column that is meant." + _other_objective(account),
    )


def _other_objective(account: _Account) -> str:
    """What to do where the rows look like data of another objective; '' where they do not."""
    likely = looks_like(account.example)
    if likely in ("", account.objective):
        return ""
    return f" Or, for these rows look like data for {likely}: set objective.kind to {likely}."


def _raw_text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, default=str)


class _Writer:
    """Rows of strings into a Parquet file, in row groups of 10,000 rows or some 32 million characters."""

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
