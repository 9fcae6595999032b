from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hone.curation.curate import curate
from hone.curation.normalize import Normalize
from hone.errors import ConfigError, DataError, ModelError
from hone.evaluation.report.population import describe_population
from hone.objectives.chat import template as chat_template
from hone.objectives.chat.conversations import parse_conversation
from hone.objectives.chat.objective import Chat
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.tokenization.tokenize import dropped_ids, read_tokens, tokenize
from tests.tiny_bases import TALK, tiny, tiny_talker

PLAIN = """\
{{- bos_token }}
{%- for message in messages %}
    {{- ' ' + message.role + '\\n' + message.content + ' ' + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- ' assistant\\n' }}{%- endif %}
"""
SPOKEN = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- ' assistant\\n' }}{% generation %}{{ message.content }} {% endgeneration %}{{ eos_token + '\\n' }}
    {%- else %}
        {{- ' ' + message.role + '\\n' + message.content + ' ' + eos_token + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- ' assistant\\n' }}{%- endif %}
"""
TURNS = "{% for turn in messages %}{{ turn.role + ' ' + turn.content + ' ' + eos_token + ' ' }}{% endfor %}"
TURNS += "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
LAST = PLAIN.replace("message.content", "(message.content if loop.last or message.role != 'assistant' else 'x')")
LONG = [
    {"role": "system", "content": "you are kind"},
    {"role": "user", "content": "say red"},
    {"role": "assistant", "content": "red red"},
    {"role": "user", "content": "and blue"},
    {"role": "assistant", "content": "blue"},
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_talker(tmp_path / "base", template=PLAIN)


def rows(*conversations: Any) -> pa.Table:
    values = [one if isinstance(one, str) else json.dumps(one) for one in conversations]
    return pa.table({"id": [f"chat.json:{n}" for n in range(len(values))], "messages": pa.array(values, pa.string())})


def equipped(base: Path, objective: Chat) -> tuple[Any, dict[str, Any]]:
    tokenizer = load_tokenizer(base)
    return tokenizer, objective.prepare_tokenizer(tokenizer, objective.build_targets(rows()))


def learned(tokenizer: Any, encoded: pa.Table, row: int = 0) -> list[str]:
    """The labelled tokens of a row, a string for each unbroken stretch."""
    found, open_ = [], False
    for token, label in zip(encoded["input_ids"][row].as_py(), encoded["labels"][row].as_py(), strict=True):
        if label != -100:
            assert token == label
            name = tokenizer.convert_ids_to_tokens(label)
            found = [*found[:-1], f"{found[-1]} {name}"] if open_ else [*found, name]
        open_ = label != -100
    return found


@pytest.mark.parametrize("template", [PLAIN, SPOKEN], ids=["by difference", "by generation blocks"])
def test_the_assistants_turns_alone_are_learned_each_with_its_end(tmp_path: Path, template: str) -> None:
    objective = Chat()
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=template), objective)
    encoded = objective.encode(rows(LONG, LONG[1:3]), tokenizer, 64, targets)
    assert learned(tokenizer, encoded) == ["red red <end>", "blue <end>"]
    assert learned(tokenizer, encoded, 1) == ["red red <end>"]
    assert encoded["lost"].to_pylist() == [0, 0]
    # The tokens are those of the template itself, and the prompt is what a caller's question becomes.
    assert encoded["input_ids"][0].as_py() == tokenizer.apply_chat_template(LONG, return_dict=False)
    asked = objective.encode(rows(LONG, LONG[1:2]), tokenizer, 64, targets, labelled=False)
    assert "labels" not in asked.column_names
    for row in range(2):
        prompt = encoded["prompt"][row].as_py()
        assert asked["input_ids"][row].as_py() == encoded["input_ids"][row].as_py()[:prompt]
        assert asked["prompt"][row].as_py() == prompt


@pytest.mark.parametrize("template", [PLAIN, SPOKEN], ids=["by difference", "by generation blocks"])
def test_each_turn_is_learned_whatever_the_order_of_roles(tmp_path: Path, template: str) -> None:
    objective = Chat(roles="lenient")
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=template), objective)
    turns = [LONG[2], LONG[1], LONG[1], LONG[2], LONG[4]]  # the assistant first, and twice at the end
    assert [turn["role"] for turn in turns] == ["assistant", "user", "user", "assistant", "assistant"]
    encoded = objective.encode(rows(turns), tokenizer, 64, targets)
    assert learned(tokenizer, encoded) == ["red red <end>", "red red <end>", "blue <end>"]
    with pytest.raises(DataError, match=r"wrong order: .* assistant at the beginning"):
        Chat().encode(rows(turns), tokenizer, 64, targets)


@pytest.mark.parametrize("template", [PLAIN, SPOKEN], ids=["by difference", "by generation blocks"])
def test_several_system_turns_are_rendered_where_roles_are_lenient(tmp_path: Path, template: str) -> None:
    objective = Chat(roles="lenient")
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=template), objective)
    later = {"role": "system", "content": "say blue"}
    turns = [LONG[0], LONG[0], *LONG[1:3], later, LONG[4]]
    encoded = objective.encode(rows(turns), tokenizer, 64, targets)
    assert learned(tokenizer, encoded) == ["red red <end>", "blue <end>"]
    text = tokenizer.decode(encoded["input_ids"][0].as_py())
    assert text.count("you are kind") == 2 and text.index("red red") < text.index("say blue") < text.rindex("blue")
    with pytest.raises(DataError, match="wrong order"):
        Chat().encode(rows(turns), tokenizer, 64, targets)


def test_a_template_refuses_roles_in_an_order_that_it_cannot_render(tmp_path: Path) -> None:
    """As many models' own templates do."""
    turn = "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}"
    template = PLAIN.replace("{%- for message in messages %}", "{%- for message in messages %}" + turn + "{% endif %}")
    objective = Chat(roles="lenient")
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=template), objective)
    assert len(objective.encode(rows(LONG[1:]), tokenizer, 64, targets)) == 1
    with pytest.raises(DataError, match=r"row chat.json:1: the chat template refuses it: roles must alternate"):
        objective.encode(rows(LONG[1:], [LONG[1], *LONG[1:3]]), tokenizer, 64, targets)


