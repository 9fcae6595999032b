"""Which requests reach Prefect's server: by its names, and of no page but its own."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from hone_app.service.origins import OwnPagesOnly
from hone_app.service.prefect_server import list_names

LOCAL = "127.0.0.1:4200"
PROXY = "prefect.example.org"


@pytest.fixture(scope="module")
def client() -> TestClient:
    """A server that takes everything, behind the check, with the names of a proxy and of a machine."""

    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse("done")

    async def greet(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    routes = [Route("/", answer, methods=["GET", "POST", "OPTIONS"]), WebSocketRoute("/events", greet)]
    return TestClient(OwnPagesOnly(Starlette(routes=routes), ["gpu.lan:4200", PROXY]))


ALLOWED: list[dict[str, str]] = [
    {"host": LOCAL},
    {"host": LOCAL, "origin": f"http://{LOCAL}"},
    {"host": "localhost:4200", "origin": "http://localhost:4200"},
    {"host": "[::1]:4200", "origin": "http://[::1]:4200"},
    {"host": "192.168.1.7:4200", "origin": "http://192.168.1.7:4200"},
    {"host": "GPU.lan:4200", "origin": "http://gpu.lan:4200"},
    {"host": PROXY, "origin": f"https://{PROXY}"},
    {"host": f"{PROXY}:443", "origin": f"https://{PROXY}"},
    {"host": LOCAL, "origin": f"https://{PROXY}"},  # a proxy that writes the Host anew
]
REFUSED: list[dict[str, str]] = [
    {"host": LOCAL, "origin": "http://evil.example"},
    {"host": LOCAL, "origin": "http://127.0.0.1:8888"},
    {"host": LOCAL, "origin": "null"},
    {"host": LOCAL, "origin": f"https://{PROXY}:8443"},
    {"host": LOCAL, "origin": f"https://{PROXY}.evil.example"},
    {"host": "localhost:4200", "origin": "http://127.0.0.1:4200"},
    {"host": "evil.example:4200"},
    {"host": "evil.example:4200", "origin": "http://evil.example:4200"},
    {"host": "10.evil.example"},
    {"host": "127.0.0.1.evil.example"},
    {"host": ""},
]


@pytest.mark.parametrize("headers", ALLOWED, ids=str)
def test_programs_and_its_own_pages_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/", headers=headers).text == "done"
    with client.websocket_connect("/events", headers=headers) as socket:
        assert socket.receive_text() == "hello"


@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_other_pages_and_unknown_names_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        assert client.request(method, "/", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/events", headers=headers):
        pass
    assert refused.value.code == 1008


def test_the_refusal_says_how_to_allow_a_proxy(client: TestClient) -> None:
    for headers in ({"host": "hone.lan"}, {"host": LOCAL, "origin": "https://hone.lan"}):
        assert "set HONE_PREFECT_HOSTS=hone.lan in its environment" in client.get("/", headers=headers).text


def test_names_are_those_in_the_variable_and_in_the_urls_for_clients_and_pages() -> None:
    environment: dict[str, Any] = {
        "HONE_PREFECT_HOSTS": "prefect, hone.lan:8443,",
        "PREFECT_API_URL": "http://gpu.lan:4200/api",
        "PREFECT_SERVER_UI_API_URL": f"https://{PROXY}/api",
    }
    assert list_names(environment) == ["prefect", "hone.lan:8443", "gpu.lan:4200", PROXY]
    assert list_names({"PREFECT_SERVER_UI_API_URL": "/api"}) == []
