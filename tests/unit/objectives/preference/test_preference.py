"""Preferences: the forms of rows, their tokens, the figures, and what a caller is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hone.errors import DataError, ModelError
from hone.objectives.preference.objective import Preference
from hone.objectives.preference.rows import normalize_preference_row
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from tests.tiny_bases import tiny_bert, tiny_llama

USER, SAID = {"role": "user", "content": "where is my card"}, {"role": "assistant", "content": "lost"}
OTHER = {"role": "assistant", "content": "stolen"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def table(*rows: tuple[Any, Any, Any]) -> pa.Table:
    """Rows as ingest writes them."""
    texts = [[one if isinstance(one, str) else json.dumps(one) for one in row] for row in rows]
    columns = dict(zip(("prompt", "chosen", "rejected"), zip(*texts, strict=True), strict=True))
    ids = pa.array([f"r{i}" for i in range(len(rows))])
    return pa.table({"id": ids, **{name: pa.array(values, pa.string()) for name, values in columns.items()}})


def parts(encoded: pa.Table, row: int = 0) -> tuple[list[int], list[int], list[int]]:
    """A row's prompt, chosen and rejected ids."""
    one = encoded.slice(row, 1).to_pylist()[0]
    ids, prompt, good = one["input_ids"], one["prompt"], one["chosen"]
    second = prompt + good if good else 0
    return ids[:prompt], ids[prompt : prompt + good] if good else [], ids[second + prompt :]


# The forms of rows


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ("a", "b", "c")),
        ({"instruction": "a", "input": "x", "output": "b", "chosen": "b", "rejected": "c"}, ("a\nx", "b", "c")),
        ({"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}, ("a", "b", "c")),
        ({"prompt": [USER], "chosen": [SAID], "rejected": [OTHER]}, ([USER], [SAID], [OTHER])),
        ({"prompt": "where is my card", "chosen": [SAID], "rejected": [OTHER]}, ([USER], [SAID], [OTHER])),
        ({"prompt": json.dumps([USER]), "chosen": "lost", "rejected": "stolen"}, ([USER], [SAID], [OTHER])),
        ({"chosen": [USER, SAID], "rejected": [USER, OTHER]}, ([USER], [SAID], [OTHER])),
        ({"prompt": "where", "chosen": [USER, SAID], "rejected": [USER, OTHER]}, ([USER], [SAID], [OTHER])),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good",
                "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: bad",
            },
            ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", " good", " bad"),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "where is my card"}],
                "chosen": {"from": "gpt", "value": "lost"},
                "rejected": {"from": "gpt", "value": "stolen"},
            },
            ([USER], [SAID], [OTHER]),
        ),
        ({"prompt": "a", "completion": "b", "label": True}, ("a", "b", [])),
        ({"prompt": "a", "completion": "b", "label": "False"}, ("a", [], "b")),
        ({"messages": [USER, SAID], "label": False}, ([USER], [], [SAID])),
        ({"messages": [USER, SAID], "kto_tag": True}, ([USER], [SAID], [])),
    ],
)
def test_every_form_becomes_a_prompt_and_what_was_compared(row: dict[str, Any], wanted: tuple[Any, Any, Any]) -> None:
    found = normalize_preference_row(row)
    assert (found["prompt"], found["chosen"], found["rejected"]) == wanted


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b ", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, "chosen is empty"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected is null"),
        ({"prompt": "a", "chosen": "b", "rejected": [SAID]}, "not both texts"),
        ({"prompt": [{"role": "robot", "content": "x"}], "chosen": "b", "rejected": "c"}, "unknown role: robot"),
        ({"prompt": [USER], "chosen": [{"role": "assistant", "content": None}], "rejected": "c"}, "content is not"),
        ({"chosen": [USER, SAID], "rejected": [SAID | {"role": "user"}, OTHER]}, "do not begin with the same"),
        ({"prompt": "a", "completion": "b", "label": "perhaps"}, "label is neither"),
        ({"messages": [USER], "label": True}, "do not end with the assistant's"),
    ],
)
def test_a_row_that_cannot_be_learned_from_is_refused_for_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normalize_preference_row(row)


def test_a_row_of_no_known_form_is_left_for_the_renaming_of_columns() -> None:
    row = {"question": "a", "chosen": "b", "rejected": "c"}
    assert normalize_preference_row(row) is row


