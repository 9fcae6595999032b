"""The champion's results in MLflow, which a new version's results are shown beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hone.errors import DamagedVersion, ModelError
from hone.evaluation.report.report_champion import Champion
from hone.registry.run_record import has_test_rows
from hone.store import layout
from hone.tracking.links import build_url, fetch_run_file, load_version_metrics, version_route
from hone.tracking.reader import SCHEME, Version, get_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset


def load_champion(client: MlflowClient, model: str, number: str, test_rows: Dataset, downloads: Path) -> Champion:
    """The results of version `number` of `model`, as far as its run has them intact; answers on `test_rows` only.

    Its answers are downloaded into `downloads`.
    """
    uri = client.tracking_uri
    url = build_url(uri, version_route(model, number))
    try:
        version = get_version(uri, f"{SCHEME}{model}/{number}")
        metrics = load_version_metrics(uri, version)
    except DamagedVersion as fault:
        return Champion(number, url, damage=str(fault))
    except ModelError:
        return Champion(number, url)
    same_rows = has_test_rows(client.get_run(version.run_id), test_rows)
    try:
        answers = _fetch_answers(uri, version, downloads) if same_rows else None
    except DamagedVersion as fault:
        return Champion(number, url, metrics, same_rows, damage=str(fault))
    return Champion(number, url, metrics, same_rows, answers)


def _fetch_answers(tracking_uri: str, version: Version, downloads: Path) -> Path | None:
    """The version's predictions.parquet; None if its run has none, as those of earlier releases.

    Raises DamagedVersion.
    """
    try:
        return fetch_run_file(tracking_uri, version, layout.PREDICTIONS, downloads)
    except DamagedVersion:
        raise
    except ModelError:
        return None
