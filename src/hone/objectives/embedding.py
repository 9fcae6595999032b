"""Sentence embeddings, learned from pairs: texts that belong together get similar vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared import retrieval
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.json_cells import load_json
from hone.objectives.shared.old_domain import PREFIX, find_old_rows, list_measured, split_statistics, split_sums
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.tokenizer import encode_texts, list_control_tokens, list_truncated
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch


@dataclass(frozen=True)
class Embedding(Objective):
    """Embed a text close to the texts that belong to it."""

    columns: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negatives")
    forms: ClassVar[tuple[str, ...]] = ("negative",)
    text: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negatives")
    near_repeats: ClassVar[bool] = False
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"embedding": "double[]", "truncated": "boolean"}
    pipeline: ClassVar[str] = "feature-extraction"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "ndcg_at_10": Metric("NDCG@10"),
        "recall_at_1": Metric("Recall@1"),
        "recall_at_5": Metric("Recall@5"),
        "recall_at_10": Metric("Recall@10"),
        "mrr": Metric("Mean reciprocal rank"),
        "old_ndcg_at_10": Metric("NDCG@10 of the old domain"),
    }
    works_untuned: ClassVar[bool] = True

    scale: float = option(
        20.0, "Factor on cosine similarities in the loss: the inverse of a temperature.", learning=True, gt=0
    )

    old_domain: tuple[str, ...] = option(
        (),
        "Source files (globs) with pairs of the domain the base model was trained on: they count only for the metric "
        "old_ndcg_at_10, which shows forgetting.",
        learning=True,
    )

    @property
    def training_metrics(self) -> Mapping[str, Metric]:
        """Without `old_ndcg_at_10` if no file is of the old domain."""
        return list_measured(self.metrics, self.old_domain)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row with `negatives` as a list, from `negatives`, the text in `negative`, or neither.

        Raises ValueError if anchor and positive are equal, or a positive is among its negatives.
        """
        value = values.get("negatives", values.get("negative"))
        negatives = [] if value in (None, "") else _parse_negatives(value) if isinstance(value, str) else value
        if not isinstance(negatives, list) or not all(isinstance(text, str) and text.strip() for text in negatives):
            raise ValueError("negatives is not a list of texts")
        if "anchor" in values and "positive" in values:
            reason = _find_fault(values["anchor"], values["positive"], negatives)
            if reason:
                raise ValueError(reason)
        return {**values, "negatives": negatives}

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Anchor and positive, one per line."""
        columns = [[text or "" for text in rows[name].to_pylist()] for name in ("anchor", "positive")]
        return ["\n".join(both) for both in zip(*columns, strict=True)]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The negatives, or the text itself."""
        return _parse_negatives(value) if column == "negatives" else [value]

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The negatives as JSON, or the text."""
        return json.dumps(texts, ensure_ascii=False) if column == "negatives" else texts[0]

    def inference_inputs(self, rows: pa.Table) -> list[dict[str, str]]:
        """The anchors: a caller sends any text."""
        return [{"text": text} for text in rows["anchor"].to_pylist()]

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """Drop rows whose anchor and positive, or positive and a negative, became equal or empty."""
        return after, [_find_fault(*row) for row in _read_triples(after)]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """Empty: there is no head."""
        return {}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` (all texts of a row, concatenated), `lengths` (list<int32>, of each text), `lost`.

        The order is anchor, positive, negatives; without `labelled` there is one text. Each has at most `max_length`
        tokens; `longest` (int32) is the length of the longest one before truncation. Raises DataError for a null text.
        """
        import pyarrow as pa

        required = ("anchor", "positive") if labelled else ("text",)
        for name in required:
            if rows[name].null_count:
                row_id = rows["id"].filter(rows[name].is_null())[0].as_py()
                raise DataError(f"a row has no {name}", where=f"row {row_id}", fix="Drop such rows.")
        texts_by_row = (
            [[anchor, positive, *negatives] for anchor, positive, negatives in _read_triples(rows)]
            if labelled
            else [[text] for text in rows["text"].to_pylist()]
        )
        ids, cut = encode_texts(
            tokenizer, [text for texts in texts_by_row for text in texts], max_length, list_control_tokens(targets)
        )
        starts, first_text = ids.offsets.to_pylist(), _group_starts([len(texts) for texts in texts_by_row])
        lengths = [[b - a for a, b in pairwise(starts[i : j + 1])] for i, j in pairwise(first_text)]
        full_lengths = [
            [length + int(lost) for length, lost in zip(row, cut[i:], strict=False)]
            for row, i in zip(lengths, first_text, strict=False)
        ]
        offsets = pa.array([starts[i] for i in first_text], pa.int32())
        return pa.table(
            {
                "id": rows["id"].cast(pa.string()),
                "input_ids": pa.ListArray.from_arrays(offsets, ids.values),
                "lengths": pa.array(lengths, pa.list_(pa.int32())),
                "longest": pa.array([max(row) for row in full_lengths], pa.int32()),
                "lost": pa.array([int(cut[i:j].sum()) for i, j in pairwise(first_text)], pa.int32()),
            }
        )

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """`input_ids` and `attention_mask` [texts, longest]: all anchors, then all positives, then all negatives.

        `same` [rows, candidates], for pairs: whether a candidate has the tokens of the row's own anchor, or of the
        positive of a row with that anchor, and so is not a negative for it.
        """
        import torch

        texts_by_row = [
            _split_ids(ids, lengths) for ids, lengths in zip(rows["input_ids"], rows["lengths"], strict=True)
        ]
        anchors, positives = ([row[part] for row in texts_by_row if len(row) > part] for part in (0, 1))
        candidates = positives + [text for row in texts_by_row for text in row[2:]]
        texts = anchors + candidates
        batch = {"input_ids": pad_rows(texts, pad_id), "attention_mask": attention_mask(texts)}
        if positives:
            right: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
            for anchor, positive in zip(map(tuple, anchors), map(tuple, positives), strict=True):
                right.setdefault(anchor, {anchor}).add(positive)
            batch["same"] = torch.tensor(
                [[tuple(text_ids) in right[tuple(anchor)] for text_ids in candidates] for anchor in anchors]
            )
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32, without a head; raises ModelError if its files are incomplete."""
        return load_with_head("AutoModel", base, all_weights=True)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of each anchor's positive among all candidates of the batch, and the rows.

        Logits are cosines times `scale`: Henderson et al., arXiv 1705.00652; like sentence-transformers'
        MultipleNegativesRankingLoss, except that neither repeated texts nor the other positives of an anchor are
        negatives of it.
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
        """`scores`: the embeddings of anchor and positive, float32 [rows, 2, width]; [rows, 1, width] without pairs."""
        import numpy as np

        embedded = embeddings(model, batch).detach().cpu().numpy()
        if "same" not in batch:
            return {"scores": embedded[:, None]}
        rows = len(batch["same"])
        return {"scores": np.stack([embedded[:rows], embedded[rows : 2 * rows]], axis=1)}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: `retrieval.rank_statistics` of each row's search for its positive among those of its domain.

        Without the other positives of the same anchor: they are right too. Six columns are for the new domain, six for
        the old: how hard the search in one is does not depend on how many rows the other has.
        """
        import numpy as np

        is_old = self._find_old_rows(tokens)
        if "ranks" in predictions:
            ranks = np.asarray(predictions["ranks"])
        else:
            embedded = np.asarray(predictions["scores"])
            ranks = _rank_by_domain(
                tokens, is_old, lambda rows, *indices: retrieval.compute_ranks(embedded[rows], *indices)
            )
        return Outcome(
            statistics=split_statistics(retrieval.rank_statistics(ranks), is_old),
            predictions=[f"found at {rank:.10g}" for rank in ranks.tolist()],
            references=["found at 1"] * len(ranks),
            errors=1 - 1 / ranks,
        )

    def _find_old_rows(self, tokens: pa.Table) -> np.ndarray:
        return find_old_rows(tokens["id"].to_pylist(), self.old_domain)

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`retrieval.compute_metrics` of the new domain, or of the old if there are no other rows; `old_ndcg_at_10`."""
        new, old = split_sums(sums, -1)
        metrics = retrieval.compute_metrics(new)
        if old[-1].any():
            metrics["old_ndcg_at_10"] = retrieval.compute_metrics(old)["ndcg_at_10"]
        return metrics

    def count_rows(self, sums: np.ndarray, targets: Targets) -> dict[str, int]:
        """The rows of each domain, from `sums` [12]."""
        new, old = split_sums(sums[:, None], -1)
        return {name: int((old if name.startswith(PREFIX) else new)[-1, 0]) for name in self.metrics}

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`bm25`: ranks by the words that anchor and candidate share."""
        import numpy as np

        texts = [np.array(rows[name].to_pylist(), object) for name in ("anchor", "positive")]
        ranks = _rank_by_domain(
            test,
            self._find_old_rows(test),
            lambda members, *indices: retrieval.bm25_ranks(*(column[members].tolist() for column in texts), *indices),
        )
        return {"bm25": {"ranks": ranks, "scores": ranks[:, None]}}

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `embedding` of each text, a list of floats of length 1: cosines are dot products.

        `truncated`: whether the text was longer than the model takes, so that its end was not read.
        """
        pairs = zip(predictions["scores"], list_truncated(tokens), strict=True)
        return [{"embedding": scores[0].tolist(), "truncated": truncated} for scores, truncated in pairs]


def embeddings(model: Any, batch: Batch) -> Tensor:
    """The mean of the last hidden state over a text's tokens, scaled to length 1: float32 [texts, width].

    Reimers and Gurevych, Sentence-BERT, arXiv 1908.10084.
    """
    from torch.nn.functional import normalize

    mask = batch["attention_mask"]
    hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state.float()
    return normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1)


def _read_triples(rows: pa.Table) -> list[tuple[str, str, list[str]]]:
    """Anchor, positive and negatives of each row."""
    columns = ([value or "" for value in rows[name].to_pylist()] for name in ("anchor", "positive", "negatives"))
    return [(anchor, positive, _parse_negatives(value)) for anchor, positive, value in zip(*columns, strict=True)]


def _parse_negatives(value: str) -> list[str]:
    """The texts of a JSON list, or the value itself as the only negative."""
    try:
        parsed = load_json(value)
    except ValueError:
        parsed = value
    return list(parsed) if isinstance(parsed, list) and all(isinstance(text, str) for text in parsed) else [value]


def _find_fault(anchor: Any, positive: Any, negatives: Sequence[str]) -> str:
    """The reason a row cannot be used for training, '' for none."""
    if not str(anchor or "").strip() or not str(positive or "").strip():
        return "anchor or positive is empty"
    if any(not text.strip() for text in negatives):
        return "a negative is empty"
    if str(anchor).strip() == str(positive).strip():
        return "anchor and positive are the same"
    return "positive and negative are the same" if positive in negatives else ""


def _group_starts(counts: Sequence[int]) -> list[int]:
    """The index at which each group of these sizes begins, and the end of the last."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts


