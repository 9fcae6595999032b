"""Continued pre-training of encoder-decoders on plain text: predicting spans that were left out.

The objective of T5 (Raffel et al., arXiv 1910.10683, 3.1.4), with spans drawn much as in its code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.plain_text import (
    IGNORED,
    concatenate_parts,
    group_by_row,
    row_generator,
    row_indices,
    split_batch,
    token_losses,
    token_outcome,
)
from hone.objectives.shared.statistics import safe_ratio
from hone.objectives.shared.tokenizer import encode_with_offsets, get_texts, to_list_array
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch

_SENTINEL = re.compile(r"<extra_id_(\d+)>")


@dataclass(frozen=True)
class SpanCorruption(Objective):
    """Predict the spans that were left out of plain text."""

    columns: ClassVar[tuple[str, ...]] = ("text",)
    text: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"text": "string"}
    pipeline: ClassVar[str] = "text2text-generation"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric("Perplexity per token left out", lower=True, share=False),
        "loss": Metric("Loss per token left out", lower=True, share=False),
        "token_accuracy": Metric("Accuracy on tokens left out"),
    }
    works_untuned: ClassVar[bool] = True

    noise: float = option(0.15, "Share of a row's tokens that are left out.", learning=True, gt=0, lt=1)
    span: float = option(3.0, "Mean length of a span that is left out, in tokens.", learning=True, ge=1)
    max_new_tokens: int = option(
        64, "Maximum number of tokens that the served model fills in.", learning=True, ge=1, le=4096
    )

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
        """`id`, `input_ids` (the text, its end token last), `lost` (0), and in each row the ids of the sentinels.

        These are the id of the first (`sentinel`), the `step` to the next, and their number (`sentinels`). A text that
        is too long becomes several rows. Raises DataError for a null text, ModelError if the tokenizer has no
        sentinels <extra_id_0>, <extra_id_1>, ... or no end token.
        """
        import pyarrow as pa

        first, step, count = _sentinels(tokenizer)
        end, room = int(tokenizer.eos_token_id), max_length - 1
        ids_by_row = [encoding.ids for encoding in encode_with_offsets(tokenizer, get_texts(rows), special=False)]
        pieces_by_row = [
            [ids[start : start + room] for start in range(0, max(1, len(ids)), room)] for ids in ids_by_row
        ]
        row_index = pa.array([row for row, pieces in enumerate(pieces_by_row) for _ in pieces], pa.int64())
        fixed = {"sentinel": first, "step": step, "sentinels": count, "lost": 0}
        columns = {
            "id": rows["id"].cast(pa.string()).take(row_index),
            "input_ids": to_list_array([[*piece, end] for pieces in pieces_by_row for piece in pieces]),
            **{name: pa.array([value] * len(row_index), pa.int32()) for name, value in fixed.items()},
        }
        return pa.table(columns if labelled else columns | {"end": pa.array([end] * len(row_index), pa.int32())})

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids with a sentinel for each span, attention_mask, labels (each span after its sentinel, an end).

        `hidden` are the labels of the text alone: sentinels and end are learned, but not counted. In training spans
        are drawn anew each time, with a seed from torch's generator; otherwise they depend on the row's content.
        """
        if "end" in rows:
            return {
                "input_ids": pad_rows(rows["input_ids"], pad_id),
                "attention_mask": attention_mask(rows["input_ids"]),
            }
        columns = zip(rows["input_ids"], rows["sentinel"], rows["step"], rows["sentinels"], strict=True)
        corrupted = [self._corrupt_row(row, first, step, count, training) for row, first, step, count in columns]
        ids, labels, hidden = zip(*corrupted, strict=True)
        return {
            "input_ids": pad_rows(ids, pad_id),
            "attention_mask": attention_mask(ids),
            "labels": pad_rows(labels, IGNORED),
            "hidden": pad_rows(hidden, IGNORED),
        }

    def _corrupt_row(self, row: Any, sentinel: int, step: int, count: int, training: bool) -> tuple[Any, Any, Any]:
        """The encoder's input for a row, the labels, and the labels that count in metrics."""
        import numpy as np

        ids = np.asarray(row, np.int64)
        text, end = ids[:-1], ids[-1:]
        spans = draw_noise_spans(len(text), self.noise, self.span, count, row_generator(ids, training))
        shown: list[Any] = []
        labels: list[Any] = []
        hidden: list[Any] = []
        position = 0
        for number, (start, stop) in enumerate(spans):
            mark = np.array([sentinel + step * number])
            shown += [text[position:start], mark]
            labels += [mark, text[start:stop]]
            hidden += [[IGNORED], text[start:stop]]
            position = stop
        shown, labels, hidden = [*shown, text[position:], end], [*labels, end], [*hidden, [IGNORED]]
        return np.concatenate(shown), np.concatenate(labels), np.concatenate(hidden)

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The encoder-decoder in float32 with its own head; raises ModelError if a weight is missing."""
        return load_with_head("AutoModelForSeq2SeqLM", base, all_weights=True)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed negative log-likelihood of the labels, float32, and their number."""
        labels = batch["labels"]
        return token_losses(_logits(model, batch), labels).sum(), int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """For each encoded row `nll`, `right` and `tokens` of the left-out tokens, `scores` (mean log-likelihood).

        For a row that contains gaps `filled`, the generated ids.
        """
        if "labels" not in batch:
            return _generate_fills(model, batch, self.max_new_tokens)
        names = ("input_ids", "attention_mask", "labels", "hidden")
        return concatenate_parts(_token_statistics(model, part) for part in split_batch(model, batch, names))

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """Adds `fills`: the generated text after each sentinel, by its number."""
        if "filled" not in predictions:
            return predictions
        return {**predictions, "fills": [_split_by_sentinel(ids, tokenizer) for ids in predictions["filled"]]}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics of each row: right, tokens and nll."""
        return token_outcome(tokens, predictions, "tokens left out")

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`perplexity`, `loss` and `token_accuracy`."""
        import numpy as np

        right, tokens, nll = sums
        loss = safe_ratio(nll, tokens)
        return {"perplexity": np.exp(loss), "loss": loss, "token_accuracy": safe_ratio(right, tokens)}

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `text` with its gaps <extra_id_0>, <extra_id_1>, ... filled greedily, and `fills`, the fillings.

        A gap for which the model generates nothing becomes empty.
        """
        answers = []
        # Absent in evaluation, where nothing is filled.
        filled = predictions.get("fills", [{} for _ in range(len(tokens))])
        for row, pieces in zip(rows, group_by_row(row_indices(tokens), filled), strict=True):
            fill_by_number = {number: text for piece in pieces for number, text in piece.items()}
            parts = _SENTINEL.split(row["text"])
            parts[1::2] = fills = [fill_by_number.get(int(number), "") for number in parts[1::2]]
            answers.append({"text": "".join(parts), "fills": fills})
        return answers


def draw_noise_spans(
    length: int, noise: float, span: float, max_spans: int, random: np.random.Generator
) -> list[tuple[int, int]]:
    """(start, stop) of the spans to leave out of `length` tokens, at most `max_spans`, in order.

    As random_spans_noise_mask in T5's code: kept and left-out tokens are split at random into pieces, which alternate.
    T5 always leaves out the last token, so a short text has the same span each time; here spans may be anywhere.
    No span is left out of fewer than two tokens.
    """
    import numpy as np

    if length < 2:
        return []
    noise_tokens = min(max(round(length * noise), 1), length - 1)
    pieces = min(max(round(noise_tokens / span), 1), noise_tokens, length - noise_tokens, max_spans)
    # Kept pieces before the first and after the last span may be empty; those between spans have at least one token.
    kept_lengths = _random_composition(length - noise_tokens + 2, pieces + 1, random) - np.eye(
        pieces + 1, dtype=np.int64
    )[[0, -1]].sum(0)
    lengths = _random_composition(noise_tokens, pieces, random)
    stops = np.cumsum(kept_lengths[:-1] + lengths)
    return list(zip((stops - lengths).tolist(), stops.tolist(), strict=True))


def _random_composition(items: int, pieces: int, random: np.random.Generator) -> np.ndarray:
    """Lengths of at least 1 that add up to `items`, drawn uniformly from all such compositions."""
    import numpy as np

    cuts = np.sort(random.permutation(items - 1)[: pieces - 1]) + 1
    lengths: np.ndarray = np.diff(np.concatenate([[0], cuts, [items]]))
    return lengths


def _sentinels(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    """The id of <extra_id_0>, the step from one sentinel's id to the next, and the number of sentinels."""
    vocabulary = tokenizer.get_vocab()
    ids: list[int] = []
    while (name := f"<extra_id_{len(ids)}>") in vocabulary:
        ids.append(vocabulary[name])
    step = ids[1] - ids[0] if len(ids) > 1 else 1
    if not ids or tokenizer.eos_token_id is None or ids != [ids[0] + step * index for index in range(len(ids))]:
        raise ModelError(
            "its tokenizer has no end token, or no sentinels <extra_id_0>, <extra_id_1>, ... with ids in a row",
            where=tokenizer.name_or_path,
            fix="Choose a base model such as T5.",
        )
    return ids[0], step, len(ids)


