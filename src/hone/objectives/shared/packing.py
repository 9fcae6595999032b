"""Several documents in one training row: less padding, the same loss.

Best fit decreasing (Johnson 1974; for language models Ding et al., Fewer Truncations Improve Language Modeling, arXiv
2404.10830): the longest first, each to where it leaves the least room. No document is cut for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

# Rows that are written at once.
_WRITTEN = 1024


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Positions of the documents that go together: each bin's lengths add up to `capacity` or less.

    Fuller bins are tried before emptier ones, the same way each time. Lengths above `capacity` are alone in a bin.
    """
    import numpy as np

    bins: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_rooms = 0  # bit r is set where a bin has room for exactly r more tokens
    for position in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[position])
        fitting = open_rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            at = with_room[room].pop()
            if not with_room[room]:
                open_rooms ^= 1 << room
        else:
            room, at = max(capacity, length), len(bins)
            bins.append([])
        bins[at].append(position)
        left = room - length
        with_room[left].append(at)
        open_rooms |= 1 << left
    return bins


def pack_documents(tokens: pa.Table, bins: Sequence[Sequence[int]]) -> Iterator[pa.Table]:
    """The rows of `tokens` that each bin names as one row, batch by batch.

    Lists are joined, `lost` is added up, and `documents` has the rows' lengths; other columns are left out. The id
    is that of the first, with the number of those behind it.
    """
    for start in range(0, len(bins), _WRITTEN):
        yield _joined(tokens, bins[start : start + _WRITTEN])


def _joined(tokens: pa.Table, bins: Sequence[Sequence[int]]) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = np.array([len(positions) for positions in bins])
    ends = np.cumsum([0, *sizes])
    taken = take_rows(tokens, [position for positions in bins for position in positions])
    taken = taken.combine_chunks()
    first = taken["id"].take(pa.array(ends[:-1])).to_pylist()
    names = [name if size == 1 else f"{name} and {size - 1} more" for name, size in zip(first, sizes, strict=True)]
    lengths = pc.list_value_length(taken["input_ids"]).to_numpy()
    columns: dict[str, Any] = {"id": pa.array(names, pa.string())}
    for field in tokens.schema:
        if pa.types.is_list(field.type):
            values = taken[field.name].combine_chunks()
            inner = np.cumsum([0, *pc.list_value_length(values).to_numpy()])
            columns[field.name] = pa.ListArray.from_arrays(pa.array(inner[ends], pa.int32()), values.flatten())
    columns["documents"] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(lengths, pa.int32()))
    lost = np.add.reduceat(taken["lost"].to_numpy(), ends[:-1])
    return pa.table(columns | {"lost": pa.array(lost, pa.int32())})


def position_ids(documents: Sequence[Any], width: int) -> Tensor:
    """int64 [rows, width]: each token's place in its own document; padding goes on from the last one.

    A decoder that is given them and no attention mask keeps documents apart, where transformers makes its mask.
    """
    import numpy as np
    import torch

    starts = np.zeros((len(documents), width), np.int64)
    for row, lengths in enumerate(documents):
        at = np.cumsum(np.asarray(lengths, np.int64))[:-1]
        starts[row, at] = at
    return torch.from_numpy(np.arange(width) - np.maximum.accumulate(starts, axis=1))


def check_documents_isolated(model: Any, where: str) -> None:
    """Raise ModelError where a document in a row with another is read otherwise than alone.

    Decoders whose mask or memory does not go by position ids (ALiBi, state spaces) would see into their neighbours, and
    so would any with virtual tokens before its rows: PEFT (0.21) leaves the position ids of prompt tuning out.
    """
    import torch

    vocabulary = model.config.get_text_config().vocab_size
    first, second = (torch.arange(start, start + 4)[None] % vocabulary for start in (0, 3))
    with torch.no_grad():
        alone = model(input_ids=second, use_cache=False).logits[0]
        positions = position_ids([[4, 4]], 8)
        both = model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits[0, 4:]
    if not torch.allclose(alone, both, rtol=1e-3, atol=1e-3 * float(alone.abs().max())):
        raise ModelError(
            "documents that are packed into one row would see into each other in this model",
            where=where,
            fix="Set objective.packing=false.",
        )
