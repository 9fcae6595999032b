"""A model asked about encoded rows: in batches of like length, every row once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hone.objectives.base import Batch, Objective, Predictions, Targets

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

# Rows and padded tokens that go through a model at once. On 2 cores MiniLM reads 64 x 2,048 faster than 256 x 8,192.
LIMITS = {"cpu": (64, 2048), "cuda": (256, 65536)}


@dataclass(frozen=True)
class Reader:
    """How encoded rows become batches: the objective that collates them, the padding id, the device they go to.

    A batch has at most `most_rows` rows, or as many as suit the device where that is 0. Text is made and read by
    `tokenizer`, which batches alone do not need.
    """

    objective: Objective
    pad_id: int
    device: torch.device
    tokenizer: Any = None
    most_rows: int = 0

    def batches(self, tokens: pa.Table) -> Iterator[tuple[np.ndarray, Batch]]:
        """Positions and batches of rows of like length, longest first; every row once, the same ones each time."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        most_rows, most_tokens = LIMITS[self.device.type]
        most_rows = self.most_rows or most_rows
        table = tokens.drop_columns(["id"]).append_column("position", pa.array(range(len(tokens)))).combine_chunks()
        lengths = pc.list_value_length(table["input_ids"]).to_numpy()
        order = np.argsort(-lengths, kind="stable")
        while len(order):
            fit = int(max(1, min(most_rows, most_tokens // max(1, lengths[order[0]]))))
            at, order = order[:fit], order[fit:]
            batch = self.objective.collate(table.take(pa.array(at)).to_pydict(), self.pad_id)
            yield at, {name: tensor.to(self.device) for name, tensor in batch.items()}

    def predict(
        self, model: Any, tokens: pa.Table, advance: Callable[[int], object] = int
    ) -> tuple[Predictions, float]:
        """What the model says of all rows, in the order of `tokens`, and the seconds it took for that.

        `advance` is told of each batch's number of rows.
        """
        import torch

        seconds = 0.0
        found: dict[str, list[Any]] = {}
        for at, batch in self.batches(tokens):
            began = time.perf_counter()
            with torch.inference_mode():
                said = self.objective.predict_batch(model, batch)
            seconds += time.perf_counter() - began
            for name, values in said.items():
                column = found.setdefault(name, [None] * len(tokens))
                for position, value in zip(at.tolist(), values, strict=True):
                    column[position] = value
            advance(len(at))
        return self.objective.decode_generated(found, self.tokenizer), seconds

    def answer(self, model: Any, rows: Sequence[Mapping[str, str]], targets: Targets, max_length: int) -> list[Any]:
        """What a caller who sends `rows` (each with the objective's `inputs`) is told of each."""
        import pyarrow as pa

        if not rows:
            return []
        columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in self.objective.inputs}
        table = pa.table({"id": pa.array(map(str, range(len(rows))), pa.string()), **columns})
        tokens = self.objective.encode(table, self.tokenizer, max_length, targets, labelled=False)
        predictions, _ = self.predict(model, tokens)
        return self.objective.build_answers(tokens, predictions, targets, rows)
