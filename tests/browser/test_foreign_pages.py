"""What a page of another origin can do to the servers of a person who visits it: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.services import Service, ask

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

# Without a preflight request, since a blob has no Content-Type; the page does not see the answer.
SEND = """([url, body]) => fetch(url, {method: "POST", mode: "no-cors", body: new Blob([JSON.stringify(body)])})
    .then(answer => answer.status, () => -1)"""
READ = "url => fetch(url).then(answer => answer.status, () => -1)"
CONNECT = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("refused");
})"""
RUN = {"name": "theirs"}
COMMAND = RUN | {"job_variables": {"command": "id"}}


class BlankPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def foreign() -> Iterator[int]:
    """The port of another server on this machine, whose names in example.org chromium looks up here."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BlankPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def count_runs(service: Service) -> int:
    """The runs that foreign pages started."""
    count: int = service.ask("/flow_runs/count", {"flow_runs": {"name": {"any_": [RUN["name"]]}}})
    return count


def start_url(service: Service, server: str) -> str:
    """Of a deployment whose runs need no parameters."""
    deployment = service.ask("/deployments/name/reconcile/watch-registry")["id"]
    return f"{server}/api/deployments/{deployment}/create_flow_run"


@pytest.mark.parametrize("host", ["127.0.0.1", "pages.example.org"])
def test_a_foreign_page_starts_nothing_in_prefect(page: Page, service: Service, foreign: int, host: str) -> None:
    page.goto(f"http://{host}:{foreign}/")
    page.evaluate(SEND, [start_url(service, service.prefect_url), RUN])
    assert count_runs(service) == 0
    assert page.evaluate(READ, f"{service.prefect_url}/api/hello") == -1
    events = service.prefect_url.replace("http:", "ws:") + "/api/events/in"
    assert page.evaluate(CONNECT, events) == "refused"


def test_a_name_that_was_rebound_reaches_nothing_in_prefect(page: Page, service: Service) -> None:
    port = urlsplit(service.prefect_url).port
    answer = page.goto(f"http://prefect.example.org:{port}/")
    assert answer and answer.status == 403
    assert page.evaluate(SEND, [start_url(service, ""), RUN]) == 403
    assert page.evaluate(READ, "/api/hello") == 403
    assert page.evaluate(CONNECT, f"ws://prefect.example.org:{port}/api/events/in") == "refused"
    assert count_runs(service) == 0


def test_prefects_own_page_reads_and_connects(page: Page, service: Service) -> None:
    """By a name that is not in the server's URL: the page calls the API by the one that it was opened with."""
    page.set_default_timeout(60_000)
    port = urlsplit(service.prefect_url).port
    page.goto(f"http://localhost:{port}/", wait_until="domcontentloaded")
    page.get_by_role("link", name="Deployments", exact=True).first.click()
    page.get_by_role("link", name="finetune", exact=True).first.wait_for()
    assert page.evaluate(READ, "/api/hello") == 200
    assert page.evaluate(CONNECT, f"ws://localhost:{port}/api/events/in") == "open"
    # What a foreign page sends does reach the API from here, where the work pool refuses it.
    assert page.evaluate(SEND, [start_url(service, ""), COMMAND]) == 422


def test_foreign_pages_and_rebound_names_change_nothing_in_mlflow(page: Page, service: Service, foreign: int) -> None:
    url, port = service.mlflow_url, urlsplit(service.mlflow_url).port
    page.goto(f"http://pages.example.org:{foreign}/")
    page.evaluate(SEND, [f"{url}/api/2.0/mlflow/experiments/create", {"name": "theirs"}])
    for host in ("mlflow.example.org", "10.example.org"):
        answer = page.goto(f"http://{host}:{port}/")
        assert answer and answer.status == 403
        assert page.evaluate(SEND, ["/api/2.0/mlflow/experiments/create", {"name": "theirs"}]) == 403
    experiments = ask(f"{url}/api/2.0/mlflow/experiments/search", {"max_results": 1000})["experiments"]
    assert "theirs" not in {experiment["name"] for experiment in experiments}
