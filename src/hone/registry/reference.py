"""Reference data of a version's rows: written at registration, read by drift checks and retraining.

    statistics.json           counts, lengths, languages, words, missing values, labels: for people, and for `missing`
    drift/reference.parquet   a fixed random sample of the ingested rows, and one of the held-out rows
    drift/row_hashes.npy      sorted hashes of all ingested rows: they show which rows of a source are new

The samples hold rows as ingested, before curation, because recent inputs are not cleaned or deduplicated either. Only
what the served model rewrites is rewritten in them: statistics.json records it, and recent inputs are rewritten alike.
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
from hone.objectives.shared.inputs import rewrite_inputs
from hone.registry.rewriters import build_rewriters, describe_rewriters
from hone.registry.row_text import detect_languages, input_text, split_words
from hone.rewriting import Rewriter
from hone.splits import TEST, TRAIN
from hone.store import layout
from hone.store.artifact import Artifact
from hone.store.tables import filter_rows

if TYPE_CHECKING:
    import pyarrow as pa

STATISTICS, FOLDER = "statistics.json", "drift"
REFERENCE, HASHES = "reference.parquet", "row_hashes.npy"
ROWS, SEED = 1000, 17  # size of each sample
MAX_TEXT_CHARACTERS = 2000  # longer texts are cut: the comparison needs no more, and the file stays small
INGESTED, HELD_OUT = "ingested", "held out"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_INPUT = "input."  # column prefix: an input may be called `text`, which is a column of the sample itself
MAX_LISTED = 50  # number of words and labels listed in statistics.json


@dataclass(frozen=True)
class Sample:
    """Rows in the form that the drift tests use, one entry per row.

    `lengths` are in characters. `missing` maps each input to (rows without it, all rows), counted before sampling.
    `predictions` maps the name of an output to the model's value for each row: a name or a number.
    """

    texts: Sequence[str]
    lengths: Sequence[int]
    languages: Sequence[str]
    missing: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    embeddings: np.ndarray | None = None
    predictions: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def take(self, positions: Sequence[int]) -> Sample:
        """The rows at these positions; `missing` still counts all rows."""
        return Sample(
            [self.texts[i] for i in positions],
            [self.lengths[i] for i in positions],
            [self.languages[i] for i in positions],
            self.missing,
            None if self.embeddings is None else self.embeddings[list(positions)],
            {name: [values[i] for i in positions] for name, values in self.predictions.items()},
        )


@dataclass(frozen=True)
class ReferenceFiles:
    """The written files with the folder each is logged in, and the version's tags: digest and number of rows."""

    files: Mapping[Path, str]
    tags: Mapping[str, str]


@dataclass
class _IngestedScan:
    """Result of one pass over the ingested rows: `blank` counts empty values by input."""

    hashes: list[int] = field(default_factory=list)
    blank: Counter[str] = field(default_factory=Counter)
    drawn: list[pa.Table] = field(default_factory=list)
    held_out: list[pa.Table] = field(default_factory=list)


def write_reference(
    out: Path, artifacts: Mapping[str, Artifact], objective: Objective, rewriters: Sequence[Rewriter] = ()
) -> ReferenceFiles:
    """Write the three reference files for a version made from these artifacts (ingest, validate) into `out`.

    The texts are those that a model with these `rewriters` reads.
    """
    scan = _scan_ingested(artifacts, objective)
    hashes = np.sort(np.array(scan.hashes, np.uint64))
    samples = {
        INGESTED: _build_inputs(scan.drawn, objective, rewriters),
        HELD_OUT: _build_inputs(scan.held_out, objective, rewriters),
    }
    table = _build_table(samples, objective)
    statistics = _compute_statistics(artifacts, table, objective, scan.blank)
    statistics |= {"rewriters": describe_rewriters(rewriters)} if rewriters else {}
    (out / STATISTICS).write_text(json.dumps(statistics, ensure_ascii=False, indent=1), "utf8")
    np.save(out / HASHES, hashes, allow_pickle=False)
    import pyarrow.parquet as pq

    pq.write_table(table, out / REFERENCE, compression="zstd")
    tags = {"hone.rows_digest": rows_digest(hashes), "hone.rows_count": str(len(hashes))}
    return ReferenceFiles({out / STATISTICS: "", out / REFERENCE: FOLDER, out / HASHES: FOLDER}, tags)


def row_hashes(rows: pa.Table, columns: Sequence[str]) -> list[int]:
    """64 bits of BLAKE2b over each row's values in `columns`: in a million rows, a collision has probability 3e-8."""
    values = zip(*(rows[name].to_pylist() for name in columns), strict=True)
    return [
        int.from_bytes(hashlib.blake2b(json.dumps(row, ensure_ascii=False).encode(), digest_size=8).digest(), "little")
        for row in values
    ]


def rows_digest(hashes: np.ndarray) -> str:
    """SHA-256 over the sorted hashes: depends on the rows' content alone, not on their order or files."""
    return hashlib.sha256(np.sort(hashes).astype("<u8").tobytes()).hexdigest()


