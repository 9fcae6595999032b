"""The source's rows in shards: what the output will have of them, and what the model is asked."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.batch.request import Batch, source_of
from hone.environment import Home
from hone.errors import ConfigError, DataError
from hone.progress import Progress, emit
from hone.sources.ingest import text_of
from hone.sources.source import RawRow
from hone.store.artifact import Artifact, Product
from hone.store.digests import digest_of
from hone.store.recipe import Recipe, code_digests, versions

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "batch-rows"
REASON = "reason"


@dataclass(frozen=True)
class Shard:
    """Rows that are predicted together: `rows` of them from row `first` of `total` on, in the files `number`.

    `digest` is over what the model is asked of them.
    """

    folder: str
    number: int
    first: int
    rows: int
    total: int
    digest: str

    @property
    def given(self) -> Path:
        """The rows as the source has them."""
        return Path(self.folder) / f"{self.number:05}.parquet"

    @property
    def asked(self) -> Path:
        """What the model is asked: its inputs, all text, and `reason`, null or why the row cannot be answered."""
        return Path(self.folder) / f"{self.number:05}.asked.parquet"


def recipe(batch: Batch) -> Recipe:
    """What decides the shards. The output is named: who has written it may remove them."""
    asked = batch.request
    config = {"source": batch.source_options(), "columns": batch.renamed, "added": list(batch.added)}
    config |= asked.model_dump(include={"shard_rows", "unanswered"}) | {"output": str(Path(asked.output).absolute())}
    inputs = {"data": batch.data}
    return Recipe(STAGE, config, inputs, code_digests(["hone.batch.rows"]), versions(["pyarrow"]))


def read(batch: Batch, home: Home) -> Artifact:
    """Every row of the source in shards, from the store where they are there.

    Raises DataError where a column that the model takes is in no row, and, with `unanswered: stop`, at the first row
    that cannot be answered; ConfigError where the input has a column that the output adds; and as the source does.
    """
    emit("read", "started", [])
    artifact, hit = home.store.obtain(recipe(batch), lambda out: _read(batch, out), name=batch.name)
    emit("read", "hit" if hit else "done", artifact)
    return artifact


def shards(rows: Artifact) -> list[Shard]:
    """The shards, in the order of the rows."""
    found, first = [], 0
    for number, (count, digest) in enumerate(rows.facts()["shards"]):
        found.append(Shard(rows.uri, number, first, count, rows.rows, digest))
        first += count
    return found


@dataclass
class _Account:
    """What has been read: `columns` are those of sound rows, in the order they came."""

    rows: int = 0
    shards: list[tuple[int, str]] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


def _read(batch: Batch, out: Path) -> Product:
    account = _Account()
    found = iter(source_of(batch.request).rows())
    while chunk := list(islice(found, batch.request.shard_rows)):
        asked = [_asked(raw, batch.renamed) for raw in chunk]
        for raw, (_, reason) in zip(chunk, asked, strict=True):
            _count(account, raw, reason, stop=batch.request.unanswered == "stop")
        _check_columns(account, batch)
        shard = Shard(str(out), len(account.shards), 0, len(chunk), 0, digest_of([texts for texts, _ in asked]))
        _write(_given(chunk, list(account.columns)), shard.given)
        _write(_as_table(asked, batch.inputs), shard.asked)
        account.shards.append((len(chunk), shard.digest))
        emit("read", "progress", Progress(account.rows, 0))
    if account.rows and not account.columns:
        raise DataError(
            f"all {account.rows} rows are refused: {', '.join(account.reasons)}",
            where=batch.request.source.kind,
            fix="Mend the input, or say what it is (format, delimiter, encoding).",
        )
    if not account.rows:
        account.columns |= dict.fromkeys(batch.renamed.values())
    _check_there(account, batch)
    facts = {"columns": list(account.columns), "shards": account.shards, "reasons": dict(account.reasons)}
    (out / "shards.json").write_text(json.dumps(account.shards), "utf8")
    return Product(account.rows, ("shards.json", "*.parquet"), facts | {"unanswered": account.reasons.total()})


def _asked(raw: RawRow, renamed: Mapping[str, str]) -> tuple[list[str | None], str]:
    """What the model is asked of a row, and '' or why it cannot be."""
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
            fix="Mend it, or have such rows kept without a prediction: unanswered: keep.",
        )
    if reason:
        account.reasons[reason.partition(":")[0]] += 1


def _check_columns(account: _Account, batch: Batch) -> None:
    twice = [name for name in batch.added if name in account.columns]
    if twice:
        raise ConfigError(
            f"the input has a column {twice[0]}, which the output adds",
            where=batch.request.source.kind,
            fix="Set prefix (--prefix new_): it goes before the names of the added columns.",
        )


def _check_there(account: _Account, batch: Batch) -> None:
    for ours, theirs in batch.renamed.items():
        if theirs not in account.columns:
            near = difflib.get_close_matches(theirs, account.columns, 1, cutoff=0.5)
            raise DataError(
                f"there is no column {theirs!r} in any row; there are {', '.join(map(repr, account.columns))}",
                where=batch.request.source.kind,
                fix=f"Say which column is meant: columns: {{{ours}: {near[0] if near else 'NAME'}}}.",
            )


def _given(chunk: Sequence[RawRow], names: Sequence[str]) -> pa.Table:
    """The rows' values. What there was of a refused row counts where it has all the columns."""
    import pyarrow as pa

    wanted = set(names)
    values = [raw.values if not raw.refused or raw.values.keys() == wanted else {} for raw in chunk]
    columns = {name: _array([value.get(name) for value in values]) for name in names}
    return pa.table(columns) if columns else pa.table({"": pa.nulls(len(chunk))}).select([])


def _array(values: list[Any]) -> pa.Array:
    """The values in the type that Arrow finds for them; as text where they are of several."""
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=False)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([written(value) for value in values], pa.string())


def written(value: Any) -> str | None:
    """A value as text, whatever it is."""
    try:
        return text_of(value)
    except ValueError:
        return repr(value)


def _as_table(asked: Sequence[tuple[list[str | None], str]], inputs: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    texts = zip(*(texts for texts, _ in asked), strict=True)
    columns = {name: pa.array(column, pa.string()) for name, column in zip(inputs, texts, strict=True)}
    return pa.table(columns | {REASON: pa.array([reason or None for _, reason in asked], pa.string())})


def _write(table: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd")
