"""The source's rows in shards: the columns for the output, and the inputs for the model."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.batch.request import Batch, build_source
from hone.environment import Home
from hone.errors import ConfigError, DataError
from hone.progress import Progress, emit
from hone.sources.ingest import text_of
from hone.sources.source import RawRow
from hone.store.artifact import Artifact, Product
from hone.store.digests import check_unchanged, digest_of
from hone.store.recipe import Recipe, code_digests, installed_versions

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "batch-rows"
REASON = "reason"


@dataclass(frozen=True)
class Shard:
    """Rows that are predicted together: `rows` of them from row `first` of `total` on, in the files `number`.

    `digest` is over the model's inputs.
    """

    folder: str
    number: int
    first: int
    rows: int
    total: int
    digest: str

    @property
    def rows_file(self) -> Path:
        """The rows as the source has them."""
        return Path(self.folder) / f"{self.number:05}.parquet"

    @property
    def inputs_file(self) -> Path:
        """The model's inputs, all text, and `reason`: null, or why the row cannot be predicted."""
        return Path(self.folder) / f"{self.number:05}.asked.parquet"


def rows_recipe(batch: Batch) -> Recipe:
    """What decides the shards. The output is part of it: once written, its shards are removed."""
    request = batch.request
    config = {"source": batch.source_options(), "columns": batch.renamed, "added": list(batch.added)}
    config |= request.model_dump(include={"shard_rows", "unanswered"})
    config |= {"output": str(Path(request.output).absolute())}
    inputs = {"data": batch.data}
    return Recipe(STAGE, config, inputs, code_digests(["hone.batch.rows"]), installed_versions(["pyarrow"]))


def read_rows(batch: Batch, home: Home) -> Artifact:
    """Every row of the source in shards, from the store if they are there.

    Raises DataError where a column that the model takes is in no row, and, with `unanswered: stop`, at the first row
    that cannot be answered; ConfigError where the input has a column that the output adds; and as the source does.
    """
    emit("read", "started", [])
    artifact, hit = home.store.obtain(
        rows_recipe(batch), lambda out: _read_unchanged(batch, home, out), name=batch.name
    )
    emit("read", "hit" if hit else "done", artifact)
    return artifact


def list_shards(rows: Artifact) -> list[Shard]:
    """The shards, in the order of the rows."""
    shards, first = [], 0
    for number, (count, digest) in enumerate(rows.facts()["shards"]):
        shards.append(Shard(rows.uri, number, first, count, rows.rows, digest))
        first += count
    return shards


@dataclass
class _Account:
    """Counts of the rows read: `columns` are those of readable rows, in the order they appeared."""

    rows: int = 0
    shards: list[tuple[int, str]] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


def _read_unchanged(batch: Batch, home: Home, out: Path) -> Product:
    product = _read(batch, out)
    digest = build_source(batch.request).fingerprint(home.store.memo.digest)
    check_unchanged({"data": batch.data}, {"data": digest}, batch.request.source.kind)
    return product


def _read(batch: Batch, out: Path) -> Product:
    account = _Account()
    source_rows = iter(build_source(batch.request).rows())
    while chunk := list(islice(source_rows, batch.request.shard_rows)):
        inputs = [_asked(raw, batch.renamed) for raw in chunk]
        for raw, (_, reason) in zip(chunk, inputs, strict=True):
            _count(account, raw, reason, stop=batch.request.unanswered == "stop")
        _check_columns(account, batch)
        shard = Shard(str(out), len(account.shards), 0, len(chunk), 0, digest_of([texts for texts, _ in inputs]))
        _write(_given(chunk, list(account.columns)), shard.rows_file)
        _write(_as_table(inputs, batch.inputs), shard.inputs_file)
        account.shards.append((len(chunk), shard.digest))
        emit("read", "progress", Progress(account.rows, 0))
    if account.rows and not account.columns:
        raise DataError(
            f"all {account.rows} rows are refused: {', '.join(account.reasons)}",
            where=batch.request.source.kind,
            fix="Correct the input, or set the source's format, delimiter or encoding.",
        )
    if not account.rows:
        account.columns |= dict.fromkeys(batch.renamed.values())
    _check_there(account, batch)
    facts = {"columns": list(account.columns), "shards": account.shards, "reasons": dict(account.reasons)}
    (out / "shards.json").write_text(json.dumps(account.shards), "utf8")
    return Product(account.rows, ("shards.json", "*.parquet"), facts | {"unanswered": account.reasons.total()})


