"""Continued pre-training of decoders on plain text: predicting the next token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import ModelError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.continuation import continue_prompts, text_after
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.old_domain import find_old_rows, list_measured, split_statistics, split_sums
from hone.objectives.shared.packing import best_fit_decreasing, check_documents_isolated, pack_documents, position_ids
from hone.objectives.shared.padding import pad_prompts, pad_rows
from hone.objectives.shared.plain_text import (
    IGNORED,
    concatenate_parts,
    group_by_row,
    row_indices,
    split_batch,
    sum_by_row,
    token_losses,
)
from hone.objectives.shared.statistics import safe_ratio
from hone.objectives.shared.tokenizer import encode_with_offsets, get_texts, list_control_tokens, to_list_array
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch

_STATISTICS = ("nll", "tokens", "bytes")


@dataclass(frozen=True)
class CausalLM(Objective):
    """Predict the next token of plain text."""

    columns: ClassVar[tuple[str, ...]] = ("text",)
    text: ClassVar[tuple[str, ...]] = ("text",)
    generated: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"continuation": "string", "perplexity": "double"}
    pipeline: ClassVar[str] = "text-generation"
    writes_answers: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric("Perplexity per token", lower=True, share=False),
        "bits_per_byte": Metric("Bits per byte", lower=True, share=False),
        "loss": Metric("Loss per token", lower=True, share=False),
        "old_perplexity": Metric("Perplexity of the old domain", lower=True, share=False),
    }
    works_untuned: ClassVar[bool] = True

    packing: bool = option(True, "Pack several documents into one training row, without attention between them.")
    long_documents: Literal["split", "truncate"] = option(
        "split", "Documents longer than tokenization.max_length tokens are split into several rows, or truncated."
    )
    old_domain: tuple[str, ...] = option(
        (),
        "Source files (globs) with text of the domain the base model was trained on: they count only for the metric "
        "old_perplexity, which shows forgetting.",
        learning=True,
    )
    max_new_tokens: int = option(
        64, "Maximum number of tokens that the served model generates.", learning=True, ge=1, le=4096
    )

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Without `old_perplexity` if no file is of the old domain."""
        return list_measured(self.metrics, self.old_domain)

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
        """`id`, `input_ids`, `closed` (1 if the last token is the added end token), `bytes` and `lost`.

        A long document becomes several rows: each begins with the last token of the one before, so that every token
        but the document's first is a target once, whatever the length (rolling windows as in EleutherAI's
        lm-evaluation-harness). `bytes` (UTF-8) are those of the whole document, in its first row. Without `labelled` no
        end token is added, and the last row has the `prompt` to continue and the token `end` to stop at.
        Raises DataError for a null text, ModelError if the tokenizer has no end-of-text token.
        """
        import pyarrow as pa

        end, texts, control = _end_of_text(tokenizer), get_texts(rows), list_control_tokens(targets)
        encoded = [encoding.ids for encoding in encode_with_offsets(tokenizer, texts, control=control)]
        if not labelled:
            return _encode_prompts(rows, [ids or [_start_of_text(tokenizer)] for ids in encoded], end, max_length)
        closed_ids = [ids if ids[-1:] == [end] else [*ids, end] for ids in encoded]
        pieces = [_split_ids(ids, max_length) for ids in closed_ids]
        closed = [[*[0] * (len(row_pieces) - 1), 1] for row_pieces in pieces]
        sizes, lost = [len(text.encode()) for text in texts], [0] * len(texts)
        if self.long_documents == "truncate":
            sizes, lost = _measure_truncation(
                tokenizer, texts, [len(ids) - 1 for ids in closed_ids], sizes, max_length, control
            )
            pieces, closed = [row_pieces[:1] for row_pieces in pieces], [row_pieces[:1] for row_pieces in closed]
        firsts = {"bytes": (sizes, pa.int64()), "lost": (lost, pa.int32())}
        return pa.table(
            {
                **_build_piece_columns(rows, pieces),
                "closed": pa.array(chain.from_iterable(closed), pa.int32()),
                **{name: _first_piece_values(values, pieces, kind) for name, (values, kind) in firsts.items()},
            }
        )

    def pack_rows(self, tokens: pa.Table, max_length: int) -> Iterator[pa.Table] | None:
        """The training rows packed into rows of at most `max_length` tokens; `documents` has the lengths of each."""
        import pyarrow.compute as pc

        if not self.packing:
            return None
        lengths = pc.list_value_length(tokens["input_ids"]).to_numpy()
        return pack_documents(tokens, best_fit_decreasing(lengths, max_length))

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids and labels [rows, longest], int64: each label is the token at its own position, -100 for none.

        `position_ids` if documents share a row; `text_labels` without the added end token; `prompt_ids`, `prompt_mask`
        (padded on the left) and `end` [rows] if texts are to be continued. There is no attention mask: padding is on
        the right, where causal attention does not reach it.
        """
        import torch

        ids = rows["input_ids"]
        batch = {"input_ids": pad_rows(ids, pad_id), "labels": pad_rows(ids, IGNORED)}
        batch["labels"][:, 0] = IGNORED
        if any(len(documents) > 1 for documents in rows.get("documents", ())):
            batch["position_ids"] = position_ids(rows["documents"], batch["labels"].shape[1])
            # A document's first token would be predicted from the document before it.
            batch["labels"][batch["position_ids"] == 0] = IGNORED
        if "closed" in rows:
            batch["text_labels"] = batch["labels"].clone()
            for row, (tokens, closed) in enumerate(zip(ids, rows["closed"], strict=True)):
                if closed:
                    batch["text_labels"][row, len(tokens) - 1] = IGNORED
        if "prompt" in rows:
            prompts = pad_prompts(rows["prompt"], pad_id)
            batch |= {"prompt_ids": prompts["input_ids"], "prompt_mask": prompts["attention_mask"]}
            batch["end"] = torch.tensor([int(end) for end in rows["end"]])
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The decoder in float32 with its own head; raises ModelError if a weight is missing."""
        return load_with_head("AutoModelForCausalLM", base, all_weights=True)

    def check_model(self, model: Any, where: str) -> None:
        """Raise ModelError if packed documents would attend to each other."""
        if self.packing:
            check_documents_isolated(model, where)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed negative log-likelihood, float32, and the number of tokens, end tokens included."""
        labels = _shift_labels(batch["labels"])
        return token_losses(_logits(model, batch), labels).sum(), int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """For each encoded row `nll` (nats) and `tokens` of its text, and `scores`, the mean log-likelihood of a token.

        The added end token is not counted: a base model that has never seen it would look worse than it is.
        If there is a prompt, also `prompt` and the generated ids `continued`.
        """
        names = ("input_ids", "text_labels" if "text_labels" in batch else "labels")
        outputs = concatenate_parts(
            _compute_likelihood(model, part, names[1]) for part in split_batch(model, batch, names)
        )
        return outputs | (continue_prompts(model, batch, self.max_new_tokens) if "prompt_ids" in batch else {})

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """Adds `continuation`, the generated text after the prompt."""
        if "continued" not in predictions:
            return predictions
        pairs = zip(predictions["prompt"], predictions["continued"], strict=True)
        return {**predictions, "continuation": [text_after(tokenizer, prompt, ids) for prompt, ids in pairs]}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: nll, tokens and bytes of each document: three columns for the new domain, three for the old."""
        import numpy as np

        row_index = row_indices(tokens)
        statistics = sum_by_row(row_index, [predictions["nll"], predictions["tokens"], tokens["bytes"].to_numpy()])
        loss = statistics[:, 0] / np.maximum(statistics[:, 1], 1)
        is_old = find_old_rows(tokens["id"].unique().to_pylist(), self.old_domain)
        return Outcome(
            statistics=split_statistics(statistics, is_old),
            predictions=[f"perplexity {_compute_perplexity(row_loss):.4g}" for row_loss in loss.tolist()],
            references=[f"{int(count)} tokens" for count in statistics[:, 1].tolist()],
            errors=loss,
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`perplexity`, `bits_per_byte` and `loss` of the new domain, or of the old if there is no other text."""
        import numpy as np

        (nll, tokens, size), old = split_sums(sums, 1)
        loss = safe_ratio(nll, tokens)
        metrics = {"perplexity": np.exp(loss), "bits_per_byte": safe_ratio(nll, size) / np.log(2), "loss": loss}
        if old[1].any():
            metrics["old_perplexity"] = np.exp(safe_ratio(old[0], old[1]))
        return metrics

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The text's greedy `continuation`, its own `perplexity` (1 for a text of one token), and its `tokens`."""
        row_index = row_indices(tokens)
        texts = group_by_row(row_index, predictions.get("continuation", [""] * len(tokens)))
        sums = sum_by_row(row_index, [predictions["nll"], predictions["tokens"]]).tolist()
        return [
            {
                "continuation": "".join(text),
                "perplexity": _compute_perplexity(nll / max(count, 1)),
                "tokens": int(count),
            }
            for text, (nll, count) in zip(texts, sums, strict=True)
        ]

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The continuation."""
        return str(answer["continuation"])


def _compute_perplexity(loss: float) -> float:
    return exp(min(loss, 700))  # exp overflows a float64 above 709


def _end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "its tokenizer has no end-of-text token to close documents with",
            where=tokenizer.name_or_path,
            fix="Set eos_token in tokenizer_config.json.",
        )
    return int(tokenizer.eos_token_id)


def _start_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """The prompt for an empty text: the start token, or the end token if there is none."""
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)


def _split_ids(ids: list[int], max_length: int) -> list[list[int]]:
    """Ids in pieces of at most `max_length`; each begins with the last id of the previous piece."""
    starts = range(0, max(1, len(ids) - 1), max_length - 1)
    return [ids[start : start + max_length] for start in starts]


def _build_piece_columns(rows: pa.Table, pieces: Sequence[Sequence[list[int]]]) -> dict[str, Any]:
    """The columns `id` and `input_ids` of each row's pieces."""
    import pyarrow as pa

    row_index = pa.array([row for row, row_pieces in enumerate(pieces) for _ in row_pieces], pa.int64())
    return {
        "id": rows["id"].cast(pa.string()).take(row_index),
        "input_ids": to_list_array(list(chain.from_iterable(pieces))),
    }


def _first_piece_values(values: Sequence[int], pieces: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.Array:
    """A column with each row's value in its first piece and 0 in the others."""
    import pyarrow as pa

    values_by_row = ([value, *[0] * (len(row_pieces) - 1)] for value, row_pieces in zip(values, pieces, strict=True))
    return pa.array(chain.from_iterable(values_by_row), kind)


def _encode_prompts(rows: pa.Table, encoded: Sequence[list[int]], end: int, max_length: int) -> pa.Table:
    """Encoded texts; the last piece of each has its last tokens as the prompt."""
    import pyarrow as pa

    pieces = [_split_ids(ids, max_length) for ids in encoded]
    prompts = [
        prompt
        for ids, row_pieces in zip(encoded, pieces, strict=True)
        for prompt in (*[[] for _ in row_pieces[1:]], ids[-max_length:])
    ]
    fixed = {name: pa.array([value] * len(prompts), pa.int32()) for name, value in (("end", end), ("lost", 0))}
    return pa.table({**_build_piece_columns(rows, pieces), "prompt": to_list_array(prompts), **fixed})


def _measure_truncation(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    lengths: Sequence[int],
    sizes: Sequence[int],
    max_length: int,
    control: Sequence[str],
) -> tuple[list[int], list[int]]:
    """The bytes covered by the first `max_length` tokens of each text, and how many of its tokens are lost."""
    lost = [max(0, length - max_length) for length in lengths]
    covered_bytes = list(sizes)
    truncated_rows = [row for row, tokens in enumerate(lost) if tokens]
    for row, encoding in zip(
        truncated_rows,
        encode_with_offsets(tokenizer, [texts[row] for row in truncated_rows], control=control),
        strict=True,
    ):
        covered_bytes[row] = len(texts[row][: encoding.offsets[max_length - 1][1]].encode())
    return covered_bytes, lost


def _logits(model: Any, batch: Batch) -> Tensor:
    """Next-token logits. use_cache=False: with a cache transformers ignores position ids that restart."""
    positions = {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
    logits: Tensor = model(input_ids=batch["input_ids"], use_cache=False, **positions).logits
    return logits


def _shift_labels(labels: Tensor) -> Tensor:
    """The label of the token after each position."""
    from torch.nn.functional import pad

    return pad(labels[:, 1:], (0, 1), value=IGNORED)


def _compute_likelihood(model: Any, batch: Batch, labels: str) -> dict[str, Tensor]:
    next_labels = _shift_labels(batch[labels])
    nll = token_losses(_logits(model, batch), next_labels).double().sum(1)
    tokens = (next_labels != IGNORED).sum(1)
    return {"nll": nll, "tokens": tokens, "scores": -nll / tokens.clamp(min=1)}
