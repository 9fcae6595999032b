"""Forms of tags: each of them names the same entities as BIO or BIOES."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hone.errors import DataError
from hone.objectives.shared.tag_forms import TagForm, convert_tags, find_form
from hone.objectives.shared.tagging import find_scheme
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.token_classification import TokenClassification
from tests.tiny_bases import tiny_bert

BIO = "B-PER I-PER O B-LOC"
BIOES = "B-PER E-PER O S-LOC B-PER I-PER E-PER"


@pytest.mark.parametrize(
    ("tags", "standard"),
    [
        (BIO, BIO),
        ("b-per i-per o b-loc", "B-per I-per O B-loc"),
        ("b-PER i-PER O b-LOC", BIO),
        ("B_PER I_PER O B_LOC", BIO),
        ("b_per i_per o b_loc", "B-per I-per O B-loc"),
        ("PER-B PER-I O LOC-B", BIO),
        ("PER_B PER_I O LOC_B", BIO),
        ("per-b per-i o loc-b", "B-per I-per O B-loc"),
        ("B_first_name I_first_name O B_LOC", "B-first_name I-first_name O B-LOC"),
        (BIOES, BIOES),
        ("B-PER E-PER O S-LOC B-PER M-PER E-PER", BIOES),
        ("B-PER E-PER O W-LOC B-PER M-PER E-PER", BIOES),
        ("B-PER L-PER O U-LOC B-PER I-PER L-PER", BIOES),
        ("PER-B PER-L O LOC-U PER-B PER-I PER-L", BIOES),
        ("B M E S", "B I E S"),
        ("b i o", "B I O"),
        ("I-PER I-PER O B-PER", "I-PER I-PER O B-PER"),
        ("per per o loc", "per per O loc"),
        ("PER O LOC", "PER O LOC"),
        ("S_URL O S_NAME", "S_URL O S_NAME"),
        ("e-mail O b-day", "e-mail O b-day"),
        ("NN VB -LRB- ,", "NN VB -LRB- ,"),
        ("noun verb adj", "noun verb adj"),
        ("O", "O"),
    ],
)
def test_tags_of_every_form_are_brought_into_one(tags: str, standard: str) -> None:
    assert convert_tags(tags.split(), find_form(tags.split())) == standard.split()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ("B-PER PER O", r"'PER' has none of the prefixes that 'B-PER' has"),
        ("B_PER I_PER LOC O", r"'LOC' has none of the prefixes that 'B_PER' has"),
        ("PER-B PER-I LOC O", r"'LOC' has none of the prefixes that 'PER-B' has"),
        ("b-per i-per loc o", r"'loc' has none of the prefixes that 'b-per' has"),
        ("B-PER X-PER", r"'X-PER' has none of the prefixes that 'B-PER' has \(supported are BIO, BIOES, BMES"),
        ("B-PER S-PER U-PER O", r"the prefixes B, S, U together are not those of BIO, BIOES"),
    ],
)
def test_what_is_of_no_form_is_refused_with_the_forms_there_are(tags: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        find_form(tags.split())


@pytest.mark.parametrize("tags", ["B-PER M-PER E-PER S-LOC O", "B-PER I-PER L-PER U-LOC O", "per-b per-i o"])
def test_a_row_that_has_some_tags_of_a_form_alone_is_not_refused(tags: str) -> None:
    every = tags.split()
    for first in every:
        for second in every:
            pair = [first, second]
            TokenClassification().normalize_row({"tokens": ["a", "b"], "tags": pair})
            assert find_scheme(convert_tags(pair, find_form(every))) == "prefixed"


def rows(tags: list[list[str]]) -> pa.Table:
    tokens = [["card"] * len(row) for row in tags]
    columns = {"tokens": tokens, "tags": tags}
    return pa.table(
        {"id": list(map(str, range(len(tags)))), **{n: list(map(json.dumps, v)) for n, v in columns.items()}}
    )


def figures(tags: list[list[str]], tokenizer: Any) -> tuple[dict[str, Any], dict[str, float]]:
    objective = TokenClassification()
    targets = objective.build_targets(rows(tags))
    tokens = objective.encode(rows(tags), tokenizer, 64, targets)
    outside = targets["labels"].index("O")
    nothing = {"said": [np.full(len(row), outside) for row in tags]}
    sums = objective.compute_outcome(tokens, nothing, targets).statistics.sum(0)[:, None]
    metrics = objective.compute_metrics(sums, targets)
    return targets, {name: float(np.nan_to_num(value[0])) for name, value in metrics.items()}


@pytest.mark.parametrize("tags", ["b-per i-per o o o", "per-b per-i o o o", "per per o o o", "B_per I_per O O O"])
def test_a_model_that_finds_nothing_scores_nothing_in_any_form(
    tags: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tokenizer = load_tokenizer(tiny_bert(tmp_path_factory.mktemp("bert")))
    targets, metrics = figures([tags.split()], tokenizer)
    assert (metrics["entity_f1"], metrics["token_accuracy"]) == (0.0, 0.6)
    assert "O" in targets["labels"] and "o" not in targets["labels"]


def test_targets_name_the_form_where_it_is_another_and_stay_as_they_were_where_not() -> None:
    build = TokenClassification().build_targets
    assert build(rows([["b-x", "o"]])) == {
        "labels": ["B-x", "O"],
        "scheme": "prefixed",
        "tag_form": list(TagForm("prefix", "-", True)),
    }
    assert build(rows([["B-X", "O"]])) == {"labels": ["B-X", "O"], "scheme": "prefixed"}
    assert build(rows([["X", "O"]])) == {"labels": ["O", "X"], "scheme": "runs"}
    with pytest.raises(DataError, match="has none of the prefixes"):
        build(rows([["B_X", "I_X"], ["O", "Y"]]))


def test_a_form_that_is_not_the_standard_one_is_reported() -> None:
    reader = TokenClassification().start_reading()
    for tags in (["B_PER", "I_PER", "O"], ["O", "B_LOC", "O"]):
        reader.read({"tokens": ["a", "b", "c"], "tags": tags})
    note = "tags read in another form: B_LOC as B-LOC, B_PER as B-PER, I_PER as I-PER"
    assert reader.finish() == {note: 3}
    reader = TokenClassification().start_reading()
    reader.read({"tokens": ["a", "b", "c"], "tags": ["B-PER", "B-Per ", "O"]})
    assert reader.finish() == {"label 'B-Per', which differs from 'B-PER' by case alone": 1}


@pytest.mark.parametrize("separator", [":", "/", "|"])
def test_a_separator_that_is_not_supported_is_refused(separator: str) -> None:
    with pytest.raises(ValueError, match="has a separator that is not supported; write B-TYPE or B_TYPE"):
        find_form([f"B{separator}PER", f"I{separator}PER", "O"])
