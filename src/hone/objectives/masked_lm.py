"""Continued pre-training of encoders on plain text: predicting masked words (Devlin et al., arXiv 1810.04805)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ModelError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.old_domain import find_old_rows, list_measured, split_statistics, split_sums
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
from hone.objectives.shared.tokenizer import encode_with_offsets, get_texts, list_control_tokens, to_list_array
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch

# Shares of the chosen tokens that are masked and randomly replaced in training; the rest stay, as in BERT.
_MASKED, _REPLACED = 0.8, 0.1


@dataclass(frozen=True)
class MaskedLM(Objective):
    """Predict the masked words of plain text."""

    columns: ClassVar[tuple[str, ...]] = ("text",)
    text: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"text": "string", "score": "double"}
    pipeline: ClassVar[str] = "fill-mask"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "masked_accuracy": Metric("Accuracy on masked tokens"),
        "pseudo_perplexity": Metric("Pseudo-perplexity of masked tokens", lower=True, share=False),
        "old_pseudo_perplexity": Metric("Pseudo-perplexity of the old domain", lower=True, share=False),
    }
    works_untuned: ClassVar[bool] = True

    masked: float = option(0.15, "Share of a row's tokens that are to be predicted.", learning=True, gt=0, lt=1)
    whole_words: bool = option(True, "Choose whole words; otherwise single tokens.")
    old_domain: tuple[str, ...] = option(
        (),
        "Source files (globs) with text of the domain the base model was trained on: they count only for the metric "
        "old_pseudo_perplexity, which shows forgetting.",
        learning=True,
    )
    top: int = option(
        5, "Number of candidates that the served model returns for each mask.", learning=True, ge=1, le=100
    )

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Without `old_pseudo_perplexity` if no file is of the old domain."""
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
        """`id`, `input_ids`, `words` (each token's word, -1 for special ones), `mask_id`, `vocabulary`, `lost` (0).

        A text that is too long becomes several rows, each between special tokens of its own. Without `labelled` there
        are no `words`: the text contains the masks. Raises DataError for a null text, ModelError if the tokenizer has
        no mask token.
        """
        import pyarrow as pa

        if tokenizer.mask_token_id is None:
            raise ModelError(
                "its tokenizer has no mask token", where=tokenizer.name_or_path, fix="Choose an encoder such as BERT."
            )
        control = [*list_control_tokens(targets), *([] if labelled else [tokenizer.mask_token])]
        encodings = encode_with_offsets(tokenizer, get_texts(rows), max_length, control=control)
        pieces_by_row = [[encoding, *encoding.overflowing] for encoding in encodings]
        pieces = [piece for row_pieces in pieces_by_row for piece in row_pieces]
        row_index = pa.array([row for row, row_pieces in enumerate(pieces_by_row) for _ in row_pieces], pa.int64())
        columns = {
            "id": rows["id"].cast(pa.string()).take(row_index),
            "input_ids": to_list_array([piece.ids for piece in pieces]),
        }
        if labelled:
            columns["words"] = to_list_array([self._find_words(piece, tokenizer) for piece in pieces])
        fixed = {"mask_id": tokenizer.mask_token_id, "vocabulary": len(tokenizer), "lost": 0}
        return pa.table(
            columns | {name: pa.array([value] * len(row_index), pa.int32()) for name, value in fixed.items()}
        )

    def _find_words(self, piece: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Each token's word, -1 for special ones; every token is a word if the tokenizer does not split into words."""
        special = set(tokenizer.all_special_ids)
        by_word = self.whole_words and tokenizer.backend_tokenizer.pre_tokenizer is not None
        words = piece.word_ids if by_word else range(len(piece.ids))
        return [-1 if token in special or word is None else word for token, word in zip(piece.ids, words, strict=True)]

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids with masks, attention_mask and labels (-100 for tokens that are not to be predicted), int64.

        In training the tokens are drawn anew each time, with a seed from torch's generator. Otherwise they are a
        function of the row's content, and all of them are masked. Rows without `words` are unchanged, with `mask_id`
        [rows].
        """
        import torch

        batch = {"attention_mask": attention_mask(rows["input_ids"])}
        if "words" not in rows:
            mask_id = torch.tensor([int(token_id) for token_id in rows["mask_id"]])
            return batch | {"input_ids": pad_rows(rows["input_ids"], pad_id), "mask_id": mask_id}
        columns = zip(rows["input_ids"], rows["words"], rows["mask_id"], rows["vocabulary"], strict=True)
        masked_rows = [self._mask_row(ids, words, mask, size, training) for ids, words, mask, size in columns]
        ids, labels = zip(*masked_rows, strict=True)
        return batch | {"input_ids": pad_rows(ids, pad_id), "labels": pad_rows(labels, IGNORED)}

    def _mask_row(self, ids: Any, words: Any, mask_id: int, vocabulary: int, training: bool) -> tuple[Any, Any]:
        """A row's ids with masks, and its labels."""
        import numpy as np

        ids, words = np.array(ids, np.int64), np.asarray(words)
        random = row_generator(ids, training)
        chosen = np.isin(words, _choose_words(words, self.masked, random)) & (words >= 0)
        labels = np.where(chosen, ids, IGNORED)
        positions = np.flatnonzero(chosen)
        draw = random.random(len(positions)) if training else np.zeros(len(positions))
        ids[positions[draw < _MASKED]] = mask_id
        replaced = positions[(draw >= _MASKED) & (draw < _MASKED + _REPLACED)]
        ids[replaced] = random.integers(vocabulary, size=len(replaced))
        return ids, labels

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The encoder in float32 with its own head, or a new one if its files have none."""
        return load_with_head("AutoModelForMaskedLM", base)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed negative log-likelihood of the tokens to be predicted, float32, and their number."""
        labels = batch["labels"]
        return token_losses(_logits(model, batch), labels).sum(), int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """For each encoded row `nll` (nats), `right` and `tokens` of the masked tokens, `scores` (mean log-likelihood).

        For a row that contains masks `fills` and `chances`, the most likely ids of each mask and their probabilities.
        """
        if "mask_id" in batch:
            return _fill_masks(model, batch, self.top)
        names = ("input_ids", "attention_mask", "labels")
        return concatenate_parts(_token_statistics(model, part) for part in split_batch(model, batch, names))

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """The predictions with `fills` as text, and `mask`, the tokenizer's mask token."""
        if "fills" not in predictions:
            return predictions
        fills = [
            [[tokenizer.decode([token_id]).strip() for token_id in mask_ids] for mask_ids in row]
            for row in predictions["fills"]
        ]
        return {**predictions, "fills": fills, "mask": [tokenizer.mask_token] * len(fills)}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: right, tokens and nll of each row: three columns for the new domain, three for the old.

        The base model and the fine-tuned one predict the same tokens: a row's content decides which (`collate`).
        """
        outcome = token_outcome(tokens, predictions, "masked tokens")
        is_old = find_old_rows(tokens["id"].unique().to_pylist(), self.old_domain)
        return replace(outcome, statistics=split_statistics(outcome.statistics, is_old))

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`masked_accuracy` and `pseudo_perplexity` of the new domain, or of the old if there is no other text."""
        import numpy as np

        (right, tokens, nll), old = split_sums(sums, 1)
        metrics = {"masked_accuracy": safe_ratio(right, tokens), "pseudo_perplexity": np.exp(safe_ratio(nll, tokens))}
        if old[1].any():
            metrics["old_pseudo_perplexity"] = np.exp(safe_ratio(old[2], old[1]))
        return metrics

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `text` with each mask filled by its most likely word, and `score`, the product of their probabilities.

        Also `fills`: for each mask the most likely words and their probabilities. The score without a mask is 1.
        """
        row_index, answers = row_indices(tokens), []
        empty: list[Any] = [[] for _ in row_index]  # absent in evaluation, where nothing is filled
        columns = [group_by_row(row_index, predictions.get(name, empty)) for name in ("fills", "chances", "mask")]
        for row, fills, chances, masks in zip(rows, *columns, strict=True):
            candidates = [
                [{"word": word, "score": float(chance)} for word, chance in zip(*candidate, strict=True)]
                for words, scores in zip(fills, chances, strict=True)
                for candidate in zip(words, scores, strict=True)
            ]
            text = row["text"]
            for fill in candidates:
                text = _fill_first_mask(text, masks[0], fill[0]["word"])
            answers.append({"text": text, "score": prod(fill[0]["score"] for fill in candidates), "fills": candidates})
        return answers


def _choose_words(words: np.ndarray, masked: float, random: np.random.Generator) -> list[int]:
    """Choose random words until they have the share `masked` of the tokens; at least one word.

    As BERT's create_pretraining_data: a word that would exceed the share is skipped.
    """
    import numpy as np

    word_ids, sizes = np.unique(words[words >= 0], return_counts=True)
    remaining = max(1, round(masked * int(sizes.sum())))
    order = random.permutation(len(word_ids))
    chosen: list[int] = []
    for index in order.tolist():
        if sizes[index] <= remaining:
            chosen.append(int(word_ids[index]))
            remaining -= int(sizes[index])
        if not remaining:
            break
    return chosen or word_ids[order[:1]].tolist()


def _logits(model: Any, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def _token_statistics(model: Any, batch: Batch) -> dict[str, Tensor]:
    logits, labels = _logits(model, batch), batch["labels"]
    nll, tokens = token_losses(logits, labels).double().sum(1), (labels != IGNORED).sum(1)
    right = (logits.argmax(-1) == labels).sum(1)
    return {"nll": nll, "right": right, "tokens": tokens, "scores": -nll / tokens.clamp(min=1)}


def _fill_masks(model: Any, batch: Batch, top: int) -> dict[str, Any]:
    outputs: dict[str, list[Any]] = {"scores": [], "fills": [], "chances": []}
    for part in split_batch(model, batch, ("input_ids", "attention_mask", "mask_id")):
        masks = part["input_ids"] == part["mask_id"][:, None]
        for logits, is_mask in zip(_logits(model, part), masks, strict=True):
            best = logits[is_mask].float().softmax(-1).topk(min(top, logits.shape[-1]), dim=-1)
            outputs["chances"].append(best.values.detach().cpu().numpy())
            outputs["fills"].append(best.indices.cpu().tolist())
            outputs["scores"].append(outputs["chances"][-1].ravel())
    return outputs


def _fill_first_mask(text: str, mask: str, word: str) -> str:
    """The text with its first mask filled; a word that begins with ## is joined to the word before it."""
    before, _, after = text.partition(mask)
    return before.rstrip() + word.removeprefix("##") + after if word.startswith("##") else before + word + after
