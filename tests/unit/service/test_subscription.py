"""What MLflow is asked to tell: once, brought up to date, and refused in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from hone.errors import ConfigError, ServiceError
from hone.tracking.client import connect
from hone_app.service.registry_webhook import EVENTS, NAME, subscribe
from tests import preloaded

KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
URL = "http://127.0.0.1:4300"


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow that may post to this machine."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_there_is_one_webhook_however_often_it_is_asked_for_and_a_person_may_switch_it_off(uri: str) -> None:
    client = connect(uri)
    client.create_webhook("theirs", "https://example.org", ["model_version.created"])
    subscribe(uri, "http://127.0.0.1:4299", "a word")
    [made] = [webhook for webhook in client.list_webhooks() if webhook.name == NAME]
    assert {str(event) for event in made.events} == set(EVENTS)
    client.update_webhook(made.webhook_id, status="DISABLED")
    subscribe(uri, URL, "another word")
    [now] = [webhook for webhook in client.list_webhooks() if webhook.name == NAME]
    assert (now.webhook_id, now.url, str(now.status)) == (made.webhook_id, URL, "DISABLED")
    assert len(client.list_webhooks()) == 2


def test_an_mlflow_that_does_not_post_there_is_told_how_it_would(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES")
    with pytest.raises(ConfigError, match="MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https"):
        subscribe(uri, URL, "a word")


def test_an_mlflow_whose_key_was_lost_is_told_what_it_wants(uri: str) -> None:
    """MLflow reads the key once a process, so the one before is another's."""
    code = f"from hone_app.service.registry_webhook import subscribe; subscribe({uri!r}, {URL!r}, 'a word')"
    own = {KEY: Fernet.generate_key().decode(), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([preloaded.python(), "-c", code], env=os.environ | own, check=True)
    with pytest.raises(ConfigError, match="cannot list its webhooks") as refused:
        subscribe(uri, URL, "a word")
    assert KEY in refused.value.fix


def test_an_mlflow_that_does_not_answer_is_no_refusal() -> None:
    with pytest.raises(ServiceError):
        subscribe("http://127.0.0.1:1", URL, "a word")
