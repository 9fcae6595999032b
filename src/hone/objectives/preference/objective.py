"""Preference tuning: a language model is moved towards chosen completions and away from rejected ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.characters import clean_characters
from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.preference import losses
from hone.objectives.preference.answers import generate_answers
from hone.objectives.preference.figures import (
    compute_log_ratios,
    compute_metrics,
    length_scores,
    preference_statistics,
    win_rate,
)
from hone.objectives.preference.rows import Text, find_fault, normalize_preference_row, parse_text, plain_text
from hone.objectives.preference.tokens import (
    CHOSEN,
    REJECTED,
    collate_sequences,
    encode_pairs,
    encode_prompts,
    split_by_sequence,
    token_log_probs,
)
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.padding import pad_prompts
from hone.objectives.shared.tokenizer import list_control_tokens
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch


@dataclass(frozen=True)
class Preference(Objective):
    """Learn which of two completions of a prompt is better, or whether one is good: DPO, ORPO and KTO."""

    columns: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")
    forms: ClassVar[tuple[str, ...]] = (
        "chosen_messages",
        "rejected_messages",
        "messages",
        "conversations",
        "instruction",
        "input",
        "system",
        "history",
        "completion",
        "label",
        "kto_tag",
    )
    text: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")
    near_repeats: ClassVar[bool] = False
    split_contexts: ClassVar[bool] = False
    generated: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")
    inputs: ClassVar[tuple[str, ...]] = ("prompt",)
    outputs: ClassVar[Mapping[str, str]] = {"completion": "string", "log_probability": "double"}
    pipeline: ClassVar[str] = "text-generation"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "reward_accuracy": Metric("Reward accuracy"),
        "ranking_accuracy": Metric("Ranking accuracy"),
        "margin": Metric("Reward margin", share=False),
        "kl": Metric("KL to the base model, nats a token", lower=True, share=False),
        "chosen_log_prob": Metric("Log-probability of a chosen token", share=False),
    }
    rate_factor: ClassVar[float] = 0.02  # 1e-6 for full, the default of TRL's DPO, ORPO and KTO
    works_untuned: ClassVar[bool] = True

    loss_type: Literal["dpo", "orpo", "kto"] = option(
        "dpo",
        "dpo and orpo need pairs, kto also takes single completions; orpo needs no reference model.",
        learning=True,
    )
    beta: float = option(
        0.1,
        "dpo, kto: strength of the penalty for departing from the base model; orpo: weight of the odds-ratio term.",
        learning=True,
        gt=0,
    )
    dropout: bool = option(
        False,
        "Apply the model's dropout in training. Without it, as in TRL, the model equals its reference before the first"
        " step.",
        learning=True,
    )
    answer_tokens: int = option(128, "Maximum number of tokens of a served model's answer.", learning=True, ge=1)

    @property
    def applies_dropout(self) -> bool:
        """As configured."""
        return self.dropout

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Without `kl` if there is no reference model."""
        return {name: metric for name, metric in self.metrics.items() if self.needs_reference_model or name != "kl"}

    @property
    def needs_reference_model(self) -> bool:
        """Whether the loss compares with the base model: DPO and KTO do, ORPO does not."""
        return self.loss_type != "orpo"

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row's `prompt`, `chosen`, `rejected` from any supported form (`normalize_preference_row`)."""
        return normalize_preference_row(values)

    def row_texts(self, rows: pa.Table) -> list[str]:
        """The prompt and the chosen completion, or the rejected one if there is no other.

        Two completions of one prompt repeat each other's phrases: as one text they would look like noise.
        """
        return [
            "\n".join(plain_text(text) for text in (prompt, chosen or rejected))
            for prompt, chosen, rejected in _read_triples(rows)
        ]

    def identity_texts(self, rows: pa.Table) -> list[str]:
        """The completions, whichever was chosen: one prompt has many pairs."""
        pairs = ((plain_text(chosen), plain_text(rejected)) for _, chosen, rejected in _read_triples(rows))
        return ["\n".join(sorted(pair)) for pair in pairs]

    def answer_keys(self, rows: pa.Table) -> list[str]:
        """Which of the completions was chosen: the first of both, the second, or the only one, or that it was not."""
        keys = []
        for _, chosen, rejected in _read_triples(rows):
            first, second = plain_text(chosen), plain_text(rejected)
            keys.append(f"{'first' if first < second else 'second'} of {bool(first) + bool(second)}")
        return keys

    def context_texts(self, rows: pa.Table) -> list[str]:
        """The prompts."""
        return [plain_text(prompt) for prompt, *_ in _read_triples(rows)]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The messages' contents, or the plain text without the whitespace around it."""
        text = parse_text(value)
        return [value.strip()] if isinstance(text, str) else [message["content"] for message in text]

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The same messages, or the text within its whitespace, which separates a prompt from its completion.

        No step sees that whitespace: here its line ends become line feeds, and control characters in it are removed.
        """
        text = parse_text(value)
        if isinstance(text, str):
            core = value.strip()
            before, _, after = value.partition(core) if core else (value, "", "")
            return clean_characters(before) + texts[0] + clean_characters(after)
        messages = [message | {"content": content} for message, content in zip(text, texts, strict=True)]
        return json.dumps(messages, ensure_ascii=False)

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """Drop rows whose completions became empty or equal."""
        return after, [find_fault(*row) for row in _read_triples(after)]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """Empty: the head is the base model's own."""
        return {}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """The columns of `encode_pairs`; without `labelled` those of `encode_prompts`.

        Each of a row's two sequences has at most `max_length` tokens: prompts are cut at the beginning, completions at
        the end. Raises DataError for a row that `find_fault` refuses.
        """
        ids = rows["id"].to_pylist()
        control = list_control_tokens(targets)
        if not labelled:
            # Room is left for the answer, but a prompt keeps at least half of the length.
            room = max(max_length - self.answer_tokens, max_length // 2)
            return encode_prompts(
                ids, [parse_text(text) for text in rows["prompt"].to_pylist()], tokenizer, room, control
            )
        texts = _read_triples(rows)
        for name, row in zip(ids, texts, strict=True):
            if reason := find_fault(*row):
                raise DataError(reason, where=f"row {name}", fix="Drop such rows, or fix the source.")
        return encode_pairs(ids, texts, tokenizer, max_length, control)

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """See `collate_sequences`, for KTO with other rows' completions too, and `pad_prompts`."""
        if "chosen" not in rows:
            return pad_prompts(rows["input_ids"], pad_id)
        return collate_sequences(rows, pad_id, others=self.loss_type == "kto")

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 as a causal language model; raises ModelError if it is not one."""
        return load_with_head("AutoModelForCausalLM", base, all_weights=True)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed loss of a batch and its number of pairs, or of completions for KTO.

        Raises DataError if DPO or ORPO gets a row with a single completion.
        """
        kl = self._kl(model, batch) if self.loss_type == "kto" else None
        log_probs = token_log_probs(_logits(model, batch), batch["labels"])
        if kl is not None:
            ratios = log_probs.sum(1) - batch["reference"]
            return losses.kto_loss(ratios, batch["side"] == CHOSEN, kl, self.beta).sum(), len(ratios)
        chosen, rejected = (batch["side"] == side for side in (CHOSEN, REJECTED))
        if not batch["row"][chosen].equal(batch["row"][rejected]):
            raise DataError(
                f"a row has one completion, and {self.loss_type} compares two",
                where="objective.loss_type",
                fix="Set it to kto, which learns from single completions too, or leave such rows out.",
            )
        if self.loss_type == "dpo":
            ratios = log_probs.sum(1) - batch["reference"]
            row_losses = losses.dpo_loss(ratios[chosen], ratios[rejected], self.beta)
        else:
            means = log_probs.sum(1) / (batch["labels"][:, 1:] >= 0).sum(1)
            row_losses = losses.orpo_loss(means[chosen], means[rejected], self.beta)
        return row_losses.sum(), len(row_losses)

    def _kl(self, model: Any, batch: Batch) -> Tensor:
        """How far the model is from its reference: the mean log ratio of other prompts' completions, at least 0."""
        import torch

        with torch.no_grad():
            ratios = _other_log_probs(model, batch).sum(1) - batch["other_reference"]
        return ratios.mean().clamp(min=0)

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: mean log-probability of a token of chosen and rejected, float32 [rows, 2], 0 for a missing one.

        `log_probs`: an array for each row with the log-probabilities of the tokens of chosen and rejected, and for KTO
        of the other completion if the reference's are not known yet. For prompts: see `generate_answers`.
        """
        import numpy as np

        if "labels" not in batch:
            return generate_answers(model, batch, self.answer_tokens)
        others: list[Any] = []
        if "other_labels" in batch and "other_reference" not in batch:
            others = split_by_sequence(_other_log_probs(model, batch), batch["other_labels"])
        by_sequence = split_by_sequence(token_log_probs(_logits(model, batch), batch["labels"]), batch["labels"])
        rows, sides = batch["row"].tolist(), batch["side"].tolist()
        scores = np.zeros((rows[-1] + 1, 2), np.float32)
        by_row: list[list[Any]] = [[] for _ in scores]
        for row, side, log_probs in zip(rows, sides, by_sequence, strict=True):
            scores[row, side] = log_probs.mean()
            by_row[row].append(log_probs)
        for row, other_log_probs in enumerate(others):
            by_row[row].append(other_log_probs)
        return {"scores": scores, "log_probs": [np.concatenate(parts) for parts in by_row]}

    def reference_columns(self, predictions: Predictions) -> dict[str, Sequence[Any]]:
        """`reference`: the base model's log-probabilities of each row's tokens."""
        return {"reference": predictions["log_probs"]}

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """`completion`: the answers as text."""
        if "tokens" not in predictions:
            return predictions
        texts = tokenizer.batch_decode(predictions["tokens"], skip_special_tokens=True)
        return {**predictions, "completion": [text.strip() for text in texts]}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: see `preference_statistics`. The error is the margin by which the wrong completion won.

        A row's margin is the reward of its chosen minus that of its rejected. A reward is beta times the log ratio to
        the base model; for ORPO, and if the ratio is not known, beta times the mean log-probability of a token.
        """
        import numpy as np

        lengths = np.stack([tokens[name].to_numpy() for name in ("chosen", "rejected")], axis=1)
        ratios = compute_log_ratios(tokens, predictions, lengths)
        scores = np.asarray(predictions["scores"], np.float64)
        rewards = self.beta * (ratios.sums if ratios and self.needs_reference_model else scores)
        margins = rewards[:, 0] - rewards[:, 1]
        right = win_rate(margins)
        sides = ("chosen", "rejected")
        return Outcome(
            statistics=preference_statistics(lengths, scores, rewards, ratios, is_model="log_probs" in predictions),
            predictions=[
                f"{sides[margin < 0] if margin else 'neither'}, by {abs(margin):.3g}" for margin in margins.tolist()
            ],
            references=[sides[length == 0] for length in lengths[:, 0].tolist()],
            errors=np.where(right == 1, 0.0, np.maximum(-margins, 1e-9)),  # a tie is not right: above 0
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """See `preference.figures.compute_metrics`."""
        return compute_metrics(sums)

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`length`: the longer completion is the better one, or the shorter, whichever is more often so in training."""
        return {"length": {"scores": length_scores(train, test)}}

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The greedy `completion` of each prompt and its `log_probability`, summed over its tokens.

        Both are None for rows with completions to compare, for which nothing is generated.
        """
        missing = [None] * len(rows)
        generated = zip(
            predictions.get("completion", missing), predictions.get("log_probability", missing), strict=True
        )
        return [
            {"completion": text, "log_probability": None if number is None else float(number)}
            for text, number in generated
        ]


def _read_triples(rows: pa.Table) -> list[tuple[Text, Text, Text]]:
    """Prompt, chosen and rejected of each row; raises DataError for malformed messages."""
    columns = [rows[name].to_pylist() for name in ("id", "prompt", "chosen", "rejected")]
    triples = []
    for name, prompt, chosen, rejected in zip(*columns, strict=True):
        try:
            triples.append((parse_text(prompt or ""), parse_text(chosen or ""), parse_text(rejected or "")))
        except ValueError as malformed:
            raise DataError(str(malformed), where=f"row {name}", fix="Fix such rows in the source.") from malformed
    return triples


def _logits(model: Any, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def _other_log_probs(model: Any, batch: Batch) -> Tensor:
    """The log-probabilities of the tokens of other rows' completions: [sequences, longest - 1]."""
    logits = model(input_ids=batch["other_input_ids"], attention_mask=batch["other_attention_mask"]).logits
    return token_log_probs(logits, batch["other_labels"])