def test_a_turn_with_weight_0_is_read_and_not_learned(base: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(base, objective)
    weighted = [*LONG[:2], {**LONG[2], "weight": 0}, *LONG[3:]]
    encoded = objective.encode(rows(weighted), tokenizer, 64, targets)
    assert learned(tokenizer, encoded) == ["blue <end>"]
    assert (
        encoded["input_ids"].to_pylist()
        == objective.encode(rows(LONG), tokenizer, 64, targets)["input_ids"].to_pylist()
    )


def test_a_template_that_renders_earlier_turns_otherwise_is_an_error_that_names_it(tmp_path: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=LAST), objective)
    digest = chat_template.template_digest(LAST)[:12]
    with pytest.raises(ModelError, match=rf"{digest}.*messages\[2\] differently when more follows"):
        objective.encode(rows(LONG), tokenizer, 64, targets)


def test_a_template_without_an_end_of_turn_is_refused(tmp_path: Path) -> None:
    base = tiny_talker(tmp_path / "base", template=PLAIN.replace(" + ' ' + eos_token", ""))
    with pytest.raises(ModelError, match="would not learn to stop"):
        equipped(base, Chat())


def test_the_template_is_the_models_own_or_a_named_one(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_bytes(PLAIN.replace("\n", "\r\n").encode())
    _, own = equipped(base, Chat())
    _, named = equipped(base, Chat(template=str(file)))
    _, default = equipped(base, Chat(template="chatml"))
    assert own == named  # whatever the ends of its lines
    assert default["template"] == chat_template.CHATML
    assert default["template_sha256"] != own["template_sha256"]
    assert Chat(template=str(file)).option_files() == (file,)
    assert Chat(template="chatml").option_files() == ()
    bare = tiny_talker(tmp_path / "bare")
    with pytest.raises(ConfigError, match="no chat template of its own; there are chatml"):
        equipped(bare, Chat())
    with pytest.raises(ConfigError, match="cannot be read"):
        equipped(bare, Chat(template=str(tmp_path / "absent.jinja")))
    with pytest.raises(ModelError, match="today's date"):
        equipped(tiny_talker(tmp_path / "dated", template="{{ strftime_now('%d') }}" + PLAIN), Chat())


def test_another_template_beside_the_weights_is_refused(base: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(base, objective)
    tokenizer.save_pretrained(base)
    assert objective.encode(rows(LONG), load_tokenizer(base), 64, targets, labelled=False).num_rows == 1
    (base / "chat_template.jinja").write_text(PLAIN.replace("assistant", "helper"))
    with pytest.raises(ModelError, match="not the one it was trained with"):
        objective.encode(rows(LONG), load_tokenizer(base), 64, targets, labelled=False)


def test_a_template_cannot_reach_out_of_its_sandbox(base: Path) -> None:
    evil = PLAIN + "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = evil
    with pytest.raises(ValueError, match=r"the chat template refuses it: .*unsafe"):
        chat_template.render_conversation(tokenizer, parse_conversation(json.dumps(LONG)))


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    template = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    objective = Chat()
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=template), objective)
    with pytest.raises(DataError, match=r"row chat.json:1: the chat template refuses it: no system"):
        objective.encode(rows(LONG[1:3], LONG), tokenizer, 64, targets)


