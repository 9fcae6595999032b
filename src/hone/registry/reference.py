"""What a version remembers of the rows it was made from: written when it is registered, read by checks and retraining.

    statistics.json           counts, lengths, languages, words, missing values, labels: for people, and for `missing`
    drift/reference.parquet   a fixed random sample of the rows as they were ingested, and one of the held-out rows
    drift/row_hashes.npy      a hash of each row that was ingested, sorted: which rows of a source are new

Recent inputs come as they are: nobody has cleaned them, or dropped those that repeat. So the samples hold rows as
ingested, before curation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.objectives.base import Objective
from hone.registry.row_text import languages, text_of, words_of
from hone.store.artifact import Artifact

if TYPE_CHECKING:
    import pyarrow as pa

STATISTICS, FOLDER = "statistics.json", "drift"
REFERENCE, HASHES = "reference.parquet", "row_hashes.npy"
ROWS, SEED = 1000, 17  # of each sample
CLIP = 2000  # characters of a text that are kept to be compared
INGESTED, HELD_OUT = "ingested", "held out"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_INPUT = "input."  # before an input's name, for it may be called text
COMMON = 50  # words and labels that statistics.json names


@dataclass(frozen=True)
class Sample:
    """Rows as the tests see them, one entry each.

    `lengths` are in characters; `missing` holds for each input (rows that lack it, rows) of all there were;
    `predictions` what the model says of the rows, by the name of its output: names, or numbers.
    """

    texts: Sequence[str]
    lengths: Sequence[int]
    languages: Sequence[str]
    missing: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    embeddings: np.ndarray | None = None
    predictions: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def take(self, at: Sequence[int]) -> Sample:
        """The rows at these positions; what was missing is that of all rows still."""
        return Sample(
            [self.texts[i] for i in at],
            [self.lengths[i] for i in at],
            [self.languages[i] for i in at],
            self.missing,
            None if self.embeddings is None else self.embeddings[list(at)],
            {name: [values[i] for i in at] for name, values in self.predictions.items()},
        )


@dataclass(frozen=True)
class Memory:
    """What was written: files by the folder they are logged in, and the rows' digest and count, tags of the version."""

    files: Mapping[Path, str]
    tags: Mapping[str, str]


@dataclass
class _Pass:
    """What one pass over the ingested rows gathers."""

    hashes: list[int] = field(default_factory=list)
    blank: Counter[str] = field(default_factory=Counter)
    drawn: list[pa.Table] = field(default_factory=list)
    held_out: list[pa.Table] = field(default_factory=list)


def write(out: Path, artifacts: Mapping[str, Artifact], objective: Objective) -> Memory:
    """Write the three files of a version made from these artifacts (ingest, validate) into `out`."""
    found = _gather(artifacts, objective)
    hashes = np.sort(np.array(found.hashes, np.uint64))
    samples = {INGESTED: _asked(found.drawn, objective), HELD_OUT: _asked(found.held_out, objective)}
    table = _table(samples, objective)
    statistics = _statistics(artifacts, table, objective, found.blank)
    (out / STATISTICS).write_text(json.dumps(statistics, ensure_ascii=False, indent=1), "utf8")
    np.save(out / HASHES, hashes, allow_pickle=False)
    import pyarrow.parquet as pq

    pq.write_table(table, out / REFERENCE, compression="zstd")
    tags = {"hone.rows_digest": rows_digest(hashes), "hone.rows_count": str(len(hashes))}
    return Memory({out / STATISTICS: "", out / REFERENCE: FOLDER, out / HASHES: FOLDER}, tags)


def row_hashes(rows: pa.Table, columns: Sequence[str]) -> list[int]:
    """64 bits of BLAKE2b over each row's values in `columns`; of a million rows two are taken for one once in 4e7."""
    values = zip(*(rows[name].to_pylist() for name in columns), strict=True)
    return [
        int.from_bytes(hashlib.blake2b(json.dumps(row, ensure_ascii=False).encode(), digest_size=8).digest(), "little")
        for row in values
    ]


def rows_digest(hashes: np.ndarray) -> str:
    """SHA-256 over the sorted hashes: of the rows' content, whatever their order and the files they came in."""
    return hashlib.sha256(np.sort(hashes).astype("<u8").tobytes()).hexdigest()


