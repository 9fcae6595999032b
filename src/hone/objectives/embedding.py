"""Texts that belong together near each other: sentence embeddings, learned from pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared import retrieval
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.tokenizer import encode_texts
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch


@dataclass(frozen=True)
class Embedding(Objective):
    """An embedding for a text, near to those of the texts that belong to it."""

    columns: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negatives")
    text: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negatives")
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "double[]"}
    pipeline: ClassVar[str] = "feature-extraction"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "ndcg_at_10": Metric("NDCG@10"),
        "recall_at_1": Metric("Recall@1"),
        "recall_at_5": Metric("Recall@5"),
        "recall_at_10": Metric("Recall@10"),
        "mrr": Metric("Mean reciprocal rank"),
    }
    works_untuned: ClassVar[bool] = True

    scale: float = option(20.0, "Cosines are multiplied by it: the inverse of a temperature.", learning=True, gt=0)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with `negatives`: a list, or the text in `negative`, or none.

        Raises ValueError where an anchor is its own positive, or a positive its own negative.
        """
        given = values.get("negatives", values.get("negative"))
        negatives = [] if given in (None, "") else _negatives(given) if isinstance(given, str) else given
        if not isinstance(negatives, list) or not all(isinstance(text, str) and text.strip() for text in negatives):
            raise ValueError("negatives is not a list of texts")
        if "anchor" in values and "positive" in values:
            reason = _fault(values["anchor"], values["positive"], negatives)
            if reason:
                raise ValueError(reason)
        return {**values, "negatives": negatives}

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Anchor and positive, one below the other."""
        columns = [[text or "" for text in rows[name].to_pylist()] for name in ("anchor", "positive")]
        return ["\n".join(both) for both in zip(*columns, strict=True)]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The negatives, or the text itself."""
        return _negatives(value) if column == "negatives" else [value]

    def replace_texts(self, column: str, value: str, pieces: list[str]) -> str:
        """The negatives as JSON, or the text."""
        return json.dumps(pieces, ensure_ascii=False) if column == "negatives" else pieces[0]

    def inference_inputs(self, rows: pa.Table) -> list[dict[str, str]]:
        """Callers send any text: here the anchors."""
        return [{"text": text} for text in rows["anchor"].to_pylist()]

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """A row whose anchor and positive, or positive and negative, became the same is dropped."""
        return after, [_fault(*row) for row in _read(after)]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """Nothing: there is no head."""
        return {}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` (all texts of a row, one after the other), `lengths` (list<int32>, of each), `lost`.

        The order is anchor, positive, negatives; without `labelled` the one text. Each has at most `max_length` tokens;
        `longest` (int32) is the longest one's length before the cut. Raises DataError for a text that is null.
        """
        import pyarrow as pa

        wanted = ("anchor", "positive") if labelled else ("text",)
        for name in wanted:
            if rows[name].null_count:
                at = rows["id"].filter(rows[name].is_null())[0].as_py()
                raise DataError(f"a row has no {name}", where=f"row {at}", fix="Drop such rows.")
        given = [[a, p, *n] for a, p, n in _read(rows)] if labelled else [[text] for text in rows["text"].to_pylist()]
        found, cut = encode_texts(tokenizer, [text for texts in given for text in texts], max_length)
        starts, at = found.offsets.to_pylist(), _starts([len(texts) for texts in given])
        lengths = [[b - a for a, b in pairwise(starts[i : j + 1])] for i, j in pairwise(at)]
        wholes = [[n + int(c) for n, c in zip(row, cut[i:], strict=False)] for row, i in zip(lengths, at, strict=False)]
        offsets = pa.array([starts[i] for i in at], pa.int32())
        return pa.table(
            {
                "id": rows["id"].cast(pa.string()),
                "input_ids": pa.ListArray.from_arrays(offsets, found.values),
                "lengths": pa.array(lengths, pa.list_(pa.int32())),
                "longest": pa.array([max(row) for row in wholes], pa.int32()),
                "lost": pa.array([int(cut[i:j].sum()) for i, j in pairwise(at)], pa.int32()),
            }
        )

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """`input_ids` and `attention_mask` [texts, longest]: all anchors, then all positives, then all negatives.

        `same` [rows, candidates], of pairs: which positives and negatives are the row's own positive, or its anchor,
        word for word, and so no negatives to it.
        """
        import torch

        parted = [_parts(ids, lengths) for ids, lengths in zip(rows["input_ids"], rows["lengths"], strict=True)]
        anchors, positives = ([row[part] for row in parted if len(row) > part] for part in (0, 1))
        candidates = positives + [text for row in parted for text in row[2:]]
        texts = anchors + candidates
        batch = {"input_ids": pad_rows(texts, pad_id), "attention_mask": attention_mask(texts)}
        if positives:
            own = zip(anchors, positives, strict=True)
            batch["same"] = torch.tensor([[one in pair for one in candidates] for pair in own])
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32, without a head; raises ModelError where its files do not hold all of it."""
        return load_with_head("AutoModel", base, whole=True)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of finding each anchor's positive among all candidates of the batch, and its rows.

        By cosine times `scale`: Henderson et al., arXiv 1705.00652; sentence-transformers'
        MultipleNegativesRankingLoss, but for repeated texts, which are not held against themselves.
        """
        import torch
        from torch.nn.functional import cross_entropy

        rows = len(batch["same"])
        embedded = embeddings(model, batch)
        scores = embedded[:rows] @ embedded[rows:].T * self.scale
        right = torch.arange(rows, device=scores.device)
        repeated = batch["same"].clone()
        repeated[right, right] = False
        return cross_entropy(scores.masked_fill(repeated, -torch.inf), right, reduction="sum"), rows

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`scores`: the embeddings of anchor and positive, float32 [rows, 2, width]; [rows, 1, width] of lone texts."""
        import numpy as np

        embedded = embeddings(model, batch).detach().cpu().numpy()
        if "same" not in batch:
            return {"scores": embedded[:, None]}
        rows = len(batch["same"])
        return {"scores": np.stack([embedded[:rows], embedded[rows : 2 * rows]], axis=1)}

    def compute_outcome(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics are those of `retrieval.statistics`: each anchor's search for its positive among all positives."""
        import numpy as np

        places = retrieval.distinct_indices(_positives(tokens))
        ranks = (
            np.asarray(raw["ranks"]) if "ranks" in raw else retrieval.compute_ranks(np.asarray(raw["scores"]), places)
        )
        return Outcome(
            statistics=retrieval.rank_statistics(ranks),
            predictions=[f"found at {rank:.10g}" for rank in ranks.tolist()],
            references=["found at 1"] * len(ranks),
            errors=1 - 1 / ranks,
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """See `retrieval.figures`."""
        return retrieval.compute_metrics(sums)

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`bm25`: by the words that anchor and candidate share."""
        places = retrieval.distinct_indices(_positives(test))
        ranks = retrieval.bm25_ranks(rows["anchor"].to_pylist(), rows["positive"].to_pylist(), places)
        return {"bm25": {"ranks": ranks, "scores": ranks[:, None]}}

    def build_answers(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `embedding` of each text, a list of floats of length 1: cosines are dot products."""
        return [{"embedding": scores[0].tolist()} for scores in raw["scores"]]


def embeddings(model: Any, batch: Batch) -> Tensor:
    """The mean of the last hidden state over a text's tokens, at length 1: float32 [texts, width].

    Reimers and Gurevych, Sentence-BERT, arXiv 1908.10084.
    """
    from torch.nn.functional import normalize

    mask = batch["attention_mask"]
    hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state.float()
    return normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)


def _read(rows: pa.Table) -> list[tuple[str, str, list[str]]]:
    """Anchor, positive and negatives of each row."""
    columns = ([value or "" for value in rows[name].to_pylist()] for name in ("anchor", "positive", "negatives"))
    return [(anchor, positive, _negatives(value)) for anchor, positive, value in zip(*columns, strict=True)]


def _negatives(value: str) -> list[str]:
    """The texts that a value holds as a JSON list, or the value itself: a source's own column of one negative."""
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    return list(found) if isinstance(found, list) and all(isinstance(one, str) for one in found) else [value]


def _fault(anchor: Any, positive: Any, negatives: Sequence[str]) -> str:
    """What keeps a row from being learned from, '' for nothing."""
    if not str(anchor or "").strip() or not str(positive or "").strip():
        return "anchor or positive is empty"
    if any(not text.strip() for text in negatives):
        return "a negative is empty"
    if str(anchor).strip() == str(positive).strip():
        return "anchor and positive are the same"
    return "positive and negative are the same" if positive in negatives else ""


def _starts(counts: Sequence[int]) -> list[int]:
    """Where each of the groups of so many begins, and where the last ends."""
    found = [0]
    for count in counts:
        found.append(found[-1] + count)
    return found


def _parts(ids: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """A row's texts, each its ids."""
    whole = [int(token) for token in ids]
    return [whole[start:end] for start, end in pairwise(_starts([int(length) for length in lengths]))]


def _positives(tokens: pa.Table) -> list[tuple[int, ...]]:
    """Each row's positive as ids."""
    each = zip(tokens["input_ids"].to_pylist(), tokens["lengths"].to_pylist(), strict=True)
    return [tuple(ids[lengths[0] : lengths[0] + lengths[1]]) for ids, lengths in each]
