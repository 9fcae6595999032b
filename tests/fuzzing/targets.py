"""The kinds of input that are damaged, and what has to hold for each."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from hone.config.file import dump_config, load_config, parse_config
from hone.curation import STEPS
from hone.curation.curate import curate
from hone.environment import Home
from hone.errors import HoneError
from hone.sources.files import Files
from hone.sources.formats.packing import find_codec, is_archive
from hone.sources.ingest import ingest
from hone.sources.source import RawRow
from hone.store import layout
from hone.store.artifact import Product
from hone.store.recipe import Recipe
from hone.store.store import Store
from tests.annotation_exports import EXPORTS
from tests.families import CASES, Case, coloured
from tests.fuzzing.damage import damage_bytes, damage_value
from tests.reading_page import FORMS

if TYPE_CHECKING:
    from fastapi import FastAPI

CONFIGURATIONS = Path(__file__).parents[2] / "conf"


def check_readers(draw: random.Random, place: Path) -> str:
    """A file in one of the formats: each of its rows is read or refused, and none is made up."""
    path, content, options, files = draw.choice(_list_files())
    for name, text in files.items():
        (place / name).write_text(text)
    damaged_path = place / (path or draw.choice(list(files)))
    damaged_path.parent.mkdir(parents=True, exist_ok=True)
    original = content if path else damaged_path.read_bytes()
    damaged = damage_bytes(draw, original)
    damaged_path.write_bytes(damaged)
    source = Files(paths=[str(place if options.get("column_files") else damaged_path)], **options)
    rows = list(source.rows())
    assert len({row.where for row in rows}) == len(rows), "two rows have one name"
    _compare(damaged_path.suffix, damaged, options, rows)
    return "some rows refused" if any(row.refused for row in rows) else "rows read"


@cache
def _list_files() -> Sequence[tuple[str, bytes, Mapping[str, Any], Mapping[str, str]]]:
    """The files of docs/reading.md, and longer ones of the plain formats."""
    rows = [dict(row) | {"note": 'says "hi", then\nleaves'} for row in coloured(12)]
    table = io.StringIO()
    writer = csv.DictWriter(table, ["text", "label", "note"])
    writer.writeheader()
    writer.writerows(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    longer = [
        *[("rows.csv", table.getvalue().encode()), ("rows.jsonl", lines.encode())] * 4,
        ("rows.json", json.dumps(rows).encode()),
        ("rows.parquet", buffer.getvalue()),
        ("rows.txt", "\n".join(row["text"] for row in rows).encode()),
        ("rows.conll", "".join(f"{word} O\n" for row in rows for word in [*row["text"].split(), ""]).encode()),
        ("rows.csv.gz", gzip.compress(table.getvalue().encode())),
    ]
    documented = [
        (
            form.path,
            form.content if isinstance(form.content, bytes) else form.content.encode(),
            form.options,
            form.files,
        )
        for form in FORMS
        if not form.pattern
    ]
    return [(path, content, {}, {}) for path, content in longer] + documented


def _compare(suffix: str, content: bytes, options: Mapping[str, Any], rows: Sequence[RawRow]) -> None:
    """Compare the rows with what the standard library reads, where it reads the same form."""
    if find_codec(content) or is_archive(content):
        return
    text = content.decode("utf-8-sig") if suffix in (".jsonl", ".ndjson", ".csv") else ""
    if suffix in (".jsonl", ".ndjson"):
        written = [line for line in text.split("\n") if line.strip()]
        assert len(rows) == len(written), f"{len(rows)} rows of {len(written)} lines"
        for row, line in zip(rows, written, strict=True):
            assert row.refused or _is_equal(row.values, json.loads(line)), f"{line!r} was read as {row.values!r}"
    elif suffix == ".csv" and not options and not re.search(r'\r(?!\n)|\A"?sep=', text, re.IGNORECASE):
        with suppress(csv.Error):
            records = [fields for fields in csv.reader(io.StringIO(text, newline=""), strict=True) if fields]
            header, *written_rows = records or [[]]
            assert len(rows) == len(written_rows), f"{len(rows)} rows of {len(written_rows)} records"
            for row, values in zip(rows, written_rows, strict=True):
                columns = dict(zip(header[: len(row.values)], values, strict=False))  # without those at the end
                assert row.refused or row.values == columns, f"{values!r} was read as {row.values!r}"


def _is_equal(read: Any, written: Any) -> bool:
    """Whether a value was read as it was written; NaN is read as null, infinities as text."""
    if isinstance(written, dict):
        return (
            isinstance(read, dict)
            and read.keys() == written.keys()
            and all(_is_equal(read[k], written[k]) for k in read)
        )
    if isinstance(written, list):
        return isinstance(read, list) and len(read) == len(written) and all(map(_is_equal, read, written))
    if isinstance(written, float) and json.dumps(written) in ("NaN", "Infinity", "-Infinity"):
        return read in (None, "Infinity", "-Infinity") or read == written
    return bool(read == written)


@dataclass(frozen=True)
class _Given:
    """A source of rows that a test has."""

    values: Sequence[Any]

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        return ""

    def rows(self) -> Iterator[RawRow]:
        for number, values in enumerate(self.values):
            yield RawRow(f"rows:{number}", "rows", values)


def check_rows(draw: random.Random, place: Path) -> str:
    """Rows of an objective, one of them damaged: it is refused or read, and curation takes what was read."""
    objective, good, bad = _draw_rows(draw)
    damaged = None
    while not isinstance(damaged, dict):
        damaged = damage_value(draw, bad)
    (place / "rows").mkdir()
    (place / "splits").mkdir()
    reader, values = objective.start_reading(), [*good[:4], damaged, *good[4:]]
    product = ingest(
        _Given(values),
        place / "rows",
        columns=objective.columns,
        forms=objective.form_columns,
        shape=reader.read,
        finish=reader.finish,
        rename={},
        keep=[],
        max_refused=1.0,
        split_column="split",
    )
    facts, read = product.facts, pq.read_table(place / "rows" / layout.ROWS)
    skipped = sum(facts.get("skipped", {}).values())
    assert facts["read"] + skipped == len(values) and facts["rows"] + facts["refused"] == facts["read"], facts
    assert read.num_rows == facts["rows"]
    for name in ("id", *objective.columns):
        assert read.column(name).null_count == 0
    steps = [(kind, STEPS[kind]()) for kind in ("normalize", "filters", "redact", "duplicates")]
    split = {"valid": 0.2, "test": 0.2, "seed": 1, "near_duplicate": 1.0}
    curate(place / "rows" / layout.ROWS, place / "splits", steps=steps, fields=objective, **split)
    return "refused" if facts["refused"] + skipped else "read"


def _draw_rows(draw: random.Random) -> tuple[Any, list[Any], Any]:
    """An objective, eight good rows for it, and one in a form that it reads, which is to be damaged."""
    case: Case = draw.choice(CASES)
    good = [{name: _plain(text) for name, text in row.items()} for row in case.rows(9)]
    bad: Any = good[8]
    if case.objective == "token-classification" and draw.random() < 0.7:
        bad = draw.choice(list(EXPORTS.values()))
    return case.build(), good[:8], bad


def _plain(text: str) -> Any:
    return json.loads(text) if text.startswith(("[", "{")) else text


def check_configurations(draw: random.Random, place: Path) -> str:
    """A configuration, damaged as text or as a tree: it is refused, or it is what its own text says."""
    file = draw.choice(sorted(CONFIGURATIONS.glob("*.yaml")))
    content = file.read_bytes()
    if draw.random() < 0.6:
        tree = damage_value(draw, yaml.safe_load(content))
        content = yaml.safe_dump(tree, allow_unicode=True).encode("utf8", "surrogatepass")
    else:
        content = damage_bytes(draw, content)
    (place / file.name).write_bytes(content)
    config = load_config(place / file.name)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    return "read"


def check_store(draw: random.Random, place: Path) -> str:
    """A manifest, a figure or rows in the store: what is damaged is not there, or is noticed before it is used."""
    store, recipe = Store(place), Recipe("evaluate", {"epochs": 3}, {"data": "ab"}, {}, {"torch": "2"})
    metrics = {"accuracy": 0.875, "intervals": [[0.8, 0.9]], "text": "a \u00e9"}

    def write(out: Path) -> Product:
        (out / "metrics.json").write_text(json.dumps(metrics))
        return Product(7, ("metrics.json",), {"rows": 7})

    made, _ = store.obtain(recipe, write)
    file = made.path / draw.choice(("manifest.json", "manifest.json", "metrics.json"))
    file.chmod(0o600)
    content = file.read_bytes()
    damaged = damage_bytes(draw, content)
    file.write_bytes(damaged)
    if draw.random() < 0.3:
        memo = place / "digests.sqlite"
        memo.write_bytes(damage_bytes(draw, memo.read_bytes() if memo.is_file() else b""))
    found = store.find("evaluate", made.key)
    if found is not None:
        assert (found.rows, found.digest, dict(found.facts())) == (made.rows, made.digest, dict(made.facts()))
        try:
            assert found.read_json("metrics.json") == metrics
        except HoneError:
            assert damaged != content
            return "damage noticed"
        return "unchanged"
    assert store.describe_damage("evaluate", made.key)
    again, _ = store.obtain(recipe, write)
    assert again.read_json("metrics.json") == metrics and not store.verify(again)
    return "made again"


def check_records(draw: random.Random, place: Path) -> str:
    """The service's own files: what they say is believed only if its types are right."""
    from hone_app import terminal_runs
    from hone_app.service import credentials, servers, up

    home = Home(place)
    home.service.mkdir(parents=True)
    record = {
        "name": "ab12",
        "settings": {"host": "127.0.0.1", "auth": False, "prefect_database": "", "mlflow_database": ""},
        "ports": {"prefect": 4200, "mlflow": 5000},
        "parts": {"prefect": {"pid": 4_000_000, "began": 1.5}},
        "project": "/home/ada",
        "notifications": "",
    }
    secrets = {entry.name: "x" * 43 for entry in fields(credentials.Credentials)}
    run = {"command": "hone run", "api": "http://127.0.0.1:1/api", "pid": 4_000_000, "host": socket.gethostname()}

    def read_credentials() -> None:
        loaded = credentials.load_credentials(home.service)
        assert all(isinstance(getattr(loaded, name), str) for name in secrets)

    def read_record() -> None:
        read = up.read_record(home)
        assert isinstance(read.settings.host, str) and isinstance(read.project, str)
        assert not any(read.alive(part) for part in read.parts)
        assert all(isinstance(port, int) for port in read.ports.values())

    def read_runs() -> None:
        terminal_runs.has_dead(home)
        assert terminal_runs.list_live(home, run["api"]) == []

    def read_server() -> None:
        servers._find_running(servers.Server("prefect", [], "/health", place, {}))

    path, content, read = draw.choice(
        (
            (home.service / "record.json", record, read_record),
            (home.service / "secrets.json", secrets, read_credentials),
            (place / "runs" / "1-ab.json", run, read_runs),
            (place / "prefect.json", {"url": "http://127.0.0.1:9", "pid": 4_000_000}, read_server),
        )
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), "utf8")
    read()  # whole, it is read
    if draw.random() < 0.5:
        path.write_text(json.dumps(damage_value(draw, content)), "utf8")
    else:
        path.write_bytes(damage_bytes(draw, json.dumps(content).encode()))
    read()
    return "read"


