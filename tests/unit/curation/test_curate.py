from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.curation.balance import Balance
from hone.curation.conflicts import LabelConflicts
from hone.curation.curate import curate
from hone.curation.dedup.near import near_pairs
from hone.curation.duplicates import Duplicates
from hone.curation.filters import Filters
from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.curation.step import Step
from hone.errors import DataError
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.text_classification import TextClassification
from hone.progress import Progress
from hone.store.artifact import Product
from hone.store.tables import write_table

STEPS: list[tuple[str, Step]] = [
    ("normalize", Normalize()),
    ("filters", Filters(min_chars=4)),
    ("redact", Redact()),
    ("label-conflicts", LabelConflicts()),
    ("duplicates", Duplicates()),
    ("balance", Balance(min_rows=2)),
]
FILES = ("train.parquet", "valid.parquet", "test.parquet")
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau".split()


def table(texts: list[str], labels: list[str], splits: list[str] | None = None) -> pa.Table:
    return pa.table(
        {
            "id": [f"rows.csv:{i + 2}" for i in range(len(texts))],
            "source": ["rows.csv"] * len(texts),
            "split": splits or [""] * len(texts),
            "text": texts,
            "label": labels,
            "kept": [str(i) for i in range(len(texts))],
        },
        schema=pa.schema([(name, pa.string()) for name in ("id", "source", "split", "text", "label", "kept")]),
    )


def curated(rows: pa.Table, out: Path, steps: list[tuple[str, Step]] = STEPS, **options: object) -> Product:
    out.mkdir(exist_ok=True)
    pq.write_table(rows, out / "in.parquet")
    settings: dict[str, object] = {"valid": 0.1, "test": 0.1, "seed": 17, "near_duplicate": 0.8} | options
    return curate(out / "in.parquet", out, steps=steps, fields=TextClassification(), **settings)  # type: ignore[arg-type]


def dirty_rows(count: int = 400) -> pa.Table:
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]
    texts[10], texts[11], texts[12] = texts[0].upper(), texts[0] + " more", "!!"
    texts[13] = texts[1]
    labels = [rng.choice(["good", "bad"]) for _ in range(count)]
    labels[0] = labels[10] = labels[11] = "good"
    labels[1], labels[13], labels[14] = "good", "bad", "alone"
    return table(texts, labels)


def read(out: Path) -> dict[str, pa.Table]:
    return {file.removesuffix(".parquet"): pq.read_table(out / file) for file in (*FILES, "rejects.parquet")}


def test_every_row_is_in_one_split_or_among_the_rejects_with_its_reason(tmp_path: Path) -> None:
    rows = dirty_rows()
    product = curated(rows, tmp_path)
    parts = read(tmp_path)
    ids = [row for part in parts.values() for row in part["id"].to_pylist()]
    assert sorted(ids) == sorted(rows["id"].to_pylist())
    assert product.content == FILES
    assert product.rows == sum(product.facts["splits"].values()) == rows.num_rows - parts["rejects"].num_rows
    reasons = dict(zip(parts["rejects"]["id"].to_pylist(), parts["rejects"]["reason"].to_pylist(), strict=True))
    assert reasons == {
        "rows.csv:14": "shorter than 4 characters",
        "rows.csv:3": "same text, two labels",
        "rows.csv:15": "same text, two labels",
        "rows.csv:12": "duplicate",
        "rows.csv:13": "near-duplicate",
        "rows.csv:16": "class of fewer than 2 rows",
    }
    assert parts["rejects"].column_names == ["id", "source", "step", "reason", "detail", "text", "label"]
    assert parts["train"].column_names == rows.column_names
    assert set(parts["test"]["split"].to_pylist()) == {"test"}
    assert product.facts["classes"]["test"].keys() == {"good", "bad"}


def test_the_funnel_tells_what_each_step_dropped(tmp_path: Path) -> None:
    funnel = curated(dirty_rows(), tmp_path).facts["funnel"]
    assert [entry["step"] for entry in funnel] == [kind for kind, _ in STEPS]
    assert [(entry["before"], entry["after"]) for entry in funnel] == [
        (400, 400), (400, 399), (399, 399), (399, 397), (397, 395), (395, 394),
    ]  # fmt: skip
    assert funnel[4]["dropped"] == {"duplicate": 1, "near-duplicate": 1}
    example = funnel[4]["examples"][0]
    assert (example["id"], example["reason"], example["detail"]) == ("rows.csv:12", "duplicate", "repeats rows.csv:2")
    assert example["text"].isupper()