def read_reference(folder: Path) -> tuple[Sample, Sample, list[dict[str, str | None]]]:
    """The sample of ingested rows, the sample of held-out rows, and the model inputs of the held-out rows."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(folder / REFERENCE)
    counts = json.loads((folder / STATISTICS).read_text("utf8"))["missing"]
    missing = {name: (int(count["rows"]), int(count["of"])) for name, count in counts.items()}
    rows_by_role = {role: table.filter(pc.equal(table["role"], role)) for role in (INGESTED, HELD_OUT)}
    ingested, held_out = (_sample(rows, missing) for rows in rows_by_role.values())
    inputs = {name: name.removeprefix(_INPUT) for name in table.column_names if name.startswith(_INPUT)}
    questions = rows_by_role[HELD_OUT].select(list(inputs)).rename_columns(list(inputs.values()))
    return ingested, held_out, questions.to_pylist()


def read_rewriters(folder: Path, where: str) -> list[Rewriter]:
    """What rewrote the texts of the samples; none in those of earlier releases. Raises ModelError, about `where`."""
    statistics = json.loads((folder / STATISTICS).read_text("utf8"))
    return build_rewriters(statistics.get("rewriters", []), where)


def _sample(rows: pa.Table, missing: Mapping[str, tuple[int, int]]) -> Sample:
    return Sample(rows["text"].to_pylist(), rows["length"].to_pylist(), rows["language"].to_pylist(), missing)


def _scan_ingested(artifacts: Mapping[str, Artifact], objective: Objective) -> _IngestedScan:
    """Scan the ingested rows once, in batches: tables of millions of rows do not fit into memory."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    file = pq.ParquetFile(artifacts["ingest"].path / layout.ROWS)
    total, generator = file.metadata.num_rows, np.random.default_rng(SEED)
    sampled_positions = np.sort(generator.permutation(total)[:ROWS])
    held_out_ids = pq.read_table(artifacts["validate"].path / layout.rows_file(TEST), columns=["id"])["id"].to_pylist()
    sampled_ids = pa.array(
        [held_out_ids[position] for position in np.sort(generator.permutation(len(held_out_ids))[:ROWS])], pa.string()
    )
    scan, start = _IngestedScan(), 0
    for group in range(file.num_row_groups):  # ingest limits the characters of a row group, not only its rows
        rows = file.read_row_group(group, columns=["id", *objective.columns])
        scan.hashes += row_hashes(rows, objective.columns)
        for name in set(objective.inputs) & set(objective.columns):
            blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows[name])), 0)
            scan.blank[name] += pc.sum(blank).as_py() or 0
        positions_in_batch = (
            sampled_positions[(sampled_positions >= start) & (sampled_positions < start + len(rows))] - start
        )
        scan.drawn.append(filter_rows(rows, positions_in_batch))
        scan.held_out.append(rows.filter(pc.is_in(rows["id"], value_set=sampled_ids)))
        start += len(rows)
    return scan


def _build_inputs(
    parts: Sequence[pa.Table], objective: Objective, rewriters: Sequence[Rewriter]
) -> list[Mapping[str, str]]:
    """The rows as the model reads them, in random order."""
    import pyarrow as pa

    sent = objective.inference_inputs(pa.concat_tables(parts)) if parts else []
    rows = [rewrite_inputs(objective, rewriters, row)[0] for row in sent]
    return [rows[position] for position in np.random.default_rng(SEED).permutation(len(rows))]


def _build_table(samples: Mapping[str, Sequence[Mapping[str, str]]], objective: Objective) -> pa.Table:
    """Both samples: role, inputs (of held-out rows, whole), text (clipped), length (in characters), language."""
    import pyarrow as pa

    rows = [(role, row) for role, sample in samples.items() for row in sample]
    texts = [input_text(objective, row) for _, row in rows]
    inputs = {
        name: pa.array([row.get(name) if role == HELD_OUT else None for role, row in rows], pa.string())
        for name in objective.inputs
    }
    columns = {
        "role": pa.array([role for role, _ in rows], pa.string()),
        "text": pa.array([text[:MAX_TEXT_CHARACTERS] for text in texts], pa.string()),
        "length": pa.array(list(map(len, texts)), pa.int64()),
        "language": pa.array(detect_languages(texts), pa.string()),
    }
    return pa.table({_INPUT + name: values for name, values in inputs.items()} | columns)


def _compute_statistics(
    artifacts: Mapping[str, Artifact], table: pa.Table, objective: Objective, blank: Mapping[str, int]
) -> dict[str, Any]:
    import pyarrow.compute as pc

    ingest = artifacts["ingest"]
    facts = ingest.facts()
    rows = table.filter(pc.equal(table["role"], INGESTED))
    lengths = rows["length"].to_numpy()
    texts = rows["text"].to_pylist()
    words = Counter(word for text in texts for word in set(split_words(text)))
    renamed = ingest.manifest()["recipe"]["config"].get("ingest", {}).get("columns", {})
    return {
        "rows": facts["rows"],
        "sample": {"rows": len(texts), "held out": table.num_rows - len(texts), "seed": SEED},
        "length": {
            "unit": "characters",
            "quantiles": {str(q): float(np.quantile(lengths, q)) for q in QUANTILES} if len(texts) else {},
        },
        "languages": dict(Counter(rows["language"].to_pylist()).most_common()),
        "words": {"different": len(words), "rows with": dict(words.most_common(MAX_LISTED))},
        "missing": {
            name: {
                "rows": blank.get(name, 0) + _count_refused(facts["reasons"], renamed.get(name, name)),
                "of": facts["read"],
            }
            for name in objective.inputs
        },
        "labels": _label_shares(artifacts["validate"].path / layout.rows_file(TRAIN), objective.label),
        "libraries": {name: version(name) for name in ("py3langid",)},
    }


def _count_refused(reasons: Mapping[str, int], column: str) -> int:
    """Number of rows that ingest refused for a missing value in `column` (the source's name of it)."""
    return sum(reasons.get(reason, 0) for reason in (f"{column} is null", f"there is no {column}"))


def _label_shares(train: Path, label: str) -> dict[str, float]:
    """Shares of the most frequent labels in the training rows; empty for an objective without labels."""
    import pyarrow.parquet as pq

    if not label:
        return {}
    labels = pq.read_table(train, columns=[label])[label].to_pylist()
    return {str(name): count / len(labels) for name, count in Counter(labels).most_common(MAX_LISTED)}
