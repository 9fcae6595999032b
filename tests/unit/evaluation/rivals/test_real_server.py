"""A rival behind a real server: transformers' own, with a real decoder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hone.errors import HoneError
from hone.evaluation.rivals.client import ApiEngine, Patience
from hone.evaluation.rivals.local import LocalEngine
from hone_app.service.servers import find_free_port
from tests.polling import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="transformers serve needs openai"),
]
PROMPT = "Once upon a time, there was a"


@pytest.fixture(scope="module")
def stories(shared: Path) -> Path:
    return shared / "models" / "stories260K"


@pytest.fixture(scope="module")
def url(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve`."""
    port = find_free_port("127.0.0.1", 0)
    log = tmp_path_factory.mktemp("serve") / "log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent)}
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            until(lambda: _is_up(port) or process.poll() is not None, 120)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def make_engine(url: str, model: Path) -> ApiEngine:
    patience = Patience(attempts=1, stall_seconds=60, deadline_seconds=60)
    return ApiEngine("openai-completions", url, str(model), max_tokens=12, parallel=1, patience=patience)


def test_its_answer_is_that_of_the_same_model_on_this_machine(url: str, stories: Path) -> None:
    with make_engine(url, stories) as engine:
        answer = engine.ask(PROMPT)
    here = LocalEngine(stories, "digest", 12).ask(PROMPT)
    assert answer.text.strip() == here.text
    assert (answer.ended, answer.output_tokens) == (here.ended, here.output_tokens) == ("length", 12)


def test_a_model_that_it_does_not_have_is_one_error(url: str, tmp_path: Path) -> None:
    with make_engine(url, tmp_path / "nothing") as engine, pytest.raises(HoneError, match="nothing"):
        engine.ask(PROMPT)
