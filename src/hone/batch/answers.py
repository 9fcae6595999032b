"""A registered model's answers to one shard, computed by its own serving code: those that a caller would get."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.batch.request import LIBRARIES, Batch
from hone.batch.rows import REASON, Shard
from hone.environment import Home
from hone.errors import DataError, ModelError
from hone.process_environment import ALL_CORES, environment
from hone.registry.integrity import load_verified
from hone.store.artifact import Artifact, Product, check_stored
from hone.store.recipe import Recipe, code_digests, installed_versions
from hone.tracking.reader import get_version

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

STAGE = "batch-answers"
ANSWERS = "answers.parquet"

Predict = Callable[["pd.DataFrame"], "pd.DataFrame"]


def answers_recipe(batch: Batch, shard: Shard) -> Recipe:
    """The recipe of the answers: the inputs, the model's files, this code and the libraries."""
    config = {"outputs": dict(batch.outputs), "unanswered": batch.request.unanswered}
    inputs = {"rows": shard.digest, "model": batch.proof}
    return Recipe(STAGE, config, inputs, code_digests(["hone.batch.answers"]), installed_versions(LIBRARIES))


def answer_shard(batch: Batch, shard: Shard, home: Home) -> tuple[Artifact, bool]:
    """The shard's answers, one row for each of its rows, and whether they were already in the store, intact.

    Raises DataError, with `unanswered: stop`, at a row that the model refuses; StoreError if the shard is damaged.
    """
    recipe = answers_recipe(batch, shard)
    for fault in home.store.remove_damaged(STAGE, recipe.key):
        log.warning("the rows from %d on are predicted again: %s", shard.first, fault)
    return home.store.obtain(recipe, lambda out: _write_answers(batch, shard, home, out), name=batch.version)


def _write_answers(batch: Batch, shard: Shard, home: Home, out: Path) -> Product:
    import pyarrow.parquet as pq

    predict, refusals = load_served(home.tracking_uri, batch.version)
    check_stored(shard.inputs_file)
    table = pq.read_table(shard.inputs_file)
    reasons = table[REASON].to_pylist()
    answerable = [row for row, reason in enumerate(reasons) if reason is None]
    frame = table.select(list(batch.inputs)).filter(table[REASON].is_null()).to_pandas()
    answers: list[dict[str, Any]] = [{} for _ in reasons]
    with environment(ALL_CORES):
        for row, answer in zip(answerable, answer_rows(predict, refusals, frame), strict=True):
            if isinstance(answer, str):
                reasons[row] = _handle_refusal(batch, shard.first + row, answer)
            else:
                answers[row] = answer
    columns = {
        name: _build_column([answer.get(name) for answer in answers], kind) for name, kind in batch.outputs.items()
    }
    _write_table(columns, reasons, out / ANSWERS)
    unanswered = sum(reason is not None for reason in reasons)
    return Product(len(reasons), (ANSWERS,), {"unanswered": unanswered})


def answer_rows(
    predict: Predict, refusals: tuple[type[Exception], ...], frame: pd.DataFrame
) -> list[dict[str, Any] | str]:
    """Each row's answer, or the reason why the model refuses it; a refused batch is halved down to single rows."""
    if frame.empty:
        return []
    try:
        answers: list[Any] = predict(frame).to_dict("records")
    except refusals as fault:
        if len(frame) == 1:
            return [" ".join(str(fault).split())[:300] or type(fault).__name__]
        half = len(frame) // 2
        return [*answer_rows(predict, refusals, frame[:half]), *answer_rows(predict, refusals, frame[half:])]
    if len(answers) != len(frame):
        raise ModelError(f"gave {len(answers)} answers to {len(frame)} rows", fix="Register it again.")
    return answers


@lru_cache(maxsize=1)
def load_served(tracking_uri: str, version: str) -> tuple[Predict, tuple[type[Exception], ...]]:
    """The version's predict function, verified and loaded once per process, and its errors for a refused row.

    In float32, like everywhere: bfloat16 would give other answers than the served model. Batches have similar lengths.
    """
    # batch_size 0: chosen for the device.
    model, directory = load_verified(tracking_uri, get_version(tracking_uri, version), batch_size=0)
    package = next((directory / "code").glob("served_*")).name
    served_errors = sys.modules.get(f"{package}.hone.errors")
    return model.predict, (ValueError, KeyError, TypeError, *([served_errors.HoneError] if served_errors else []))


def _handle_refusal(batch: Batch, row: int, reason: str) -> str:
    if batch.request.unanswered == "stop":
        raise DataError(
            f"row {row + 1} cannot be predicted: {reason}",
            where=batch.version,
            fix="Correct the row, or keep such rows without a prediction: --unanswered keep.",
        )
    return reason


def arrow_type(kind: str) -> pa.DataType:
    """Arrow's type for one of MLflow's: string, double, long, boolean; `string[]` for a list of them."""
    import pyarrow as pa

    types = {"string": pa.string(), "double": pa.float64(), "long": pa.int64(), "boolean": pa.bool_()}
    types |= {"integer": pa.int32(), "float": pa.float32()}
    return pa.list_(arrow_type(kind[:-2])) if kind.endswith("[]") else types[kind]


def _build_column(values: Sequence[Any], kind: str) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, arrow_type(kind), from_pandas=not kind.endswith("[]"))


def _write_table(columns: dict[str, pa.Array], reasons: Sequence[str | None], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table([*columns.values(), pa.array(reasons, pa.string())], [*columns, f"_{REASON}"])
    pq.write_table(table, file, compression="zstd")
