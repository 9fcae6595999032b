"""Links that open the page they name."""

from __future__ import annotations

import pytest

from hone.tracking.links import build_url, complete_links, run_link, run_route, version_route
from hone.tracking.run_log import open_run


@pytest.mark.parametrize(
    ("route", "page"),
    [
        (run_route("7", "abc"), "#/experiments/7/runs/abc"),
        (run_route("7", "abc", "promotion/a b.html"), "#/experiments/7/runs/abc/artifacts/promotion/a%20b.html"),
        (version_route("my model"), "#/models/my%20model"),
        (version_route("demo", "3"), "#/models/demo/versions/3"),
    ],
)
def test_a_link_opens_the_pages_of_trainings_and_not_those_of_traces(route: str, page: str) -> None:
    assert build_url("http://127.0.0.1:5000/", route) == f"http://127.0.0.1:5000/{page}?workflowType=machine_learning"
    assert build_url("http://ada:geheim@127.0.0.1:5000", route) == build_url("http://127.0.0.1:5000", route)
    assert build_url("sqlite:////data/mlflow.db", route) == ""


def test_links_in_a_text_lead_to_the_server_or_are_plain_text() -> None:
    text = "beside the [champion, version 1](#/models/demo/versions/1) and [docs](https://example.org)"
    assert complete_links(text, "http://h:5000/") == text.replace("(#/", "(http://h:5000/#/")
    assert complete_links(text, "sqlite:///m.db") == "beside the champion, version 1 and [docs](https://example.org)"


def test_without_a_server_a_run_is_named(tracking_uri: str) -> None:
    run = open_run(tracking_uri, experiment="hone", name="tiny", key="k1", params={}, tags={})
    assert run_link(tracking_uri, run.run_id) == f"MLflow run {run.run_id} of experiment {run.experiment_id}"
