"""The service's passwords: made at random once, kept in the data folder for this user alone."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

USER = "admin"


@dataclass(frozen=True)
class Credentials:
    """What `--auth` asks of clients, and MLflow's keys: it signs its forms and webhooks, and encrypts the latter's."""

    prefect: str
    mlflow: str
    mlflow_forms: str
    mlflow_webhook: str
    mlflow_webhook_encryption: str

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


def load_credentials(folder: Path) -> Credentials:
    """Those kept in `folder`; what is not there yet is made."""
    path = folder / "secrets.json"
    stored = json.loads(path.read_text("utf8")) if path.is_file() else {}
    credentials = Credentials(**{entry.name: stored.get(entry.name) or _random() for entry in fields(Credentials)})
    if asdict(credentials) != stored:
        write_private(path, json.dumps(asdict(credentials), indent=2))
    return credentials


def _random() -> str:
    """256 bits, in the form that Fernet, MLflow's encryption, wants of a key."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path` in one step, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as out:
        out.write(text)
    temporary.replace(path)
