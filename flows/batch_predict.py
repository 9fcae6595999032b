"""Batch prediction: reads rows from a file or a query and writes them with a registered model's answers."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.choice import ModelName, SourceChoice, resolve_source
from hone.batch.output import Account
from hone.batch.record import describe_account
from hone.batch.request import Request
from hone.batch.rows import list_shards
from tasks.batch_predict import (
    commit_output,
    find_finished,
    predict_shard,
    read_rows,
    record_run,
    resolve_request,
)


def _run_name() -> str:
    parameters = flow_run.parameters
    version = f" version {parameters['version']}" if parameters.get("version") else ""
    return f"batch-predict {parameters['model']}{version}"


@flow(name="batch-predict", flow_run_name=_run_name, persist_result=False)
def batch_predict(
    model: ModelName,
    source: SourceChoice,
    output: str,
    version: str = "",
    columns: dict[str, str] = {},  # noqa: B006
    shard_rows: Annotated[int, Field(ge=1)] = 10_000,
    unanswered: Literal["keep", "stop"] = "keep",
    prefix: str = "",
) -> State[Account]:
    """Predict every row of a source with a registered model; write the rows in order, with the predictions.

    The model is loaded once and predicts shard after shard. Shards that an interrupted run has finished are not
    predicted again. The run ends as `Cached` if an earlier run has written the same output.

    Args:
        model: Name of the registered model.
        source: Path, glob or URL of files with the rows, or another source, such as a query.
        output: OUT.parquet, OUT.csv or OUT.jsonl for one file, or a directory for Parquet part files.
        version: Version number or alias; empty for the champion.
        columns: The source's names of the model's inputs, where they differ.
        shard_rows: Number of rows that are predicted, stored and retried together.
        unanswered: Rows that cannot be predicted; keep them without a prediction, or stop the run.
        prefix: Prefix for the names of the added columns, if the input has columns with these names.
    """
    batch = resolve_request(
        Request(
            model=model,
            source=resolve_source(source),
            output=output,
            version=version,
            columns=columns,
            shard_rows=shard_rows,
            unanswered=unanswered,
            prefix=prefix,
        )
    )
    account = find_finished(batch)
    name = "Cached" if account else "Completed"
    if not account:
        rows = read_rows(batch)
        account = commit_output(batch, rows, [predict_shard(batch, shard) for shard in list_shards(rows)])
    record_run(batch, account)
    return Completed(name=name, message=describe_account(batch, account), data=account)
