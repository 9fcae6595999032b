"""Hone's own files with bytes that are not what was written: one error with the file's name, or made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.environment import Home
from hone.errors import StoreError
from hone.store.artifact import Product
from hone.store.recipe import Recipe
from hone.store.store import Store
from hone_app import terminal_runs
from hone_app.service import credentials, servers, up

DAMAGE = (b"", b"\xff\xfe", b"[]", b"null", b'"text"', b"[" * 100_000)


@pytest.mark.parametrize("content", DAMAGE)
def test_what_cannot_be_made_again_is_one_error(tmp_path: Path, content: bytes) -> None:
    home = Home(tmp_path)
    home.service.mkdir()
    for name, read in (
        ("record.json", lambda: up.read_record(home)),
        ("secrets.json", lambda: credentials.load_credentials(home.service)),
    ):
        (home.service / name).write_bytes(content)
        with pytest.raises(StoreError, match="is damaged") as fault:
            read()
        assert str(home.service / name) in str(fault.value) and fault.value.fix


def test_a_record_that_lacks_something_is_one_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.service.mkdir()
    (home.service / "record.json").write_text('{"parts": {"prefect": {"pit": 1}}, "settings": {}}')
    with pytest.raises(StoreError, match="is damaged") as fault:
        up.read_record(home)
    assert "record.json" in str(fault.value)


@pytest.mark.parametrize("content", DAMAGE)
def test_what_can_be_made_again_is(tmp_path: Path, content: bytes) -> None:
    server = servers.Server("prefect", [], "/health", tmp_path, {})
    (tmp_path / "prefect.json").write_bytes(content)
    assert servers._find_running(server) == ""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "1-ab.json").write_bytes(content)
    assert terminal_runs.list_live(Home(tmp_path), "http://127.0.0.1:1/api") == []


def test_figures_that_changed_are_not_shown(tmp_path: Path) -> None:
    def write(out: Path) -> Product:
        (out / "metrics.json").write_text(json.dumps({"accuracy": 0.9}))
        return Product(1, ("metrics.json",))

    made, _ = Store(tmp_path).obtain(Recipe("evaluate", {}, {}, {}, {}), write)
    assert made.read_json("metrics.json") == {"accuracy": 0.9}
    (made.path / "metrics.json").write_text(json.dumps({"accuracy": 0.8}))
    with pytest.raises(StoreError, match=r"metrics\.json: its bytes differ") as fault:
        made.read_json("metrics.json")
    assert "next run" in fault.value.fix