def test_real_files_are_of_known_forms(shared: Path) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        text = (shared / "datasets" / name).read_text("utf8")
        return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]

    def taken(name: str) -> tuple[list[Mapping[str, Any]], list[str]]:
        found: list[Mapping[str, Any]] = []
        refused = []
        for row in rows(name):
            try:
                found.append(normalize_preference_row(row))
            except ValueError as fault:
                refused.append(str(fault))
        assert all(row.keys() == {"prompt", "chosen", "rejected"} for row in found)
        return found, refused

    found, refused = taken("rasbt_instruct/instruction-data-with-preference.json")
    assert (len(found), set(refused), len(refused)) == (1094, {"chosen and rejected are the same"}, 6)
    found, refused = taken("llamafactory_demo/dpo_en_demo.json")
    assert (len(found), refused) == (300, [])
    assert found[0]["prompt"][0]["role"] == "user"
    assert sum(row["prompt"][0]["role"] == "system" for row in found) == 80
    found, refused = taken("llamafactory_demo/kto_en_demo.json")
    assert (len(found), refused) == (300, [])
    assert sum(row["rejected"] == [] for row in found) == 150
    found, refused = taken("llamafactory_demo/v1_dpo_demo.jsonl")
    assert (len(found), refused) == (10, [])


# What curation reads and rewrites


def test_curation_rewrites_contents_and_leaves_the_space_between_prompt_and_completion() -> None:
    from hone.curation.normalize import Normalize

    rows = table(
        ("\n\nHuman: a  b\n\nAssistant:", " good", " bad"), ([USER], [SAID | {"content": "caf\u0065\u0301"}], [])
    )
    objective = Preference()
    verdict = Normalize(generated=True).apply(rows, objective, lambda _: None)
    assert verdict.rows["prompt"][0].as_py() == "\n\nHuman: a b\n\nAssistant:"
    assert verdict.rows["chosen"][0].as_py() == " good"
    assert json.loads(verdict.rows["chosen"][1].as_py())[0]["content"] == "caf\u00e9"
    assert verdict.rows["rejected"][1].as_py() == "[]"
    assert verdict.reasons == ["", ""]
    assert objective.row_texts(rows)[1] == "where is my card\ncafe\u0301"


def test_completions_that_curation_made_equal_drop_the_row() -> None:
    rows = table(("a", "b", "b"), ("a", "b", "c"))
    assert Preference().realign_annotations(rows, rows)[1] == ["chosen and rejected are the same", ""]


# Tokens