def check_training(draw: random.Random, place: Path) -> str:
    """What an attempt of a training left to the next: read with its types, or chosen again; no training fails of it."""
    from hone.training import choices, history, launch

    steps = [{"step": number, "loss": 0.5 / number, "seconds": 0.1 * number} for number in range(1, 6)]
    lines = "".join(json.dumps(entry) + "\n" for entry in [*steps, {"step": 5, "valid_loss": 0.2}])
    account = {"rows": 240, "steps": 5, "seconds": 0.5}
    chosen = {"micro_batch_size": 8, "precision": "bf16", "resumed_from": [2, 4]}
    name, content = draw.choice(
        (("choices.json", json.dumps(chosen)), (layout.HISTORY, lines), (layout.ACCOUNT, json.dumps(account)))
    )
    damaged = damage_bytes(draw, content.encode())
    if name != layout.HISTORY and draw.random() < 0.5:
        damaged = json.dumps(damage_value(draw, json.loads(content))).encode("utf8", "surrogatepass")
    (place / name).write_bytes(damaged)
    if name == "choices.json":
        read = choices.load_choices(place)
        numbers = (read.micro_batch_size, *read.resumed_from)
        assert isinstance(read.precision, str) and all(type(number) is int and number >= 0 for number in numbers), read
        return "chosen again" if read == choices.Choices() else "read"
    if name == layout.ACCOUNT:
        facts = launch._load_facts(place)
        assert facts is None or type(facts["rows"]) is int, facts
        return "read" if facts else "trained on"
    losses = history.clean_history(place / name)
    assert all(isinstance(loss, float) for loss in losses)
    return "read" if len(losses) == len(steps) else "some lines left out"


