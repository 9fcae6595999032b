"""Plain text as rows to learn from: what the objectives of continued pre-training share."""

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

IGNORED = -100  # the label of a token that is no target, as PyTorch has it

# Logits that are held at once where a model is only read: 1 GiB of float32. A row of 2,048 tokens has 0.4 with GPT-2.
_LOGITS = 1 << 28


def row_generator(ids: np.ndarray, training: bool) -> np.random.Generator:
    """Chance for one row: in training another each time, seeded by torch's generator; else the same for the same ids.

    So a training that is resumed draws what it would have drawn, and an evaluation repeats itself on any machine.
    """
    import numpy as np
    import torch

    if training:
        return np.random.default_rng(int(torch.randint(2**62, ())))
    return np.random.default_rng(int.from_bytes(sha256(ids.astype("<i8").tobytes()).digest()[:8], "little"))


def row_indices(tokens: pa.Table) -> np.ndarray:
    """For each encoded row the place of the row that it is a piece of, in the order in which rows first come."""
    import numpy as np

    encoded = tokens["id"].dictionary_encode()  # one dictionary for all chunks
    return np.concatenate([np.empty(0, np.int64), *(chunk.indices.to_numpy() for chunk in encoded.chunks)])


def sum_by_row(owner: np.ndarray, statistics: Iterable[Any]) -> np.ndarray:
    """The statistics of encoded rows, summed over the pieces of each row: float64 [rows, k]."""
    import numpy as np

    size = int(owner.max(initial=-1)) + 1
    columns = [np.bincount(owner, np.asarray(values, np.float64), size) for values in statistics]
    return np.stack(columns, axis=1)


def token_outcome(tokens: pa.Table, predictions: Predictions, what: str) -> Outcome:
    """How a system did that was to find tokens, `what` they are called: by row right, tokens and nll are summed."""
    import numpy as np

    found = sum_by_row(row_indices(tokens), [predictions["right"], predictions["tokens"], predictions["nll"]])
    right, of = found[:, 0].astype(int).tolist(), found[:, 1].astype(int).tolist()
    return Outcome(
        statistics=found,
        predictions=[f"{n} found" for n in right],
        references=[f"{n} {what}" for n in of],
        errors=np.where(found[:, 0] == found[:, 1], 0.0, found[:, 2] / np.maximum(found[:, 1], 1)),
    )


def group_by_row(owner: np.ndarray, values: Sequence[Any]) -> list[list[Any]]:
    """The values of encoded rows, by row, in the order of its pieces."""
    found: list[list[Any]] = [[] for _ in range(int(owner.max(initial=-1)) + 1)]
    for place, value in zip(owner.tolist(), values, strict=True):
        found[place].append(value)
    return found


def split_batch(model: Any, batch: Batch, names: Sequence[str]) -> Iterable[Batch]:
    """The batch's tensors `names` whole, or in parts of fewer rows where its logits would take more than 1 GiB."""
    first = batch[names[0]]
    rows = max(1, _LOGITS // max(1, first.shape[1] * model.config.get_text_config().vocab_size))
    if rows >= len(first):
        yield {name: batch[name] for name in names}
        return
    for start in range(0, len(first), rows):
        yield {name: batch[name][start : start + rows] for name in names}


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The negative log-likelihood of each label, float32 [rows, tokens]; 0 where there is none."""
    from torch.nn.functional import cross_entropy

    flat = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=IGNORED)
    return flat.view(labels.shape)


def concatenate_parts(read: Iterable[Mapping[str, Tensor]]) -> dict[str, Any]:
    """What was read of a batch's parts, by name, as arrays [rows] on the CPU."""
    import torch

    each = list(read)
    return {name: torch.cat([part[name] for part in each]).detach().cpu().numpy() for name in each[0]}