def test_generation_blocks_are_kept_apart_among_threads(tmp_path: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(tiny_talker(tmp_path / "base", template=SPOKEN), objective)
    tables = [rows(*[LONG[: 3 if n % 2 else 5]] * 40) for n in range(6)]
    alone = [objective.encode(table, tokenizer, 64, targets) for table in tables]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda table: objective.encode(table, tokenizer, 64, targets), tables))
    assert together == alone


CALL = {"type": "function", "function": {"name": "two", "arguments": {"word": "red"}}}
TOOL = {"type": "function", "function": {"name": "two", "description": "twice"}}
CALLING = {"messages": [LONG[1], {"role": "assistant", "content": "", "tool_calls": [CALL]}], "tools": [TOOL]}


def test_tool_calls_are_learned_by_the_default_template(base: Path) -> None:
    objective = Chat(template="chatml")
    tokenizer, targets = equipped(base, objective)
    text, [span] = chat_template.render_turns(tokenizer, parse_conversation(json.dumps(CALLING)))
    assert text[slice(*span)] == '<tool_call>{"name": "two", "arguments": {"word": "red"}}</tool_call><end>\n'
    assert '"description": "twice"' in text[: span[0]]
    assert learned(tokenizer, objective.encode(rows(CALLING), tokenizer, 96, targets))[0].endswith("<end>")


