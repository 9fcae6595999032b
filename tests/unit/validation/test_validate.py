from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from hone.config.sections import Validation
from hone.errors import ConfigError, ValidationFailed
from hone.objectives.multi_label import MultiLabelClassification
from hone.objectives.text_classification import TextClassification
from hone.splits import FLAW
from hone.store import layout
from hone.store.artifact import Product
from hone.validation.validate import validate
from tests.tiny_bases import tiny_bert

SPLITS = ("train", "valid", "test")
COLUMNS = ("id", "source", "split", "text", "label")
THINGS = "card money phone letter parcel ticket".split()
VERBS = "lost found stole broke sold hid burnt posted".split()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


def sound(split: str, rows: int, place: str) -> pa.Table:
    """Rows that nothing is wrong with: no two of any split say nearly the same."""
    texts = [f"{place} someone {VERBS[n // 6]} the {THINGS[n % 6]} of {place} number {n}" for n in range(rows)]
    columns = [[f"{split}.csv:{n}" for n in range(rows)], ["here"] * rows, [""] * rows, texts]
    labels = ["refund" if n % 2 else "claim" for n in range(rows)]
    return pa.table(dict(zip(COLUMNS, [*columns, labels], strict=True)))


@pytest.fixture
def tables() -> dict[str, pa.Table]:
    return {"train": sound("train", 30, "paris"), "valid": sound("valid", 8, "rome"), "test": sound("test", 8, "oslo")}


HOSTILE = "<img src=x onerror=alert(1)><svg onload='alert(1)'></svg>"


def with_rows(table: pa.Table, *rows: dict[str, Any]) -> pa.Table:
    """The table with the last rows' values changed."""
    listed = table.to_pylist()
    for place, changes in enumerate(rows, len(listed) - len(rows)):
        listed[place] |= changes
    return pa.Table.from_pylist(listed, schema=table.schema)


@pytest.fixture
def run(base: Path, tmp_path: Path, tables: dict[str, pa.Table]) -> Any:
    def call(asked: Any = None, docs_on_failure: Path | None = None, **settings: Any) -> Product:
        splits, out = tmp_path / "splits", tmp_path / "out"
        splits.mkdir(exist_ok=True)
        out.mkdir(exist_ok=True)
        for split, table in tables.items():
            pq.write_table(table, splits / f"{split}.parquet")
        if asked is not None:
            (tmp_path / "suite.yaml").write_text(asked if isinstance(asked, str) else yaml.safe_dump(asked))
            settings["suite"] = str(tmp_path / "suite.yaml")
        return validate(
            splits,
            out,
            base=base,
            objective=TextClassification(),
            near_duplicate=0.8,
            settings=Validation(**{"unseen_labels": "stop"} | settings).model_dump(),
            docs_on_failure=docs_on_failure,
        )

    return call


def failed(product: Product) -> list[tuple[str, str, str]]:
    found = [entry for entry in product.facts["expectations"] if not entry["success"]]
    return [(entry["split"], entry["expectation"], entry["column"]) for entry in found]


def found(product: Product, split: str, expectation: str) -> dict[str, Any]:
    return next(e for e in product.facts["expectations"] if (e["split"], e["expectation"]) == (split, expectation))


def test_sound_rows_pass_and_are_written_again(run: Any, tables: dict[str, pa.Table], tmp_path: Path) -> None:
    product = run()
    assert product.facts["success"] is True
    assert failed(product) == []
    assert product.rows == 46
    assert product.content == ("train.parquet", "valid.parquet", "test.parquet")
    for split, table in tables.items():
        assert pq.read_table(tmp_path / "out" / f"{split}.parquet").equals(table)
    quarantine = pq.read_table(tmp_path / "out" / "quarantine.parquet")
    assert (len(quarantine), product.facts["quarantined"]) == (0, 0)
    assert quarantine.column_names == [*COLUMNS, "quarantined_from", "expectations"]
    assert json.loads((tmp_path / "out" / "validation.json").read_text()) == product.facts


