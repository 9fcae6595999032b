"""The versions in a stage's key are those of the libraries that its code imports."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hone.config.file import load_config
from hone.config.sections import RunConfig
from hone.errors import ConfigError
from hone.parts.plugins import plugin_folders
from hone.pipeline.stages import STAGES, list_stages
from hone.store.recipe import code_digests, list_imports

CONF = Path(__file__).parents[3] / "conf"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
# Every stage imports the objective; what its model, loss and metrics need decides nothing before training.
OF_THE_MODEL = {"torch", "transformers", "jinja2", "rouge-score", "sacrebleu", "numpy"}
# The version's requirements name what is installed, and what answers was decided upstream; the rest renders pages or
# talks to servers.
OF_THE_VERSION = {
    *("torch", "transformers", "numpy", "pandas", "peft", "pyarrow", "rouge-score", "sacrebleu"),
    *("huggingface-hub", "jinja2", "markupsafe", "pyyaml", "requests"),
}
EXEMPT = {
    # fsspec and zstandard move and unpack bytes; whether they did it right is for checksums to say.
    "ingest": OF_THE_MODEL | {"fsspec", "zstandard"},
    "curate": OF_THE_MODEL,
    # The suite's content is in the key; markupsafe only escapes what the Data Docs show.
    "validate": OF_THE_MODEL | {"pyyaml", "markupsafe"},
    "tokenize": {"torch"},
    # If the method does not use PEFT, or the optimizer not bitsandbytes, code that does is imported and not called.
    "train": {"peft", "bitsandbytes"},
    # The metrics of a chat's rows, and its templates, are part of training's module and not called.
    "sweep": {"peft", "bitsandbytes"},
    "evaluate": {"peft"},
    "rivals": {"peft"},
    "register": OF_THE_VERSION,
    "base": {"jinja2", "rouge-score", "sacrebleu"},
}


@pytest.fixture
def any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the configurations name."""
    for variable in ("BANKING77", "NCBI_DISEASE", "SNIPS", "XQUAD"):
        monkeypatch.setenv(variable, "/nowhere")


@pytest.mark.usefixtures("any_folder")
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_has_the_versions_of_what_it_imports_in_its_key(name: str) -> None:
    config = load_config(CONF / f"{name}.yaml")
    for stage in (*list_stages(config), "sweep"):
        check_libraries(config, stage)


@pytest.mark.usefixtures("any_folder")
@pytest.mark.parametrize("name", NAMES)
def test_so_it_is_with_rivals(name: str) -> None:
    api = "{name: b, api: openai, url: 'http://127.0.0.1:1/v1', model: m}"
    try:
        config = load_config(CONF / f"{name}.yaml", [f"evaluation.rivals=[{{name: a}}, {api}]"])
    except ConfigError as fault:
        assert "no prompt can ask" in str(fault)
        return
    check_libraries(config, "rivals")
    check_libraries(config, "evaluate")
    engines = {f"src/hone/evaluation/rivals/{module}.py" for module in ("local", "client", "wire")}
    assert engines <= code_digests(STAGES["rivals"].code(config)).keys()


@pytest.mark.usefixtures("any_folder")
def test_so_it_is_with_a_judge() -> None:
    judge = "{api: openai, url: 'http://127.0.0.1:1/v1', model: m}"
    config = load_config(CONF / "chat.yaml", [f"evaluation.judge={judge}"])
    check_libraries(config, "judge")
    assert "src/hone/evaluation/rivals/client.py" in code_digests(STAGES["judge"].code(config))


def check_libraries(config: RunConfig, stage: str) -> None:
    definition, distributions = STAGES[stage], packages_distributions()
    covered = set(definition.libraries(config)) | EXEMPT.get(stage, set())
    packages = {module.partition(".")[0] for module in list_imports(definition.code(config))}
    for package in packages - set(sys.stdlib_module_names) - {"hone", *plugin_folders()}:
        providers = {provider.lower().replace("_", "-") for provider in distributions.get(package, [package])}
        assert providers & covered, f"{stage} imports {package}, whose version is not in its key"


def test_an_optimizer_of_bitsandbytes_has_its_version_in_the_key() -> None:
    config = load_config(CONF / "demo.yaml", ["training.optimizer=adamw_8bit"])
    assert "bitsandbytes" in STAGES["train"].libraries(config)
