"""Rows with more than 2 GiB of text through the stages that read text, each in a process whose memory is measured.

An Arrow column of strings has 32-bit offsets: what joins one of this size into one array fails.
"""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.tiny_bases import tiny_bert

if TYPE_CHECKING:
    import pyarrow as pa

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("two gigabytes"), pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
ROWS, WORDS, LETTERS, VOCABULARY = 2200, 31_250, 31, 2000  # long words: most of the time is spent on each word
# What a row is by its number modulo 50; the row before it is the one that it repeats.
ODD, CONFLICT, NEAR, REPEATED = 19, 29, 39, 49
EACH = ROWS // 50
POSITIONS = 1 << 15

STEPS: dict[str, dict[str, Any]] = {
    "normalize": {},
    "filters": {"max_chars": 1_000_000, "min_words": 2},
    "redact": {},
    "duplicates": {"near": False},  # the split finds near-duplicates by the same function
    "label-conflicts": {},
    "balance": {"max_rows": 1000},
}


@lru_cache(maxsize=1)
def vocabulary() -> Any:
    """Random words and a space after each: uint8 [VOCABULARY, LETTERS + 1]."""
    import numpy as np

    words = np.full((VOCABULARY, LETTERS + 1), ord(" "), np.uint8)
    words[:, :LETTERS] = np.random.default_rng(1).integers(ord("a"), ord("z") + 1, (VOCABULARY, LETTERS))
    return words


def plain_text(row: int) -> str:
    """A text of a million characters, of other words in each row."""
    import numpy as np

    numbers = np.random.default_rng(row).integers(0, VOCABULARY, WORDS)
    return str(vocabulary()[numbers].tobytes().decode().strip())


def text_of_row(row: int) -> str:
    kind = row % 50
    if kind == ODD:
        return f"<p>caf\u00c3\u00a9</p> {plain_text(row)[100:]} jan@example.org"
    if kind == NEAR:
        return f"another beginning {plain_text(row - 1)}"
    return plain_text(row - 1 if kind in (CONFLICT, REPEATED) else row)


