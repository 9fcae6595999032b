"""The service's passwords: made at random once, kept in the data folder for this user alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

USER = "admin"


@dataclass(frozen=True)
class Credentials:
    """What `--auth` asks of clients, and the key with which MLflow signs its forms."""

    prefect: str
    mlflow: str
    mlflow_forms: str

    @property
    def auth_string(self) -> str:
        """Prefect's, `USER:PASSWORD`."""
        return f"{USER}:{self.prefect}"

    def client(self) -> dict[str, str]:
        """The environment variables from which Prefect's and MLflow's clients take them."""
        return {
            "PREFECT_API_AUTH_STRING": self.auth_string,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.mlflow,
        }


def credentials(folder: Path) -> Credentials:
    """Those kept in `folder`, made where there are none yet."""
    path = folder / "secrets.json"
    if not path.is_file():
        write_private(path, json.dumps(asdict(Credentials(*(secrets.token_urlsafe(24) for _ in range(3)))), indent=2))
    return Credentials(**json.loads(path.read_text("utf8")))


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path` in one step, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as out:
        out.write(text)
    beside.replace(path)
