"""Continued pre-training of decoders on plain text: the next token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import ModelError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.continuation import continue_prompts, text_after
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.packing import best_fit_decreasing, check_documents_isolated, pack_documents, position_ids
from hone.objectives.shared.padding import attention_mask, pad_rows
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
from hone.objectives.shared.tokenizer import encode_with_offsets, get_texts, to_list_array
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
    """The next token of plain text."""

    columns: ClassVar[tuple[str, ...]] = ("text",)
    text: ClassVar[tuple[str, ...]] = ("text",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"continuation": "string", "perplexity": "double"}
    pipeline: ClassVar[str] = "text-generation"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "perplexity": Metric("Perplexity per token", lower=True, share=False),
        "bits_per_byte": Metric("Bits per byte", lower=True, share=False),
        "loss": Metric("Loss per token", lower=True, share=False),
        "old_perplexity": Metric("Perplexity of the old domain", lower=True, share=False),
    }
    works_untuned: ClassVar[bool] = True

    packing: bool = option(True, "Put several documents into one training row; they do not see each other.")
    long_documents: Literal["split", "truncate"] = option(
        "split", "What is done with documents of more than tokenization.max_length tokens: split loses nothing."
    )
    old_domain: tuple[str, ...] = option(
        (),
        "Files (globs of the names that rows have as their source) with text of the kind the base model knew before: "
        "they count for the figure old_perplexity and for no other.",
        learning=True,
    )
    max_new_tokens: int = option(
        64, "The most tokens that the served model goes on with.", learning=True, ge=1, le=4096
    )

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """Nothing: the head is the base model's own."""
        return {}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids`, `closed` (1 where the last token is the end that was set), `bytes` and `lost`.

        A long document becomes several rows: each begins with the last token of the one before, so that every token
        but the document's first is a target once, whatever the length (rolling windows as in EleutherAI's
        lm-evaluation-harness). `bytes` of UTF-8 stand in a document's first row. Without `labelled` no end is set, and
        the last row has the `prompt` to go on from and the token `end` to stop at.
        Raises DataError for a text that is null, ModelError where the tokenizer has no end-of-text token.
        """
        import pyarrow as pa

        end, texts = _end_of_text(tokenizer), get_texts(rows)
        found = [encoding.ids for encoding in encode_with_offsets(tokenizer, texts)]
        if not labelled:
            return _asked(rows, [ids or [_start_of_text(tokenizer)] for ids in found], end, max_length)
        whole = [ids if ids[-1:] == [end] else [*ids, end] for ids in found]
        pieces = [_pieces(ids, max_length) for ids in whole]
        closed = [[*[0] * (len(some) - 1), 1] for some in pieces]
        sizes, lost = [len(text.encode()) for text in texts], [0] * len(texts)
        if self.long_documents == "truncate":
            sizes, lost = _truncated(tokenizer, texts, [len(ids) - 1 for ids in whole], sizes, max_length)
            pieces, closed = [some[:1] for some in pieces], [some[:1] for some in closed]
        firsts = {"bytes": (sizes, pa.int64()), "lost": (lost, pa.int32())}
        return pa.table(
            {
                **_rows(rows, pieces),
                "closed": pa.array(chain.from_iterable(closed), pa.int32()),
                **{name: _in_first(values, pieces, kind) for name, (values, kind) in firsts.items()},
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
        """input_ids and labels [rows, longest], int64: each label is the token of its own place, -100 for none.

        `position_ids` where documents share a row; `text_labels` without the end that was set; `prompt_ids`,
        `prompt_mask` (padded on the left) and `end` [rows] where a text is to be gone on with. There is no attention
        mask: padding is on the right, where no token of a text looks.
        """
        import torch

        ids = rows["input_ids"]
        batch = {"input_ids": pad_rows(ids, pad_id), "labels": pad_rows(ids, IGNORED)}
        batch["labels"][:, 0] = IGNORED
        if any(len(documents) > 1 for documents in rows.get("documents", ())):
            batch["position_ids"] = position_ids(rows["documents"], batch["labels"].shape[1])
            batch["labels"][batch["position_ids"] == 0] = IGNORED
        if "closed" in rows:
            batch["text_labels"] = batch["labels"].clone()
            for row, (tokens, closed) in enumerate(zip(ids, rows["closed"], strict=True)):
                if closed:
                    batch["text_labels"][row, len(tokens) - 1] = IGNORED
        if "prompt" in rows:
            turned = [[*reversed(prompt), pad_id][: max(1, len(prompt))] for prompt in rows["prompt"]]
            batch["prompt_ids"] = pad_rows(turned, pad_id).flip(1)
            shown = attention_mask(turned) * torch.tensor([[int(len(prompt) > 0)] for prompt in rows["prompt"]])
            batch["prompt_mask"] = shown.flip(1)
            batch["end"] = torch.tensor([int(end) for end in rows["end"]])
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The decoder in float32 with its own head; raises ModelError where a weight is not there."""
        return load_with_head("AutoModelForCausalLM", base, whole=True)

    def check_model(self, model: Any, where: str) -> None:
        """Raise ModelError where packed documents would see into each other."""
        if self.packing:
            check_documents_isolated(model, where)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed negative log-likelihood, float32, and its number of tokens, the ends of documents among them."""
        labels = _next(batch["labels"])
        return token_losses(_logits(model, batch), labels).sum(), int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """By encoded row `nll` and `tokens` of its text, `scores`, the mean log-likelihood of a token, and more.

        The end that was set does not count: a base model that has never seen one would look worse than it reads.
        Where there is a prompt, also that and the ids that follow it, `continued`.
        """
        names = ("input_ids", "text_labels" if "text_labels" in batch else "labels")
        found = concatenate_parts(_likelihood(model, part, names[1]) for part in split_batch(model, batch, names))
        return found | (continue_prompts(model, batch, self.max_new_tokens) if "prompt_ids" in batch else {})

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """With `continuation`, the text after the prompt, where something was generated."""
        if "continued" not in predictions:
            return predictions
        pairs = zip(predictions["prompt"], predictions["continued"], strict=True)
        return {**predictions, "continuation": [text_after(tokenizer, prompt, ids) for prompt, ids in pairs]}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics are, by document, nll, tokens and bytes: three of the new domain, then three of the old."""
        import numpy as np

        owner = row_indices(tokens)
        own = sum_by_row(owner, [predictions["nll"], predictions["tokens"], tokens["bytes"].to_numpy()])
        loss = own[:, 0] / np.maximum(own[:, 1], 1)
        old = np.array([self._is_old(name) for name in tokens["id"].unique().to_pylist()], bool)
        return Outcome(
            statistics=np.concatenate([own * ~old[:, None], own * old[:, None]], axis=1),
            predictions=[f"perplexity {exp(min(one, 700)):.4g}" for one in loss.tolist()],
            references=[f"{int(count)} tokens" for count in own[:, 1].tolist()],
            errors=loss,
        )

    def _is_old(self, name: str) -> bool:
        """Whether a row, by its id (its source, a colon, its place there), is of the old domain."""
        return any(fnmatchcase(name, f"{pattern}:*") for pattern in self.old_domain)

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`perplexity`, `bits_per_byte` and `loss` of the new domain, or of the old where there is no other text."""
        import numpy as np

        new, old = np.split(sums, 2)
        nll, tokens, size = np.where(new[1] > 0, new, old)
        loss = safe_ratio(nll, tokens)
        figures = {"perplexity": np.exp(loss), "bits_per_byte": safe_ratio(nll, size) / np.log(2), "loss": loss}
        if old[1].any():
            figures["old_perplexity"] = np.exp(safe_ratio(old[0], old[1]))
        return figures

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The text's `continuation`, greedy, its own `perplexity` (1 for a text of one token), and its `tokens`."""
        owner = row_indices(tokens)
        texts = group_by_row(owner, predictions.get("continuation", [""] * len(tokens)))
        return [
            {"continuation": "".join(text), "perplexity": exp(min(nll / max(count, 1), 700)), "tokens": int(count)}
            for text, (nll, count) in zip(
                texts, sum_by_row(owner, [predictions["nll"], predictions["tokens"]]).tolist(), strict=True
            )
        ]


def _end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "its tokenizer has no end-of-text token, which closes each document",
            where=tokenizer.name_or_path,
            fix="Name one as eos_token in tokenizer_config.json.",
        )
    return int(tokenizer.eos_token_id)


def _start_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """What a text of nothing is gone on with: the end of the text before it, where a base has no start."""
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)


def _pieces(ids: list[int], max_length: int) -> list[list[int]]:
    """Ids in pieces of at most `max_length`, each beginning with the last of the one before."""
    starts = range(0, max(1, len(ids) - 1), max_length - 1)
    return [ids[start : start + max_length] for start in starts]


def _rows(rows: pa.Table, pieces: Sequence[Sequence[list[int]]]) -> dict[str, Any]:
    """The columns `id` and `input_ids` of each row's pieces."""
    import pyarrow as pa

    of = pa.array([row for row, some in enumerate(pieces) for _ in some], pa.int64())
    return {"id": rows["id"].cast(pa.string()).take(of), "input_ids": to_list_array(list(chain.from_iterable(pieces)))}


def _in_first(values: Sequence[int], pieces: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.Array:
    """A row's value in its first piece, and 0 in the others."""
    import pyarrow as pa

    each = ([value, *[0] * (len(some) - 1)] for value, some in zip(values, pieces, strict=True))
    return pa.array(chain.from_iterable(each), kind)


def _asked(rows: pa.Table, encoded: Sequence[list[int]], end: int, max_length: int) -> pa.Table:
    """Texts to judge and, in the last piece of each, what to go on from: its last tokens."""
    import pyarrow as pa

    pieces = [_pieces(ids, max_length) for ids in encoded]
    prompts = [
        prompt
        for ids, some in zip(encoded, pieces, strict=True)
        for prompt in (*[[] for _ in some[1:]], ids[-max_length:])
    ]
    fixed = {name: pa.array([value] * len(prompts), pa.int32()) for name, value in (("end", end), ("lost", 0))}
    return pa.table({**_rows(rows, pieces), "prompt": to_list_array(prompts), **fixed})


def _truncated(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    lengths: Sequence[int],
    sizes: Sequence[int],
    max_length: int,
) -> tuple[list[int], list[int]]:
    """The bytes that the first `max_length` tokens of each text stand for, and how many of its `lengths` are lost."""
    lost = [max(0, length - max_length) for length in lengths]
    left = list(sizes)
    cut = [row for row, tokens in enumerate(lost) if tokens]
    for row, encoding in zip(cut, encode_with_offsets(tokenizer, [texts[row] for row in cut]), strict=True):
        left[row] = len(texts[row][: encoding.offsets[max_length - 1][1]].encode())
    return left, lost


def _logits(model: Any, batch: Batch) -> Tensor:
    """Next-token logits; without a cache, for with one transformers does not look at where positions restart."""
    positions = {"position_ids": batch["position_ids"]} if "position_ids" in batch else {}
    logits: Tensor = model(input_ids=batch["input_ids"], use_cache=False, **positions).logits
    return logits


def _next(labels: Tensor) -> Tensor:
    """The label of the token that follows each place."""
    from torch.nn.functional import pad

    return pad(labels[:, 1:], (0, 1), value=IGNORED)


def _likelihood(model: Any, batch: Batch, labels: str) -> dict[str, Tensor]:
    wanted = _next(batch[labels])
    nll = token_losses(_logits(model, batch), wanted).double().sum(1)
    tokens = (wanted != IGNORED).sum(1)
    return {"nll": nll, "tokens": tokens, "scores": -nll / tokens.clamp(min=1)}