def _split_ids(ids: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """The token ids of each of a row's texts."""
    token_ids = [int(token) for token in ids]
    return [token_ids[start:end] for start, end in pairwise(_group_starts([int(length) for length in lengths]))]


def _rank_by_domain(tokens: pa.Table, is_old: np.ndarray, rank: Callable[..., np.ndarray]) -> np.ndarray:
    """The rank of each row's positive among the candidates of its own domain, float64 [rows].

    `rank` gets the positions of one domain's rows and their `_index_pairs`, and returns the ranks of these rows.
    """
    import numpy as np
    import pyarrow as pa

    ranks = np.empty(len(is_old))
    for members in (~is_old, is_old):
        if members.any():
            ranks[members] = rank(np.flatnonzero(members), *_index_pairs(tokens.filter(pa.array(members))))
    return ranks


def _index_pairs(tokens: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """`retrieval.distinct_indices` of the rows' positives and of their anchors, by their token ids."""
    rows = list(zip(tokens["input_ids"].to_pylist(), tokens["lengths"].to_pylist(), strict=True))
    positives = [tuple(ids[lengths[0] : lengths[0] + lengths[1]]) for ids, lengths in rows]
    anchors = [tuple(ids[: lengths[0]]) for ids, lengths in rows]
    return retrieval.distinct_indices(positives), retrieval.distinct_indices(anchors)
