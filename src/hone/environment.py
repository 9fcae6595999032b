"""Where this machine keeps things: one data folder, and the servers that its environment names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hone.store.store import Store

# The libraries' telemetry is off, their start-up chatter too, and a server that is gone is not waited for in vain.
# A flow run says every 30 s, not every 180, that it lives: deployments/automations/crash-zombies.yaml counts on it.
DEFAULTS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class Home:
    """The data folder (`HONE_HOME`, else ~/.hone) and what lies in it."""

    root: Path

    @property
    def store(self) -> Store:
        """The artifacts of all runs."""
        return Store(self.root / "store")

    @property
    def prefect(self) -> Path:
        """The folder of the Prefect server that Hone starts where none is configured."""
        return self.root / "prefect"

    @property
    def tracking_uri(self) -> str:
        """MLflow's: MLFLOW_TRACKING_URI, else a SQLite file in the data folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root}/mlflow/mlflow.db"

    @property
    def artifact_root(self) -> str:
        """Where MLflow's experiments keep artifacts; '' where an MLflow server decides that itself."""
        return "" if os.environ.get("MLFLOW_TRACKING_URI") else str(self.root / "mlflow" / "artifacts")

    @property
    def downloads(self) -> Path:
        """The folder of model versions that were fetched from an MLflow elsewhere."""
        return self.root / "downloads"

    @property
    def servers(self) -> Path:
        """The folder of the servers that a run starts for itself: who uses them, and their logs."""
        return self.root / "servers"

    @property
    def service(self) -> Path:
        """The folder of what `hone up` knows: what runs where, and the passwords."""
        return self.root / "service"

    @property
    def logs(self) -> Path:
        """The folder of the logs of what `hone up` starts."""
        return self.root / "logs"


def home() -> Home:
    """The data folder of this process's environment."""
    return Home(Path(os.environ.get("HONE_HOME") or "~/.hone").expanduser().absolute())
