"""Several documents in one training row: less padding, the same loss.

Best fit decreasing (Johnson 1974; for language models Ding et al., Fewer Truncations Improve Language Modeling, arXiv
2404.10830): the longest document first, each into the bin with the least room left. No document is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

# Packed rows in one batch of the output.
_ROWS_PER_BATCH = 1024


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """The positions of the documents in each bin, whose lengths add up to at most `capacity` tokens.

    Fuller bins are tried first; the result is deterministic. A document longer than `capacity` has a bin of its own.
    """
    import numpy as np

    bins: list[list[int]] = []
    bins_by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    open_rooms = 0  # bit r is set where a bin has room for exactly r more tokens
    for position in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[position])
        fitting = open_rooms >> length
        if fitting:
            # x & -x is the lowest set bit: the least room that fits. Constant time whatever the number of bins.
            room = length + (fitting & -fitting).bit_length() - 1
            index = bins_by_room[room].pop()
            if not bins_by_room[room]:
                open_rooms ^= 1 << room
        else:
            room, index = max(capacity, length), len(bins)
            bins.append([])
        bins[index].append(position)
        rest = room - length
        bins_by_room[rest].append(index)
        open_rooms |= 1 << rest
    return bins


def pack_documents(tokens: pa.Table, bins: Sequence[Sequence[int]]) -> Iterator[pa.Table]:
    """Yield batches of packed rows: the rows of `tokens` in each bin as one row.

    Lists are concatenated, `lost` is summed, and `documents` has the rows' lengths; other columns are left out. The id
    is that of the first row, with the number of further ones.
    """
    for start in range(0, len(bins), _ROWS_PER_BATCH):
        yield _join_rows(tokens, bins[start : start + _ROWS_PER_BATCH])


def _join_rows(tokens: pa.Table, bins: Sequence[Sequence[int]]) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    sizes = np.array([len(positions) for positions in bins])
    offsets = np.cumsum([0, *sizes])
    rows = tokens.take(pa.array([position for positions in bins for position in positions], pa.int64()))
    rows = rows.combine_chunks()
    first_ids = rows["id"].take(pa.array(offsets[:-1])).to_pylist()
    names = [name if size == 1 else f"{name} and {size - 1} more" for name, size in zip(first_ids, sizes, strict=True)]
    lengths = pc.list_value_length(rows["input_ids"]).to_numpy()
    columns: dict[str, Any] = {"id": pa.array(names, pa.string())}
    for field in tokens.schema:
        if pa.types.is_list(field.type):
            values = rows[field.name].combine_chunks()
            value_offsets = np.cumsum([0, *pc.list_value_length(values).to_numpy()])
            bin_offsets = pa.array(value_offsets[offsets], pa.int32())
            columns[field.name] = pa.ListArray.from_arrays(bin_offsets, values.flatten())
    columns["documents"] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(lengths, pa.int32()))
    lost = np.add.reduceat(rows["lost"].to_numpy(), offsets[:-1])
    return pa.table(columns | {"lost": pa.array(lost, pa.int32())})


def position_ids(documents: Sequence[Any], width: int) -> Tensor:
    """Each token's position in its own document, int64 [rows, width]; padding continues after the last document.

    From these, without an attention mask, transformers builds a decoder's mask that keeps documents apart.
    """
    import numpy as np
    import torch

    starts = np.zeros((len(documents), width), np.int64)
    for row, lengths in enumerate(documents):
        document_starts = np.cumsum(np.asarray(lengths, np.int64))[:-1]
        starts[row, document_starts] = document_starts
    return torch.from_numpy(np.arange(width) - np.maximum.accumulate(starts, axis=1))


def check_documents_isolated(model: Any, where: str) -> None:
    """Raise ModelError if a document's logits differ between a row of its own and a row shared with another.

    In decoders whose mask or state does not depend on position ids (ALiBi, state spaces) documents attend to each
    other, and in any with virtual tokens before its rows: PEFT (0.21) drops the position ids in prompt tuning.
    """
    import torch

    vocabulary = model.config.get_text_config().vocab_size
    first, second = (torch.arange(start, start + 4)[None] % vocabulary for start in (0, 3))
    with torch.no_grad():
        alone = model(input_ids=second, use_cache=False).logits[0]
        positions = position_ids([[4, 4]], 8)
        packed = model(input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False).logits[0, 4:]
    # Tolerance for rounding: 0.1% of the largest logit.
    if not torch.allclose(alone, packed, rtol=1e-3, atol=1e-3 * float(alone.abs().max())):
        raise ModelError(
            "packed documents would attend to each other in this model",
            where=where,
            fix="Set objective.packing=false.",
        )
