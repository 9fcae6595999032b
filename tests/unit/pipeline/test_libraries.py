"""The versions in a stage's key are those of the libraries that its code imports."""

from __future__ import annotations

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hone.config.file import load_config
from hone.parts.plugins import plugin_folders
from hone.pipeline.stages import STAGES, list_stages
from hone.store.recipe import list_imports

CONF = Path(__file__).parents[3] / "conf"
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
    "register": OF_THE_VERSION,
    "base": {"jinja2", "rouge-score", "sacrebleu"},
}


@pytest.mark.parametrize("name", sorted(file.stem for file in CONF.glob("*.yaml")))
def test_a_stage_has_the_versions_of_what_it_imports_in_its_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BANKING77", "NCBI_DISEASE", "SNIPS", "XQUAD"):
        monkeypatch.setenv(variable, "/nowhere")
    config, distributions = load_config(CONF / f"{name}.yaml"), packages_distributions()
    for stage in (*list_stages(config), "sweep"):
        definition = STAGES[stage]
        covered = set(definition.libraries(config)) | EXEMPT.get(stage, set())
        packages = {module.partition(".")[0] for module in list_imports(definition.code(config))}
        for package in packages - set(sys.stdlib_module_names) - {"hone", *plugin_folders()}:
            providers = {provider.lower().replace("_", "-") for provider in distributions.get(package, [package])}
            assert providers & covered, f"{stage} imports {package}, whose version is not in its key"


def test_an_optimizer_of_bitsandbytes_has_its_version_in_the_key() -> None:
    config = load_config(CONF / "demo.yaml", ["training.optimizer=adamw_8bit"])
    assert "bitsandbytes" in STAGES["train"].libraries(config)