def label_of(row: int) -> str:
    return "ab"[(row // 2 + (row % 50 == CONFLICT)) % 2]


def split_of(row: int) -> str:
    return "test" if row % 50 in (CONFLICT, NEAR, REPEATED) else "valid" if row % 50 == 9 else "train"


def read_rows(home: Path) -> Any:
    """Ingest the rows from a Parquet file, with their splits; also writes them without splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hone.curation.columns import with_texts
    from hone.objectives.text_classification import TextClassification
    from hone.sources.files import Files
    from hone.sources.ingest import ingest
    from hone.store import layout
    from hone.store.tables import write_table

    schema = pa.schema([(name, pa.string()) for name in ("text", "label", "split")])
    with pq.ParquetWriter(home / "source.parquet", schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, ROWS, 50):
            rows = range(start, start + 50)
            columns = [[*map(cell, rows)] for cell in (text_of_row, label_of, split_of)]
            writer.write_table(pa.table(columns, schema=schema))
    objective = TextClassification()
    ingest(
        Files(paths=[str(home / "source.parquet")]),
        home,
        columns=objective.columns,
        rename={},
        keep=[],
        max_refused=0.0,
        shape=objective.normalize_row,
        split_column="split",
    )
    table = pq.read_table(home / layout.ROWS)
    write_table(with_texts(table, "split", [""] * ROWS), home / "without_splits.parquet")
    return [table.num_rows, sum(chunk.get_total_buffer_size() for chunk in table["text"].chunks)]


def run_steps(home: Path) -> dict[str, Any]:
    """What each step drops and notes by itself, and the beginnings of some of its rows."""
    import pyarrow.parquet as pq

    from hone.curation import STEPS as KINDS
    from hone.curation.account import Account, Limits, StepsProgress
    from hone.objectives.text_classification import TextClassification
    from hone.progress import ignore

    results = {}
    rows = pq.read_table(home / "without_splits.parquet", memory_map=False)
    for kind, options in STEPS.items():
        account = Account(TextClassification(), StepsProgress(ignore, len(rows), 1), Limits(max_dropped=1.0))
        kept_rows = account.run_step(kind, rows, KINDS[kind](**options))
        funnel = account.funnel[0]
        results[kind] = {"dropped": funnel["dropped"], "notes": funnel["notes"], "texts": shown(kept_rows)}
        assert len(kept_rows) + len(account.build_rejects()) == ROWS
    return results


def shown(rows: pa.Table) -> list[str]:
    """The first and the last 40 characters of the row ODD and of the last row."""
    texts = [rows["text"][place].as_py() for place in (ODD, len(rows) - 1)]
    return [f"{text[:40]} ... {text[-40:]}" for text in texts]


def draw_splits(home: Path) -> Any:
    """Curate the rows that came without splits; returns the ids by split."""
    return curate_file(home, "without_splits.parquet", "drawn")


def decontaminate(home: Path) -> Any:
    """Curate the rows that came with splits, of which those of test repeat training rows."""
    return curate_file(home, "rows.parquet", "given")


def curate_file(home: Path, name: str, folder: str) -> Any:
    import pyarrow.parquet as pq

    from hone.curation.curate import curate
    from hone.objectives.text_classification import TextClassification
    from hone.store import layout

    out = home / folder
    out.mkdir()
    options = {"valid": 0.1, "test": 0.1, "seed": 1, "near_duplicate": 0.8}
    facts = curate(home / name, out, steps=[], fields=TextClassification(), **options).facts  # type: ignore[arg-type]
    ids = {split: pq.read_table(out / layout.rows_file(split), columns=["id"])["id"] for split in facts["splits"]}
    rows_by_split = {
        split: [int(name.rpartition(":")[2]) - 1 for name in column.to_pylist()] for split, column in ids.items()
    }
    return {"rows": rows_by_split, "dropped": [step["dropped"] for step in facts["funnel"]]}


def validate_splits(home: Path) -> Any:
    from hone.config.sections import Validation
    from hone.objectives.text_classification import TextClassification
    from hone.validation.validate import validate

    out = home / "validated"
    out.mkdir()
    product = validate(
        home / "drawn",
        out,
        base=home / "base",
        objective=TextClassification(),
        near_duplicate=0.8,
        settings=Validation(max_median_tokens=POSITIONS).model_dump(),
    )
    medians = [finding for finding in product.facts["expectations"] if "median" in finding["expectation"]]
    return [product.rows, product.facts["success"], [finding["observed"] for finding in medians]]


def tokenize_splits(home: Path) -> Any:
    from hone.objectives.text_classification import TextClassification
    from hone.tokenization.tokenize import tokenize

    out = home / "tokens"
    out.mkdir()
    objective = TextClassification()
    product = tokenize(
        home / "validated", out, base=home / "base", objective=objective, max_length=POSITIONS, max_truncated=0.0
    )
    return {split: [facts["rows"], facts["median"]] for split, facts in product.facts["splits"].items()}


def in_a_process(work: Callable[[Path], Any], home: Path, gigabytes: float) -> Any:
    """What `work` returns in a process of its own, which may take so much memory."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; from {__name__} import main; main(*sys.argv[1:])",
            work.__name__,
            str(home),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    result, peak = json.loads(done.stdout.splitlines()[-1])
    logging.getLogger(__name__).info("%s: %.1f GB", work.__name__, peak)
    assert peak < gigabytes, f"{work.__name__} takes {peak:.1f} GB for 2.2 GB of text"
    return result


def main(work: str, home: str) -> None:
    result = globals()[work](Path(home))
    sys.stdout.write(json.dumps([result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2]))


def write_base(folder: Path) -> None:
    """A tiny BERT with as many positions as a row has words, which it knows, and splits at spaces."""
    words = [bytes(word).decode().strip() for word in vocabulary()]
    tiny_bert(folder, words=words, hidden=4, positions=POSITIONS, seed=1, initializer_range=0.02)
    file = folder / "tokenizer.json"
    tree: Mapping[str, Any] = json.loads(file.read_text("utf8"))
    file.write_text(json.dumps({**tree, "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}}), "utf8")


def test_two_gigabytes_of_text_go_through_every_stage(tmp_path: Path) -> None:
    rows, size = in_a_process(read_rows, tmp_path, 8)
    assert rows == ROWS and size > 1 << 31

    steps = in_a_process(run_steps, tmp_path, 12)
    assert {kind: result["dropped"] for kind, result in steps.items()} == {
        "normalize": {},
        "filters": {"longer than 1000000 characters": EACH},
        "redact": {},
        "duplicates": {"duplicate": EACH},
        "label-conflicts": {"same text, two labels": 2 * EACH},
        "balance": {"beyond 1000 rows of its class": ROWS - 2000},
    }
    assert steps["redact"]["notes"] == {"email": EACH}
    assert steps["normalize"]["notes"] == {"encoding": EACH, "html": EACH, "spacing": EACH}
    assert steps["redact"]["texts"][0].endswith("<EMAIL>") and steps["normalize"]["texts"][0].startswith("caf\u00e9")
    last = plain_text(ROWS - 2)
    assert {result["texts"][1] for kind, result in steps.items() if kind in ("normalize", "filters", "redact")} == {
        f"{last[:40]} ... {last[-40:]}"
    }

    drawn = in_a_process(draw_splits, tmp_path, 10)["rows"]
    assert sorted(row for part in drawn.values() for row in part) == [*range(ROWS)]
    assert all(0.09 * ROWS < len(drawn[split]) <= 0.1 * ROWS for split in ("valid", "test"))
    split_by_row = {row: split for split, part in drawn.items() for row in part}
    repeats = [row for row in range(ROWS) if row % 50 in (CONFLICT, NEAR, REPEATED)]
    assert all(split_by_row[row] == split_by_row[row - 1] for row in repeats)

    given = in_a_process(decontaminate, tmp_path, 12)
    assert given["dropped"] == [{"also in test": 2 * EACH, "nearly also in test": EACH}]
    assert given["rows"]["test"] == repeats

    write_base(tmp_path / "base")
    assert in_a_process(validate_splits, tmp_path, 14) == [ROWS, True, [f"{WORDS + 2}.0"] * 3]
    tokens = in_a_process(tokenize_splits, tmp_path, 8)
    assert tokens == {split: [len(part), WORDS + 2] for split, part in drawn.items()}