def test_a_row_holds_both_sequences_and_the_end_token(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    encoded = Preference().encode(table(("where is my card", " card lost", " red")), tokenizer, 32, {})
    prompt, chosen, rejected = parts(encoded)
    assert tokenizer.decode(prompt) == "where is my card"
    assert tokenizer.decode(chosen) == "card lost <end>"
    assert tokenizer.decode(rejected) == "red <end>"
    assert encoded["lost"].to_pylist() == [0]
    assert encoded["longest"].to_pylist() == [7]


def test_a_long_prompt_loses_its_beginning_and_a_completion_is_never_cut_to_nothing(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    long = " ".join(["red"] * 20 + ["card"])
    rows = table((long, " lost", " late please"), (long, " " + long, " late"), ("card", " " + long, " late"))
    encoded = Preference().encode(rows, tokenizer, 8, {})
    prompt, chosen, rejected = parts(encoded, 0)
    assert tokenizer.decode(prompt) == "red red red red card"
    assert tokenizer.decode(chosen) == "lost <end>"
    assert tokenizer.decode(rejected) == "late please <end>"
    prompt, chosen, rejected = parts(encoded, 1)
    assert (len(prompt), len(chosen), tokenizer.decode(rejected)) == (4, 4, "late <end>")
    prompt, chosen, _ = parts(encoded, 2)
    assert (len(prompt), len(chosen)) == (1, 7)
    # Every token that went is counted, of both sequences.
    whole = Preference().encode(rows, tokenizer, 64, {})
    lengths = [len(ids) for ids in encoded["input_ids"].to_pylist()]
    assert [n + lost for n, lost in zip(lengths, encoded["lost"].to_pylist(), strict=True)] == [
        len(ids) for ids in whole["input_ids"].to_pylist()
    ]
    assert encoded["longest"].to_pylist() == [24, 43, 23]


def test_messages_go_through_the_tokenizer_s_template_and_without_one_are_written_as_hh_does(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    rows = table(([USER], [SAID], [OTHER]))
    prompt, chosen, _ = parts(Preference().encode(rows, tokenizer, 64, {}))
    assert tokenizer.decode(prompt) == "<unk> <unk> where is my card <unk> <unk>"
    assert tokenizer.decode(chosen) == "lost <end>"

    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'word ' if m.role == 'user' else 'a ' }}{{ m.content }}{{ ' <end>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' a' }}{% endif %}"
    )
    prompt, chosen, rejected = parts(Preference().encode(rows, tokenizer, 64, {}))
    assert tokenizer.decode(prompt) == "word where is my card <end> a"
    assert tokenizer.decode(chosen) == "lost <end>"
    assert tokenizer.decode(rejected) == "stolen <end>"
    asked = Preference().encode(rows, tokenizer, 64, {}, labelled=False)
    assert asked["input_ids"][0].as_py() == prompt


def test_the_other_completion_is_the_next_row_s_chosen_and_rejected_by_turns(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    rows = table(("card", " red", " a"), ("card", " green", " the"), ("card", [], " blue"))
    encoded = Preference().encode(rows, tokenizer, 32, {})
    assert [tokenizer.decode(ids) for ids in encoded["other"].to_pylist()] == ["the <end>", "blue <end>", "red <end>"]


def test_a_row_that_ingest_would_have_refused_is_told_by_name(base: Path) -> None:
    with pytest.raises(DataError, match="chosen and rejected are the same") as fault:
        Preference().encode(table(("a", "card", "card")), load_tokenizer(base), 32, {})
    assert "row r0" in str(fault.value)


def test_messages_that_came_by_a_renamed_column_are_looked_at_too(base: Path) -> None:
    rows = table(("a", "card", "red"), ([{"role": "robot", "content": "x"}], "card", "red"))
    with pytest.raises(DataError, match="unknown role: robot") as fault:
        Preference().row_texts(rows)
    assert "row r1" in str(fault.value)


def test_a_batch_labels_completions_alone(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    rows = table(("where is my card", " lost please", " red"), ("card", [], " blue"))
    encoded = Preference().encode(rows, tokenizer, 32, {})
    batch = Preference(loss_type="kto").collate(encoded.to_pydict(), pad_id=1)
    shown = [tokenizer.decode([one for one in row if one >= 0]) for row in batch["labels"].tolist()]
    assert shown == ["lost please <end>", "red <end>", "blue <end>"]
    assert batch["side"].tolist() == [0, 1, 1]
    assert batch["row"].tolist() == [0, 0, 1]
    others = [tokenizer.decode(row, skip_special_tokens=True) for row in batch["other_input_ids"].tolist()]
    assert others == ["where is my card blue", "card lost please"]


# Losses and figures


def test_log_probabilities_are_those_of_the_model_row_by_row(base: Path) -> None:
    import torch

    objective, tokenizer = Preference(), load_tokenizer(base)
    encoded = objective.encode(
        table(("where is my card", " lost please", " red"), ("card", [], " blue")), tokenizer, 32, {}
    )
    model = objective.load_model(base, {}).eval()
    raw = objective.predict_batch(model, objective.collate(encoded.to_pydict(), pad_id=1))
    prompt, chosen, rejected = parts(encoded)
    wanted = []
    for said in (chosen, rejected):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + said])).logits[0].log_softmax(-1)
        wanted += [logits[len(prompt) + i - 1, token].item() for i, token in enumerate(said)]
    assert raw["log_probs"][0] == pytest.approx(wanted, abs=1e-5)
    assert raw["scores"][0] == pytest.approx([np.mean(wanted[:3]), np.mean(wanted[3:])], abs=1e-5)
    assert raw["scores"][1][0] == 0
    assert len(raw["log_probs"][1]) == 2


def test_pairs_are_asked_for_where_single_completions_teach_nothing(base: Path) -> None:
    objective = Preference(loss_type="orpo")
    encoded = objective.encode(table(("card", " red", " a"), ("card", [], " blue")), load_tokenizer(base), 32, {})
    batch = objective.collate(encoded.to_pydict(), pad_id=1)
    with pytest.raises(DataError, match="one completion, and orpo compares two") as fault:
        objective.compute_loss(objective.load_model(base, {}), batch)
    assert "kto" in str(fault.value)


def encoded_like(chosen: list[int], rejected: list[int], reference: list[list[float]] | None) -> pa.Table:
    columns = {"chosen": pa.array(chosen, pa.int32()), "rejected": pa.array(rejected, pa.int32())}
    return pa.table(columns | ({"reference": pa.array(reference)} if reference else {}))


def figures_of(objective: Preference, tokens: pa.Table, raw: Mapping[str, Any]) -> dict[str, float]:
    outcome = objective.compute_outcome(tokens, raw, {})
    found = objective.compute_metrics(outcome.statistics.sum(0)[:, None], {})
    assert list(found) == list(objective.metrics)
    return {name: float(value[0]) for name, value in found.items()}


def test_the_figures_of_four_rows_are_those_worked_out_by_hand() -> None:
    # Two pairs, of which one is right, and a wanted and an unwanted completion, both of them right.
    tokens = encoded_like([2, 1, 1, 0], [1, 1, 0, 1], [[-1.0, -1.0, -2.0], [-1.0, -1.0], [-3.0], [-1.0]])
    log_probs = [[-0.5, -0.5, -3.0], [-2.0, -1.0], [-2.0], [-1.5]]
    raw = {"log_probs": log_probs, "scores": [[-0.5, -3.0], [-2.0, -1.0], [-2.0, 0.0], [0.0, -1.5]]}
    found = figures_of(Preference(beta=0.5), tokens, raw)
    assert found["reward_accuracy"] == 3 / 4
    assert found["ranking_accuracy"] == 1 / 2
    assert found["margin"] == pytest.approx(0.5 * ((1 - 1 + 1) / 3 - (-1 + 0 - 0.5) / 3))
    assert found["kl"] == pytest.approx((0.25 + 0.25 + 1 + 1 + 0 + 1 + 0.25) / 2 / 7)
    assert found["chosen_log_prob"] == pytest.approx((-1 - 2 - 2) / 4)
    outcome = Preference(beta=0.5).compute_outcome(tokens, raw, {})
    assert outcome.errors.tolist() == pytest.approx([0, 0.5, 0, 0])
    assert list(outcome.references) == ["chosen", "chosen", "chosen", "rejected"]
    assert list(outcome.predictions)[:2] == ["chosen, by 1", "rejected, by 0.5"]

    # ORPO has no reference: rewards are mean log-probabilities.
    found = figures_of(Preference(loss_type="orpo", beta=0.5), tokens, raw)
    assert found["reward_accuracy"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert found["kl"] > 0


def test_the_base_model_is_its_own_reference_and_stands_at_half() -> None:
    log_probs = [[-1.0, -2.0], [-1.0, -2.0]]
    tokens = encoded_like([1, 1], [1, 1], log_probs)
    raw = {"log_probs": log_probs, "scores": [[-1.0, -2.0], [-1.0, -2.0]]}
    found = figures_of(Preference(), tokens, raw)
    assert (found["reward_accuracy"], found["ranking_accuracy"]) == (0.5, 1.0)
    assert (found["margin"], found["kl"]) == (0.0, 0.0)


def test_length_is_a_rival_by_the_side_that_training_rows_prefer() -> None:
    train, test = encoded_like([9, 8, 7], [2, 3, 8], None), encoded_like([5, 2, 9, 0], [3, 4, 0, 9], None)
    raw = Preference().baseline_predictions(train, test, {}, test)["length"]
    outcome = Preference().compute_outcome(test, raw, {})
    assert (outcome.errors == 0).tolist() == [True, False, True, False]
    found = figures_of(Preference(), test, raw)
    assert found["reward_accuracy"] == 1 / 2
    assert np.isnan(found["kl"])
    shorter = Preference().baseline_predictions(encoded_like([1, 2], [5, 9], None), test, {}, test)["length"]
    assert (Preference().compute_outcome(test, shorter, {}).errors == 0).tolist() == [False, True, False, True]


# The model, and what a caller is told


def test_an_encoder_is_no_base_for_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights are not in its files"):
        Preference().load_model(tiny_bert(tmp_path / "bert"), {})


def test_a_caller_has_the_greedy_answer_and_its_log_probability(base: Path) -> None:
    import torch

    objective, tokenizer = Preference(answer_tokens=6), load_tokenizer(base)
    model = objective.load_model(base, {}).eval()
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    asked = [{"prompt": "where is my card"}, {"prompt": "please"}, {"prompt": json.dumps([USER])}]
    found = reader.answer(model, asked, {}, 32)
    assert [set(one) for one in found] == [{"completion", "log_probability"}] * 3

    # A prompt among others is answered as it is alone, and as plain greedy steps would.
    assert reader.answer(model, asked[1:2], {}, 32)[0]["completion"] == found[1]["completion"]
    ids = tokenizer("please")["input_ids"]
    total, said = 0.0, []
    for _ in range(6):
        with torch.no_grad():
            step = model(input_ids=torch.tensor([ids + said])).logits[0, -1].log_softmax(-1)
        said.append(int(step.argmax()))
        total += step.max().item()
        if said[-1] == tokenizer.eos_token_id:
            break
    assert found[1]["completion"] == tokenizer.decode(said, skip_special_tokens=True).strip()
    assert found[1]["log_probability"] == pytest.approx(total, abs=1e-4)
