"""Rows of plain text: what the objectives of continued pre-training share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from hone.objectives.base import Outcome, Predictions

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    from hone.objectives.base import Batch

IGNORED = -100  # the label of a token that is not predicted: the default ignore_index of PyTorch

# Maximum number of logits in one prediction pass: 1 GiB of float32. A row of 2,048 tokens has 0.4 GiB with GPT-2.
_MAX_LOGITS = 1 << 28


def row_generator(ids: np.ndarray, training: bool) -> np.random.Generator:
    """A random generator for one row: seeded from torch's generator in training, otherwise from the row's token ids.

    So a resumed training draws the same numbers as an uninterrupted one, and an evaluation is the same on any machine.
    """
    import numpy as np
    import torch

    if training:
        return np.random.default_rng(int(torch.randint(2**62, ())))
    # "<i8": the same bytes, and so the same seed, on any machine.
    return np.random.default_rng(int.from_bytes(sha256(ids.astype("<i8").tobytes()).digest()[:8], "little"))


def row_indices(tokens: pa.Table) -> np.ndarray:
    """For each encoded row the index of the row that it is a piece of, int64; rows are numbered as they first occur."""
    import numpy as np

    indices: np.ndarray = tokens["id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return indices


def sum_by_row(row_index: np.ndarray, statistics: Iterable[Any]) -> np.ndarray:
    """The k statistics of encoded rows, summed over the pieces of each row (`row_indices`): float64 [rows, k]."""
    import numpy as np

    rows = int(row_index.max(initial=-1)) + 1
    columns = [np.bincount(row_index, np.asarray(values, np.float64), rows) for values in statistics]
    return np.stack(columns, axis=1)


def token_outcome(tokens: pa.Table, predictions: Predictions, description: str) -> Outcome:
    """The outcome for predicted tokens, called `description` in the references. Statistics: right, tokens, nll by row.

    The error is the mean nll of a row's tokens, in nats, 0 if all are right.
    """
    import numpy as np

    statistics = sum_by_row(row_indices(tokens), [predictions["right"], predictions["tokens"], predictions["nll"]])
    right, count, nll = statistics.T
    return Outcome(
        statistics=statistics,
        predictions=[f"{n} found" for n in right.astype(int).tolist()],
        references=[f"{n} {description}" for n in count.astype(int).tolist()],
        errors=np.where(right == count, 0.0, nll / np.maximum(count, 1)),
    )


def group_by_row(row_index: np.ndarray, values: Sequence[Any]) -> list[list[Any]]:
    """The values of encoded rows, grouped by row (`row_indices`), in the order of a row's pieces."""
    groups: list[list[Any]] = [[] for _ in range(int(row_index.max(initial=-1)) + 1)]
    for row, value in zip(row_index.tolist(), values, strict=True):
        groups[row].append(value)
    return groups


def split_batch(model: Any, batch: Batch, names: Sequence[str]) -> Iterable[Batch]:
    """Yield the batch's tensors `names`, in parts of fewer rows if all logits would take more than 1 GiB."""
    first = batch[names[0]]
    rows = max(1, _MAX_LOGITS // max(1, first.shape[1] * model.config.get_text_config().vocab_size))
    if rows >= len(first):
        yield {name: batch[name] for name in names}
        return
    for start in range(0, len(first), rows):
        yield {name: batch[name][start : start + rows] for name in names}


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood of each label, in nats, float32 [rows, tokens]; 0 where there is none."""
    from torch.nn.functional import cross_entropy

    flat = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=IGNORED)
    return flat.view(labels.shape)


def concatenate_parts(outputs: Iterable[Mapping[str, Tensor]]) -> dict[str, Any]:
    """The outputs for a batch's parts, concatenated by name to arrays [rows] on the CPU."""
    import torch

    parts = list(outputs)
    return {name: torch.cat([part[name] for part in parts]).detach().cpu().numpy() for name in parts[0]}