def test_a_template_that_leaves_out_tools_is_refused(base: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(base, objective)
    with pytest.raises(ModelError, match="leaves out the calls of tools"):
        objective.encode(rows(CALLING), tokenizer, 64, targets)


def splits(folder: Path, train: list[Any]) -> Path:
    import pyarrow.parquet as pq

    folder.mkdir()
    for split, given in (("train", train), ("valid", [LONG] * 2), ("test", [LONG] * 2)):
        pq.write_table(rows(*given), folder / f"{split}.parquet")
    return folder


def test_rows_with_nothing_left_to_learn_are_dropped_counted_and_bounded(base: Path, tmp_path: Path) -> None:
    far = [{"role": "user", "content": "say " * 60}, {"role": "assistant", "content": "red"}]
    given = splits(tmp_path / "splits", [LONG, far, *[LONG] * 8])
    out = tmp_path / "out"
    out.mkdir()
    settings: dict[str, Any] = {"base": base, "objective": Chat(), "max_length": 40, "max_truncated": 0.5}
    product = tokenize(given, out, **settings, max_dropped=0.1)
    reason = "no assistant token is within max_length"
    assert product.facts["dropped"] == {"train": {reason: 1}}
    assert product.facts["splits"]["train"]["rows"] == len(read_tokens(out / "train.arrow")) == 9
    assert dropped_ids(out, "train") == {"chat.json:1"}
    assert dropped_ids(out, "test") == set()
    with pytest.raises(DataError, match=rf"train split: 1 of 10 rows \(10.0%\) are left out.*{reason}.*chat.json:1"):
        tokenize(given, out, **settings, max_dropped=0.05)


def test_given_test_rows_that_were_dropped_are_named_beside_the_headline_figure(base: Path, tmp_path: Path) -> None:
    far = [{"role": "user", "content": "say " * 60}, {"role": "assistant", "content": "red"}]
    given = splits(tmp_path / "splits", [LONG] * 3)
    pq.write_table(rows(LONG, far, LONG), given / "test.parquet")
    out = tmp_path / "out"
    out.mkdir()
    sizes: dict[str, Any] = {"base": base, "objective": Chat(), "max_length": 40}
    tokens = tokenize(given, out, **sizes, max_truncated=0.5, max_dropped=0.4)
    facts = {"ingest": {}, "curate": {"funnel": [], "given": {"test": 3}}, "tokenize": tokens.facts, "train": {}}
    metrics = {"main_metric": "loss", "measures": {"loss": {"share": False}}}
    assert describe_population(facts, metrics) == [
        "2 of 3 given test rows were used.",
        "Test rows left out, because no assistant token is within max_length: 1.",
    ]


def test_a_model_is_judged_on_the_rows_that_were_not_dropped(base: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from hone.evaluation.judging.evaluate import evaluate
    from hone.methods.full import Full

    objective = Chat(generate=2, max_new_tokens=4)
    given = splits(tmp_path / "splits", [LONG] * 3)
    far = [{"role": "user", "content": "say " * 60}, {"role": "assistant", "content": "red"}]
    test = rows(far, LONG, LONG[1:3], LONG[1:3])
    pq.write_table(test.append_column("source", pa.array(["chat.json"] * 4)), given / "test.parquet")
    tokens, out, trained = tmp_path / "tokens", tmp_path / "out", tmp_path / "trained"
    for folder in (tokens, out, trained):
        folder.mkdir()
    sizes: dict[str, Any] = {"base": base, "objective": objective, "max_length": 40}
    tokenize(given, tokens, **sizes, max_truncated=0.5, max_dropped=0.5)
    tokenizer, targets = equipped(base, objective)
    objective.load_model(base, targets).save_pretrained(trained / "model")
    tokenizer.save_pretrained(trained / "model")
    judging: dict[str, Any] = {"slices": ["length"], "neighbours": 1, "resamples": 100, "confidence": 0.95, "worst": 5}
    product = evaluate(trained, tokens, given, out, **sizes, method=Full(), **judging, seed=1)
    assert product.rows == 3
    predicted = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [row["id"] for row in predicted] == [f"chat.json:{n}" for n in (1, 2, 3)]
    assert [row["prediction"] == "(not asked)" for row in predicted] == [False, False, True]
    # Nothing was trained: the model and the base it was made of are one.
    assert product.facts["metrics"] == product.facts["baselines"]["untuned"]
    assert product.facts["comparisons"]["untuned"]["difference"] == 0


def test_a_cut_last_answer_is_learned_as_far_as_it_goes_and_not_asked_for(base: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(base, objective)
    full = objective.encode(rows(LONG), tokenizer, 64, targets)
    end = full["prompt"][0].as_py() + 1
    cut = objective.encode(rows(LONG), tokenizer, end, targets)
    assert learned(tokenizer, cut) == ["red red <end>", "blue"]
    assert cut["prompt"].to_pylist() == [0]
    assert cut["lost"].to_pylist() == [len(full["input_ids"][0]) - end]


def test_the_loss_is_that_of_the_labelled_tokens(base: Path) -> None:
    objective = Chat()
    tokenizer, targets = equipped(base, objective)
    model = objective.load_model(base, targets).eval()
    encoded = objective.encode(rows(LONG, LONG[1:3]), tokenizer, 64, targets)
    batch = objective.collate(encoded.drop_columns(["id"]).to_pydict(), tokenizer.pad_token_id)
    total, count = objective.compute_loss(model, batch)
    apart = [
        model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item() * sum(x != -100 for x in labels)
        for ids, labels in zip(encoded["input_ids"].to_pylist(), encoded["labels"].to_pylist(), strict=True)
    ]
    assert count == 5 + 3
    assert total.item() == pytest.approx(sum(apart), rel=1e-5)
    raw = objective.predict_batch(model, batch)
    assert raw["nll"].tolist() == pytest.approx(apart, rel=1e-5)
    assert raw["generated"] == [None, None]  # nobody asked
    outcome = objective.compute_outcome(encoded, raw, targets)
    figures = {
        name: of[0] for name, of in objective.compute_metrics(outcome.statistics.sum(0)[:, None], targets).items()
    }
    assert figures["perplexity"] == pytest.approx(np.exp(sum(apart) / 8), rel=1e-5)
    assert np.isnan(figures["exact_match"])
    assert "rougeL" not in Chat(generate=0).compute_metrics(outcome.statistics.sum(0)[:, None], targets)


def test_answers_are_greedy_those_of_the_first_rows_and_the_same_alone_or_in_a_batch(base: Path) -> None:
    objective = Chat(generate=2, max_new_tokens=6)
    tokenizer, targets = equipped(base, objective)
    model = objective.load_model(base, targets).eval()
    given = rows(LONG[1:3], LONG, LONG)
    encoded = objective.encode(given, tokenizer, 64, targets)
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    raw, _ = reader.predict(model, encoded)
    assert [text is None for text in raw["said"]] == [False, False, True]
    assert raw["reference"] == ["red red", "blue", "blue"]
    prompt = torch.tensor([encoded["input_ids"][0].as_py()[: encoded["prompt"][0].as_py()]])
    plain = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False)
    assert raw["said"][0] == tokenizer.decode(plain[0, prompt.shape[1] :], skip_special_tokens=True).strip()
    told = reader.answer(model, [{"messages": json.dumps(LONG)}, {"messages": json.dumps(LONG[1:2])}], targets, 64)
    assert told == [{"answer": raw["said"][1]}, {"answer": raw["said"][0]}]
    outcome = objective.compute_outcome(encoded, raw, targets)
    assert outcome.statistics[:, 3].tolist() == [1, 1, 0]
    assert outcome.predictions[2] == "(not asked)"


def test_a_message_that_curation_empties_drops_its_row_and_is_shown(tmp_path: Path) -> None:
    said = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"answer {n}"}] for n in range(9)]
    said[4][0]["content"] = "\0\0"
    read, empty = rows(*said), pa.array([""] * len(said))
    pq.write_table(read.append_column("source", empty).append_column("split", empty), tmp_path / "rows.parquet")
    steps: Any = [("normalize", Normalize())]
    split: Any = {"valid": 0.2, "test": 0.2, "seed": 1, "near_duplicate": 1.0}
    product = curate(tmp_path / "rows.parquet", tmp_path, steps=steps, fields=Chat(), **split)
    [step, *_] = product.facts["funnel"]
    assert step["dropped"] == {"an emptied message": 1}
    assert '"answer 4"' in step["examples"][0]["text"]


