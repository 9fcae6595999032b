"""What a sweep may vary, and the configuration of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.config.file import load_config, parse_config, set_values
from hone.config.sections import RunConfig
from hone.errors import ConfigError
from hone.methods import METHODS
from hone.objectives import OBJECTIVES
from hone.sweep.suggest import render_suggestion
from hone.sweep.trial_config import build_trial_config, check_space, select_values
from hone.sweep.words import describe_values

CONF = Path(__file__).parents[3] / "conf"


def make_config(space: dict[str, Any], **more: Any) -> RunConfig:
    tree = {"name": "x", "ingest": {"source": {"kind": "files", "paths": ["a.csv"]}}, "model": {"base": "b"}}
    return parse_config(tree | {"sweep": {"space": space}} | more)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "there are no fields to vary"),
        ({"training.learning_rat": [1e-4]}, r"sweep\.space, training\.learning_rat: no such field"),
        ({"ingest.max_refused": [0.1]}, "a sweep cannot vary this field"),
        ({"curation.split.seed": [1, 2]}, "a sweep cannot vary this field"),
        ({"evaluation.seed": [1, 2]}, "a sweep cannot vary this field"),
        ({"objective.kind": ["regression"]}, "a sweep cannot vary this field"),
        ({"training.batch_size": [8, 0]}, r"training\.batch_size: should be greater than or equal to 1"),
        ({"training.warmup": {"low": 0.1, "high": 1.5}}, r"training\.warmup: should be less than 1"),
        ({"method.rank": [8]}, r"no method of the sweep has this option \(full\)"),
        ({"method.kind": ["lora", "loar"]}, "no such method as 'loar'"),
        ({"method": [{"kind": "lora", "rang": 8}]}, "no such field; did you mean rank"),
    ],
)
def test_a_space_with_a_mistake_is_refused_before_anything_runs(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(make_config(space))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"training.epochs": {"low": 3, "high": 3}}, "low must be below high"),
        ({"training.learning_rate": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
        ({"training.epochs": []}, "list at least one value"),
        ({"training.epochs": 3}, r"training\.epochs: write a list of values, or a range"),
        ({"training.epochs": {"low": 1}}, r"training\.epochs: write a list of values, or a range"),
        (
            {"training.epochs": {"low": 1, "high": 2, "lgo": True}},
            r"training\.epochs: write a list of values, or a range",
        ),
        ({"training.epochs": [1, 1]}, "each once"),
    ],
)
def test_values_that_are_no_choice_are_refused_when_the_file_is_read(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(space)


@pytest.mark.parametrize("metric", ["accuracy", "test_accuracy", "valid_bleu"])
def test_the_metric_is_one_of_the_validation_rows(metric: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.metric"):
        make_config({"training.epochs": [1, 2]}, sweep={"metric": metric, "space": {"training.epochs": [1, 2]}})


def test_an_override_writes_a_field_of_the_space_as_nested_sections() -> None:
    config = load_config(
        CONF / "demo.yaml", ["sweep.space.training.epochs=[1, 2]", "sweep.space.method.kind=[full, lora]"]
    )
    assert config.sweep.space == {"training.epochs": [1, 2], "method.kind": ["full", "lora"]}
    check_space(config)


def test_another_method_takes_no_options_over_and_lacks_those_it_does_not_have() -> None:
    space = {"method.kind": ["full", "lora"], "method.rank": [8, 64], "training.epochs": [1]}
    config = make_config(space, method={"kind": "lora", "rank": 4, "alpha": 99})
    check_space(config)
    full = build_trial_config(config, {"method.kind": "full", "method.rank": 8, "training.epochs": 1})
    assert full.method.model_dump() == {"kind": "full"}
    lora = build_trial_config(config, {"method.kind": "lora", "method.rank": 64, "training.epochs": 1})
    assert (lora.method.options()["rank"], lora.method.options()["alpha"]) == (64, 99)
    assert select_values(config, {"method.kind": "full", "method.rank": 8}) == {"method": {"kind": "full"}}


def test_values_read_well_in_a_table() -> None:
    values = {"training.learning_rate": 0.000213456, "method": {"kind": "lora", "rank": 8}, "model.base": "b"}
    assert describe_values(values) == "learning_rate 0.000213, method lora (rank 8), base b"
    assert describe_values({"training.seed": 1, "model.scratch.seed": 2}) == "training.seed 1, model.scratch.seed 2"


@pytest.mark.parametrize("kind", sorted(METHODS))
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_a_suggestion_is_a_space_that_the_configuration_accepts(kind: str, objective: str) -> None:
    config = make_config({}, method={"kind": kind}, objective={"kind": objective})
    tree = config.model_dump(mode="json", exclude_unset=True) | yaml.safe_load(render_suggestion(config))
    suggested = parse_config(tree)
    check_space(suggested)
    assert "training.learning_rate" in suggested.sweep.space


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_spaces_of_shipped_configurations_are_valid(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BANKING77", "NCBI_DISEASE", "SNIPS", "XQUAD"):
        monkeypatch.setenv(variable, "/nowhere")
    config = load_config(file)
    if config.sweep.space:
        check_space(config)
    else:
        check_space(set_values(config, yaml.safe_load(render_suggestion(config))))
