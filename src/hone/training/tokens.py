"""The tokenized rows of one split, read in place from an Arrow IPC file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import DataError
from hone.store.tables import take_rows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class TokenFile:
    """The rows of an Arrow IPC file, memory-mapped: a row takes memory only while it is used.

    `lengths` is the number of tokens of each row (int64). Further columns of the same rows may lie in a file `beside`
    it. Raises DataError where a file cannot be read.
    """

    def __init__(self, path: Path, beside: Path | None = None) -> None:
        import numpy as np

        table = _mapped(path)
        if beside:
            more = _mapped(beside)
            for name in more.column_names:
                table = table.append_column(name, more[name])
        self._chunks = table.to_batches()
        self._columns = [_columns(chunk) for chunk in self._chunks]
        self._starts = np.cumsum([0, *(chunk.num_rows for chunk in self._chunks)])
        lengths = [np.diff(columns["input_ids"][1]) for columns in self._columns]
        self.lengths: np.ndarray = np.concatenate([np.empty(0, np.int64), *lengths]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: Iterable[int]) -> dict[str, list[Any]]:
        """The rows at `indices` by column, in that order: arrays for lists (input_ids), numbers else (label)."""
        places = [self._place(index) for index in indices]
        names = self._columns[0] if self._columns else ()
        return {name: [_value(self._columns[chunk][name], row) for chunk, row in places] for name in names}

    def table(self, indices: Iterable[int]) -> pa.Table:
        """The rows at `indices`, in that order, as Arrow has them."""
        import pyarrow as pa

        return take_rows(pa.Table.from_batches(self._chunks), list(indices))

    def names(self, indices: Iterable[int]) -> list[str]:
        """The ids of the rows at `indices`, by which a person knows them."""
        return [self._chunks[chunk]["id"][row].as_py() for chunk, row in map(self._place, indices)]

    def used_ids(self) -> np.ndarray:
        """The token ids that occur in any row, sorted (int64)."""
        import numpy as np

        unique = [np.unique(chunk["input_ids"].flatten().to_numpy()) for chunk in self._chunks]
        return np.unique(np.concatenate([np.empty(0, np.int64), *unique])).astype(np.int64)

    def _place(self, index: int) -> tuple[int, int]:
        """The chunk that holds row `index`, and its place there."""
        chunk = int(self._starts.searchsorted(index, "right")) - 1
        return chunk, int(index - self._starts[chunk])


def _mapped(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (FileNotFoundError, pa.ArrowInvalid) as fault:
        raise DataError(f"cannot be read: {fault}", where=str(path), fix="Delete it and tokenize again.") from fault


Column = tuple["np.ndarray", "np.ndarray | None"]


def _columns(chunk: pa.RecordBatch) -> dict[str, Any]:
    """The numeric columns: flat values with the offsets of lists, or values and None; views into the file."""
    import pyarrow as pa

    found: dict[str, Any] = {}
    for name, column in zip(chunk.schema.names, chunk.columns, strict=True):
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            found[name] = column.values.to_numpy(), column.offsets.to_numpy()
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            found[name] = column.to_numpy(), None
    return found


def _value(column: Column, row: int) -> Any:
    values, offsets = column
    return values[row] if offsets is None else values[offsets[row] : offsets[row + 1]]
