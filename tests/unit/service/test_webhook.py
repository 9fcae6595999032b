"""What MLflow's webhook posts to: a delivery that MLflow signed just now is heard, and no other."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature
from starlette.testclient import TestClient

from hone.errors import ConfigError, ServiceError
from hone_app.service import webhook
from hone_app.service.registry_webhook import FRESH_SECONDS

SECRET = "a word that only MLflow and the receiver know"


@pytest.fixture
def started() -> list[tuple[str, str]]:
    """The models and deliveries for which watch-registry was started."""
    return []


@pytest.fixture
def server(started: list[tuple[str, str]]) -> TestClient:
    async def start(model: str, delivery: str) -> str:
        if model == "unreachable":
            raise ServiceError("MLflow did not answer")
        started.append((model, delivery))
        return "" if model == "theirs" else "the run"

    return TestClient(webhook.build_application(SECRET, start))


def deliver(server: TestClient, *, secret: str = SECRET, age: float = 0, changed: bytes = b"", **data: Any) -> int:
    """The status that a delivery is answered with; `changed` is sent in place of what was signed."""
    told = {"entity": data.pop("entity", "model_version_alias"), "action": data.pop("action", "created"), "data": data}
    return deliver_body(server, json.dumps(told), str(int(time.time() - age)), secret, changed)


def deliver_body(server: TestClient, body: str, stamp: str, secret: str = SECRET, changed: bytes = b"") -> int:
    headers = {
        "X-MLflow-Delivery-Id": "d1",
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": _generate_hmac_signature(secret, "d1", stamp, body),
    }
    return server.post("/", content=changed or body.encode(), headers=headers).status_code


def test_a_champion_that_was_set_or_deleted_is_watched(server: TestClient, started: list[tuple[str, str]]) -> None:
    assert deliver(server, name="topics", alias="champion", version="2") == 202
    assert deliver(server, name="topics", alias="champion", action="deleted") == 202
    assert started == [("topics", "d1")] * 2


def test_anything_else_is_heard_and_left(server: TestClient, started: list[tuple[str, str]]) -> None:
    assert deliver(server, name="topics", alias="previous", version="2") == 204
    assert deliver(server, name="topics", alias="champion", entity="prompt_alias") == 204
    assert started == []
    assert deliver(server, name="theirs", alias="champion", version="1") == 204


def test_what_mlflow_did_not_sign_just_now_is_refused(server: TestClient, started: list[tuple[str, str]]) -> None:
    about = {"name": "topics", "alias": "champion", "version": "2"}
    assert deliver(server, secret="guessed", **about) == 401
    assert deliver(server, age=FRESH_SECONDS + 60, **about) == 401
    assert deliver(server, changed=b'{"entity": "model_version_alias"}', **about) == 401
    assert server.post("/", json=about).status_code == 401
    assert server.post("/", content=b"x" * (webhook.MAX_BYTES + 1)).status_code == 413
    assert started == []


ALIAS = '{"entity": "model_version_alias", "action": "created", "data": %s}'
ODD_BODIES = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "7",
    "no entity": "{}",
    "no data": '{"entity": "model_version_alias", "action": "created"}',
    "data that is a list": ALIAS % '["champion"]',
    "data that is a text": ALIAS % '"champion"',
    "no name": ALIAS % '{"alias": "champion"}',
    "a name that is a list": ALIAS % '{"alias": "champion", "name": ["topics"]}',
    "a name that is no text": ALIAS % '{"alias": "champion", "name": "\\ud800"}',
    "a name with an escape": ALIAS % '{"alias": "champion", "name": "\\u001b[2J"}',
    "nested": "[" * 30_000,
    "a long number": "9" * 5000,
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
def test_a_signed_body_that_is_no_event_is_refused(
    server: TestClient, started: list[tuple[str, str]], body: str
) -> None:
    assert deliver_body(server, body, str(int(time.time()))) == 400
    assert started == []


@pytest.mark.parametrize("stamp", ["", "now", "9" * 5000, "-5", "1e9"])
def test_a_time_that_is_none_is_refused(server: TestClient, stamp: str) -> None:
    about = {"name": "topics", "alias": "champion"}
    assert deliver_body(server, ALIAS % json.dumps(about), stamp) == 401


def test_mlflow_is_asked_to_try_again_where_a_server_does_not_answer(server: TestClient) -> None:
    assert deliver(server, name="unreachable", alias="champion", version="2") == 503
    assert server.get("/health").status_code == 200


def test_without_a_secret_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_WEBHOOK_SECRET", raising=False)
    with pytest.raises(ConfigError, match="HONE_WEBHOOK_SECRET"):
        webhook.read_secret()