def read(folder: Path) -> tuple[Sample, Sample, list[dict[str, str | None]]]:
    """The sample of ingested rows and that of held-out ones, and what a model would be asked with for the latter."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(folder / REFERENCE)
    counts = json.loads((folder / STATISTICS).read_text("utf8"))["missing"]
    missing = {name: (int(of["rows"]), int(of["of"])) for name, of in counts.items()}
    parts = {role: table.filter(pc.equal(table["role"], role)) for role in (INGESTED, HELD_OUT)}
    ingested, held_out = (_sample(part, missing) for part in parts.values())
    inputs = {name: name.removeprefix(_INPUT) for name in table.column_names if name.startswith(_INPUT)}
    asked = parts[HELD_OUT].select(list(inputs)).rename_columns(list(inputs.values()))
    return ingested, held_out, asked.to_pylist()


def _sample(part: pa.Table, missing: Mapping[str, tuple[int, int]]) -> Sample:
    return Sample(part["text"].to_pylist(), part["length"].to_pylist(), part["language"].to_pylist(), missing)


def _gather(artifacts: Mapping[str, Artifact], objective: Objective) -> _Pass:
    """One pass over the ingested rows, some thousands at once."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = pq.ParquetFile(artifacts["ingest"].path / "rows.parquet")
    total, draw = file.metadata.num_rows, np.random.default_rng(SEED)
    drawn = np.sort(draw.permutation(total)[:ROWS])
    names = pq.read_table(artifacts["validate"].path / "test.parquet", columns=["id"])["id"].to_pylist()
    kept = pa.array([names[at] for at in np.sort(draw.permutation(len(names))[:ROWS])], pa.string())
    found, start = _Pass(), 0
    for batch in file.iter_batches(columns=["id", *objective.columns]):
        rows = pa.Table.from_batches([batch])
        found.hashes += row_hashes(rows, objective.columns)
        for name in set(objective.inputs) & set(objective.columns):
            blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows[name])), 0)
            found.blank[name] += pc.sum(blank).as_py() or 0
        here = drawn[(drawn >= start) & (drawn < start + len(rows))] - start
        found.drawn.append(rows.take(pa.array(here)))
        found.held_out.append(rows.filter(pc.is_in(rows["id"], value_set=kept)))
        start += len(rows)
    return found


def _asked(parts: Sequence[pa.Table], objective: Objective) -> list[dict[str, str]]:
    """The rows as a model would be asked with them, in random order."""
    import pyarrow as pa

    rows = objective.inference_inputs(pa.concat_tables(parts)) if parts else []
    return [rows[at] for at in np.random.default_rng(SEED).permutation(len(rows))]


def _table(samples: Mapping[str, Sequence[Mapping[str, str]]], objective: Objective) -> pa.Table:
    """Both samples: role, inputs (of held-out rows, whole), text (clipped), length (in characters), language."""
    import pyarrow as pa

    rows = [(role, row) for role, of in samples.items() for row in of]
    texts = [text_of(objective, row) for _, row in rows]
    inputs = {
        name: pa.array([row.get(name) if role == HELD_OUT else None for role, row in rows], pa.string())
        for name in objective.inputs
    }
    own = {
        "role": pa.array([role for role, _ in rows], pa.string()),
        "text": pa.array([text[:CLIP] for text in texts], pa.string()),
        "length": pa.array(list(map(len, texts)), pa.int64()),
        "language": pa.array(languages(texts), pa.string()),
    }
    return pa.table({_INPUT + name: values for name, values in inputs.items()} | own)


def _statistics(
    artifacts: Mapping[str, Artifact], table: pa.Table, objective: Objective, blank: Mapping[str, int]
) -> dict[str, Any]:
    import pyarrow.compute as pc

    ingest = artifacts["ingest"]
    facts = ingest.facts()
    rows = table.filter(pc.equal(table["role"], INGESTED))
    lengths = rows["length"].to_numpy()
    texts = rows["text"].to_pylist()
    words = Counter(word for text in texts for word in set(words_of(text)))
    renamed = ingest.manifest()["recipe"]["config"].get("ingest", {}).get("columns", {})
    return {
        "rows": facts["rows"],
        "sample": {"rows": len(texts), "held out": table.num_rows - len(texts), "seed": SEED},
        "length": {
            "unit": "characters",
            "quantiles": {str(q): float(np.quantile(lengths, q)) for q in QUANTILES} if len(texts) else {},
        },
        "languages": dict(Counter(rows["language"].to_pylist()).most_common()),
        "words": {"different": len(words), "rows with": dict(words.most_common(COMMON))},
        "missing": {
            name: {
                "rows": blank.get(name, 0) + _refused(facts["reasons"], renamed.get(name, name)),
                "of": facts["read"],
            }
            for name in objective.inputs
        },
        "labels": _labels(artifacts["validate"].path / "train.parquet", objective.label),
        "libraries": {name: version(name) for name in ("py3langid",)},
    }


def _refused(reasons: Mapping[str, int], column: str) -> int:
    """The rows that ingest refused for having no value in `column`, the source's name for it."""
    return sum(reasons.get(reason, 0) for reason in (f"{column} is null", f"there is no {column}"))


def _labels(train: Path, label: str) -> dict[str, float]:
    """The shares of the most frequent labels of the training rows; empty where the objective has none."""
    import pyarrow.parquet as pq

    if not label:
        return {}
    found = pq.read_table(train, columns=[label])[label].to_pylist()
    return {str(name): count / len(found) for name, count in Counter(found).most_common(COMMON)}
