"""batch-predict: its steps as Prefect tasks. A shard's answers are cached in the store and tried again one by one."""

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
from tasks.runtime.retries import RETRIES, unless_known


@task(name="settle", task_run_name="settle {wanted.model}", cache_policy=NO_CACHE, **RETRIES)
def settle(wanted: Request) -> Batch:
    """The version that is meant, its files proved, and the source's rows as they are now."""
    return request.settle(wanted, home())


@task(name="look", task_run_name="look for the output", cache_policy=NO_CACHE)
def look(batch: Batch) -> Account:
    """The account of the output where it is there, else {}."""
    return output.finished(batch, home())


@task(name="read", task_run_name="read {batch.name}", cache_policy=NO_CACHE, **RETRIES)
def read(batch: Batch) -> Artifact:
    """The source's rows, in shards."""
    return rows.read(batch, home())


def predict(batch: Batch, shard: Shard) -> Artifact:
    """A shard's answers, by the model that this process has loaded once."""
    if shard.number == 0:
        emit("predict", "started", [])
    made: Artifact = _predict(batch, shard).result()
    done = shard.first + shard.rows
    emit("predict", "progress", Progress(done, shard.total))
    if done == shard.total:
        emit("predict", "done")
    return made


@task(
    name="predict",
    task_run_name="predict {batch.name} from row {shard.first}",
    cache_policy=NO_CACHE,
    persist_result=False,
    **{**RETRIES, "retry_condition_fn": unless_known},
)
def _predict(batch: Batch, shard: Shard) -> State[Artifact]:
    made, hit = answers.answer(batch, shard, home())
    return Completed(name="Cached" if hit else "Completed", data=made)


@task(name="commit", task_run_name="commit {batch.name}", cache_policy=NO_CACHE)
def commit(batch: Batch, given: Artifact, said: list[Artifact]) -> Account:
    """The output, all at once; its account."""
    return output.commit(batch, given, said, home())


@task(name="record", task_run_name="record {batch.name}", cache_policy=NO_CACHE, **RETRIES)
def note(batch: Batch, account: Account) -> None:
    """The run in MLflow, and a page in the Prefect UI."""
    run_id = record.record(batch, account, home())
    lines = (
        f"# {account['rows']:,} rows by {account['version']}",
        f"- output `{account['output']}`",
        f"- without a prediction {account['unanswered']:,} {account['reasons'] or ''}",
        f"- {account['seconds']:.1f} s to load the model and ask it, {account['rows_per_second']:,.1f} rows/s",
        f"- MLflow run `{run_id}`",
    )
    create_markdown_artifact("\n".join(lines), key=f"predictions-{_slug(batch.name)}", description="A batch prediction")


def _slug(name: str) -> str:
    """The name as Prefect takes a key: lower-case letters, digits and dashes."""
    return "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name.lower())
