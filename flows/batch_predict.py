"""Batch prediction: rows of a file or a query in, Parquet with a registered model's answers out."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from hone.batch.output import Account
from hone.batch.request import Request
from hone.batch.rows import list_shards
from hone.config.parts import SourcePart
from tasks.batch_predict import commit, look, note, predict, read, settle


@flow(name="batch-predict", flow_run_name="batch-predict {model}", persist_result=False)
def batch_predict(
    model: str,
    source: SourcePart,
    output: str,
    version: str = "",
    columns: dict[str, str] = {},  # noqa: B006
    shard_rows: Annotated[int, Field(ge=1)] = 10_000,
    unanswered: Literal["keep", "stop"] = "keep",
    prefix: str = "",
) -> Account:
    """Have a registered model's answers to every row of a source, in order, in one Parquet file or a directory.

    Shards are predicted one after the other, by a model that is loaded once. What an earlier run that was ended
    half-way has done is not done again.

    Args:
        model: The registered model's name.
        source: Where the rows come from.
        output: OUT.parquet for one file, any other path for a directory of part files.
        version: A version's number or an alias; the champion where empty.
        columns: The source's names for what the model takes, where they differ.
        shard_rows: Rows that are predicted, kept and tried again together.
        unanswered: What a row that cannot be predicted does, stay without a prediction or stop the run.
        prefix: Put before the names of the added columns, where the input has them too.
    """
    batch = settle(
        Request(
            model=model,
            source=source,
            output=output,
            version=version,
            columns=columns,
            shard_rows=shard_rows,
            unanswered=unanswered,
            prefix=prefix,
        )
    )
    account = look(batch)
    if not account:
        rows = read(batch)
        account = commit(batch, rows, [predict(batch, shard) for shard in list_shards(rows)])
    note(batch, account)
    return account
