from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.errors import DataError
from hone.methods.lora import Lora
from hone.objectives.shared import tagging
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.objectives.token_classification import TokenClassification
from hone.progress import ignore
from tests.tiny_bases import tiny_bert

OBJECTIVE = TokenClassification()
TARGETS = {"labels": ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"], "scheme": "prefixed"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def rows(tokens: list[list[str]], tags: list[list[str]]) -> pa.Table:
    ids = [f"train.conll:{n}" for n in range(len(tokens))]
    return pa.table({"id": ids, "tokens": list(map(json.dumps, tokens)), "tags": list(map(json.dumps, tags))})


def encoded(given: list[list[str]], tokenizer: Any, max_length: int = 64) -> pa.Table:
    return OBJECTIVE.encode(rows([["card"] * len(tags) for tags in given], given), tokenizer, max_length, TARGETS)


def said(*tags: list[str]) -> dict[str, Any]:
    places = {label: at for at, label in enumerate(TARGETS["labels"])}
    return {"said": [np.array([places[tag] for tag in row]) for row in tags]}


def figures(tokens: pa.Table, raw: dict[str, Any], targets: dict[str, Any] = TARGETS) -> dict[str, float]:
    sums = OBJECTIVE.compute_outcome(tokens, raw, targets).statistics.sum(0)[:, None]
    return {name: float(np.nan_to_num(figure[0])) for name, figure in OBJECTIVE.compute_metrics(sums, targets).items()}


@pytest.mark.parametrize(
    "values",
    [
        {"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"]},
        {"tokens": '["Ann", "ran"]', "tags": '["B-PER", "O"]'},
        {"tokens": "Ann  ran ", "tags": "B-PER O\n"},
        {"text": "Ann ran", "spans": [{"start": 0, "end": 3, "label": "PER"}]},
        {"text": "Ann ran", "entities": [{"start": 0, "end": 3, "type": "PER"}]},
    ],
)
def test_rows_of_every_form_become_words_and_tags(values: dict[str, Any]) -> None:
    assert OBJECTIVE.normalize_row(values) == {"tokens": ["Ann", "ran"], "tags": ["B-PER", "O"]}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tokens": "a b", "tags": "O"}, "tags: not as many as tokens: 1 tags, 2 tokens"),
        ({"tokens": [], "tags": []}, "tokens: there are none"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "tokens: item 1 is not text but None"),
        ({"tokens": ["a"], "tags": [3]}, "tags: item 0 is not text but 3; give the tag's name"),
        ({"tokens": 7, "tags": ["O"]}, "tokens: neither a list nor text but 7"),
        ({"tokens": ["a", "b"], "tags": ["B-X", "X"]}, "tags: 'X' has none of the prefixes"),
        ({"text": "a", "spans": [{"start": 0, "end": 2, "label": "X"}]}, "is not inside the 1 characters"),
    ],
)
def test_rows_that_are_not_right_are_refused_with_the_field(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        OBJECTIVE.normalize_row(values)


def test_numbers_of_words_are_no_tokens() -> None:
    reader = OBJECTIVE.start_reading()
    for tokens in (["1", "2"], ["1", "2", "3"], ["1"]):
        reader.read({"tokens": tokens, "tags": ["B-X"] * len(tokens)})
    with pytest.raises(DataError, match=r"in 2 of 2 rows the tokens are 1, 2, 3(.|\n)*\{tokens: 1, tags: 2\}"):
        reader.finish()


def test_rows_of_an_unknown_form_are_left_to_ingest() -> None:
    assert OBJECTIVE.normalize_row({"sentence": "a"}) == {"sentence": "a"}


def test_targets_are_the_tags_of_training_and_their_scheme() -> None:
    assert OBJECTIVE.build_targets(rows([["a", "b"]], [["O", "B-X"]])) == {"labels": ["B-X", "O"], "scheme": "prefixed"}
    assert OBJECTIVE.build_targets(rows([["a", "b"]], [["NN", "VB"]])) == {"labels": ["NN", "VB"], "scheme": "words"}


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([["O", "O"]], "no word is in an entity: every tag is O"),
        ([["NN", "NN"]], "every word has the tag 'NN'"),
        ([], "has no tags"),
        ([["B-X", "O"], ["X", "O"]], "has none of the prefixes"),
    ],
)
def test_a_training_split_with_nothing_to_learn_stops(tags: list[list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        OBJECTIVE.build_targets(rows([["a", "b"] for _ in tags], tags))


def test_the_first_token_of_a_word_carries_its_tag(shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "tokenizers/bert-base-uncased/hf")
    given = rows([["Leukaemias", ",", "\u200b", "etc."]], [["B-LOC", "O", "I-LOC", "I-PER"]])
    [row] = OBJECTIVE.encode(given, tokenizer, 64, TARGETS).to_pylist()
    names = tokenizer.convert_ids_to_tokens(row["input_ids"])
    assert names == ["[CLS]", "le", "##uka", "##emia", "##s", ",", "etc", ".", "[SEP]"]
    assert (row["words"], row["labels"], row["content"], row["lost"]) == ([1, 5, -1, 6], [0, 4, 2, 3], 8, 0)
    batch = OBJECTIVE.collate({name: [row[name]] for name in ("input_ids", "words", "labels")}, 0)
    assert batch["labels"].tolist() == [[-100, 0, -100, -100, -100, 4, 3, -100, -100]]


@pytest.mark.parametrize("name", ["bert-base-uncased", "gpt2"])
def test_words_of_real_tokenizers_are_whole(name: str, shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "tokenizers" / name / "hf")
    words = ["Ataxia", "-", "telangiectasia", "(", "naïve", "3beta", "日本", "x" * 30, "."]
    [row] = OBJECTIVE.encode(rows([words], [["O"] * len(words)]), tokenizer, 64, TARGETS).to_pylist()
    ends = [*row["words"][1:], row["content"]]
    spelled = [tokenizer.decode(row["input_ids"][a:b]) for a, b in zip(row["words"], ends, strict=True)]
    plain = [word.lower().replace("ï", "i") for word in words] if name.startswith("bert") else words
    assert [text.replace(" ", "") for text in spelled] == plain


def test_a_text_longer_than_the_model_takes_is_read_in_windows(bert: Path) -> None:
    tags = [["B-PER", "O", "B-LOC", "I-LOC"], ["O", "B-PER"]]
    tokens = encoded(tags, load_tokenizer(bert), max_length=4)  # two words and two special tokens
    assert tokens["id"].to_pylist() == ["train.conll:0"] * 3 + ["train.conll:1"]
    assert tokens["first_word"].to_pylist() == [0, 1, 2, 0]
    assert tokens["words"].to_pylist() == [[1, 2]] * 4
    assert tokens["labels"].to_pylist() == [[1, 4], [4, 0], [0, 2], [4, 1]]
    assert tokens["lost"].to_pylist() == [0, 0, 0, 0]
    # A model that is right about the words it sees in the middle of a window finds every entity.
    raw = {"said": [np.array(row) for row in ([1, 4], [0, 0], [1, 2], [4, 1])]}
    assert set(figures(tokens, raw).values()) == {1.0}
    assert OBJECTIVE.compute_outcome(tokens, raw, TARGETS).errors.tolist() == [0.0, 0.0]


def test_a_word_in_several_windows_is_counted_once_by_the_rival(bert: Path) -> None:
    train = rows([["lost", "card", "my", "card"]], [["O", "B-PER", "O", "O"]])
    tokenizer = load_tokenizer(bert)
    tokens = OBJECTIVE.encode(train, tokenizer, 4, TARGETS)
    assert len(tokens) == 3
    [raw] = OBJECTIVE.baseline_predictions(tokens, tokens, TARGETS, train).values()  # type: ignore[call-arg]
    assert [score.tolist() for score in raw["scores"]] == [[1.0, 0.5], [0.5, 1.0], [1.0, 0.5]]


CASES = [
    ([["B-PER", "I-PER", "O"]], [["B-PER", "I-PER", "O"]]),
    ([["O", "O"]], [["O", "O"]]),  # no entity
    ([["B-PER", "O"]], [["O", "O"]]),  # nothing found
    ([["O", "O"]], [["B-PER", "O"]]),  # nothing there
    ([["B-PER", "B-PER", "I-PER"]], [["B-PER", "I-PER", "I-PER"]]),  # neighbours
    ([["B-PER", "I-PER", "O"]], [["B-PER", "I-LOC", "O"]]),  # another type inside
    ([["B-PER", "I-PER", "O"]], [["I-PER", "I-PER", "O"]]),  # no B-
    ([["B-LOC", "I-LOC"], ["O", "B-PER"], ["I-PER", "O"]], [["B-LOC", "O"], ["O", "B-PER"], ["B-PER", "I-PER"]]),
]


@pytest.mark.parametrize(("given", "predicted"), CASES)
def test_figures_are_those_of_seqeval(given: list[list[str]], predicted: list[list[str]], bert: Path) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    found = figures(encoded(given, load_tokenizer(bert)), said(*predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "entity_f1": seqeval.f1_score(given, predicted),
            "precision": seqeval.precision_score(given, predicted),
            "recall": seqeval.recall_score(given, predicted),
            "token_accuracy": seqeval.accuracy_score(given, predicted),
        }
    assert found == pytest.approx(expected)


def test_random_figures_and_those_of_each_type_are_those_of_seqeval(bert: Path) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    draw = np.random.default_rng(7)
    given, predicted = (
        [draw.choice(TARGETS["labels"], size).tolist() for size in np.arange(200) % 12 + 1] for _ in range(2)
    )
    tokens, raw = encoded(given, load_tokenizer(bert)), said(*predicted)
    expected = seqeval.classification_report(given, predicted, output_dict=True)
    assert figures(tokens, raw)["entity_f1"] == pytest.approx(seqeval.f1_score(given, predicted))
    sums = OBJECTIVE.compute_outcome(tokens, raw, TARGETS).statistics.sum(0)[:, None]
    groups = OBJECTIVE.compute_group_metrics(sums, TARGETS)
    assert list(groups) == ["LOC", "PER"]
    for kind, of in groups.items():
        for name, key in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("support", "support")):
            assert of[name][0] == pytest.approx(expected[kind][key])


def test_an_entity_of_a_type_that_no_training_row_has_is_missed(bert: Path) -> None:
    given = [["B-PER", "O", "B-GPE", "I-GPE"]]
    tokens = encoded(given, load_tokenizer(bert))
    assert tokens["labels"].to_pylist() == [[1, 4, -100, -100]]
    raw = said(["B-PER", "O", "O", "O"])
    assert figures(tokens, raw)["recall"] == 0.5
    groups = OBJECTIVE.compute_group_metrics(
        OBJECTIVE.compute_outcome(tokens, raw, TARGETS).statistics.sum(0)[:, None], TARGETS
    )
    assert groups["(not in training)"]["support"].tolist() == [1]


def test_parts_of_speech_count_word_by_word(bert: Path) -> None:
    targets = {"labels": ["NN", "VB"], "scheme": "words"}
    given = rows([["card", "is", "lost"]], [["NN", "VB", "NN"]])
    tokens = OBJECTIVE.encode(given, load_tokenizer(bert), 64, targets)
    found = figures(tokens, {"said": [np.array([0, 1, 1])]}, targets)
    assert found == pytest.approx(dict.fromkeys(found, 2 / 3))


def test_outcomes_read_as_words_where_the_rows_are_known(bert: Path) -> None:
    given = rows([["my", "card", "is", "lost"]], [["O", "B-PER", "I-PER", "O"]])
    tokens = OBJECTIVE.encode(given, load_tokenizer(bert), 64, TARGETS)
    outcome = OBJECTIVE.compute_outcome(tokens, said(["O", "O", "O", "O"]), TARGETS, given)
    assert (outcome.references, outcome.predictions) == (["card is [PER]"], ["no entity"])
    assert OBJECTIVE.compute_outcome(tokens, said(["O", "O", "O", "O"]), TARGETS).references == ["1-3 [PER]"]


def test_only_tagged_tokens_are_learned_from_and_padding_changes_nothing(bert: Path) -> None:
    torch.manual_seed(0)
    model = OBJECTIVE.load_model(bert, TARGETS).eval()
    tokens = encoded([["O", "B-PER"], ["B-LOC"] * 5], load_tokenizer(bert))
    columns = {name: tokens[name].to_pylist() for name in ("input_ids", "words", "labels")}
    whole, count = OBJECTIVE.compute_loss(model, OBJECTIVE.collate(columns, 0))
    assert count == 7
    alone = [
        OBJECTIVE.compute_loss(model, OBJECTIVE.collate({name: [of[i]] for name, of in columns.items()}, 0))
        for i in range(2)
    ]
    assert whole.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-5)
    assert [count for _, count in alone] == [2, 5]
    read = OBJECTIVE.predict_batch(model, OBJECTIVE.collate(columns, 0))
    assert [len(row) for row in read["scores"]] == [2, 5]
    logits = model(input_ids=torch.tensor([columns["input_ids"][0]])).logits[0, 1:3]
    assert read["said"][0].tolist() == logits.argmax(-1).tolist()
    assert read["scores"][0] == pytest.approx(logits.softmax(-1).max(-1).values.detach().numpy(), abs=1e-5)


def test_an_adapter_moves_the_head_and_merges_into_the_same_answers(bert: Path) -> None:
    torch.manual_seed(0)
    lora = Lora(rank=2, target_modules=("query", "value"))
    model = lora.prepare(OBJECTIVE.load_model(bert, TARGETS)).eval()
    tokens = encoded([["O", "B-PER"], ["B-LOC"] * 5], load_tokenizer(bert))
    batch = OBJECTIVE.collate({name: tokens[name].to_pylist() for name in ("input_ids", "words", "labels")}, 0)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(3):
        loss, _ = OBJECTIVE.compute_loss(model, batch)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    before = OBJECTIVE.predict_batch(model, batch)
    after = OBJECTIVE.predict_batch(lora.merge(model), batch)
    for name in ("scores", "said"):
        assert np.concatenate(after[name]) == pytest.approx(np.concatenate(before[name]), abs=1e-5)


def test_the_rival_tags_a_word_as_training_did_most(bert: Path) -> None:
    train = rows([["lost", "card"], ["lost", "my"], ["lost", "card"]], [["O", "B-PER"], ["B-LOC", "O"], ["O", "B-PER"]])
    test = rows([["card", "lost", "broken"]], [["O", "O", "O"]])
    tokenizer = load_tokenizer(bert)
    both = [OBJECTIVE.encode(part, tokenizer, 64, TARGETS) for part in (train, test)]
    [raw] = OBJECTIVE.baseline_predictions(*both, TARGETS, test).values()  # type: ignore[call-arg]
    assert [TARGETS["labels"][at] for at in raw["said"][0]] == ["B-PER", "O", "O"]
    assert raw["scores"][0] == pytest.approx([1, 2 / 3, 3 / 6])


def test_curation_keeps_words_and_tags_together() -> None:
    given = rows(
        [["caf\u00c3\u00a9", "\u200b", "AT&amp;T", "<br>", "a@b.org", "x  y"]],
        [["O", "O", "B-ORG", "O", "B-PER", "O"]],
    )
    fields = OBJECTIVE
    verdict = Normalize().apply(given, fields, ignore)
    verdict = Redact().apply(verdict.rows, fields, ignore)
    [tokens] = map(json.loads, verdict.rows["tokens"].to_pylist())
    assert tokens == ["café", "\u200b", "AT&T", "<br>", "<EMAIL>", "x y"]
    assert verdict.rows["tags"].to_pylist() == given["tags"].to_pylist()
    assert verdict.reasons == [""]
    assert OBJECTIVE.row_texts(verdict.rows) == ["café \u200b AT&T <br> <EMAIL> x y"]


def test_answers_point_into_what_was_sent(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    asked = [{"tokens": text} for text in ("my  card, is!", '["my", "card", "is"]', "", "money " * 9)]
    table = pa.table({"id": list("abcd"), "tokens": [row["tokens"] for row in asked]})
    tokens = OBJECTIVE.encode(table, tokenizer, 9, TARGETS, labelled=False)
    assert tokens["first_word"].to_pylist() == [0, 0, 0, 0, 4]  # nine times money takes two windows
    places = [np.array(row, int) for row in ([4, 1, 3, 4, 0], [0, 2, 4], [], [4] * 7, [4, 4, 0, 4, 4])]
    raw = {"said": places, "scores": [np.full(len(at), 0.5, np.float32) for at in places]}
    raw["scores"][0][1:3] = 0.9, 0.7
    found = [json.loads(answer["entities"]) for answer in OBJECTIVE.build_answers(tokens, raw, TARGETS, asked)]
    assert found[0] == [
        {"text": "card,", "type": "PER", "score": pytest.approx(0.8), "start": 4, "end": 9},
        {"text": "!", "type": "LOC", "score": 0.5, "start": 12, "end": 13},
    ]
    assert found[1] == [{"text": "my card", "type": "LOC", "score": 0.5, "start": 0, "end": 7}]
    assert found[2] == []
    assert found[3] == [{"text": "money", "type": "LOC", "score": 0.5, "start": 36, "end": 41}]


def test_a_served_model_answers_any_text(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    torch.manual_seed(0)
    model = OBJECTIVE.load_model(bert, TARGETS).eval()
    reader = Reader(OBJECTIVE, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    asked = [{"tokens": text} for text in ("my card is lost", "", '["my", "card"]', "money " * 90)]
    answers = reader.answer(model, asked, TARGETS, 16)
    assert [len(answer["tags"]) for answer in answers] == [4, 0, 2, 90]
    assert None not in [entry["tag"] for entry in answers[3]["tags"]]
    alone = reader.answer(model, asked[:1], TARGETS, 16)[0]
    assert [entry["tag"] for entry in alone["tags"]] == [entry["tag"] for entry in answers[0]["tags"]]


def test_snips_slots_from_one_file_a_column(shared: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from hone.sources.files import Files
    from hone.sources.ingest import ingest

    source = Files(paths=[str(shared / "datasets/snips/test")], column_files={"tokens": "seq.in", "tags": "seq.out"})
    product = ingest(
        source, tmp_path, columns=OBJECTIVE.columns, rename={}, keep=[], max_refused=0, shape=OBJECTIVE.normalize_row
    )
    assert (product.rows, product.facts["refused"]) == (700, 0)
    table = pq.read_table(tmp_path / "rows.parquet")
    targets = OBJECTIVE.build_targets(table)
    tokens = OBJECTIVE.encode(table, load_tokenizer(shared / "tokenizers/bert-base-uncased/hf"), 64, targets)
    assert all(at > 0 for words in tokens["words"].to_pylist() for at in words)
    right = {"said": [np.array(row) for row in tokens["labels"].to_pylist()]}
    assert set(figures(tokens, right, targets).values()) == {1.0}


@pytest.mark.parametrize("tags", [["b-LOC", "o"], ["LOC-B", "O"], ["LOC", "O"], ["B_LOC", "O"]])
def test_tags_in_another_form_than_in_training_are_an_error(bert: Path, tags: list[str]) -> None:
    table = pa.table({"id": ["row 1"], "tokens": [json.dumps(["a", "b"])], "tags": [json.dumps(tags)]})
    with pytest.raises(
        DataError, match=r"row 1, column tags: its tag '.*' is not written as the tags of the training rows"
    ):
        OBJECTIVE.encode(table, load_tokenizer(bert), 16, TARGETS)


def test_types_that_no_training_row_has_are_listed() -> None:
    rows = [["B-LOC", "O"], ["B-ORG", "B-LOC"]]
    table = pa.table({"tags": [json.dumps(tags) for tags in rows]})
    assert OBJECTIVE.list_unseen_labels(table, TARGETS) == ["ORG"]


def test_characters_of_scripts_without_spaces_are_words() -> None:
    text, span = "我爱北京天安门", {"start": 2, "end": 4, "label": "LOC"}
    row = OBJECTIVE.normalize_row({"text": text, "spans": [span]})
    assert row == {"tokens": list(text), "tags": ["O", "O", "B-LOC", "I-LOC", "O", "O", "O"]}
    _, extents = tagging.find_words(text, OBJECTIVE.words)
    assert [text[start:end] for start, end in extents] == row["tokens"]
