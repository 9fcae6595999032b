"""batch-predict: its steps as Prefect tasks. Each shard's answers are cached in the store and retried separately."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from hone.batch import answers, output, record, request, rows
from hone.batch.output import Account
from hone.batch.request import Batch, Request
from hone.batch.rows import Shard
from hone.environment import home
from hone.progress import Progress, emit
from hone.store.artifact import Artifact
from hone.tracking.links import run_link
from tasks.runtime.pages import publish_last
from tasks.runtime.retries import RETRIES, is_not_permanent


@task(
    name="resolve version", task_run_name="resolve version of {batch_request.model}", cache_policy=NO_CACHE, **RETRIES
)
def resolve_request(batch_request: Request) -> Batch:
    """Resolve the model version, verify its files, and fix the state of the source's rows."""
    return request.resolve_request(batch_request, home())


@task(
    name="find output",
    task_run_name="find finished output of {batch.name} version {batch.number}",
    cache_policy=NO_CACHE,
)
def find_finished(batch: Batch) -> Account:
    """Return the account of an earlier run's output if it is complete, else {}."""
    account = output.find_finished(batch, home())
    for step in ("read", "predict", "write") if account else ():
        emit(step, "hit")
    return account


@task(
    name="read rows",
    task_run_name="read rows for {batch.name} version {batch.number}",
    cache_policy=NO_CACHE,
    **RETRIES,
)
def read_rows(batch: Batch) -> Artifact:
    """Read the source's rows and divide them into shards."""
    return rows.read_rows(batch, home())


def predict_shard(batch: Batch, shard: Shard) -> Artifact:
    """Predict one shard. The model is loaded once per process."""
    if shard.number == 0:
        emit("predict", "started", [])
    answers_artifact: Artifact = _predict_shard(batch, shard).result()
    done = shard.first + shard.rows
    emit("predict", "progress", Progress(done, shard.total))
    if done == shard.total:
        emit("predict", "done")
    return answers_artifact


@task(
    name="predict",
    task_run_name="predict {batch.name} from row {shard.first}",
    cache_policy=NO_CACHE,
    persist_result=False,
    **{**RETRIES, "retry_condition_fn": is_not_permanent},
)
def _predict_shard(batch: Batch, shard: Shard) -> State[Artifact]:
    artifact, hit = answers.answer_shard(batch, shard, home())
    return Completed(name="Cached" if hit else "Completed", data=artifact)


@task(
    name="write output", task_run_name="write predictions of {batch.name} version {batch.number}", cache_policy=NO_CACHE
)
def commit_output(batch: Batch, row_shards: Artifact, predictions: list[Artifact]) -> Account:
    """Write the whole output at once and return its account."""
    return output.commit_output(batch, row_shards, predictions, home())


@task(name="record run", task_run_name="record predictions of {batch.name} in MLflow", cache_policy=NO_CACHE, **RETRIES)
def record_run(batch: Batch, account: Account) -> None:
    """Record the run in MLflow and create a page in the Prefect UI."""
    run_id = record.log_batch_run(batch, account, home())
    lines = (
        f"# {account['rows']:,} rows by {account['version']}",
        f"- output `{account['output']}`",
        f"- without a prediction {account['unanswered']:,} {account['reasons'] or ''}",
        f"- {account['seconds']:.1f} s for loading and prediction, {account['rows_per_second']:,.1f} rows/s",
        f"- {run_link(home().tracking_uri, run_id)}",
    )
    publish_last(
        create_markdown_artifact,
        "\n".join(lines),
        key=f"predictions-{_slug(batch.name)}",
        description="Batch prediction",
    )


def _slug(name: str) -> str:
    """The name as a Prefect artifact key, which may have lower-case letters, digits and dashes."""
    return "".join(character if character.isascii() and character.isalnum() else "-" for character in name.lower())