BODIES: tuple[Any, ...] = (
    {"inputs": ["a red card"]},
    {"dataframe_records": [{"text": "a"}]},
    {"dataframe_split": {"columns": ["text"], "data": [["a red card"], ["the green word"]]}},
)


@dataclass
class Requests:
    """Requests to a served model, through MLflow's own server: answers or a refusal, never an error of the server."""

    app: FastAPI

    def __call__(self, draw: random.Random, place: Path) -> str:
        """Send one request."""
        from starlette.testclient import TestClient

        body = draw.choice(BODIES)
        if draw.random() < 0.6:
            content = json.dumps(damage_value(draw, body)).encode("utf8", "surrogatepass")
        else:
            content = damage_bytes(draw, json.dumps(body).encode())
        kind = draw.choice(("application/json",) * 6 + ("text/csv", "application/parquet", "text/plain"))
        if re.search(rb"\d{4301}", content):  # MLflow's parser answers 500 to what Python takes for no number
            return "not sent"
        with TestClient(self.app, raise_server_exceptions=False) as client:
            answer = client.post("/invocations", content=content, headers={"Content-Type": kind})
        assert answer.status_code < 500, f"{answer.status_code} for {content[:300]!r}: {answer.text[:3000]}"
        if answer.status_code != 200:
            return "refused"
        predictions = answer.json()["predictions"]
        assert all(row["label"] and 0 <= row["score"] <= 1 for row in predictions), predictions
        return "answered"


CHECKS = {
    "readers": check_readers,
    "rows": check_rows,
    "configurations": check_configurations,
    "store": check_store,
    "records": check_records,
    "training": check_training,
}