def test_three_examples_of_each_reason_and_no_more_of_a_text_than_shows(tmp_path: Path) -> None:
    rows = table(["x", *["y" * 5000] * 5, "some text", "another text", "third text"], ["a"] * 7 + ["b", "b"])
    steps: list[tuple[str, Step]] = [("filters", Filters(max_chars=100, min_chars=2))]
    with pytest.raises(DataError):
        curated(rows, tmp_path, steps)
    product = curated(
        table([*rows["text"].to_pylist(), "fourth of them"], [*rows["label"].to_pylist(), "a"]), tmp_path, steps
    )
    examples = product.facts["funnel"][0]["examples"]
    assert [example["reason"] for example in examples] == [
        "shorter than 2 characters",
        *["longer than 100 characters"] * 3,
    ]
    assert all(len(example["text"]) <= 300 for example in examples)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = dirty_rows()
    curated(rows, tmp_path / "one")
    curated(rows, tmp_path / "two")
    many = pa.table({"text": [f"text {i} " * 5 for i in range(50_000)]})
    write_table(many, tmp_path / "one" / "whole")
    write_table(pa.concat_tables([many[:77], many[77:30_000], many[30_000:]]), tmp_path / "two" / "whole")
    for file in (*FILES, "rejects.parquet", "whole"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_order_of_rows_does_not_move_a_row_to_another_split(tmp_path: Path) -> None:
    rows = dirty_rows()
    steps = STEPS[:4] + STEPS[5:]  # which of two duplicates stays is for their order to say
    curated(rows, tmp_path / "one", steps)
    curated(rows.take(random.Random(3).sample(range(rows.num_rows), rows.num_rows)), tmp_path / "two", steps)
    for split in ("train", "valid", "test", "rejects"):
        one, two = (set(read(tmp_path / name)[split]["id"].to_pylist()) for name in ("one", "two"))
        assert one == two


def test_splits_that_came_with_the_rows_stay_and_are_decontaminated(tmp_path: Path) -> None:
    rows = dirty_rows(200)
    texts, labels = rows["text"].to_pylist(), ["a", "b"] * 100
    splits = ["train"] * 120 + ["dev"] * 40 + ["test"] * 40
    texts[20], texts[21], texts[130] = texts[170], texts[125].upper(), texts[171] + " more"
    product = curated(table(texts, labels, splits), tmp_path, [])
    (entry,) = product.facts["funnel"]
    assert entry["step"] == "decontaminate"
    assert entry["dropped"] == {"also in test": 1, "also in valid": 1}
    assert entry["flagged"] == {"nearly also in test": 1}
    assert {example["id"]: example["detail"] for example in entry["examples"]} == {
        "rows.csv:22": "repeats rows.csv:172",
        "rows.csv:23": "repeats rows.csv:127",
    }
    assert product.facts["splits"] == {"train": 118, "valid": 40, "test": 40}
    assert read(tmp_path)["test"]["id"].to_pylist() == [f"rows.csv:{i}" for i in range(162, 202)]


@pytest.mark.parametrize(("there", "missing"), [("test", "valid"), ("validation", "test")])
def test_a_split_that_is_missing_is_taken_from_the_training_rows(tmp_path: Path, there: str, missing: str) -> None:
    rows = dirty_rows(200)
    labels = ["a", "b"] * 100
    product = curated(table(rows["text"].to_pylist(), labels, ["train"] * 150 + [there] * 50), tmp_path)
    parts = read(tmp_path)
    given = set(parts["valid" if missing == "test" else "test"]["id"].to_pylist())
    assert given <= {f"rows.csv:{i}" for i in range(152, 202)}
    assert 10 <= product.facts["splits"][missing] <= 20
    assert product.facts["classes"][missing].keys() == {"a", "b"}


def test_rows_without_a_label_can_be_curated(tmp_path: Path) -> None:
    rows = dirty_rows().drop_columns(["label"])
    pq.write_table(rows, tmp_path / "in.parquet")
    product = curate(
        tmp_path / "in.parquet", tmp_path, steps=STEPS, fields=MaskedLM(), valid=0.1, test=0.1, seed=1,
        near_duplicate=0.8,
    )  # fmt: skip
    assert product.facts["splits"]["test"] == pytest.approx(40, abs=1)
    assert product.facts["classes"] == {"train": {}, "valid": {}, "test": {}}


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    seen: list[Progress] = []
    curated(dirty_rows(), tmp_path, on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, seen[-1].total)
    assert {progress.note for progress in seen} == {kind for kind, _ in STEPS} | {"split"}


def test_no_rows_left_says_which_step_dropped_what(tmp_path: Path) -> None:
    rows = table(["one", "two", "three!"], ["a", "b", "b"])
    with pytest.raises(DataError) as caught:
        curated(rows, tmp_path, [("filters", Filters(min_chars=6)), ("balance", Balance(min_rows=5))])
    assert "no rows are left after curation" in str(caught.value)
    assert "filters: 3 -> 1 rows (shorter than 6 characters: 2)" in str(caught.value)
    assert "balance: 1 -> 0 rows (class of fewer than 5 rows: 1)" in str(caught.value)
    with pytest.raises(DataError, match="no rows to curate"):
        curated(rows[:0], tmp_path)


def test_one_class_only_says_what_dropped_the_other(tmp_path: Path) -> None:
    rows = table(["x", "one", "two", "three"], ["a", "b", "b", "b"])
    with pytest.raises(DataError, match="only one class: all 3 rows have the label 'b'") as caught:
        curated(rows, tmp_path, [("filters", Filters(min_chars=2))])
    assert "filters: 4 -> 3 rows" in str(caught.value)


def test_one_class_only_once_training_is_decontaminated(tmp_path: Path) -> None:
    rows = table(["one", "two", "three", "one", "four"], ["a", "b", "b", "a", "b"], ["train"] * 3 + ["test"] * 2)
    with pytest.raises(DataError, match="only one class: all 2 rows have the label 'b'") as caught:
        curated(rows, tmp_path, [], valid=0)
    emptied = "decontaminate: 5 -> 4 rows (also in test: 1; all training rows with the labels a)"
    assert emptied in str(caught.value)


def test_a_class_with_one_row_is_named_and_the_way_out_told(tmp_path: Path) -> None:
    rows = dirty_rows()
    with pytest.raises(DataError, match=r"1 class has only one row.*: alone") as caught:
        curated(rows, tmp_path, STEPS[:-1])
    assert "kind: balance, min_rows: 2" in str(caught.value)
    assert "alone" not in curated(rows, tmp_path).facts["classes"]["train"]


def test_a_text_of_a_million_characters_goes_through(tmp_path: Path) -> None:
    rows = dirty_rows()
    long = "naïve words and more of them " * 34_483
    rows = table([*rows["text"].to_pylist(), long], [*rows["label"].to_pylist(), "good"])
    product = curated(rows, tmp_path / "dropped")
    assert product.facts["funnel"][1]["dropped"]["longer than 100000 characters"] == 1
    steps = [
        (kind, Filters(max_chars=2_000_000, max_repeated_phrases=1.0) if kind == "filters" else s) for kind, s in STEPS
    ]
    curated(rows, tmp_path / "kept", steps)
    longest = max(len(text) for part in read(tmp_path / "kept").values() for text in part["text"].to_pylist())
    assert longest == len(long.strip())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([*WORDS[:6], "a@b.org", "<p>", "&amp;", "cafÃ©", "!!!"]), max_size=9).map(
                " ".join
            ),
            st.sampled_from("ab"),
            st.sampled_from(["", "train", "dev", "test"]),
        ),
        max_size=60,
    ),
    st.booleans(),
    st.permutations(STEPS),
)
def test_whatever_the_rows_none_is_lost_and_none_stands_on_two_sides(
    tmp_path: Path, rows: list[tuple[str, str, str]], with_splits: bool, steps: list[tuple[str, Step]]
) -> None:
    texts, labels, splits = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    given_rows = table(texts, labels, splits if with_splits else None)
    try:
        curated(given_rows, tmp_path, steps)
    except DataError:
        return
    parts = read(tmp_path)
    ids = [row for part in parts.values() for row in part["id"].to_pylist()]
    assert sorted(ids) == sorted(given_rows["id"].to_pylist())
    # Given validation rows stay where they repeat test rows; training rows do not.
    sides = [parts["train"]["text"].to_pylist(), parts["valid"]["text"].to_pylist() + parts["test"]["text"].to_pylist()]
    if not any(split in ("dev", "test") for split in given_rows["split"].to_pylist()):
        sides = [parts[name]["text"].to_pylist() for name in ("train", "valid", "test")]
    assert all(near_pairs(one, other, 0.8) == [] for one in sides for other in sides if one is not other)


