"""The aliases of a registered model that Hone sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, PREVIOUS, CANDIDATE = "champion", "previous", "candidate"


def list_aliases(client: MlflowClient, model: str) -> dict[str, str]:
    """The version of each alias of a registered model. Raises MlflowException if there is no such model."""
    return {alias: str(version) for alias, version in client.get_registered_model(model).aliases.items()}
