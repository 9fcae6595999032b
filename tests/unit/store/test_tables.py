"""Rows are picked and cut the same way in small tables and in columns of more than 2 GiB, which `take` refuses."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.curation.account import Account, Limits, StepsProgress
from hone.curation.step import Verdict
from hone.objectives.text_classification import TextClassification
from hone.progress import ignore
from hone.store import tables
from hone.validation.validate import _set_aside

SOURCE = Path(tables.__file__).parents[1]
COLUMNS = [None, "", "a", "bb" * 5, "ccc" * 9, "é"]


@pytest.fixture(scope="module")
def wide() -> pa.Table:
    """2,300 rows of 1 MB of text: 23 chunks that are one array, so that it takes 100 MB of memory."""
    texts = pa.array(["x" * 1_000_000] * 100, pa.string())
    ids = [pa.array([f"{chunk}:{row}" for row in range(100)]) for chunk in range(23)]
    names = {name: pa.chunked_array(ids) for name in ("id", "source", "label")}
    return pa.table(names | {"text": pa.chunked_array([texts] * 23)})


@settings(max_examples=50, deadline=None, database=None)
@given(data=st.data(), limit=st.sampled_from([0, 10, 30, 1 << 28]))
def test_any_rows_in_any_order(data: st.DataObject, limit: int) -> None:
    texts = data.draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=9))
    cut = data.draw(st.integers(0, len(texts)))
    table = pa.table(
        {
            "text": pa.chunked_array([texts[:cut], texts[cut:]], pa.string()),
            "tokens": pa.array([list(range(row)) for row in range(len(texts))], pa.list_(pa.int32())),
            "number": list(range(len(texts))),
        }
    )
    indices = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "PIECE_BYTES", limit)
        assert tables.take_rows(table, indices).to_pylist() == [table.to_pylist()[index] for index in indices]
        pieces = list(tables.cut_rows(table, 4))
    assert tables.filter_rows(table, indices).to_pylist() == [table.to_pylist()[index] for index in sorted({*indices})]
    assert [row for piece in pieces for row in piece.to_pylist()] == table.to_pylist()
    assert all(piece.num_rows <= 4 and piece["text"].num_chunks == 1 for piece in pieces)


# Where chunks may be joined, because what is joined is small; everything else goes through hone.store.tables.
JOINED = {
    "store/tables.py": "pieces of limited size",
    "objectives/shared/packing.py": "the token ids of one batch of packed rows",
    "objectives/shared/reading.py": "a split's tokens, which have no text but tags",
    "objectives/causal_lm.py": "the ids of a batch of rows",
    "objectives/masked_lm.py": "the ids of a batch of rows",
    "objectives/span_corruption.py": "the ids of a batch of rows",
    "tokenization/tokenize.py": "the ids of a batch of rows",
    "drift/monitor.py": "the rows of a sample, which are no table",
}


def test_the_chunks_of_a_column_are_joined_nowhere_else() -> None:
    """`take`, `combine_chunks` and `sort_by` join them: above 2 GiB of text they fail."""
    joining = set()
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("take", "combine_chunks", "sort_by"):
                joining.add(path.relative_to(SOURCE).as_posix())
    assert joining == set(JOINED)


def test_rows_of_a_column_above_two_gigabytes(wide: pa.Table) -> None:
    with pytest.raises(pa.ArrowInvalid):
        wide.take(pa.array([0]))
    assert tables.take_rows(wide, [2299, 3, 3])["id"].to_pylist() == ["22:99", "0:3", "0:3"]
    assert tables.take_rows(wide, [])["id"].to_pylist() == []


def test_dropped_and_quarantined_rows_of_a_column_above_two_gigabytes(wide: pa.Table) -> None:
    reasons = ["too long" if row in (7, 2299) else "" for row in range(len(wide))]
    account = Account(TextClassification(), StepsProgress(ignore, len(wide), 1), Limits())
    assert account._rejects("filters", Verdict(wide, reasons))["id"].to_pylist() == ["0:7", "22:99"]
    nothing_left = tables.filter_rows(wide, [])
    few = {"train": nothing_left, "valid": nothing_left}
    _, aside = _set_aside({"test": wide.slice(0, 2300), **few}, {"test": {}, "train": {}, "valid": {}})
    assert len(aside) == 0


def test_the_bytes_of_a_written_table_do_not_depend_on_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PIECE_BYTES", 100)
    table = pa.table({"text": [str(row) * 9 for row in range(50)]})
    tables.write_table(table, tmp_path / "one.parquet")
    tables.write_table(pa.concat_tables([table.slice(0, 13), table.slice(13)]), tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert pq.read_table(tmp_path / "one.parquet") == table
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups > 5
    tables.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").schema == table.schema


LARGE = """
import resource, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from hone.curation.curate import curate
from hone.objectives.text_classification import TextClassification
from hone.store.tables import take_rows
from hone.validation.validate import _set_aside

home = Path(sys.argv[1])
words = " ".join(f"word{n}" for n in range(120_000))[:999_900]
schema = pa.schema([(name, pa.string()) for name in ("id", "source", "split", "text", "label")])
with pq.ParquetWriter(home / "rows.parquet", schema, compression="zstd") as writer:
    for start in range(0, 2200, 25):
        rows = range(start, start + 25)
        split = ["train" if row < 30 else "valid" if row < 40 else "test" for row in rows]
        columns = [[f"f:{row}" for row in rows], ["f"] * 25, split, [f"{row} {words}" for row in rows]]
        writer.write_table(pa.table([*columns, ["a" if row % 2 else "b" for row in rows]], schema=schema))
objective = TextClassification()
from hone.curation import curate as module
module.find_contaminated_rows = lambda *_: {0: ("contamination", 1)}  # shingles of 2.2 GB take minutes
curate(home / "rows.parquet", home, steps=[], fields=objective, valid=0.1, test=0.1, seed=1, near_duplicate=0.8)
test = pq.read_table(home / "test.parquet")
rows = take_rows(test, range(len(test))[::-1])
assert rows["id"].to_pylist() == test["id"].to_pylist()[::-1] and rows["text"][0].as_py().startswith("2199 word0")
left, aside = _set_aside({"train": test.slice(0, 1), "test": test}, {"train": {}, "test": {5: ["x"], 9: ["y"]}})
assert len(left["test"]) == len(test) - 2 and len(aside) == 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


@pytest.mark.long
@pytest.mark.xdist_group("two gigabytes")  # one such test at a time: each takes most of a machine's memory
def test_curation_and_evaluation_of_two_gigabytes_stay_within_memory(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 9, f"{done.stdout} GB for 2.2 GB of text"  # 7.0: the table, its texts, one split
