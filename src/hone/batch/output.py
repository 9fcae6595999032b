"""The output: a Parquet file, or a directory of part files, that is there whole or not at all.

OUT.parquet      one file; its account is in its metadata, under `hone`, and beside it in OUT.parquet.json
DIRECTORY/       part-00000.parquet ... one for each shard, _manifest.json (the account), _SUCCESS, written last
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.batch import rows as given_rows
from hone.batch.answers import ANSWERS, arrow_type
from hone.batch.request import Batch
from hone.batch.rows import REASON, Shard, written
from hone.environment import Home
from hone.errors import ConfigError, DataError, StoreError
from hone.progress import Progress, emit
from hone.store.artifact import Artifact
from hone.store.digests import digest_of, file_digest

if TYPE_CHECKING:
    import pyarrow as pa

Account = dict[str, Any]
SUCCESS, MANIFEST, METADATA = "_SUCCESS", "_manifest.json", b"hone"


def finished(batch: Batch, home: Home) -> Account:
    """The account of the output that is there already for this very batch, {} where it is to be made.

    Raises ConfigError where something else lies there that no batch prediction wrote.
    """
    out = Path(batch.request.output).absolute()
    _check_place(out)
    account = account_of(out)
    if account.get("key") != batch.key:
        return {}
    _drop_rows(batch, home)
    return account


def account_of(out: Path) -> Account:
    """The account of a finished output; {} where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    told: Account = {}
    if (out / SUCCESS).is_file() and (out / MANIFEST).is_file():
        told = json.loads((out / MANIFEST).read_text("utf8"))
    if out.is_file():
        with suppress(pa.ArrowException):
            told = json.loads((pq.read_schema(out).metadata or {}).get(METADATA, b"{}"))
    return told


def commit(batch: Batch, rows: Artifact, answers: Sequence[Artifact], home: Home) -> Account:
    """Write the output and give its account; one of two that write it at once waits for the other and takes its work.

    The copy of the input's rows is removed. Raises DataError where no row has a prediction, StoreError where the
    rows and the answers are not as many.
    """
    out = Path(batch.request.output).absolute()
    shards = given_rows.shards(rows)
    emit("write", "started", [])
    with home.store.lock("batch-output", digest_of(str(out))[:20]):
        account = finished(batch, home)
        if not account:
            account = _account(batch, rows, answers, out)
            out.parent.mkdir(parents=True, exist_ok=True)
            tables = _tables(batch, shards, answers)
            if out.suffix == ".parquet":
                _write_file(out, tables, account, _schema(batch, shards))
            else:
                account = _write_directory(out, tables, account)
            _drop_rows(batch, home)
    emit("write", "done")
    return account


def _account(batch: Batch, rows: Artifact, answers: Sequence[Artifact], out: Path) -> Account:
    facts, manifests = rows.facts(), [each.manifest() for each in answers]
    unanswered = sum(manifest["facts"]["unanswered"] for manifest in manifests)
    if rows.rows and unanswered == rows.rows:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in facts["reasons"].items())
        raise DataError(
            f"none of {rows.rows} rows has a prediction: {reasons or 'the model refuses them all'}",
            where=batch.request.source.kind,
            fix="Check that the columns hold what the model takes.",
        )
    seconds = sum(manifest["seconds"] for manifest in manifests)
    return {
        "key": batch.key,
        "model": batch.name,
        "version": batch.version,
        "files_sha256": batch.proof,
        "source": batch.source_options() | {"digest": batch.data},
        "output": out.as_uri(),
        "rows": rows.rows,
        "unanswered": unanswered,
        "reasons": dict(_reasons(answers)),
        "shards": len(answers),
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows.rows / seconds, 1) if seconds else 0.0,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _reasons(answers: Sequence[Artifact]) -> Counter[str]:
    """How many rows have no prediction, by reason without its details, the most frequent first."""
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    for each in answers:
        if each.facts()["unanswered"]:
            told = pq.read_table(each.path / ANSWERS, columns=[f"_{REASON}"])[0].drop_null().to_pylist()
            found.update(reason.partition(":")[0] for reason in told)
    return Counter(dict(found.most_common(20)))