def test_no_training_rows_left_beside_a_given_split_is_refused(tmp_path: Path) -> None:
    texts = ["alpha beta one", "beta gamma two", "gamma delta three", "delta alpha four", "one"]
    given = table(texts, ["a", "b", "a", "b", "a"], ["dev"] * 4 + ["train"])
    with pytest.raises(DataError, match="no rows are left for train"):
        curated(given, tmp_path, STEPS[:2])


def test_a_real_set_with_its_own_splits(shared: Path, tmp_path: Path) -> None:
    import csv

    rows = []
    for split in ("train", "test"):
        with (shared / "datasets" / "banking77" / f"{split}.csv").open(encoding="utf8") as file:
            rows += [(row["text"], row["category"], split) for row in csv.DictReader(file)]
    texts, labels, splits = (list(column) for column in zip(*rows, strict=True))
    product = curated(table(texts, labels, splits), tmp_path)
    facts = product.facts
    assert sum(facts["splits"].values()) + read(tmp_path)["rejects"].num_rows == len(rows) == 13083
    assert all(len(classes) == 77 for classes in facts["classes"].values())
    assert facts["funnel"][-1]["step"] == "decontaminate"
    assert sum(facts["funnel"][-1]["dropped"].values()) > 50
    assert facts["splits"]["test"] > 3000
