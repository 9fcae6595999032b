"""What a person sees who writes a configuration: defaults, and answers to mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from hone.config.file import dump_config, load_config, parse_config
from hone.config.sections import RunConfig
from hone.errors import ConfigError
from hone.objectives import OBJECTIVES
from hone.parts.plugins import installed
from hone.parts.strict_yaml import load_yaml

CONF = Path(__file__).parents[3] / "conf"

MINIMAL = """
name: mine
ingest:
  source: {kind: files, paths: [rows.csv]}
model: {base: some/model}
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


# Ten times as many values in each of nine lists.
LAUGHS = "[&a0 [x], " + ", ".join(f"&a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(9)) + "]"


def faults(conf: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as fault:
        load_config(conf, overrides)
    return str(fault.value)


def test_a_minimal_file_gets_every_default(conf: Path) -> None:
    config = load_config(conf)
    assert config.objective.kind == "text-classification"
    assert [step.kind for step in config.curation.steps][:2] == ["normalize", "filters"]
    assert config.method.kind == "full"


def test_the_dump_of_a_config_is_the_same_config(conf: Path, tmp_path: Path) -> None:
    config = load_config(conf)
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again) == config


def test_a_typo_is_answered_with_field_file_and_nearest_name(conf: Path) -> None:
    message = faults(conf, "training.learning_rat=1e-4")
    assert "training.learning_rat: no such field; did you mean learning_rate?" in message
    assert str(conf) in message


def test_all_faults_are_told_at_once(conf: Path) -> None:
    message = faults(conf, "training.epochs=-1", "metod={kind: lora}", "ingest.source.path=[x]", "model.base=")
    for part in ("4 errors", "training.epochs", "did you mean method?", "ingest.source.path:", "did you mean paths?"):
        assert part in message
    assert "model.base" in message


def test_an_unknown_part_is_answered_with_the_nearest_kind(conf: Path) -> None:
    assert "did you mean lora?" in faults(conf, "method={kind: lorra}")
    assert "did you mean normalize?" in faults(conf, "curation.steps=[{kind: normalise}]")


def test_kinds_are_still_read_with_underscores(conf: Path) -> None:
    config = load_config(conf, ["curation.steps=[{kind: label_conflicts}]"])
    assert [step.kind for step in config.curation.steps] == ["label-conflicts"]
    assert load_config(conf, ["curation.steps=[{kind: label-conflicts}]"]) == config
    assert "did you mean label-conflicts?" in faults(conf, "curation.steps=[{kind: label_conflict}]")


def test_a_fault_inside_a_step_names_it_as_a_person_would(conf: Path) -> None:
    assert "curation.steps.0.min_char: no such field; did you mean min_chars?" in faults(
        conf, "curation.steps=[{kind: filters, min_char: 3}]"
    )


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("name: x\ningest: {source: {kind: files}}\n")
    message = faults(path)
    assert "ingest.source.paths: is required" in message
    assert "model: is required" in message


def test_overrides_reach_values_lists_and_parts(conf: Path) -> None:
    config = load_config(conf, ["training.learning_rate=3e-4", "curation.steps=[{kind: filters}, {kind: balance}]"])
    assert config.training.learning_rate == 3e-4  # type: ignore[attr-defined]
    conf.write_text(MINIMAL + "curation: {steps: [{kind: normalize}, {kind: filters}]}\n")
    config = load_config(conf, ["curation.steps.filters.min_chars=7", "ingest.source.paths.0=other.csv"])
    assert config.curation.steps[1].min_chars == 7  # type: ignore[attr-defined]
    assert config.ingest.source.paths == ["other.csv"]  # type: ignore[attr-defined]


def test_overrides_reach_the_steps_and_parts_that_a_file_leaves_at_their_defaults(conf: Path) -> None:
    before, config = load_config(conf), load_config(conf, ["curation.steps.filters.min_chars=7"])
    assert [step.kind for step in config.curation.steps] == [step.kind for step in before.curation.steps]
    assert [step.min_chars for step in config.curation.steps if step.kind == "filters"] == [7]  # type: ignore[attr-defined]
    assert load_config(conf).curation == before.curation
    assert "method.rank: no such field" in faults(conf, "method.rank=4")
    assert load_config(conf, ["method.kind=lora", "method.rank=4"]).method.rank == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("override", ["training", "=3", "training.epochs.x=1", "curation.steps.9.x=1"])
def test_an_override_of_the_wrong_form_is_named(conf: Path, override: str) -> None:
    assert override in faults(conf, "curation.steps=[{kind: filters}]", "training.epochs=1", override)


