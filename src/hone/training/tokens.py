"""The tokenized rows of one split, read in place from an Arrow IPC file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class TokenFile:
    """The rows of an Arrow IPC file, memory-mapped: a row takes memory only while it is used.

    `lengths` is the number of tokens of each row (int64 [rows]). `extra` is a file with further columns of the same
    rows. Raises DataError if a file cannot be read.
    """

    def __init__(self, path: Path, extra: Path | None = None) -> None:
        import numpy as np

        table = _map_table(path)
        if extra:
            columns_table = _map_table(extra)
            for name in columns_table.column_names:
                table = table.append_column(name, columns_table[name])
        self._chunks = table.to_batches()
        self._columns = [_view_columns(chunk) for chunk in self._chunks]
        self._starts = np.cumsum([0, *(chunk.num_rows for chunk in self._chunks)])
        lengths = [np.diff(columns["input_ids"][1]) for columns in self._columns]
        self.lengths: np.ndarray = np.concatenate([np.empty(0, np.int64), *lengths]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: Iterable[int]) -> dict[str, list[Any]]:
        """The rows at `indices`, in that order, by column: an array for a list (input_ids), else a number (label)."""
        places = [self._locate(index) for index in indices]
        names = self._columns[0] if self._columns else ()
        return {name: [_get_value(self._columns[chunk][name], row) for chunk, row in places] for name in names}

    def table(self, indices: Iterable[int]) -> pa.Table:
        """The rows at `indices`, in that order, as an Arrow table with all columns."""
        import pyarrow as pa

        return pa.Table.from_batches(self._chunks).take(pa.array(indices))

    def names(self, indices: Iterable[int]) -> list[str]:
        """The ids (column `id`) of the rows at `indices`, for messages."""
        return [self._chunks[chunk]["id"][row].as_py() for chunk, row in map(self._locate, indices)]

    def used_ids(self) -> np.ndarray:
        """The token ids that occur in any row, sorted (int64)."""
        import numpy as np

        unique = [np.unique(chunk["input_ids"].flatten().to_numpy()) for chunk in self._chunks]
        return np.unique(np.concatenate([np.empty(0, np.int64), *unique])).astype(np.int64)

    def _locate(self, index: int) -> tuple[int, int]:
        """The number of the chunk that contains row `index`, and the row's position in it."""
        chunk = int(self._starts.searchsorted(index, "right")) - 1
        return chunk, int(index - self._starts[chunk])


def _map_table(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (FileNotFoundError, pa.ArrowInvalid) as fault:
        raise DataError(f"cannot be read: {fault}", where=str(path), fix="Delete it and tokenize again.") from fault


Column = tuple["np.ndarray", "np.ndarray | None"]


def _view_columns(chunk: pa.RecordBatch) -> dict[str, Any]:
    """Views of the numeric columns: (flat values, offsets of the rows) for lists, else (values, None)."""
    import pyarrow as pa

    views: dict[str, Any] = {}
    for name, column in zip(chunk.schema.names, chunk.columns, strict=True):
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            views[name] = column.values.to_numpy(), column.offsets.to_numpy()
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            views[name] = column.to_numpy(), None
    return views


def _get_value(column: Column, row: int) -> Any:
    values, offsets = column
    return values[row] if offsets is None else values[offsets[row] : offsets[row + 1]]
