"""The sweep flow: tries values by their validation figures, and registers the best model that they gave."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.changes import Change, Settings, name_run, resolve_changed
from flows.choice import Choice
from flows.finetune import finish_line
from hone.errors import ValidationFailed
from hone.pipeline.stages.sweep import choose_config
from hone.pipeline.summary import summarize_version
from hone.store.artifact import Artifact
from hone.sweep.trial_config import check_space
from hone.sweep.words import describe_values
from tasks.curate import curate
from tasks.forms import update_forms
from tasks.ingest import ingest
from tasks.runtime.worker import is_deployed
from tasks.stage import pin_config
from tasks.sweep import search
from tasks.validate import build_stopped_state


def _run_name() -> str:
    return name_run("sweep", flow_run.parameters)


@flow(name="sweep", flow_run_name=_run_name, persist_result=False)
def sweep(
    config: Choice,
    settings: Settings = Settings(),  # noqa: B008 - Prefect copies parameters
    changes: list[Change] = [],  # noqa: B006
) -> State[dict[str, Artifact]]:
    """Train with other values of some fields, and register the model that is best on the validation rows.

    The fields are those of `sweep.space` in the configuration. Only the best model is measured on the test rows. The
    run ends as `Completed` with the version, its main figure and its values, or as `Validation stopped`; its result are
    the artifacts of sweep, evaluate and register.

    Args:
        config: A file in conf/, a registered version, or a whole configuration.
        settings: What is changed most often. An empty field keeps the configuration's value.
        changes: Changes of any other field, as in the terminal, such as sweep.trials=20.
    """
    pinned = pin_config(resolve_changed(config, settings, changes))
    check_space(pinned)
    try:
        rows = ingest(pinned)
        splits = curate(pinned, rows)
        tried = search(pinned, rows, splits)
        registered, evaluated = finish_line(pin_config(choose_config(pinned, tried)), rows, splits, tried)
    except ValidationFailed as fault:
        stopped: State[Any] = build_stopped_state(fault)
        return stopped
    if is_deployed() and registered.facts()["version"] == "1":
        update_forms(return_state=True)  # the new model is offered; that it is not yet fails no run
    best = tried.facts()["best"]
    message = f"{summarize_version(registered, evaluated)}; best of {tried.rows}: {describe_values(best['changes'])}"
    return Completed(message=message, data={"sweep": tried, "evaluate": evaluated, "register": registered})