def test_a_missing_file_is_answered_with_the_nearest(conf: Path) -> None:
    assert f"Did you mean {conf}?" in faults(conf.with_name("mien.yaml"))


def test_a_key_that_stands_twice_is_a_fault(conf: Path) -> None:
    conf.write_text(MINIMAL + "name: other\n")
    assert "duplicate key name" in faults(conf)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "\xff"])
def test_what_is_no_configuration_is_refused(conf: Path, text: str) -> None:
    conf.write_bytes(text.encode("latin1"))
    assert str(conf) in faults(conf)


@pytest.mark.parametrize("name", ["a/b", "a:b", "..", "50%", "a'b", '"a"', "a\nb", " ", "a" * 257])
def test_a_model_name_that_mlflow_refuses_is_refused_here(conf: Path, name: str) -> None:
    assert "registration.model" in faults(conf, f"registration.model={json.dumps(name)}")


@pytest.mark.parametrize("alias", ["latest", "v2", "Upper case", "a" * 256, "champion", "previous"])
def test_an_alias_that_mlflow_refuses_is_refused_here(conf: Path, alias: str) -> None:
    assert "registration.alias" in faults(conf, f"registration.alias={alias}")


@pytest.mark.parametrize(
    "override",
    [
        "model.base=https://geheim@example.org/model",
        "model.trust_code=https://geheim@example.org/model@1",
        "promotion.golden=https://example.org/rows.csv?sig=geheim",
        "validation.suite=https://example.org/suite.yaml?token=geheim",
        "ingest.source={kind: hub, dataset: 'https://geheim@example.org/rows', revision: ''}",
        "ingest.source={kind: sql, url: 'postgresql://ada:${PW:-geheim}@db/app', query: select 1}",
        "ingest.source={kind: sql, url: 'postgresql://ada:geheim@db/app', query: select 1, quary: x}",
        "ingest.source.paths=https://ada:geheim@example.org/rows.csv",
    ],
)
def test_a_secret_in_any_section_is_refused_and_not_repeated(conf: Path, override: str) -> None:
    message = faults(conf, override)
    assert "geheim" not in message


@pytest.mark.parametrize(
    "source",
    [
        "{kind: sql, url: 'postgresql://ada:geheim@db/app', query: select 1}",
        "{kind: sql, url: 'postgresql://ada@db/app?password=geheim', query: select 1}",
        "{kind: files, paths: ['ftp://ada:geheim@host/rows.csv']}",
    ],
)
def test_a_password_is_refused_and_not_repeated(conf: Path, source: str) -> None:
    message = faults(conf, f"ingest.source={source}")
    assert "contains a password or token: put it into an environment variable, write ${NAME}" in message
    assert "geheim" not in message


def test_pydantic_does_not_repeat_a_password_either(conf: Path) -> None:
    tree = load_config(conf).model_dump(mode="json")
    tree["ingest"]["source"] = {"kind": "sql", "url": "postgresql://ada:geheim@db/app", "query": "select 1"}
    with pytest.raises(ValidationError, match="contains a password or token") as fault:
        RunConfig.model_validate(tree)
    assert "geheim" not in str(fault.value)


def test_a_password_of_the_environment_is_taken(conf: Path) -> None:
    url = "postgresql://ada:${SECRET}@db/app?token=${TOKEN:-}"
    config = load_config(conf, [f"ingest.source={{kind: sql, url: '{url}', query: select 1}}"])
    assert config.ingest.source.url == url  # type: ignore[attr-defined]


def test_every_field_of_every_section_is_described() -> None:
    schema = RunConfig.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    missing = [
        f"{section['title']}.{name}"
        for section in sections
        for name, field in section.get("properties", {}).items()
        if not field.get("description") and not schema["$defs"].get(field.get("$ref", "")[8:], {}).get("description")
    ]
    assert missing == []
    assert len(sections) > 15


def test_every_shipped_config_loads_and_every_objective_has_one() -> None:
    shipped = {file.stem: load_config(file) for file in sorted(CONF.rglob("*.yaml"))}
    assert all(config.name == name for name, config in shipped.items())
    assert {config.objective.kind for config in shipped.values()} >= set(OBJECTIVES) - {
        entry.name for entry in installed("hone.objectives")
    }


def test_a_config_survives_json_as_a_flow_parameter(conf: Path) -> None:
    config = load_config(conf)
    assert parse_config(json.loads(config.model_dump_json())) == config