def _tables(batch: Batch, shards: Sequence[Shard], answers: Sequence[Artifact]) -> Iterator[pa.Table]:
    """Each shard's rows with their answers, all of one schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(batch, shards)
    for shard, said in zip(shards, answers, strict=True):
        given, told = pq.read_table(shard.given), pq.read_table(said.path / ANSWERS)
        if not given.num_rows == told.num_rows == shard.rows:
            raise StoreError(
                f"shard {shard.number} has {shard.rows} rows, {given.num_rows} were kept and {told.num_rows} answered",
                where=str(said.path),
                fix="Delete this directory and run again.",
            )
        version = pa.array([batch.version] * shard.rows, pa.string())
        added = [*told.drop_columns([f"_{REASON}"]).columns, version, told[f"_{REASON}"]]
        names = [name for name in schema.names if name not in batch.added]
        kept = [_as(given, name, schema.field(name).type) for name in names]
        yield pa.table([*kept, *added], schema=schema)
        emit("write", "progress", Progress(shard.first + shard.rows, shard.total))


def _schema(batch: Batch, shards: Sequence[Shard]) -> pa.Schema:
    """The input's columns in types that all shards' values have, and the added ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, list[pa.DataType]] = {}
    for shard in shards:
        for field in pq.read_schema(shard.given):
            types.setdefault(field.name, []).append(field.type)
    fields = [(name, _one_type(found)) for name, found in types.items()]
    return pa.schema([*fields, *((name, arrow_type(kind)) for name, kind in batch.added.items())])


def _one_type(types: Sequence[pa.DataType]) -> pa.DataType:
    """The type that holds the values of all: text where no other does."""
    import pyarrow as pa

    fields = [pa.schema([("", kind)]) for kind in dict.fromkeys(types)]
    try:
        found = pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()
    return pa.string() if pa.types.is_null(found) else found


def _as(given: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """A column in the type that all shards have; nulls where this one does not have it."""
    import pyarrow as pa

    if name not in given.column_names:
        return pa.nulls(given.num_rows, kind)
    column = given[name]
    if column.type == kind:
        return column
    if pa.types.is_string(kind) and not pa.types.is_null(column.type):
        return pa.array([written(value) for value in column.to_pylist()], pa.string())
    return column.cast(kind)


def _write_file(out: Path, tables: Iterator[pa.Table], account: Account, schema: pa.Schema) -> None:
    import pyarrow.parquet as pq

    for left in out.parent.glob(f".{out.name}.*.partial"):  # by a run that was killed
        left.unlink()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    text = json.dumps(account, ensure_ascii=False)
    try:
        with partial.open("wb") as file:
            with pq.ParquetWriter(file, schema.with_metadata({METADATA: text.encode()}), compression="zstd") as parquet:
                for table in tables:
                    parquet.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    out.with_name(f"{out.name}.json").write_text(json.dumps(account, indent=1, ensure_ascii=False), "utf8")


def _write_directory(out: Path, tables: Iterator[pa.Table], account: Account) -> Account:
    import pyarrow.parquet as pq

    partial, former = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.former")
    for left in (partial, former):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    files = []
    for number, table in enumerate(tables):
        part = partial / f"part-{number:05}.parquet"
        pq.write_table(table, part, compression="zstd")
        files.append({"name": part.name, "rows": table.num_rows, "sha256": file_digest(part)})
    account = account | {"files": files}
    (partial / MANIFEST).write_text(json.dumps(account, indent=1, ensure_ascii=False), "utf8")
    (partial / SUCCESS).touch()
    if out.exists():
        out.rename(former)
    partial.rename(out)
    shutil.rmtree(former, ignore_errors=True)
    return account


def _check_place(out: Path) -> None:
    """Raise ConfigError where what lies at `out` was not written by a batch prediction."""
    if not out.exists() or account_of(out) or (out.is_dir() and not any(out.iterdir())):
        return
    raise ConfigError(
        "something else lies there, which is not overwritten",
        where=f"output {out}",
        fix="Name another place, or remove it.",
    )


def _drop_rows(batch: Batch, home: Home) -> None:
    """Remove the copy of the input's rows: the output has them all."""
    shutil.rmtree(home.store.directory(given_rows.STAGE, given_rows.recipe(batch).key), ignore_errors=True)
