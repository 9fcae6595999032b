"""Supervised instruction tuning of decoders: the assistant's answers in conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import DataError
from hone.models.positions import get_max_tokens
from hone.objectives.base import NOT_ASKED, Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.chat import template as chat_template
from hone.objectives.chat.conversations import Conversation, parse_conversation, rewrite_texts
from hone.objectives.chat.forms import conversation_from_row
from hone.objectives.chat.tokens import (
    MASKED,
    encode_prompts,
    encode_training_rows,
    entries_to_table,
    find_bad_row,
    label_turns,
    last_labelled_turn,
)
from hone.objectives.shared.generation import generate_ids, set_generation_config
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.overlap import rouge_scores
from hone.objectives.shared.packing import best_fit_decreasing, check_documents_isolated, pack_documents, position_ids
from hone.objectives.shared.padding import attention_mask, pad_on_left, pad_rows
from hone.objectives.shared.statistics import safe_ratio
from hone.objectives.shared.tokenizer import list_control_tokens
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch
    from hone.objectives.prompting.prompting import Prompting

# A conversation that shows how a template ends an assistant's turn.
_PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


@dataclass(frozen=True)
class Chat(Objective):
    """Predict the assistant's turns in conversations, given everything before each turn."""

    columns: ClassVar[tuple[str, ...]] = ("messages",)
    forms: ClassVar[tuple[str, ...]] = (
        "conversations",
        "prompt",
        "completion",
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "instances",
        "tools",
    )
    text: ClassVar[tuple[str, ...]] = ("messages",)
    near_repeats: ClassVar[bool] = False
    generated: ClassVar[tuple[str, ...]] = ("messages",)
    inputs: ClassVar[tuple[str, ...]] = ("messages",)
    outputs: ClassVar[Mapping[str, str]] = {"answer": "string"}
    pipeline: ClassVar[str] = "text-generation"
    writes_answers: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("jinja2", "rouge-score", "sacrebleu")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric("Perplexity of the assistant's tokens", lower=True, share=False),
        "loss": Metric("Loss (nats a token)", lower=True, share=False),
        "token_accuracy": Metric("Token accuracy"),
        "exact_match": Metric("Exact match of the last answer"),
        "rougeL": Metric("ROUGE-L of the last answer"),
    }
    works_untuned: ClassVar[bool] = True
    drop_reason: ClassVar[str] = "no assistant token is within max_length"

    template: str = option(
        "", "Chat template: a .jinja file, chatml, or a name of one of the tokenizer's; empty uses the tokenizer's own."
    )
    roles: Literal["strict", "lenient"] = option(
        "strict",
        "strict: user and assistant take turns after one system turn; lenient: roles in any order that the template"
        " renders, such as the assistant first, a role twice, several system turns.",
    )
    packing: bool = option(False, "Pack several conversations into one training row, without attention between them.")
    generate: int = option(
        64, "Number of test rows, from the first, for which the last answer is generated and compared.", ge=0
    )
    max_new_tokens: int = option(128, "Maximum number of tokens of a generated answer.", ge=1, le=32768)

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Without those of the answers, which are compared as text."""
        return {name: metric for name, metric in self.metrics.items() if name not in ("exact_match", "rougeL")}

    @property
    def prompting(self) -> Prompting | None:
        """The answer of a prompted model is the last turn; None if the trained model generates no answers."""
        from hone.objectives.prompting import ChatPrompting

        return ChatPrompting(self) if self.generate else None

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """`messages` in OpenAI's form, from any form that `conversation_from_row` supports."""
        return {"messages": conversation_from_row(values, strict=self._strict).value}

    @property
    def _strict(self) -> bool:
        return self.roles == "strict"

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Roles, contents and tool calls of the messages, separated by empty lines; JSON for one that became empty."""
        values = [value or "" for value in rows["messages"].to_pylist()]
        return [str(parse_conversation(value)) if _is_valid(value) else value for value in values]

    def identity_texts(self, rows: pa.Table) -> list[str]:
        """Roles and contents of the messages other than the system's."""
        conversations = [parse_conversation(value) if value else None for value in rows["messages"].to_pylist()]
        return [str(conversation.without_system) if conversation else "" for conversation in conversations]

    def context_texts(self, rows: pa.Table) -> list[str]:
        """The system's messages and the tools."""
        conversations = [parse_conversation(value) if value else None for value in rows["messages"].to_pylist()]
        return [conversation.system if conversation else "" for conversation in conversations]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The messages' contents, reasoning, and arguments of tool calls."""
        texts: list[str] = []
        rewrite_texts(value, lambda text: texts.append(text) or text)  # type: ignore[func-returns-value]
        return texts

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The messages with their texts replaced."""
        new = iter(texts)
        return rewrite_texts(value, lambda _: next(new))

    def normalize_input(self, name: str, value: str) -> str:
        """The messages as rows have them: a caller may send another form of them. Raises ValueError for no messages."""
        return json.dumps(parse_conversation(value).value, ensure_ascii=False)

    def question_inputs(self, rows: pa.Table) -> list[dict[str, str]]:
        """The conversations without the assistant's turns at their end."""
        conversations = [parse_conversation(value).question for value in rows["messages"].to_pylist()]
        return [{"messages": json.dumps(conversation.value, ensure_ascii=False)} for conversation in conversations]

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """Drop rows with a message that became empty."""
        return after, ["" if _is_valid(value) else "an emptied message" for value in after["messages"].to_pylist()]

    def option_files(self) -> tuple[Path, ...]:
        """The file of the chat template, if it is in one."""
        file = chat_template.template_file(self.template)
        return (file,) if file else ()

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """Empty: the head is the base model's own."""
        return {}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase, targets: Targets) -> dict[str, Any]:
        """Set the tokenizer's chat template; adds `template`, `template_sha256` and `end`, the end-of-turn token.

        Raises ModelError for a template without a special token at the end of a turn: the model would never stop.
        """
        if "template" in targets:
            tokenizer.chat_template = targets["template"]
            return dict(targets)
        template = tokenizer.chat_template = chat_template.resolve_template(tokenizer, self.template)
        _, labels, _ = label_turns(tokenizer, [Conversation(_PROBE)])[0]
        end = next(label for label in reversed(labels) if label != MASKED)
        return {**targets, "template": template, "template_sha256": chat_template.template_digest(template), "end": end}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids`, `labels` (list<int32>, -100 except for the assistant's), `prompt`, `end`, `lost` (int32).

        `prompt` is the number of tokens before the last answer, 0 if that was cut off. Rows without any label left are
        dropped. Without `labelled` the tokens are the prompt, of which the last `max_length` are kept, and there are no
        labels. Raises DataError for a row that is not a conversation, ModelError if the tokenizer's template is not
        the one in `targets`.
        """
        chat_template.check_template(tokenizer, targets["template_sha256"])
        try:
            encode = encode_training_rows if labelled else encode_prompts
            encoded = encode(rows, tokenizer, max_length, list_control_tokens(targets), strict=self._strict)
        except ValueError as fault:
            raise DataError(
                str(fault), where=find_bad_row(rows, tokenizer, labelled, self._strict), fix="Fix or drop the row."
            ) from fault
        return entries_to_table(encoded, targets["end"], labelled)

    def pack_rows(self, tokens: pa.Table, max_length: int) -> Iterator[pa.Table] | None:
        """The training rows packed into rows of at most `max_length` tokens; `documents` has the lengths of each."""
        import pyarrow.compute as pc

        if not self.packing:
            return None
        lengths = pc.list_value_length(tokens["input_ids"]).to_numpy()
        return pack_documents(tokens, best_fit_decreasing(lengths, max_length))

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, tokens], `labels`, and `prompt` [rows]: 0 where nothing is generated.

        Padded on the right. Answers are generated for the first `generate` rows by `position`, or for all rows
        without labels. Packed rows have `position_ids` that restart with each conversation, and no mask or prompt.
        """
        import torch

        if "documents" in rows:
            labels = pad_rows(rows["labels"], MASKED)
            positions = position_ids(rows["documents"], labels.shape[1])
            labels[positions == 0] = MASKED  # a document's first token would be predicted from the one before it
            return {"input_ids": pad_rows(rows["input_ids"], pad_id), "labels": labels, "position_ids": positions}
        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        prompt = torch.tensor([int(length) for length in rows["prompt"]])
        if "labels" in rows:
            batch["labels"] = pad_rows(rows["labels"], MASKED)
            positions_in_split = torch.tensor(
                [int(position) for position in rows.get("position", [self.generate] * len(prompt))]
            )
            prompt = torch.where(positions_in_split < self.generate, prompt, 0)
        return {**batch, "prompt": prompt, "end": torch.tensor([int(end) for end in rows["end"]])}

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model with its own language-modelling head, float32; generation stops at the template's end token.

        Raises ModelError if a weight is missing.
        """
        model = load_with_head("AutoModelForCausalLM", base, all_weights=True)
        return set_generation_config(model, ends=[targets["end"]], max_new_tokens=self.max_new_tokens)

    def check_model(self, model: Any, where: str) -> None:
        """Raise ModelError if packed conversations would attend to each other."""
        if self.packing:
            check_documents_isolated(model, where)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of the assistant's tokens, float32, and their number."""
        from torch.nn.functional import cross_entropy

        logits, labels, _ = _labelled_logits(model, batch)
        return cross_entropy(logits, labels, reduction="sum"), len(labels)

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`generated`: the token ids of the answer, None if none was generated. With labels also the following.

        `nll`, `counted`, `right`: the summed loss of the assistant's tokens, their number, and how many were the most
        likely ones; `scores`: the mean loss; `expected`: the token ids of the last answer.
        """
        outputs: dict[str, Any] = {"generated": self._generate(model, batch)}
        if "labels" in batch:
            outputs |= _label_statistics(model, batch)
            outputs["expected"] = [last_labelled_turn(row) for row in batch["labels"].cpu().numpy()]
        return outputs

    def _generate(self, model: Any, batch: Batch) -> list[list[int] | None]:
        """Greedy answers to the prompts, which are padded on the left for generation."""
        lengths = batch["prompt"].tolist()
        rows = [row for row, length in enumerate(lengths) if length]
        generated: list[list[int] | None] = [None] * len(lengths)
        if not rows:
            return generated
        inputs = _list_prompts(batch, rows, int(model.config.pad_token_id or 0))
        max_new_tokens, inputs = self._fit_positions(model, inputs)
        continuations = generate_ids(
            model, inputs, max_new_tokens=max_new_tokens, ends=sorted(set(batch["end"].tolist()))
        )
        for row, ids in zip(rows, continuations, strict=True):
            generated[row] = ids
        return generated

    def _fit_positions(self, model: Any, inputs: Batch) -> tuple[int, Batch]:
        """The maximum number of new tokens, and the prompts cut on the left so that both fit the model's positions."""
        positions = get_max_tokens(model.config.get_text_config())
        max_new_tokens = min(self.max_new_tokens, positions - 1)
        return max_new_tokens, {name: tensor[:, -(positions - max_new_tokens) :] for name, tensor in inputs.items()}

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """Adds `said`, the answers as text (None if not generated), and `reference`, the expected answers."""

        def decode(ids: Any) -> str | None:
            return None if ids is None else str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

        decoded = {**predictions, "said": [decode(ids) for ids in predictions["generated"]]}
        return (
            decoded | {"reference": [decode(ids) for ids in predictions["expected"]]}
            if "expected" in predictions
            else decoded
        )

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: summed loss, tokens, correct tokens; for generated answers rows, exact matches, summed ROUGE-L.

        The error is the mean loss of a row's tokens, in nats.
        """
        import numpy as np

        nll, counted, right = (np.asarray(predictions[name], np.float64) for name in ("nll", "counted", "right"))
        answers = predictions.get("said", [None] * len(nll))
        references = predictions.get("reference", [""] * len(nll))
        generated = np.zeros((len(nll), 3))
        answered = [row for row, text in enumerate(answers) if text is not None]
        if answered:
            exact = np.array([answers[row] == references[row] for row in answered], np.float64)
            scores = rouge_scores([answers[row] for row in answered], [[references[row]] for row in answered])[:, 2]
            generated[answered] = np.stack([np.ones(len(answered)), exact, scores], axis=1)
        return Outcome(
            statistics=np.concatenate([np.stack([nll, counted, right], axis=1), generated], axis=1),
            predictions=[NOT_ASKED if text is None else text for text in answers],
            references=references,
            errors=nll / counted,
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Each of `metrics`; those of answers only if answers are generated."""
        import numpy as np

        nll, counted, right, answered, exact, overlap = sums
        loss = safe_ratio(nll, counted)
        metrics = {"perplexity": np.exp(loss), "loss": loss, "token_accuracy": safe_ratio(right, counted)}
        if not self.generate:
            return metrics
        return metrics | {"exact_match": safe_ratio(exact, answered), "rougeL": safe_ratio(overlap, answered)}

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The assistant's `answer` to each conversation; turns of the assistant at its end are ignored."""
        return [{"answer": text or ""} for text in predictions["said"]]

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The assistant's answer."""
        return str(answer["answer"])


def _is_valid(value: str) -> bool:
    try:
        parse_conversation(value)
    except ValueError:
        return False
    return True


def _list_prompts(batch: Batch, rows: Sequence[int], pad_id: int) -> Batch:
    """The prompts of some of the batch's rows, padded on the left."""
    import torch

    lengths = batch["prompt"][rows]
    ids = batch["input_ids"][rows, : int(lengths.max())]
    is_prompt = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return pad_on_left({"input_ids": ids.where(is_prompt, pad_id), "attention_mask": is_prompt.long()})


def _labelled_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [n, vocabulary], float32, of the n labelled tokens, these labels, and the row of each."""
    labels = batch["labels"][:, 1:]
    # use_cache=False: with a cache transformers ignores position ids that restart.
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    is_labelled = labels != MASKED
    return logits[is_labelled].float(), labels[is_labelled], is_labelled.nonzero()[:, 0]


def _label_statistics(model: Any, batch: Batch) -> dict[str, Any]:
    import torch
    from torch.nn.functional import cross_entropy

    logits, labels, rows = _labelled_logits(model, batch)
    statistics = torch.stack(
        [
            cross_entropy(logits, labels, reduction="none").double(),
            torch.ones_like(labels).double(),
            (logits.argmax(-1) == labels).double(),
        ]
    )
    sums = torch.zeros((3, len(batch["labels"])), dtype=torch.float64, device=statistics.device)
    nll, counted, right = sums.index_add_(1, rows, statistics.detach()).cpu().numpy()
    return {"nll": nll, "counted": counted, "right": right, "scores": (nll / counted).astype("float32")}
