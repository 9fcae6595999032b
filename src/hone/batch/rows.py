"""The source's rows in shards: their columns for the output, and the model's inputs."""

from __future__ import annotations

import difflib
import json
import logging
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
from hone.sources.ingest import text_of, value_as_text
from hone.sources.source import RawRow
from hone.store.artifact import Artifact, Product
from hone.store.digests import check_unchanged, digest_of
from hone.store.recipe import Recipe, code_digests, installed_versions

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

STAGE = "batch-rows"
REASON = "reason"


@dataclass(frozen=True)
class Shard:
    """Rows that are predicted together: `rows` rows from row `first` of `total`, in the files with `number`.

    `digest` is that of the model's inputs.
    """

    folder: str
    number: int
    first: int
    rows: int
    total: int
    digest: str

    @property
    def rows_file(self) -> Path:
        """The file with the rows' columns as in the source."""
        return Path(self.folder) / f"{self.number:05}.parquet"

    @property
    def inputs_file(self) -> Path:
        """The file with the model's inputs, all text, and `reason`: null, or why the row cannot be predicted."""
        return Path(self.folder) / f"{self.number:05}.asked.parquet"


def rows_recipe(batch: Batch) -> Recipe:
    """The recipe of the shards. It includes the output's path, because a written output's shards are removed."""
    request = batch.request
    config = {"source": batch.source_options(), "columns": batch.renamed, "added": list(batch.added)}
    config |= request.model_dump(include={"shard_rows", "unanswered"})
    config |= {"output": str(Path(request.output).absolute())}
    inputs = {"data": batch.data}
    return Recipe(STAGE, config, inputs, code_digests(["hone.batch.rows"]), installed_versions(["pyarrow"]))


def read_rows(batch: Batch, home: Home) -> Artifact:
    """Read every row of the source into shards, unless the store has them; damaged ones are read from it again.

    Raises DataError if an input column of the model is in no row and, with `unanswered: stop`, at the first row that
    cannot be predicted; ConfigError if the input has a column that the output adds; and the source's errors.
    """
    recipe = rows_recipe(batch)
    damage = home.store.remove_damaged(STAGE, recipe.key)
    for fault in damage:
        log.warning("the rows are read again: %s", fault)
    emit("read", "started", damage)
    artifact, hit = home.store.obtain(recipe, lambda out: _read_unchanged(batch, home, out), name=batch.name)
    emit("read", "hit" if hit else "done", artifact)
    return artifact


def list_shards(rows: Artifact) -> list[Shard]:
    """The shards in the order of the rows."""
    shards, first = [], 0
    for number, (count, digest) in enumerate(rows.facts()["shards"]):
        shards.append(Shard(rows.uri, number, first, count, rows.rows, digest))
        first += count
    return shards


@dataclass
class _Account:
    """Counts of the rows read: `columns` are those of readable rows, in order of appearance."""

    rows: int = 0
    shards: list[tuple[int, str]] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


def _read_unchanged(batch: Batch, home: Home, out: Path) -> Product:
    product = _write_shards(batch, out)
    digest = build_source(batch.request).fingerprint(home.store.memo.digest)
    check_unchanged({"data": batch.data}, {"data": digest}, batch.request.source.kind)
    return product


def _write_shards(batch: Batch, out: Path) -> Product:
    account = _Account()
    source_rows = iter(build_source(batch.request).rows())
    while chunk := list(islice(source_rows, batch.request.shard_rows)):
        inputs = [_extract_inputs(raw, batch.renamed) for raw in chunk]
        for raw, (_, reason) in zip(chunk, inputs, strict=True):
            _count_row(account, raw, reason, stop=batch.request.unanswered == "stop")
        _check_added_columns(account, batch)
        shard = Shard(str(out), len(account.shards), 0, len(chunk), 0, digest_of([texts for texts, _ in inputs]))
        _write_table(_build_rows(chunk, list(account.columns)), shard.rows_file)
        _write_table(_build_inputs(inputs, batch.inputs), shard.inputs_file)
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
    _check_input_columns(account, batch)
    facts = {"columns": list(account.columns), "shards": account.shards, "reasons": dict(account.reasons)}
    (out / "shards.json").write_text(json.dumps(account.shards), "utf8")
    return Product(account.rows, ("shards.json", "*.parquet"), facts | {"unanswered": account.reasons.total()})


def _extract_inputs(raw: RawRow, renamed: Mapping[str, str]) -> tuple[list[str | None], str]:
    """The model's inputs from a row, and '' or the reason why the row cannot be predicted."""
    no_inputs: list[str | None] = [None] * len(renamed)
    if raw.refused:
        return no_inputs, raw.refused
    texts: list[str | None] = []
    for column in renamed.values():
        try:
            text = text_of(raw.values.get(column))
        except ValueError as fault:
            return no_inputs, f"{column} is not text: {fault}"
        if text is None:
            return no_inputs, f"{column} is null" if column in raw.values else f"there is no {column}"
        if not text.strip():
            return no_inputs, f"{column} is empty"
        texts.append(text)
    return texts, ""


def _count_row(account: _Account, raw: RawRow, reason: str, *, stop: bool) -> None:
    account.rows += 1
    if not raw.refused:
        account.columns |= dict.fromkeys(raw.values)
    if reason and stop:
        raise DataError(
            f"row {account.rows} cannot be predicted: {reason}",
            where=raw.where,
            fix="Correct the row, or keep such rows without a prediction: --unanswered keep.",
        )
    if reason:
        account.reasons[reason.partition(":")[0]] += 1


def _check_added_columns(account: _Account, batch: Batch) -> None:
    duplicates = [name for name in batch.added if name in account.columns]
    if duplicates:
        raise ConfigError(
            f"the input has a column {duplicates[0]}, which the output adds",
            where=batch.request.source.kind,
            fix="Set prefix (--prefix new_): it goes before the names of the added columns.",
        )


def _check_input_columns(account: _Account, batch: Batch) -> None:
    for name, column in batch.renamed.items():
        if column not in account.columns:
            similar = difflib.get_close_matches(column, account.columns, 1, cutoff=0.5)
            hint = similar[0] if similar else "NAME"
            raise DataError(
                f"there is no column {column!r} in any row; there are {', '.join(map(repr, account.columns))}",
                where=batch.request.source.kind,
                fix=f"Name it: --columns {name}={hint}, or columns: {{{name}: {hint}}} in a deployment's form.",
            )


def _build_rows(chunk: Sequence[RawRow], names: Sequence[str]) -> pa.Table:
    """The rows as a table. A refused row keeps its values only if it has exactly these columns."""
    import pyarrow as pa

    all_columns = set(names)
    values = [raw.values if not raw.refused or raw.values.keys() == all_columns else {} for raw in chunk]
    columns = {name: _build_array([value.get(name) for value in values]) for name in names}
    return pa.table(columns) if columns else pa.table({"": pa.nulls(len(chunk))}).select([])


def _build_array(values: list[Any]) -> pa.Array:
    """The values with the type that Arrow infers; as text if they have several types."""
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=False)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return pa.array([value_as_text(value) for value in values], pa.string())


def _build_inputs(inputs_and_reasons: Sequence[tuple[list[str | None], str]], inputs: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    texts = zip(*(texts for texts, _ in inputs_and_reasons), strict=True)
    columns = {name: pa.array(column, pa.string()) for name, column in zip(inputs, texts, strict=True)}
    return pa.table(columns | {REASON: pa.array([reason or None for _, reason in inputs_and_reasons], pa.string())})


def _write_table(table: pa.Table, file: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd")
