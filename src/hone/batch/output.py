"""The output: one file, or a directory of part files, committed atomically.

OUT.parquet      one file; its account is in its metadata, under `hone`, and in OUT.parquet.json
OUT.csv          one file, or OUT.jsonl; its account, which has the file's SHA-256, is in OUT.csv.json
DIRECTORY/       part-00000.parquet ... one for each shard, _manifest.json (the account), _SUCCESS, written last
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.batch import rows as source_rows
from hone.batch.answers import ANSWERS, arrow_type
from hone.batch.request import Batch
from hone.batch.rows import REASON, Shard
from hone.batch.writers import WRITERS
from hone.environment import Home
from hone.errors import ConfigError, DataError, StoreError
from hone.progress import Progress, emit
from hone.sources.ingest import value_as_text
from hone.store.artifact import Artifact, check_stored
from hone.store.digests import digest_of, file_digest
from hone.store.files import replace_file

if TYPE_CHECKING:
    import pyarrow as pa

Account = dict[str, Any]
SUCCESS, MANIFEST, METADATA = "_SUCCESS", "_manifest.json", b"hone"


def find_finished(batch: Batch, home: Home) -> Account:
    """The account of the output if this batch has already written it, else {}.

    Raises ConfigError if something exists at the path that no batch prediction wrote.
    """
    out = Path(batch.request.output).absolute()
    account = read_account(out)
    _check_writable(out, batch.request.file_suffix, account)
    if account.get("key") != batch.key:
        return {}
    _drop_rows(batch, home)
    return account


def read_account(out: Path) -> Account:
    """The account of a finished output; {} if there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    account: Account = {}
    if (out / SUCCESS).is_file() and (out / MANIFEST).is_file():
        with suppress(ValueError):  # damaged
            account = json.loads((out / MANIFEST).read_text("utf8"))
    if out.is_file() and _sidecar(out).is_file() and out.suffix.lower() != ".parquet":
        with suppress(ValueError):  # another program's file
            account = json.loads(_sidecar(out).read_text("utf8"))
        if not _is_account_of(account, out):
            return {}
    elif out.is_file():
        with suppress(pa.ArrowException, ValueError):
            account = json.loads((pq.read_schema(out).metadata or {}).get(METADATA, b"{}"))
        if account:  # the account inside the file cannot contain the file's own digest
            account["files"] = _list_file(out.name, account["rows"], out)
    return account


def _is_account_of(account: object, out: Path) -> bool:
    """Whether the account, which may be any JSON, names this file's content."""
    files = account.get("files") if isinstance(account, dict) else None
    match files:
        case [{"sha256": digest}]:
            return bool(digest == file_digest(out))
    return False


def commit_output(batch: Batch, rows: Artifact, answers: Sequence[Artifact], home: Home) -> Account:
    """Write the output and return its account; of two concurrent writers the second returns the first one's.

    The copy of the input's rows is removed. Raises DataError if no row has a prediction, StoreError if rows or answers
    are damaged, or if their numbers differ.
    """
    out = Path(batch.request.output).absolute()
    shards = source_rows.list_shards(rows)
    emit("write", "started", [])
    with home.store.lock("batch-output", digest_of(str(out))[:20]):
        account = find_finished(batch, home)
        if not account:
            for file in (*(shard.rows_file for shard in shards), *(answered.path / ANSWERS for answered in answers)):
                check_stored(file)
            account = _build_account(batch, rows, answers, out)
            out.parent.mkdir(parents=True, exist_ok=True)
            tables = _join_answers(batch, shards, answers)
            if batch.request.file_suffix:
                account = _write_file(out, batch.request.file_suffix, tables, account, _build_schema(batch, shards))
            else:
                account = _write_directory(out, tables, account)
            _drop_rows(batch, home)
    emit("write", "done")
    return account


def _build_account(batch: Batch, rows: Artifact, answers: Sequence[Artifact], out: Path) -> Account:
    facts, manifests = rows.facts(), [shard_answers.manifest() for shard_answers in answers]
    unanswered = sum(manifest["facts"]["unanswered"] for manifest in manifests)
    if rows.rows and unanswered == rows.rows:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in facts["reasons"].items())
        raise DataError(
            f"none of {rows.rows} rows has a prediction: {reasons or 'the model refuses all of them'}",
            where=batch.request.source.kind,
            fix="Check that the columns contain the model's inputs.",
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
        "reasons": dict(_count_reasons(answers)),
        "shards": len(answers),
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows.rows / seconds, 1) if seconds else 0.0,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _count_reasons(answers: Sequence[Artifact]) -> Counter[str]:
    """The number of rows without a prediction by reason (without details), the 20 most frequent first."""
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    for shard_answers in answers:
        if shard_answers.facts()["unanswered"]:
            reasons = pq.read_table(shard_answers.path / ANSWERS, columns=[f"_{REASON}"])[0].drop_null().to_pylist()
            counts.update(reason.partition(":")[0] for reason in reasons)
    return Counter(dict(counts.most_common(20)))