def test_loading_imports_nothing_heavy(conf: Path) -> None:
    code = "import sys; from pathlib import Path; from hone.config.file import load_config; "
    code += f"load_config(Path({str(conf)!r}));"
    heavy = {
        "torch",
        "transformers",
        "mlflow",
        "prefect",
        "great_expectations",
        "datasets",
        "pandas",
        "pyarrow",
        "numpy",
    }
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["*.csv", "@x", "`x`", "%x", "&a"])
def test_an_override_may_begin_with_what_yaml_reserves(conf: Path, text: str) -> None:
    config = load_config(conf, [f"ingest.source.paths.0={text}", f"model.base={text}"])
    assert (config.ingest.source.options()["paths"], config.model.base) == ([text], text)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("2026-13-01", "month must be in"),
        ("2026-02-30", "day is out of range"),
        ("2026-01-01T25:00:00", "hour must be in"),
        ("[a", "expected ',' or ']'"),
        ("a: b: c", "mapping values are not allowed"),
        ("!x y", "could not determine a constructor"),
        ("!!int abc", "invalid literal"),
        ("\x00", "special characters are not allowed"),
        ("\ud800", "special characters are not allowed"),
        ('"\\ud800"', "half of a character"),
        ('{"\\ud800": 1}', "half of a character"),
        ("[" * 5000, "nested too deeply"),
        ("[&a [*a]]", "aliases make it grow to more than 1,000,000 values"),
        (LAUGHS, "aliases make it grow"),
    ],
)
def test_an_override_that_yaml_cannot_read_is_a_fault_with_a_fix(conf: Path, value: str, reason: str) -> None:
    fault = faults(conf, f"ingest.as_of={value}")
    assert reason in fault
    assert fault.startswith("ingest.as_of=")
    assert fault.endswith("Put it in quotes if it is text: 'field=\"value\"'.")
    conf.write_bytes(f"name: {value}".encode("utf8", "surrogatepass"))
    assert str(conf) in faults(conf)


def test_an_index_that_is_no_number_is_a_fault(conf: Path) -> None:
    assert "no item ²" in faults(conf, "ingest.source.paths.²=a")


def test_merge_keys_are_read_and_own_keys_win(conf: Path) -> None:
    conf.write_text(
        "name: mine\nmodel: {base: some/model}\n"
        "ingest: {source: {kind: files, paths: [rows.csv]}, columns: &one {text: body, label: topic}}\n"
    )
    merged = "curation: {split: &split {test: 0.2, seed: 3}}\nmonitoring: {}\n"
    conf.write_text(conf.read_text() + merged)
    conf.write_text(conf.read_text().replace("{test: 0.2, seed: 3}", "{<<: {test: 0.3, seed: 4}, seed: 5}"))
    split = load_config(conf).curation.split
    assert (split.test, split.seed) == (0.3, 5)


def test_merge_keys_of_merge_keys(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b], z: 3}\nb2: *b\n"
    tree = load_yaml(text)
    assert tree["c"] == {"x": 1, "y": 2, "z": 3}
    assert tree["b"] == tree["b2"] == {"x": 1, "y": 2}
    with pytest.raises(yaml.YAMLError, match="duplicate key y"):
        load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2, y: 3}\n")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("columns: {label: on}", "ingest.columns.label: YAML reads this as True"),
        ("columns: {label: 2024-01-01}", "ingest.columns.label: YAML reads this as 2024-01-01"),
        ("keep: [12:30:00]", "ingest.keep.0: YAML reads this as 45000"),
        ("columns: {on: body}", "ingest.columns"),
    ],
)
def test_what_yaml_does_not_read_as_text_is_answered_with_quotes(conf: Path, text: str, path: str) -> None:
    conf.write_text(MINIMAL.replace("paths: [rows.csv]}", "paths: [rows.csv]}\n  " + text))
    assert path in faults(conf)
    assert "not as text: put it in quotes" in faults(conf)


def test_the_language_no_is_answered_with_quotes(conf: Path) -> None:
    fault = faults(conf, "curation.steps=[{kind: filters, languages: [en, no]}]")
    assert "languages.1: YAML reads this as False, not as text: put it in quotes" in fault


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("objective: {kind: regression}\nevaluation: {flips: gender-en}", "the answers of regression are numbers"),
        ("promotion: {guards: {group_gap: 0.1}}", "promotion.guards.group_gap needs evaluation.groups"),
        ("promotion: {guards: {flip_rate: 0.1}}", "promotion.guards.flip_rate needs evaluation.flips"),
    ],
)
def test_bias_that_cannot_be_measured_is_refused_before_the_run(lines: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"name: x\ningest: {{source: {{kind: files, paths: [a.csv]}}}}\nmodel: {{base: b}}\n{lines}\n", "utf8"
    )
    with pytest.raises(ConfigError, match=fault):
        load_config(file)
