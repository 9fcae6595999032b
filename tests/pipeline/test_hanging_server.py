"""Prefect's server takes requests and never answers, then is gone: no command waits for it, and each ends well.

A request may take an hour here: whatever waited for one would not be done in the time of a test.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests import preloaded
from tests.in_process import Line
from tests.polling import until
from tests.relay import Relay, relay_to
from tests.services import ask

pytestmark = pytest.mark.slow

PATIENT = {"PREFECT_API_REQUEST_TIMEOUT": "3600", "PREFECT_CLIENT_MAX_RETRIES": "0"}
WARNING = (
    "hone: warning: the work is done, but Prefect's page of this run is incomplete: Prefect's server did not answer"
)


@pytest.fixture
def relay(prefect_url: str) -> Iterator[Relay]:
    with relay_to(urlsplit(prefect_url).port or 0) as relay:
        yield relay


@contextmanager
def command(relay: Relay, environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    """A running `hone` command whose Prefect server is behind the relay."""
    own = environment | PATIENT | {"PREFECT_API_URL": f"http://127.0.0.1:{relay.port}/api"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [preloaded.hone(), *words], env=own, cwd=Path(environment["HONE_HOME"]).parent, **pipes
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], relay: Relay, is_done: Callable[[], object]) -> str:
    """Let the server hang until the work is done, then be gone; what the command printed."""
    relay.hang()
    until(lambda: process.poll() is not None or is_done())
    assert process.poll() is None, process.communicate()[1][-6000:]
    relay.leave()
    printed, faults = process.communicate()
    assert process.returncode == 0, faults
    [warning] = faults.splitlines()
    assert warning.startswith(WARNING)
    return printed


def has_begun(home: Path, prefect_url: str) -> bool:
    """Whether a flow has begun: its run has its name, which is the last request before its work."""
    flow_runs = [line for path in home.glob("runs/*.json") for line in path.read_text().splitlines()[1:]]
    return any("small" in ask(f"{prefect_url}/flow_runs/{flow_run}")["name"] for flow_run in flow_runs)


def test_a_run_completes(conf: Path, environment: dict[str, str], relay: Relay, tmp_path: Path) -> None:
    home = tmp_path / "hone"
    with command(relay, environment, "run", str(conf)) as process:
        begun = "store/work/*/history.jsonl"
        until(lambda: process.poll() is not None or any(history.stat().st_size for history in home.glob(begun)))
        printed = finish(process, relay, lambda: list(home.glob("store/register/*/manifest.json")))
    assert "small version 1, alias candidate" in printed


def test_a_prediction_completes(
    line: Line, conf: Path, environment: dict[str, str], relay: Relay, prefect_url: str, tmp_path: Path
) -> None:
    line(conf)
    line.home.root.chmod(0o700)
    rows, out = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    rows.write_text("text\nrain and storm\ngoal and match\n")
    words = ("predict", "small", "--version", "1", "--input", str(rows), "--output", str(out))
    with command(relay, environment, *words) as process:
        until(lambda: process.poll() is not None or has_begun(tmp_path / "hone", prefect_url))
        printed = finish(process, relay, out.is_file)
    assert "2 rows by models:/small/1" in printed
    assert len(out.read_text().splitlines()) == 2


def test_a_drift_check_completes(
    line: Line, conf: Path, environment: dict[str, str], relay: Relay, prefect_url: str, tmp_path: Path
) -> None:
    conf.write_text(yaml.safe_dump(yaml.safe_load(conf.read_text()) | {"monitoring": {"min_rows": 20}}))
    line(conf)
    line.home.root.chmod(0o700)
    rows = tmp_path / "recent.csv"
    rows.write_text("\n".join(["text", *(f"bonds {number} stocks" for number in range(40))]))
    with command(relay, environment, "monitor", str(conf), "--inputs", str(rows)) as process:
        until(lambda: process.poll() is not None or has_begun(tmp_path / "hone", prefect_url))
        printed = finish(process, relay, lambda: "drift" in tags_of_version(environment["HONE_HOME"]).values())
    assert "small version 1: drift by" in printed


def tags_of_version(home: str) -> dict[str, str]:
    """Those of version 1 of `small`."""
    from hone.environment import Home
    from hone.tracking.client import connect

    return dict(connect(Home(Path(home)).tracking_uri).get_model_version("small", "1").tags)