def test_answers_are_judged_by_exact_match_and_rouge() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    said, wanted = ["red red", "", None, "the red word"], ["red red", "blue", "x", "a red word now"]
    raw = {"nll": [1.0] * 4, "counted": [2.0] * 4, "right": [1.0] * 4, "said": said, "reference": wanted}
    outcome = Chat().compute_outcome(rows(*[LONG] * 4), raw, {})
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    expected = [
        scorer.score(b, a)["rougeL"].fmeasure if a is not None else 0 for a, b in zip(said, wanted, strict=True)
    ]
    assert outcome.statistics[:, 5].tolist() == expected
    figures = Chat().compute_metrics(outcome.statistics.sum(0)[:, None], {})
    assert figures["exact_match"].tolist() == [pytest.approx(1 / 3)]
    assert figures["rougeL"].tolist() == [pytest.approx(sum(expected) / 3)]
    assert figures["perplexity"].tolist() == [pytest.approx(np.exp(0.5))]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "qwen"])
def test_the_loss_of_each_conversation_is_the_same_packed_and_alone(family: str, tmp_path: Path) -> None:
    base = tiny(family, tmp_path / "base", words=TALK, template=TURNS)
    objective = Chat(packing=True, generate=0)
    tokenizer, targets = equipped(base, objective)
    model = objective.load_model(base, targets).eval()
    encoded = objective.encode(rows(LONG, LONG[1:3], LONG[1:], LONG[:3], LONG[3:]), tokenizer, 64, targets)
    alone = objective.predict_batch(model, objective.collate(encoded.to_pydict(), tokenizer.pad_token_id))
    batches = objective.pack_rows(encoded, 40)
    assert batches is not None
    packed = pa.concat_tables(batches).to_pydict()
    assert len(packed["id"]) < encoded.num_rows
    batch = objective.collate(packed, tokenizer.pad_token_id, training=True)
    known = {tuple(ids): place for place, ids in enumerate(encoded["input_ids"].to_pylist())}
    seen = []
    for row, lengths in enumerate(packed["documents"]):
        for end, length in zip(np.cumsum(lengths).tolist(), lengths, strict=True):
            place = known[tuple(packed["input_ids"][row][end - length : end])]
            mine = torch.full_like(batch["labels"], -100)
            mine[row, end - length : end] = batch["labels"][row, end - length : end]
            with torch.no_grad():
                nll, count = objective.compute_loss(model, {**batch, "labels": mine})
            assert count == alone["counted"][place]
            assert nll.item() / count == pytest.approx(alone["scores"][place], abs=1e-4)
            seen.append(place)
    assert sorted(seen) == list(range(encoded.num_rows))
    assert Chat().pack_rows(encoded, 40) is None


