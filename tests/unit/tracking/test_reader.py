"""Versions of our own as base models, found in a SQLite store without MLflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.environment import Home
from hone.errors import ModelError
from hone.methods.lora import Lora
from hone.models.locate import BaseModel, locate_base_model
from hone.pipeline.stage import pin_base
from hone.store.artifact import Artifact
from hone.store.digests import file_digest
from hone.tracking import reader
from hone.tracking.client import connect
from tests.registering import assert_answers_as_evaluated, do_register


@pytest.fixture
def registered(tmp_path: Path, tracking_uri: str, artifacts: Mapping[str, Artifact], base: BaseModel) -> dict[str, Any]:
    return do_register(tmp_path / "first", artifacts, base, tracking_uri)


def test_a_version_is_a_base_model_by_alias_and_by_number(
    registered: dict[str, Any], tracking_uri: str, artifacts: Mapping[str, Artifact], tmp_path: Path
) -> None:
    by_alias = locate_base_model("models:/tiny@candidate", tracking_uri=tracking_uri, downloads=tmp_path / "none")
    assert by_alias == locate_base_model("models:/tiny/1", tracking_uri=tracking_uri)
    assert (by_alias.base, by_alias.revision, by_alias.run) == ("models:/tiny/1", "1", registered["run_id"])
    assert by_alias.licence == "apache-2.0"
    trained = artifacts["train"].path / "model" / "model.safetensors"
    assert file_digest(by_alias.path / "model.safetensors") == file_digest(trained)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("models:/tiny/2", "There are version 1, @candidate \\(version 1\\)"),
        ("models:/tiny@champion", "There are version 1"),
        ("models:/other@candidate", "No version of other is registered"),
        ("models:/tiny", "Write models:/NAME@ALIAS or models:/NAME/NUMBER"),
        ("models:/tiny/latest", "Write models:/NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(
    uri: str, told: str, registered: dict[str, Any], tracking_uri: str
) -> None:
    with pytest.raises(ModelError, match=told):
        locate_base_model(uri, tracking_uri=tracking_uri)


def test_a_deleted_version_is_not_found(registered: dict[str, Any], tracking_uri: str) -> None:
    connect(tracking_uri).delete_model_version("tiny", "1")
    with pytest.raises(ModelError, match="No version of tiny"):
        locate_base_model("models:/tiny/1", tracking_uri=tracking_uri)


def test_without_a_store_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no MLflow store yet"):
        locate_base_model("models:/tiny/1", tracking_uri=f"sqlite:///{tmp_path}/none.db")


def test_an_adapter_alone_is_refused_and_told_what_to_do(
    tmp_path: Path, tracking_uri: str, adapted: Mapping[str, Artifact], base: BaseModel
) -> None:
    do_register(tmp_path / "out", adapted, base, tracking_uri, Lora(merged=False))
    with pytest.raises(ModelError, match=r"is an adapter for .*\n.*method.merged: true"):
        locate_base_model("models:/tiny@candidate", tracking_uri=tracking_uri)


def test_a_run_keeps_the_version_that_an_alias_meant(
    registered: dict[str, Any], tracking_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    tree = {"name": "next", "ingest": {"source": {"kind": "files", "paths": ["a.csv"]}}}
    config = parse_config(tree | {"model": {"base": "models:/tiny@candidate"}})
    home = Home(tmp_path)
    assert pin_base(config, home).model.base == "models:/tiny/1"
    assert pin_base(pin_base(config, home), home) == pin_base(config, home)
    plain = parse_config(tree | {"model": {"base": "some/hub-model"}})
    assert pin_base(plain, home) is plain


def test_the_lineage_leads_back_and_an_adapter_on_our_own_base_answers(
    registered: dict[str, Any], tmp_path: Path, tracking_uri: str, base: BaseModel
) -> None:
    """A model of another name, tuned from version 1, registered as an adapter alone."""
    from hone.store.store import Store
    from tests.untrained_line import build_line

    ours = locate_base_model("models:/tiny@candidate", tracking_uri=tracking_uri)
    line = build_line(Store(tmp_path / "store"), ours, Lora(rank=2))
    made = do_register(tmp_path / "second", line, ours, tracking_uri, Lora(merged=False), model_name="next")
    tags = connect(tracking_uri).get_model_version("next", made["version"]).tags
    assert tags["hone.base_model"] == "models:/tiny/1"
    assert (tags["hone.base_version"], tags["hone.parent_run"]) == ("1", registered["run_id"])
    chain = reader.list_lineage(tracking_uri, made["model_uri"])
    assert [version.uri for version in chain] == ["models:/next/1", "models:/tiny/1"]
    assert chain[-1].tags["hone.base_model"] == base.base
    assert chain[-1].tags["hone.data_sources"] == "mail.csv"
    assert_answers_as_evaluated(made, line)


def test_looking_a_version_up_imports_nothing_heavy(registered: dict[str, Any], tracking_uri: str) -> None:
    code = (
        "import sys; from hone.models.locate import locate_base_model; "
        f"print(locate_base_model('models:/tiny@candidate', tracking_uri={tracking_uri!r}).base); "
        "print(sorted({'mlflow', 'torch', 'transformers', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["models:/tiny/1", "[]"]