def _asked(raw: RawRow, renamed: Mapping[str, str]) -> tuple[list[str | None], str]:
    """The model's inputs of a row, and '' or the reason why it has none."""
    nothing: list[str | None] = [None] * len(renamed)
    if raw.refused:
        return nothing, raw.refused
    texts: list[str | None] = []
    for theirs in renamed.values():
        try:
            text = text_of(raw.values.get(theirs))
        except ValueError as fault:
            return nothing, f"{theirs} is not text: {fault}"
        if text is None:
            return nothing, f"{theirs} is null" if theirs in raw.values else f"there is no {theirs}"
        if not text.strip():
            return nothing, f"{theirs} is empty"
        texts.append(text)
    return texts, ""


def _count(account: _Account, raw: RawRow, reason: str, *, stop: bool) -> None:
    account.rows += 1
    if not raw.refused:
        account.columns |= dict.fromkeys(raw.values)
    if reason and stop:
        raise DataError(
            f"row {account.rows} cannot be predicted: {reason}",
            where=raw.where,
            fix="Correct the row, or keep such rows without a prediction: unanswered: keep.",
        )
    if reason:
        account.reasons[reason.partition(":")[0]] += 1


def _check_columns(account: _Account, batch: Batch) -> None:
    duplicates = [name for name in batch.added if name in account.columns]
    if duplicates:
        raise ConfigError(
            f"the input has a column {duplicates[0]}, which the output adds",
            where=batch.request.source.kind,
            fix="Set prefix (--prefix new_): it goes before the names of the added columns.",
        )


def _check_there(account: _Account, batch: Batch) -> None:
    for ours, theirs in batch.renamed.items():
        if theirs not in account.columns:
            similar = difflib.get_close_matches(theirs, account.columns, 1, cutoff=0.5)
            raise DataError(
                f"there is no column {theirs!r} in any row; there are {', '.join(map(repr, account.columns))}",
                where=batch.request.source.kind,
                fix=f"Name the column: columns: {{{ours}: {similar[0] if similar else 'NAME'}}}.",
            )


def _given(chunk: Sequence[RawRow], names: Sequence[str]) -> pa.Table:
    """The rows' values. A refused row keeps its values if it has all columns."""
    import pyarrow as pa

    all_columns = set(names)
    values = [raw.values if not raw.refused or raw.values.keys() == all_columns else {} for raw in chunk]
    columns = {name: _array([value.get(name) for value in values]) for name in names}
    return pa.table(columns) if columns else pa.table({"": pa.nulls(len(chunk))}).select([])


def _array(values: list[Any]) -> pa.Array:
    """The values in the type that Arrow finds for them; as text where they are of several."""
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=False)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([value_as_text(value) for value in values], pa.string())


def value_as_text(value: Any) -> str | None:
    """A value as text, whatever it is."""
    try:
        return text_of(value)
    except ValueError:
        return repr(value)


def _as_table(inputs_and_reasons: Sequence[tuple[list[str | None], str]], inputs: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    texts = zip(*(texts for texts, _ in inputs_and_reasons), strict=True)
    columns = {name: pa.array(column, pa.string()) for name, column in zip(inputs, texts, strict=True)}
    return pa.table(columns | {REASON: pa.array([reason or None for _, reason in inputs_and_reasons], pa.string())})


def _write(table: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd")
