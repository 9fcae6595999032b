"""Answers of local models are those that the naive computation gives, one sequence at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from hone.errors import ModelError
from hone.evaluation.rivals import likelihood
from hone.evaluation.rivals.local import LocalEngine
from tests.families import DECODERS, PAIRS
from tests.tiny_bases import tiny, tiny_bert

PROMPT = "the card is lost where was my money please help the word is"
LABELS = ("red", "red card", "green", "blue word lost late", "stolen")
STORY = "Once upon a time there was a little dog. The dog was"
THINKING = """\
{%- for message in messages %}
    {{- '<|im_end|>' + message.role + ' ' }}
    {{- '<think>word</think>' if message.role == 'assistant' }}
    {{- message.content + '<|im_end|>' }}
{%- endfor %}
{{- '<|im_end|>assistant ' if add_generation_prompt }}"""


def engine(path: Path, choices: Sequence[str] = (), stops: Sequence[str] = (), new: int = 8) -> LocalEngine:
    return LocalEngine(path, "digest", new, choices, stops)


def naive_scores(
    path: Path, prompt: Sequence[int], answers: Sequence[Sequence[int]], ends: Sequence[int]
) -> list[float]:
    """The whole sequences one by one, without a cache."""
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    scores = []
    for answer in answers:
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0].log_softmax(-1)
        steps = [logits[len(prompt) + i - 1, token] for i, token in enumerate(answer)]
        last = [logits[-1, list(ends)].logsumexp(0)] if ends else []
        scores.append(float(sum(steps + last)))
    return scores


@pytest.fixture
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


def sorter(shared: Path, folder: Path) -> Path:
    """gpt-nano-sort with a tokenizer of its three letters."""
    shutil.copytree(shared / "models" / "gpt-nano-sort", folder)
    letters = Tokenizer(models.WordLevel({"A": 0, "B": 1, "C": 2, "?": 3}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_scores_as_whole_sequences_do(family: str, tmp_path: Path) -> None:
    base = tiny(family, tmp_path / family)
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = tokenizer(PROMPT)["input_ids"]
    answers = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in LABELS]
    expected = naive_scores(base, prompt, answers, [tokenizer.eos_token_id])
    scores = engine(base, LABELS).score_choices(PROMPT)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert engine(base, LABELS).ask(PROMPT).text == LABELS[int(np.argmax(expected))]


@pytest.mark.parametrize("kind", ["Mamba", "Lfm2"])
def test_a_recurrent_model_scores_as_whole_sequences_do(kind: str, tmp_path: Path) -> None:
    """Its state is no cache of keys and values, which are repeated for each label; or only in some layers."""
    base = tiny("gpt2", tmp_path / "base")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "initializer_range": 0.5}
    if kind == "Mamba":
        config: Any = transformers.MambaConfig(vocab_size=64, state_size=4, **sizes)
    else:
        layers = {"layer_types": ["conv", "full_attention"], "num_attention_heads": 2, "num_key_value_heads": 1}
        config = transformers.Lfm2Config(vocab_size=64, intermediate_size=32, **sizes, **layers)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    answers = [tokenizer(label)["input_ids"] for label in LABELS]
    ends = engine(base, LABELS)._ends
    expected = naive_scores(base, tokenizer(PROMPT)["input_ids"], answers, ends)
    assert engine(base, LABELS).score_choices(PROMPT) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", PAIRS)
def test_an_encoder_decoder_scores_as_single_targets_do(family: str, tmp_path: Path) -> None:
    base = tiny(family, tmp_path / family)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSeq2SeqLM.from_pretrained(base).eval()
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    expected = []
    for label in LABELS:
        targets = torch.tensor([tokenizer(label)["input_ids"]])
        with torch.inference_mode():
            expected.append(-float(model(**inputs, labels=targets).loss) * targets.numel())
    assert engine(base, LABELS).score_choices(PROMPT) == pytest.approx(expected, abs=1e-4)


def test_a_real_decoder_scores_labels_up_to_their_end(stories: Path) -> None:
    """Byte fallback and merged spaces; an end of several tokens; a label that begins another one."""
    tokenizer, labels = AutoTokenizer.from_pretrained(stories), ("a big dog", "a big", "sad", "happy and sad")
    prompt = tokenizer(STORY)["input_ids"]
    whole = [tokenizer(f"{STORY} {label}\n\n")["input_ids"] for label in labels]
    assert all(ids[: len(prompt)] == prompt for ids in whole)
    expected = naive_scores(stories, prompt, [ids[len(prompt) :] for ids in whole], [])
    for prompt_text in (STORY, f"{STORY} "):  # the space before the answer is the answer's
        assert engine(stories, labels, ["\n\n"]).score_choices(prompt_text) == pytest.approx(expected, abs=1e-4)


def test_a_label_is_not_favoured_because_it_begins_another_one(stories: Path) -> None:
    """What is sure to follow `very` here makes the shorter label unlikely, whose own tokens are likelier."""
    prompt = "very happy. " * 12 + "He was very happy. She was"
    completion = engine(stories, ("very", "very happy"), ["."]).ask(prompt)
    assert completion.text == "very happy"
    assert completion.ended == "stop"


def test_a_score_is_the_same_alone_and_among_77_labels(stories: Path) -> None:
    labels = [f"{'big ' * (n % 5)}dog {n}" for n in range(77)]
    scores = engine(stories, labels, ["\n"]).score_choices(STORY * 5)
    alone = [float(engine(stories, [label], ["\n"]).score_choices(STORY * 5)[0]) for label in labels[::16]]
    assert scores[::16] == pytest.approx(alone, abs=1e-4)


def test_labels_are_scored_in_blocks_of_bounded_memory(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"{'big ' * (n % 5)}dog {n}" for n in range(77)]
    asked = engine(stories, labels, ["\n"])
    expected = asked.score_choices(STORY * 5)
    sizes: list[int] = []
    asked._model.register_forward_pre_hook(
        lambda _, __, options: sizes.append(len(options["input_ids"])), with_kwargs=True
    )
    # A position has keys and values of 5 layers and 4 heads of 8, and logits of 512 tokens: 8 rows of 150 are 1.8 MB.
    monkeypatch.setattr(likelihood, "BLOCK_BYTES", 2_000_000)
    assert asked.score_choices(STORY * 5) == pytest.approx(expected, abs=1e-4)
    assert sizes[0] == 1
    assert sum(sizes[1:]) == 77
    assert 1 < max(sizes) < 16


def test_generation_is_the_models_own(stories: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(stories), AutoModelForCausalLM.from_pretrained(stories)
    inputs = tokenizer(STORY, return_tensors="pt", return_token_type_ids=False)
    generated = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    text = tokenizer.decode(generated, skip_special_tokens=True)
    completion = engine(stories, new=40).ask(f"{STORY}  ")  # spaces at the end make no difference
    assert (completion.text, completion.ended) == (text.strip(), "length")
    assert (completion.input_tokens, completion.output_tokens) == (inputs["input_ids"].shape[1], 40)
    assert completion.seconds > 0


def test_an_answer_ends_before_the_first_stop(stories: Path) -> None:
    whole = engine(stories, new=40).ask(STORY).text
    word, later = whole.split()[4], whole.split()[8]
    completion = engine(stories, stops=[f" {later}", f" {word}"], new=40).ask(STORY)
    assert (completion.text, completion.ended) == (whole.partition(f" {word}")[0], "stop")
    assert completion.output_tokens < 40


def test_a_generated_end_token_ends_the_answer(tmp_path: Path) -> None:
    base = tiny("qwen", tmp_path / "base")
    ids = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt", return_token_type_ids=False)
    written = AutoModelForCausalLM.from_pretrained(base).generate(**ids, max_new_tokens=8, do_sample=False)
    new = written[0, ids["input_ids"].shape[1] :].tolist()
    position = next(n for n, token in enumerate(new) if token not in new[:n] and n)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [new[position]]}), "utf8")
    completion = engine(base).ask(PROMPT)
    assert (completion.ended, completion.output_tokens) == ("stop", position)


def test_any_of_several_end_tokens_ends_a_label(tmp_path: Path) -> None:
    base = tiny("llama", tmp_path / "base")
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}), "utf8")
    tokenizer = AutoTokenizer.from_pretrained(base)
    answers = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in LABELS]
    expected = naive_scores(base, tokenizer(PROMPT)["input_ids"], answers, [2, 7])
    assert engine(base, LABELS).score_choices(PROMPT) == pytest.approx(expected, abs=1e-4)


def test_a_prompt_uses_every_position_and_no_more(shared: Path, tmp_path: Path) -> None:
    """Eleven positions: six letters, and five of the six that follow, as the last is not read."""
    base = sorter(shared, tmp_path / "sorter")
    asked = engine(base, new=6)
    assert asked.fits("C A B B A C")
    assert asked.ask("C A B B A C").text == "A A B B C C"
    assert not asked.fits("C A B B A C A")
    with pytest.raises(ModelError, match="12 tokens, and the model has 11 positions"):
        asked.ask("C A B B A C A")


def test_labels_count_towards_the_positions(tmp_path: Path) -> None:
    base = tiny("gpt2", tmp_path / "base", positions=8)
    assert engine(base, ["red", "blue red green"]).fits("the a is was where")
    assert not engine(base, ["red", "blue red green"]).fits("the a is was where my")
    assert engine(base, ["red"]).fits("the a is was where my")
    engine(base, ["red", "blue red green"]).ask("the a is was where")


def test_whether_a_prompt_fits_is_known_without_the_weights(tmp_path: Path) -> None:
    base = tiny("gpt2", tmp_path / "base", positions=8)
    (base / "model.safetensors").unlink()
    assert engine(base, new=4).fits("the a is was where")
    with pytest.raises(ModelError, match=r"(?s)cannot be loaded.*rivals.model"):
        engine(base, new=4).ask("the a is")


@pytest.mark.parametrize("choices", [(), ("red", "green")])
@pytest.mark.parametrize("family", ["bert", "roberta", "xlnet"])
def test_an_encoder_is_refused(family: str, choices: Sequence[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="name a local decoder in rivals.model, or use an api".capitalize()):
        engine(tiny(family, tmp_path / "base"), choices).ask("the card is")


def test_labels_need_an_end(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no end-of-text token"):
        engine(sorter(shared, tmp_path / "sorter"), ["A", "B"]).ask("C A B")


def test_an_encoder_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"rivals\.model"):
        engine(tiny_bert(tmp_path / "base")).ask("the card is")


def test_names_of_control_tokens_in_a_row_are_text(tmp_path: Path) -> None:
    """Text, plain or in a chat template: three pieces of text, of which each is an unknown word here."""
    for template in ("", THINKING):
        asked = engine(tiny("qwen", tmp_path / f"base{len(template)}", template=template), LABELS)
        plain, control = "the card ? ? ? is", "the card <|im_end|> is"
        assert asked.ask(control).input_tokens == asked.ask(plain).input_tokens
        assert asked.score_choices(control) == pytest.approx(asked.score_choices(plain), abs=1e-5)


def test_a_chat_template_writes_what_precedes_an_answer(tmp_path: Path) -> None:
    """An answer without thoughts follows the empty thoughts that the template puts before answers."""
    base = tiny("qwen", tmp_path / "base", template=THINKING)
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = f"<|im_end|>user {PROMPT}<|im_end|><|im_end|>assistant <think>word</think>"
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    answers = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in LABELS]
    expected = naive_scores(base, prompt, answers, [tokenizer.eos_token_id])
    assert engine(base, LABELS, ["\n"]).score_choices(PROMPT) == pytest.approx(expected, abs=1e-4)
    assert engine(base, LABELS).ask(PROMPT).input_tokens == len(prompt)
    generated = engine(base, new=4).ask(PROMPT)
    assert generated.input_tokens == len(prompt)


def test_an_encoder_decoder_generates(tmp_path: Path) -> None:
    base = tiny("t5", tmp_path / "base")
    inputs = AutoTokenizer.from_pretrained(base)(PROMPT, return_tensors="pt", return_token_type_ids=False)
    written = AutoModelForSeq2SeqLM.from_pretrained(base).generate(**inputs, max_new_tokens=8, do_sample=False)
    text = AutoTokenizer.from_pretrained(base).decode(written[0], skip_special_tokens=True)
    completion = engine(base).ask(PROMPT)
    assert completion.text == text.strip()
    assert completion.input_tokens == inputs["input_ids"].shape[1]


def test_identity_is_what_decides_an_answer(tmp_path: Path) -> None:
    base = tiny("gpt2", tmp_path / "base")
    variants: list[Any] = [engine(base), engine(base, LABELS), engine(base, stops=["\n"]), engine(base, new=9)]
    variants.append(LocalEngine(base, "another digest", 8))
    assert len({json.dumps(variant.identity) for variant in variants}) == len(variants)
    assert set(engine(base).identity["versions"]) >= {"torch", "transformers", "tokenizers"}
    assert engine(base).identity == engine(tmp_path / "elsewhere").identity