def _logits(model: Any, batch: Batch) -> Tensor:
    """The logits of each label: the model shifts the labels to feed its decoder."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits


def _token_statistics(model: Any, batch: Batch) -> dict[str, Tensor]:
    logits, hidden = _logits(model, batch), batch["hidden"]
    nll, tokens = token_losses(logits, hidden).double().sum(1), (hidden != IGNORED).sum(1)
    right = (logits.argmax(-1) == hidden).sum(1)
    return {"nll": nll, "right": right, "tokens": tokens, "scores": -nll / tokens.clamp(min=1)}


def _generate_fills(model: Any, batch: Batch, max_new_tokens: int) -> dict[str, Any]:
    generated = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
    )
    return {"filled": generated.tolist(), "scores": [[0.0]] * len(generated)}


def _split_by_sentinel(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The text between each sentinel and the next, by the sentinel's number."""
    number_by_id = {tokenizer.convert_tokens_to_ids(f"<extra_id_{n}>"): n for n in range(_sentinels(tokenizer)[2])}
    ids_by_number: dict[int, list[int]] = {}
    for token in ids:
        if token in number_by_id:
            current = ids_by_number.setdefault(number_by_id[token], [])
        elif ids_by_number and token not in tokenizer.all_special_ids:
            current.append(token)
    return {number: tokenizer.decode(tokens).strip() for number, tokens in ids_by_number.items()}