def test_a_prompt_longer_than_the_models_positions_is_answered_by_its_end(tmp_path: Path) -> None:
    base = tiny_talker(tmp_path / "base", template=PLAIN, positions=32)
    objective = Chat(max_new_tokens=8)
    tokenizer, targets = equipped(base, objective)
    model = objective.load_model(base, targets).eval()
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    long = [{"role": "user", "content": "say red and " * 40}]
    [told] = reader.answer(model, [{"messages": json.dumps(long)}], targets, 32)
    assert isinstance(told["answer"], str)


def test_a_base_without_its_language_modelling_head_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny_talker(tmp_path / "base", template=PLAIN)
    AutoModelForCausalLM.from_pretrained(base).model.save_pretrained(base)
    with pytest.raises(ModelError, match=r"1 of its weights are not in its files.*lm_head"):
        Chat().load_model(base, {"end": 2})


def test_the_trained_model_stops_at_the_templates_end_token(base: Path, tmp_path: Path) -> None:
    model = Chat(max_new_tokens=7).load_model(base, {"end": 3})
    model.save_pretrained(tmp_path / "saved")
    kept = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert (kept["eos_token_id"], kept["max_new_tokens"]) == ([3, 2], 7)


def test_real_tool_conversations_are_learned_to_the_letter(shared: Path) -> None:
    objective = Chat(template="chatml")
    tokenizer, targets = equipped(shared / "models/stories260K", objective)
    data = json.loads((shared / "datasets/llamafactory_demo/glaive_toolcall_en_demo.json").read_text("utf8"))[:30]
    shaped = [objective.normalize_row(row)["messages"] for row in data]
    encoded = objective.encode(rows(*shaped), tokenizer, 100_000, targets)
    asked = objective.encode(rows(*shaped), tokenizer, 100_000, targets, labelled=False)
    for row, value in enumerate(shaped):
        _, spans = chat_template.render_turns(tokenizer, parse_conversation(json.dumps(value)))
        labels = [label for label in encoded["labels"][row].as_py() if label != -100]
        assert labels.count(targets["end"]) == len(spans)
        said = [one["content"] for one in parse_conversation(json.dumps(value)).messages if one["role"] == "assistant"]
        text = tokenizer.decode(labels)
        assert all(content in text for content in said)
        prompt = asked["input_ids"][row].as_py()
        assert prompt == encoded["input_ids"][row].as_py()[: len(prompt)]