def test_each_split_is_asked_all_that_the_settings_say(run: Any) -> None:
    expectations = run().facts["expectations"]
    asked = {split: {(e["expectation"], e["column"]) for e in expectations if e["split"] == split} for split in SPLITS}
    everywhere = {
        *(("expect_column_to_exist", column) for column in ("id", "text", "label")),
        *(("expect_column_values_to_not_be_null", column) for column in ("id", "text", "label")),
        *(("expect_column_values_to_be_of_type", column) for column in ("id", "text", "label")),
        ("expect_column_values_to_match_regex", "text"),
        ("expect_column_values_to_be_unique", "id"),
        ("expect_table_row_count_to_be_between", ""),
        ("expect_column_median_to_be_between", "hone_tokens"),
        ("expect_column_max_to_be_between", "hone_label_share"),
    }
    held_out = {("expect_column_values_to_be_in_set", "label"), ("expect_column_values_to_be_null", "hone_same_as")}
    assert asked["train"] == everywhere | {("expect_column_values_to_be_between", "hone_label_rows")}
    assert asked["valid"] == asked["test"] == everywhere | held_out


def test_nothing_but_rows_and_pages_of_results_is_kept(run: Any, tmp_path: Path) -> None:
    product = run()
    kept = {file.name: file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()}
    rows = {"train.parquet", "valid.parquet", "test.parquet", "quarantine.parquet"}
    assert kept.keys() == rows | {"validation.json", "data_docs.html"}
    assert (tmp_path / "out" / product.facts["data_docs"]).is_file()
    # Great Expectations' own images and styles alone have 4 MB.
    assert sum(kept.values()) < 500_000


def test_the_data_docs_are_one_page_that_needs_no_other_file_and_no_network(run: Any, tmp_path: Path) -> None:
    run()
    page = (tmp_path / "out" / layout.DATA_DOCS).read_text("utf8")
    [content] = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    pages = json.loads(content)
    titles = [f"{split}: {kind}" for kind in ("results of round 1", "expectations") for split in SPLITS]
    assert [part["title"] for part in pages.values()] == titles
    for part in pages.values():
        assert not re.search(r"<link|src=.https?:", part["html"])
        linked = set(re.findall(r'data-page="([^"]*)"', part["html"]))
        assert linked <= set(pages)
    results = next(iter(pages.values()))["html"]
    assert 'data-page="expectations/train.html"' in results
    assert "Must have greater than or equal to" in results


def test_the_policy_of_the_data_docs_allows_its_two_scripts_alone(run: Any, tmp_path: Path) -> None:
    """Whatever else is not escaped neither runs nor fetches anything, nor sends a form."""
    run()
    page = (tmp_path / "out" / layout.DATA_DOCS).read_text("utf8")
    head, policy, body = re.split(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert not re.search("<script|<style|<link", head)  # a policy holds from where it is
    directives = dict(directive.split(maxsplit=1) for directive in policy.split("; "))
    assert [directives[name] for name in ("default-src", "base-uri", "form-action")] == ["'none'"] * 3
    [content] = re.findall(r'<script type="application/json">(.*?)</script>', body, re.DOTALL)
    frames = [part["html"] for part in json.loads(content).values()]
    scripts = {script for html in (body, *frames) for script in re.findall("<script>(.*?)</script>", html, re.DOTALL)}
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 2
    assert set(directives.pop("script-src").split()) == {f"'sha256-{digest}'" for digest in digests}
    assert directives.keys() == {"default-src", "style-src", "base-uri", "form-action"}
    assert 'sandbox="allow-scripts allow-popups"' in body


def test_markup_in_rows_is_text_in_the_data_docs(run: Any, tables: dict[str, pa.Table], tmp_path: Path) -> None:
    """A label that no training row has is listed as it is; so are the values of a suite's expectations."""
    tables["test"] = with_rows(tables["test"], {"label": HOSTILE, "text": HOSTILE})
    suite = [{"type": "expect_column_values_to_not_match_regex", "kwargs": {"column": "text", "regex": "<b>|onerror"}}]
    run(suite, on_failure="warn", unseen_labels="report")
    for page in (tmp_path / "out").rglob("*.html"):
        html = page.read_text("utf8")
        if page.name == layout.DATA_DOCS:
            [content] = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
            html = "".join(part["html"] for part in json.loads(content).values())
            assert "&lt;img src=x onerror=" in html
        assert not re.search(r"<(img src=x|svg onload)", html, re.IGNORECASE), page


def test_a_failure_tells_the_expectation_the_figure_and_five_rows(
    run: Any, tables: dict[str, pa.Table], tmp_path: Path
) -> None:
    tables["train"] = with_rows(tables["train"], *[{"text": " \t\n"}] * 7)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "round-1.html").write_text("of an earlier failure")
    with pytest.raises(ValidationFailed) as caught:
        run(docs_on_failure=tmp_path / "kept")
    message = str(caught.value)
    assert "1 of 47 expectations do not hold" in message
    assert "train: expect_column_values_to_match_regex(text): 7 of 30 rows fail" in message
    assert r"expected regex '\\S'" in message
    assert [line.split()[0] for line in message.splitlines() if line.startswith("      ")] == [
        f"train.csv:{n}" for n in range(23, 28)
    ]
    assert "validation.on_failure=quarantine" in message
    assert (tmp_path / "kept" / "index.html").as_uri() in message
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["index.html"]


