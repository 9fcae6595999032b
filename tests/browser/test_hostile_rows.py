"""Pages made of hostile rows in a real browser: none of their scripts runs, and nothing is fetched."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hone.validation.data_docs import write_single_page
from hone.validation.suites import Expected
from hone.validation.verdicts import Judge
from tests.polling import until
from tests.services import Service, ask

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

# Each way of running a script that needs no person; whoever runs one asks for a page of this name.
NOBODY = "127.0.0.1:9"
HOSTILE = [
    "<img src=x onerror=\"fetch('http://127.0.0.1:9/owned')\">",
    "<svg onload=\"fetch('http://127.0.0.1:9/owned')\"></svg>",
    "<script>fetch('http://127.0.0.1:9/owned')</script>",
    "<ScRiPt src=http://127.0.0.1:9/owned.js></sCrIpT>",
    "<iframe srcdoc=\"<script>fetch('http://127.0.0.1:9/owned')</script>\"></iframe>",
    "<details open ontoggle=\"fetch('http://127.0.0.1:9/owned')\">x</details>",
    "</script><script>fetch('http://127.0.0.1:9/owned')</script>",
    "<meta http-equiv=refresh content='0; url=http://127.0.0.1:9/owned'>",
    "<link rel=stylesheet href=http://127.0.0.1:9/owned.css>",
    "${template} $column <b>bold</b>",
]

# The elements of the page that have a script of a row.
RUNNING = """() => [...document.querySelectorAll('*')].filter(element =>
  [...element.attributes].some(({name, value}) => /^on|^srcdoc$|^src$/.test(name) && value.includes('owned'))
  || (element.tagName === 'SCRIPT' && element.textContent.includes('owned'))).map(element => element.outerHTML)"""


@pytest.fixture(scope="module")
def data_docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Data Docs of rows whose labels and texts are hostile, and not in the set that is expected."""
    import pandas as pd

    from hone.objectives.text_classification import TextClassification

    home = tmp_path_factory.mktemp("docs")
    frame = pd.DataFrame({"id": [str(n) for n in range(len(HOSTILE))], "text": HOSTILE, "label": HOSTILE}, dtype=object)
    kinds: dict[str, dict[str, Any]] = {
        "expect_column_values_to_be_in_set": {"value_set": ["refund", HOSTILE[0]]},
        "expect_column_values_to_match_regex": {"regex": "^<never>$"},
    }
    suite = [
        Expected(split, kind, {"column": column, **arguments}, "")
        for split in ("train", "valid", "test")
        for kind, arguments in kinds.items()
        for column in ("label", "text")
    ]
    judge = Judge(home / "data_docs")
    judge.evaluate_suite(dict.fromkeys(("train", "valid", "test"), frame), suite, TextClassification(), False)
    judge.build_docs()
    write_single_page(home / "data_docs", home / "data_docs.html")
    return home / "data_docs.html"


def list_requests(page: Page) -> list[str]:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    return requests


def test_no_script_of_a_row_runs_in_the_data_docs(page: Page, data_docs: Path) -> None:
    requests = list_requests(page)
    page.goto(data_docs.as_uri())
    frame = page.frames[1]
    for button in page.locator("nav button").all():
        button.click()
        frame.get_by_text("Must").first.wait_for(state="attached")
    page.locator("nav button", has_text="train: results").click()
    frame.locator("td", has_text="<img src=x onerror=").first.wait_for(state="attached")
    assert frame.locator("img, svg[onload], details, iframe, script[src]").count() == 0
    assert not [url for url in requests if url.startswith("http")]


@pytest.fixture
def received() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that it is asked for."""
    paths: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_the_policy_of_the_data_docs_stops_what_is_not_escaped(
    page: Page, data_docs: Path, tmp_path: Path, received: tuple[str, list[str]]
) -> None:
    """As if the library had written the rows as they are; without the policy they are seen to run."""
    address, paths = received
    html = data_docs.read_text("utf8")
    before, content, after = html.partition('"html": "')
    hostile = json.dumps("".join(HOSTILE).replace(NOBODY, address))[1:-1].replace("<", "\\u003c")
    unescaped = before + content + hostile + after
    without = tmp_path / "without.html"
    without.write_text(re.sub("<meta http-equiv=.Content-Security-Policy[^>]*>", "", unescaped), "utf8")
    (tmp_path / "with.html").write_text(unescaped, "utf8")
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        page.goto((tmp_path / "with.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert paths == []
    page.goto(without.as_uri())
    until(lambda: "/owned" in paths)


def test_links_between_the_data_docs_still_work(page: Page, data_docs: Path) -> None:
    page.goto(data_docs.as_uri())
    page.frames[1].locator("a[data-page^='expectations/']").first.click()
    page.locator("nav button[aria-current]", has_text="expectations").wait_for()


def test_neither_ui_runs_a_script_of_markdown(page: Page, service: Service) -> None:
    """Both of Prefect's UIs and MLflow's, even of Markdown in which markup is not escaped."""
    markdown = "\n\n".join([*HOSTILE, "the end of the text"])
    artifact = service.ask("/artifacts/", {"key": "hostile", "type": "markdown", "data": markdown})
    registry = f"{service.mlflow_url}/api/2.0/mlflow"
    ask(f"{registry}/registered-models/create", {"name": "hostile", "description": markdown})
    version = {"name": "hostile", "source": "s3://bucket/model", "description": markdown}
    ask(f"{registry}/model-versions/create", version)
    requests = list_requests(page)
    for url in (
        f"{service.prefect_url}/v2/artifacts/artifact/{artifact['id']}",
        f"{service.prefect_url}/artifacts/artifact/{artifact['id']}",  # the older UI
        f"{service.mlflow_url}/#/models/hostile",
        f"{service.mlflow_url}/#/models/hostile/versions/1",
    ):
        page.goto(url)
        page.get_by_text("the end of the text").first.wait_for(state="attached", timeout=60_000)
        assert page.evaluate(RUNNING) == []
    assert not [url for url in requests if url in ("http://127.0.0.1:9/owned", "http://127.0.0.1:9/owned.js")]
