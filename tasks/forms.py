"""The choices that the forms of the deployments offer: files in conf/, and registered models."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.exceptions import PrefectHTTPStatusError

from hone.environment import home
from hone.errors import ConfigError
from hone.tracking.links import list_models

# In a JSON schema: the name of the list whose values become its `enum`.
CHOICES = "x-hone-choices"
# Conflict, unprocessable: Prefect's answers to parameters that are not valid under the schema.
REFUSED = {409, 422}


@task(name="update forms", task_run_name="update the choices in forms", cache_policy=NO_CACHE)
def update_forms(configurations: Sequence[str] | None = None) -> list[str]:
    """Offer the registered models and these configurations in all forms; return the names of changed deployments.

    Without configurations, those that the forms offer stay.
    """
    with get_client(sync_client=True) as client:
        return fill_choices(client, configurations)


def fill_choices(client: SyncPrefectClient, configurations: Sequence[str] | None = None) -> list[str]:
    """What `update_forms` does, with a client.

    Raises ConfigError, after all others are updated, for a deployment whose own parameters are not among the choices.
    """
    choices = {"models": list_models(home().tracking_uri)}
    choices |= {} if configurations is None else {"configurations": list(configurations)}
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=["hone"]))
    changed, refused = [], []
    for deployment in client.read_deployments(deployment_filter=tagged):
        schema = copy.deepcopy(deployment.parameter_openapi_schema or {})
        _drop_null_defaults(schema)
        for option in _list_options(schema):
            if option[CHOICES] in choices:
                option["enum"] = choices[option[CHOICES]]
            if not option.get("enum"):
                option.pop("enum", None)
        if schema != deployment.parameter_openapi_schema:
            try:
                client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=schema))
                changed.append(deployment.name)
            except PrefectHTTPStatusError as fault:
                if fault.response.status_code not in REFUSED:
                    raise
                detail = str(fault.response.json().get("detail", fault))
                reason = detail.partition("deployment: ")[2] or detail
                refused.append(f"Prefect refuses the deployment {deployment.name}: {reason}")
    if refused:
        raise ConfigError(refused[0], where="its parameters", fix="Choose a file in conf/, or a registered model.")
    return changed


def _drop_null_defaults(schema: dict[str, Any]) -> None:
    """The form would send null for an empty field, which the server refuses."""
    for parameter in schema.get("properties", {}).values():
        if parameter.get("default", "") is None:
            del parameter["default"]


def _list_options(node: Any) -> Iterator[dict[str, Any]]:
    """The schemas in `node` that have a list of choices."""
    if isinstance(node, dict):
        if CHOICES in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _list_options(inner)
