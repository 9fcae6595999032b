"""Arrow tables of any size: rows picked, and cut into pieces, without a column that has more than 2 GiB of text.

An Arrow `string` array counts its bytes in 32 bits. `take` first joins all chunks of a column, `combine_chunks` does
too: both fail on 2 GiB of text, however few rows are asked for. `filter` goes chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROWS_PER_GROUP = 100_000  # row group size of the Parquet files; a group of long texts has fewer
PIECE_BYTES = 1 << 28  # an eighth of the limit: a piece may exceed it by one row, and is copied while it is made


def take_rows(table: pa.Table, indices: Sequence[int] | np.ndarray) -> pa.Table:
    """The rows of `table` at `indices`, in that order; an index may occur several times."""
    import numpy as np
    import pyarrow as pa

    positions = np.asarray(indices, np.int64)
    sizes = _row_bytes(table)
    if sizes.sum() <= PIECE_BYTES and sizes[positions].sum() <= PIECE_BYTES:
        return table.take(pa.array(positions))
    pieces = [table.slice(0, 0)]
    for start, end in _cut(sizes[positions], len(positions)):
        distinct, order = np.unique(positions[start:end], return_inverse=True)
        pieces.append(filter_rows(table, distinct).combine_chunks().take(pa.array(order)))
    return pa.concat_tables(pieces)


def filter_rows(table: pa.Table, indices: Sequence[int] | np.ndarray) -> pa.Table:
    """The rows of `table` at `indices`, each once, in the table's order."""
    import numpy as np
    import pyarrow as pa

    mask = np.zeros(table.num_rows, bool)
    mask[np.asarray(indices, np.int64)] = True
    return table if mask.all() else table.filter(pa.array(mask))


def build_text_column(texts: Sequence[str]) -> pa.ChunkedArray:
    """A column of the texts in chunks of about PIECE_BYTES: a single array is copied again and again while it grows."""
    import numpy as np
    import pyarrow as pa

    sizes = np.fromiter(map(len, texts), np.int64, len(texts))  # characters: up to four bytes each
    return pa.chunked_array(
        [pa.array(texts[start:end], pa.string()) for start, end in _cut(sizes, len(texts))], pa.string()
    )


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whose bytes depend only on the rows."""
    import pyarrow.parquet as pq

    plain = table.replace_schema_metadata(None)
    with pq.ParquetWriter(path, plain.schema, compression="zstd") as writer:
        for piece in cut_rows(plain, ROWS_PER_GROUP):
            writer.write_table(piece)


def cut_rows(table: pa.Table, max_rows: int) -> Iterator[pa.Table]:
    """The table in pieces of one chunk each, of at most `max_rows` rows and about PIECE_BYTES of text and lists.

    Where it is cut depends on the rows alone, not on the chunks that they come in.
    """
    for start, end in _cut(_row_bytes(table), max_rows):
        yield table.slice(start, end - start).combine_chunks()


def _cut(sizes: np.ndarray, max_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows with at most `max_rows` rows each and PIECE_BYTES, or a single larger row."""
    import numpy as np

    totals = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = totals[start - 1] if start else 0
        fitting = int(np.searchsorted(totals, before + PIECE_BYTES, side="right"))
        end = min(max(fitting, start + 1), start + max_rows, len(sizes))
        yield start, end
        start = end


def _row_bytes(table: pa.Table) -> np.ndarray:
    """int64 [rows]: the bytes of each row's text and lists, which have 32-bit offsets; other columns count nothing."""
    import numpy as np

    sizes = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        lengths = [_lengths(chunk) for chunk in column.chunks]
        if lengths:
            sizes += np.concatenate(lengths)
    return sizes


def _lengths(chunk: Any) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(chunk.type) or pa.types.is_binary(chunk.type):
        lengths, width = pc.binary_length(chunk), 1
    elif pa.types.is_list(chunk.type):
        lengths, width = pc.list_value_length(chunk), 4
    else:
        return np.zeros(len(chunk), np.int64)
    values: np.ndarray = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64) * width
    return values
