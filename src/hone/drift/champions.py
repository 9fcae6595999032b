"""The configurations of champions: what a schedule monitors and trains again."""

from __future__ import annotations

from typing import Any

from hone.errors import ModelError
from hone.promotion.reconcile import models_with_champion
from hone.tracking.links import find_current_version, load_version_config


def load_champion_configs(tracking_uri: str) -> dict[str, dict[str, Any]]:
    """The champion's configuration, as plain values, by the name of the model.

    Champions without a configuration, which Hone did not register, are left out. Raises ServiceError.
    """
    configs = {}
    for model in models_with_champion(tracking_uri):
        try:
            version = find_current_version(tracking_uri, model)
            if version:
                configs[model] = load_version_config(tracking_uri, version)
        except ModelError:
            continue
    return configs