def test_a_text_of_nothing_but_space_fails(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["valid"] = with_rows(tables["valid"], {"text": ""}, {"text": "  \t"}, {"text": "\u3000\u00a0"})
    product = run(on_failure="warn")
    assert failed(product) == [("valid", "expect_column_values_to_match_regex", "text")]
    assert found(product, "valid", "expect_column_values_to_match_regex")["unexpected"] == 3


def test_a_label_that_training_never_had_is_named(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["test"] = with_rows(tables["test"], {"label": "chargeback"}, {"label": "dispute"})
    with pytest.raises(ValidationFailed, match=r"test: .*_in_set\(label\): 2 of 8 rows fail: 'chargeback', 'dispute'"):
        run()


def test_a_label_is_named_even_behind_many_rows_of_another(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["test"] = with_rows(sound("test", 48, "oslo"), *[{"label": "a"}] * 40, {"label": "late"})
    with pytest.raises(ValidationFailed, match=r"_in_set\(label\): 41 of 48 rows fail: 'a', 'late'"):
        run(max_class_share=1.0)


def test_rows_with_several_labels_that_training_never_had_are_counted_once(
    base: Path, tmp_path: Path, tables: dict[str, pa.Table]
) -> None:
    for split, table in tables.items():
        lists = [json.dumps([label]) for label in table["label"].to_pylist()]
        tables[split] = table.drop_columns("label").append_column("labels", pa.array(lists, pa.string()))
    tables["test"] = with_rows(tables["test"], {"labels": '["dispute", "late"]'}, {"labels": '["claim", "late"]'})
    for split, table in tables.items():
        pq.write_table(table, tmp_path / f"{split}.parquet")
    settings = Validation(unseen_labels="stop").model_dump()
    with pytest.raises(ValidationFailed, match=r"test: 2 rows have labels .*: dispute, late \(1\), late \(1\)"):
        validate(
            tmp_path,
            tmp_path / "out",
            base=base,
            objective=MultiLabelClassification(),
            near_duplicate=0.8,
            settings=settings,
        )


@pytest.mark.parametrize("on_failure", ["stop", "quarantine", "warn"])
def test_a_label_that_training_never_had_is_left_to_the_evaluation(
    run: Any, tables: dict[str, pa.Table], tmp_path: Path, on_failure: str
) -> None:
    tables["test"] = with_rows(tables["test"], {"label": "chargeback"})
    product = run(unseen_labels="report", on_failure=on_failure)
    assert product.facts["quarantined"] == 0 and not failed(product)
    assert pq.read_table(tmp_path / "out" / "test.parquet")["label"].to_pylist().count("chargeback") == 1


def test_quarantine_leaves_given_test_rows_in_place(run: Any, tables: dict[str, pa.Table], tmp_path: Path) -> None:
    for split in SPLITS:
        tables[split] = tables[split].append_column(FLAW, pa.array([""] * len(tables[split]), pa.string()))
    repeated = tables["train"]["text"][3].as_py()
    tables["test"] = with_rows(tables["test"], {"text": repeated})
    product = run(on_failure="quarantine")
    assert product.facts["quarantined"] == 0
    test = pq.read_table(tmp_path / "out" / "test.parquet")
    assert test.num_rows == tables["test"].num_rows
    flaws = dict(zip(test["text"].to_pylist(), test[FLAW].to_pylist(), strict=True))
    assert flaws[repeated].startswith("validation: ") and "hone_same_as" in flaws[repeated]
    assert sum(map(bool, flaws.values())) == 1


def test_a_given_validation_row_that_curation_reported_is_no_leak_of_the_test_split(
    run: Any, tables: dict[str, pa.Table]
) -> None:
    repeated = tables["test"]["text"][2].as_py()
    tables["valid"] = with_rows(tables["valid"], {"text": repeated}, {"text": repeated})
    count = len(tables["valid"])
    reported = ["decontaminate: also in test", "duplicates: duplicate; decontaminate: also in test"]
    flaws = {split: [""] * len(table) for split, table in tables.items()} | {"valid": [""] * (count - 2) + reported}
    for split in SPLITS:
        tables[split] = tables[split].append_column(FLAW, pa.array(flaws[split], pa.string()))
    assert not failed(run())


def test_a_text_that_stands_in_an_earlier_split_is_a_leak(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["valid"] = with_rows(tables["valid"], {"text": tables["train"]["text"][3].as_py()})
    tables["test"] = with_rows(
        tables["test"],
        {"text": "PARIS  someone lost the CARD of Paris, number 0!"},
        {"text": tables["valid"]["text"][1].as_py()},
    )
    with pytest.raises(ValidationFailed) as caught:
        run()
    assert "valid: expect_column_values_to_be_null(hone_same_as): 1 of 8 rows fail: 'train.csv:3'" in str(caught.value)
    assert "test: expect_column_values_to_be_null(hone_same_as): 2 of 8 rows fail: " in str(caught.value)
    assert "'train.csv:0', 'valid.csv:1'" in str(caught.value)


def test_a_near_copy_is_a_leak(run: Any, tables: dict[str, pa.Table]) -> None:
    long = (
        "the quick brown fox jumped over one hundred lazy dogs that slept all day long in the warm summer sun of july"
    )
    tables["train"] = with_rows(tables["train"], {"text": long})
    tables["test"] = with_rows(tables["test"], {"text": f"{long} again"})
    assert failed(run(on_failure="warn")) == [("test", "expect_column_values_to_be_null", "hone_same_as")]


def test_the_same_text_twice_in_one_split_is_no_leak(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["train"] = with_rows(tables["train"], {"text": "twice"}, {"text": "twice"})
    assert run().facts["success"]


def test_a_missing_column_fails_first_of_all(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["valid"] = tables["valid"].drop_columns(["label"])
    with pytest.raises(ValidationFailed) as caught:
        run()
    lines = str(caught.value).splitlines()
    assert lines[1].strip().startswith("valid: expect_column_to_exist(label): no")
    assert 'The column "label" in BatchData does not exist' in str(caught.value)


def test_an_all_null_column_fails(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["train"] = with_rows(tables["train"], *[{"text": None}] * 30)
    tables["valid"] = with_rows(tables["valid"], *[{"label": None}] * 8)
    tables["test"] = with_rows(tables["test"], *[{"id": None}] * 8)
    faults = failed(run(on_failure="warn"))
    for split, column in (("train", "text"), ("valid", "label"), ("test", "id")):
        assert (split, "expect_column_values_to_not_be_null", column) in faults
        assert (split, "expect_column_values_to_be_of_type", column) in faults


def test_an_empty_table_fails_whatever_is_asked_of_it(run: Any, tables: dict[str, pa.Table]) -> None:
    for split in ("train", "test"):
        tables[split] = tables[split].slice(0, 0)
    product = run(on_failure="warn")
    for split in ("train", "test"):
        passed = {e["expectation"] for e in product.facts["expectations"] if e["split"] == split and e["success"]}
        assert passed == {"expect_column_to_exist"}
        assert found(product, split, "expect_column_values_to_be_unique")["observed"] == "there are no rows"


def test_numbers_where_text_should_be_fail(run: Any, tables: dict[str, pa.Table]) -> None:
    table = tables["train"]
    numbers = pa.array(range(len(table)))
    tables["train"] = table.set_column(table.column_names.index("text"), "text", numbers)
    assert ("train", "expect_column_values_to_be_of_type", "text") in failed(run(on_failure="warn"))


def test_an_id_that_two_rows_have_fails(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["train"] = with_rows(tables["train"], {"id": "train.csv:0"})
    assert failed(run(on_failure="warn")) == [("train", "expect_column_values_to_be_unique", "id")]


def test_each_bound_of_the_settings_binds(run: Any) -> None:
    bounds = {"min_rows": 31, "min_rows_held_out": 9, "max_class_share": 0.4, "min_rows_per_class": 16}
    product = run(on_failure="warn", **bounds, max_median_tokens=10)
    assert {(split, expectation) for split, expectation, _ in failed(product)} == {
        *((split, "expect_table_row_count_to_be_between") for split in SPLITS),
        *((split, "expect_column_max_to_be_between") for split in SPLITS),
        *((split, "expect_column_median_to_be_between") for split in SPLITS),
        ("train", "expect_column_values_to_be_between"),
    }
    observed = {e["expectation"]: (e["observed"], e["expected"]) for e in product.facts["expectations"][:16]}
    assert observed["expect_table_row_count_to_be_between"] == ("30", "min_value 31")
    assert observed["expect_column_max_to_be_between"] == ("0.5", "max_value 0.4")
    assert observed["expect_column_median_to_be_between"] == ("11.0", "min_value 1, max_value 10")
    assert observed["expect_column_values_to_be_between"] == ("30 of 30 rows fail: 15", "min_value 16")


def test_a_median_that_is_too_low_fails(run: Any) -> None:
    assert failed(run(on_failure="warn", min_median_tokens=12)) == [
        (split, "expect_column_median_to_be_between", "hone_tokens") for split in SPLITS
    ]


def test_a_median_that_is_too_high_shows_the_longest_rows(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["train"] = with_rows(tables["train"], {"text": "very " * 50}, {"text": "so " * 60})
    product = run(on_failure="warn", max_median_tokens=10)
    entry = next(e for e in product.facts["expectations"] if e["column"] == "hone_tokens")
    assert [example["id"] for example in entry["examples"]][:2] == ["train.csv:29", "train.csv:28"]
    assert len(entry["examples"]) == 5
    assert all(len(example["text"]) <= 100 for example in entry["examples"])


def test_quarantine_sets_rows_aside_and_looks_again(run: Any, tables: dict[str, pa.Table], tmp_path: Path) -> None:
    tables["train"] = with_rows(tables["train"], {"text": None}, {"text": " ", "label": None})
    tables["test"] = with_rows(tables["test"], {"label": "dispute"})
    product = run(on_failure="quarantine")
    assert product.facts["success"] is True
    assert (product.rows, product.facts["quarantined"]) == (43, 3)
    assert product.facts["quarantined_by"] == {
        "expect_column_values_to_not_be_null(text)": 1,
        "expect_column_values_to_match_regex(text)": 1,
        "expect_column_values_to_not_be_null(label)": 1,
        "expect_column_values_to_be_in_set(label)": 1,
    }
    aside = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert [(row["id"], row["quarantined_from"]) for row in aside] == [
        ("train.csv:28", "train"),
        ("train.csv:29", "train"),
        ("test.csv:7", "test"),
    ]
    assert pq.read_table(tmp_path / "out" / "train.parquet").equals(tables["train"].slice(0, 28))
    assert pq.read_table(tmp_path / "out" / "test.parquet").equals(tables["test"].slice(0, 7))


def test_what_a_quarantine_leaves_behind_is_judged_anew(run: Any, tables: dict[str, pa.Table], tmp_path: Path) -> None:
    # The only training row of a label is set aside; the test row with that label then has none to learn from.
    tables["train"] = with_rows(tables["train"], {"label": "rare"})
    tables["test"] = with_rows(tables["test"], {"label": "rare"})
    assert run(on_failure="quarantine").facts["quarantined"] == 2
    assert "rare" not in pq.read_table(tmp_path / "out" / "test.parquet")["label"].to_pylist()


def test_what_no_row_is_to_blame_for_stops_a_quarantine(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["test"] = with_rows(tables["test"], *[{"text": ""}] * 4)
    with pytest.raises(
        ValidationFailed, match=r"test: expect_table_row_count_to_be_between\(\): 4; expected min_value 5"
    ):
        run(on_failure="quarantine")


def test_a_quarantine_of_nearly_everything_says_what_took_the_rows(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["test"] = with_rows(tables["test"], *[{"label": "new"}] * 7)
    with pytest.raises(ValidationFailed, match=r"after 7 rows were set aside: .*_in_set\(label\) 7"):
        run(on_failure="quarantine", max_class_share=1.0)


def test_a_warning_is_logged_and_recorded_and_keeps_the_rows(
    run: Any, tables: dict[str, pa.Table], caplog: pytest.LogCaptureFixture
) -> None:
    tables["test"] = with_rows(tables["test"], {"label": "dispute"})
    with caplog.at_level(logging.WARNING, logger="hone"):
        product = run(on_failure="warn")
    assert product.facts["success"] is False
    assert (product.rows, product.facts["quarantined"]) == (46, 0)
    assert "expect_column_values_to_be_in_set(label): 1 of 8 rows fail: 'dispute'" in caplog.text


LONGER = {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"column": "text", "min_value": 60}}


def test_a_suite_from_a_file_is_asked_of_all_splits(run: Any) -> None:
    assert failed(run([LONGER], on_failure="warn")) == [(split, LONGER["type"], "text") for split in SPLITS]


def test_an_entry_may_name_its_splits(run: Any) -> None:
    suite = {"expectations": [LONGER | {"splits": ["test"]}]}
    assert failed(run(suite, on_failure="warn")) == [("test", LONGER["type"], "text")]


def test_a_suite_of_nothing_but_a_typo_does_not_pass(run: Any) -> None:
    suite = [{"type": "expect_column_values_to_be_uniqe", "kwargs": {"column": "id"}}]
    with pytest.raises(ConfigError, match=r"expectation 1: no such expectation .* did you mean .*_to_be_unique\?"):
        run(suite)


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ([{"typ": "x"}], "expectation 1: is not of the form"),
        ([LONGER | {"split": ["test"]}], "no such field as split; did you mean splits"),
        ([LONGER | {"splits": ["tset"]}], "no such split as tset; did you mean test"),
        ([LONGER | {"splits": []}], "splits is not a list"),
        ([LONGER | {"kwargs": {"colum": "text"}}], "no such argument as colum; did you mean column"),
        ([LONGER | {"kwargs": {"min_value": 3}}], "column: field required"),
        ([LONGER | {"kwargs": ["text"]}], "kwargs is not of the form"),
        ([], "contains no list of expectations"),
        ("expectations: 3", "contains no list of expectations"),
        ("a: [", "the suite cannot be read"),
        ("a: 2026-13-01", "the suite cannot be read"),
        ("- {type: a, kwargs: {column: text}, kwargs: {}}", "the suite cannot be read: duplicate key kwargs, line 1"),
    ],
)
def test_a_suite_that_cannot_be_used_is_a_fault_of_the_config(run: Any, suite: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(suite)


def test_all_faults_of_a_suite_are_told_at_once(run: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        run([{"type": "expect_nothing_like_it"}, LONGER | {"kwargs": {"colum": "text"}}])
    assert "expectation 1:" in str(caught.value)
    assert "expectation 2:" in str(caught.value)


def test_a_suite_that_is_not_there_is_a_fault_of_the_config(run: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: the suite cannot be read"):
        run(suite=str(tmp_path / "none.yaml"))


def test_a_column_of_nulls_that_a_suite_asks_about_fails(run: Any, tables: dict[str, pa.Table]) -> None:
    tables["train"] = tables["train"].append_column("age", pa.nulls(30, pa.string()))
    suite = [
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "age", "value_set": ["1"]},
            "splits": ["train"],
        }
    ]
    product = run(suite, on_failure="warn")
    entry = next(e for e in product.facts["expectations"] if e["column"] == "age")
    assert (entry["success"], entry["observed"]) == (False, "all 30 values are null")


def test_an_exception_inside_an_expectation_is_a_failure(run: Any) -> None:
    suite = [{"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "aeg", "value_set": [1]}}]
    with pytest.raises(ValidationFailed, match=r'could not be evaluated: .*"aeg" in BatchData does not exist'):
        run(suite)


def test_asking_twice_is_answered_twice(run: Any) -> None:
    twin = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}, "splits": ["test"]}
    expectations = run([twin, twin]).facts["expectations"]
    assert len(expectations) == 47 + 2
    assert [entry["expectation"] for entry in expectations[-2:]] == [twin["type"]] * 2


def test_quantiles_and_pairs_and_computed_columns_can_be_asked_about(run: Any) -> None:
    ranges = {"quantiles": [0.5, 0.95], "value_ranges": [[1, 20], [1, 30]]}
    suite = [
        {
            "type": "expect_column_quantile_values_to_be_between",
            "kwargs": {"column": "hone_tokens", "quantile_ranges": ranges},
        },
        {"type": "expect_column_pair_values_to_be_equal", "kwargs": {"column_A": "id", "column_B": "text"}},
    ]
    product = run(suite, on_failure="warn")
    assert failed(product) == [(split, "expect_column_pair_values_to_be_equal", "id, text") for split in SPLITS]


def test_the_environment_is_left_as_it_was(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GX_ANALYTICS_ENABLED", raising=False)
    run()
    assert "GX_ANALYTICS_ENABLED" not in os.environ
