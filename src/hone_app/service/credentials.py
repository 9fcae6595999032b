"""The service's passwords: generated once and stored in the data folder, readable by this user only."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hone.store.files import replace_file
from hone_app.records import read_json

USER = "admin"


@dataclass(frozen=True)
class Credentials:
    """The passwords that `--auth` requires, and MLflow's keys for signing forms and webhooks and for encryption."""

    prefect: str
    mlflow: str
    mlflow_forms: str
    mlflow_webhook: str
    mlflow_webhook_encryption: str

    @property
    def auth_string(self) -> str:
        """Prefect's credentials, `USER:PASSWORD`."""
        return f"{USER}:{self.prefect}"

    def client(self) -> dict[str, str]:
        """The environment variables from which Prefect's and MLflow's clients read their credentials."""
        return {
            "PREFECT_API_AUTH_STRING": self.auth_string,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.mlflow,
        }


def load_credentials(folder: Path) -> Credentials:
    """Load the credentials in `folder`; generate and store missing ones."""
    path = folder / "secrets.json"
    fix = "Put it back from a backup. Without one, delete it and mlflow/users.db: `hone up` makes new passwords."
    stored = read_json(path, dict[str, str], fix) if path.is_file() else {}
    credentials = Credentials(**{entry.name: stored.get(entry.name) or _random() for entry in fields(Credentials)})
    if asdict(credentials) != stored:
        write_private(path, json.dumps(asdict(credentials), indent=2))
    return credentials


def _random() -> str:
    """256 random bits in the form of a Fernet key, which MLflow's encryption requires."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, readable by this user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as work:
        work.touch(0o600)
        work.write_text(text, "utf8")