def _join_answers(batch: Batch, shards: Sequence[Shard], answers: Sequence[Artifact]) -> Iterator[pa.Table]:
    """Each shard's rows with their answers, all with the same schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _build_schema(batch, shards)
    for shard, shard_answers in zip(shards, answers, strict=True):
        rows, answer_table = pq.read_table(shard.rows_file), pq.read_table(shard_answers.path / ANSWERS)
        if not rows.num_rows == answer_table.num_rows == shard.rows:
            raise StoreError(
                f"shard {shard.number} has {shard.rows} rows, but {rows.num_rows} are stored and"
                f" {answer_table.num_rows} answered",
                where=str(shard_answers.path),
                fix="Delete this directory and run again.",
            )
        version = pa.array([batch.version] * shard.rows, pa.string())
        added = [*answer_table.drop_columns([f"_{REASON}"]).columns, version, answer_table[f"_{REASON}"]]
        names = [name for name in schema.names if name not in batch.added]
        row_columns = [_cast_column(rows, name, schema.field(name).type) for name in names]
        yield pa.table([*row_columns, *added], schema=schema)
        emit("write", "progress", Progress(shard.first + shard.rows, shard.total))


def _build_schema(batch: Batch, shards: Sequence[Shard]) -> pa.Schema:
    """The output's schema: the input's columns, with types that hold the values of all shards, and the added ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[str, list[pa.DataType]] = {}
    for shard in shards:
        for field in pq.read_schema(shard.rows_file):
            types.setdefault(field.name, []).append(field.type)
    fields = [(name, _unify_types(column_types)) for name, column_types in types.items()]
    return pa.schema([*fields, *((name, arrow_type(kind)) for name, kind in batch.added.items())])


def _unify_types(types: Sequence[pa.DataType]) -> pa.DataType:
    """A type that can hold values of all `types`; string if there is no other."""
    import pyarrow as pa

    fields = [pa.schema([("", kind)]) for kind in dict.fromkeys(types)]
    try:
        unified = pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string()
    return pa.string() if pa.types.is_null(unified) else unified


def _cast_column(rows: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """The column `name` cast to the type `kind` of all shards; nulls if this shard does not have it."""
    import pyarrow as pa

    if name not in rows.column_names:
        return pa.nulls(rows.num_rows, kind)
    column = rows[name]
    if column.type == kind:
        return column
    if pa.types.is_string(kind) and not pa.types.is_null(column.type):
        return pa.array([value_as_text(value) for value in column.to_pylist()], pa.string())
    return column.cast(kind)


def _write_file(out: Path, suffix: str, tables: Iterator[pa.Table], account: Account, schema: pa.Schema) -> Account:
    for leftover in out.parent.glob(f".{out.name}.*.partial"):  # of a run that was killed
        leftover.unlink()
    text = json.dumps(account, ensure_ascii=False)
    with replace_file(out) as work:
        WRITERS[suffix](work, tables, schema.with_metadata({METADATA: text.encode()}))
        account = account | {"files": _list_file(out.name, account["rows"], work)}
        with replace_file(_sidecar(out)) as account_file:
            account_file.write_text(json.dumps(account, indent=1, ensure_ascii=False), "utf8")
            out.unlink(missing_ok=True)  # with the new account it would be taken for another program's file
    return account


def _sidecar(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def _list_file(name: str, rows: int, file: Path) -> list[dict[str, Any]]:
    """The entry `files` of the account of an output in one file."""
    return [{"name": name, "rows": rows, "sha256": file_digest(file)}]


def _write_directory(out: Path, tables: Iterator[pa.Table], account: Account) -> Account:
    import pyarrow.parquet as pq

    partial, former = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.former")
    for leftover in (partial, former):
        shutil.rmtree(leftover, ignore_errors=True)
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


def _check_writable(out: Path, file_suffix: str, account: Account) -> None:
    """Raise ConfigError if `out` exists and has no account, or is a directory but should be a file."""
    if file_suffix and out.is_dir():
        hint = "Choose another path, or end it with a slash for a directory of part files."
        raise ConfigError("is a directory", where=f"output {out}", fix=hint)
    if not out.exists() or account or (out.is_dir() and not any(out.iterdir())):
        return
    raise ConfigError(
        "exists and was not written by a batch prediction; it is not overwritten",
        where=f"output {out}",
        fix="Choose another path, or remove what is there.",
    )


def _drop_rows(batch: Batch, home: Home) -> None:
    """Remove the copy of the input's rows: the output has them all."""
    shutil.rmtree(home.store.directory(source_rows.STAGE, source_rows.rows_recipe(batch).key), ignore_errors=True)
