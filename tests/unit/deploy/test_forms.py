"""The forms of the deployments, held against the validator of Prefect's server."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.changes import SETTINGS, Settings, list_changes
from flows.choice import config_name, resolve_config, resolve_source
from hone.config.file import load_config
from hone.config.folder import find_config
from hone.config.paths import list_paths
from hone.errors import ConfigError
from tasks.forms import CHOICES

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "conf").glob("*.yaml"))
WHOLE = {"name": "x", "ingest": {"source": {"kind": "files", "paths": ["a.csv"]}}, "model": {"base": "b"}}


def load_form(entrypoint: str) -> dict[str, Any]:
    module, _, name = entrypoint.rpartition(".")
    return parameter_schema(getattr(importlib.import_module(module), name)).model_dump()


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    return load_form("flows.finetune.finetune")


def refuse(form: dict[str, Any], **parameters: Any) -> str:
    """The server's message, '' if it takes the parameters."""
    try:
        validate(parameters, form, raise_on_error=True, ignore_required=True)
    except ValidationError as fault:
        return str(fault)
    return ""


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def iter_leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a configuration, by their paths."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if not items or path.startswith(("ingest.columns", "sweep.space")):
        yield path, tree
    for name, value in items:
        yield from iter_leaves(value, f"{path}.{name}" if path else str(name))


def test_every_value_of_the_shipped_configurations_is_accepted_as_a_change(form: dict[str, Any]) -> None:
    changes = {file: [f"{path}={json.dumps(value)}" for path, value in iter_leaves(read(file))] for file in FILES}
    for file, values in changes.items():
        assert resolve_config(str(file), values) == load_config(file)
    assert refuse(form, config="demo", changes=list(chain(*changes.values()))) == ""


def test_changes_as_in_the_terminal_are_accepted(form: dict[str, Any]) -> None:
    changes = [
        "training.epochs=2.5",
        "training.epochs=1e1",
        "promotion.enforce=true",
        "name=x",
        "curation.steps.balance.seed=3",
        "curation.steps.label_conflicts.keep=majority",
        "training.precision=bf16",
        "ingest.source.paths.0=data/*.csv",
        'registration.model="my model"',
    ]
    assert refuse(form, config="demo", changes=changes) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("training.epohs=5", "section.field=value with a field of `hone schema`"),
        ("training.epochs", "section.field=value"),
        ("training.epochs=many", "a number after ="),
        ("training.batch_size=1.5", "a whole number after ="),
        ("training.precision=fp8", "one of auto, fp32, bf16"),
        ("promotion.enforce=perhaps", "true or false after ="),
        ("curation.steps.balance.seed=x", "a whole number after ="),
    ],
)
def test_a_change_that_cannot_be_is_refused_with_its_reason(form: dict[str, Any], change: str, reason: str) -> None:
    message = refuse(form, config="demo", changes=["training.seed=1", change])
    assert message.startswith("Validation failed for field 'changes[1]'")
    assert reason in message


def test_settings_have_the_bounds_of_the_configuration(form: dict[str, Any]) -> None:
    assert refuse(form, config="demo", settings={"epochs": 3, "precision": "bf16", "method": "lora"}) == ""
    assert "minimum of 0" in refuse(form, config="demo", settings={"epochs": 0})
    assert "is not one of" in refuse(form, config="demo", settings={"method": "lorra"})
    assert "was unexpected" in refuse(form, config="demo", settings={"epohs": 3})


def test_settings_become_changes_and_empty_ones_none() -> None:
    config = load_config(ROOT / "conf" / "demo.yaml")
    assert list_changes(Settings(), config) == []
    assert list_changes(Settings(method=config.method.kind), config) == []
    changes = list_changes(Settings.model_validate({"name": "x", "epochs": 3, "method": "lora"}), config)
    assert changes == ['name="x"', "training.epochs=3.0", 'method={"kind": "lora"}']
    changed = resolve_config(config, changes)
    assert (changed.name, changed.training.model_dump()["epochs"], changed.method.kind) == ("x", 3, "lora")


def test_every_setting_is_a_field_of_the_configuration() -> None:
    paths = {path.replace("\\", "") for path in list_paths()}
    assert set(SETTINGS) <= paths
    assert len(Settings.model_fields) == len(SETTINGS)


def test_a_whole_configuration_is_checked_field_by_field(form: dict[str, Any]) -> None:
    assert refuse(form, config=WHOLE) == ""
    message = refuse(form, config=WHOLE | {"training": {"epochs": -3}})
    assert message.startswith("Validation failed for field 'config.training.epochs'"), message
    assert refuse(form, config="models:/demo@champion") == ""
    assert refuse(form, config="models:/demo/3") == ""


def test_forms_are_short_described_and_without_null() -> None:
    """Prefect's form shows null as a tab "Property is type None", and a list of unions as one of its members."""
    entries = read(ROOT / "deployments" / "prefect.yaml")["deployments"]
    for entry in entries:
        schema = load_form(entry["entrypoint"])
        for name, parameter in schema["properties"].items():
            assert len(parameter["description"]) > 10, (entry["name"], name)
            shown = parameter.get("anyOf", [parameter])
            assert not any(option.get("type") == "null" for option in shown), (entry["name"], name)
            assert len(shown) <= 3, (entry["name"], name)
        models = [name for name in schema["properties"] if name == "model"]
        assert all(schema["properties"][name]["anyOf"][0][CHOICES] == "models" for name in models)


def test_a_path_stands_for_its_files() -> None:
    form = load_form("flows.batch_predict.batch_predict")
    assert refuse(form, source="data/*.csv") == ""
    assert resolve_source("data/*.csv").options()["paths"] == ["data/*.csv"]
    query = {"kind": "sql", "url": "sqlite:///rows.db", "query": "select text from rows"}
    assert refuse(form, source=query) == ""
    assert refuse(form, source={"kind": "sql", "url": 5}).startswith("Validation failed for field 'source")


def test_an_unknown_name_has_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match="Did you mean demo"):
        find_config("demi")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("demo", "demo"),
        ("conf/demo.yaml", "demo"),
        (WHOLE, "x"),
        ("models:/demo@champion", "demo champion"),
        ("models:/demo/3", "demo version 3"),
    ],
)
def test_a_run_is_named_by_its_configuration(config: Any, name: str) -> None:
    assert config_name(config) == name
