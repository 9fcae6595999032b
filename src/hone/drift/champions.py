"""The configurations of champions: what a schedule monitors and trains again."""

from __future__ import annotations

from typing import Any

from hone.errors import DamagedVersion, ModelError
from hone.promotion.reconcile import models_with_champion
from hone.tracking.links import find_current_version, load_version_config
from hone.tracking.reader import Version


def load_current_configs(tracking_uri: str) -> tuple[list[tuple[Version, dict[str, Any]]], list[DamagedVersion]]:
    """Each model's champion, or newest version if its champion was removed, and its configuration as plain values.

    Only of models that have or had a champion. Versions without a configuration, which Hone did not register, are left
    out; so are those whose configuration is damaged, which are returned as errors beside the others. Raises
    ServiceError.
    """
    configs, damaged = [], []
    for model in models_with_champion(tracking_uri):
        try:
            version = find_current_version(tracking_uri, model)
            if version:
                configs.append((version, load_version_config(tracking_uri, version)))
        except DamagedVersion as fault:
            damaged.append(fault)
        except ModelError:
            continue
    return configs, damaged
