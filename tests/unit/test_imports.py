"""What the processes that a run starts do not import: each package here costs up to seconds of processor time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_bases import tiny_bert
from tests.tiny_training import specification, write_tokens

ROOT = Path(__file__).parents[2]
LIBRARIES = {
    "torch",
    "transformers",
    "peft",
    "mlflow",
    "great_expectations",
    "pandas",
    "pyarrow",
    "datasets",
    "sklearn",
}
# Servers, tracking, validation and statistics: nothing that a training computes with.
NOT_IN_TRAINING = {
    *("prefect", "mlflow", "great_expectations", "datasets", "pandas", "sklearn", "scipy", "bitsandbytes", "requests"),
    *("sqlalchemy", "pydantic", "rich", "matplotlib", "nltk", "trl"),
}

# Runs the code and writes the packages that it imported, as its last line.
REPORT = "import sys, json; exec(sys.argv.pop(1)); print(); print(json.dumps(sorted({*sys.modules})))"


def imported(code: str, *words: str) -> set[str]:
    """The packages that a process has imported after `code`."""
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "MLFLOW_TRACKING_URI": ""}
    done = subprocess.run([sys.executable, "-P", "-c", REPORT, code, *words], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "module",
    [
        "hone_app.cli.main",  # what `hone plan` and the start of each command wait for
        "hone_app.service.servers",  # the guard of a server, as long as that runs
        "tasks.runtime.slot_guard",  # the guard of a GPU slot, as long as a training runs
        "hone.training.launch",
    ],
)
def test_a_process_that_waits_imports_no_library(module: str) -> None:
    assert not imported(f"import {module}") & {*LIBRARIES, "prefect", "sqlalchemy", "numpy"}


def test_the_flow_is_there_before_what_its_stages_compute_with() -> None:
    assert not imported("import flows.finetune") & LIBRARIES


TRAINING = """
import os
from hone.training.loop import main
reading, writing = os.pipe()
assert main(sys.argv[1], str(writing)) == 0
"""


@pytest.mark.slow
def test_a_training_imports_what_it_computes_with(tmp_path: Path) -> None:
    base = tiny_bert(tmp_path / "base")
    tokens = write_tokens(tmp_path / "tokens", base, train=8, valid=4)
    spec = specification(tokens, tmp_path / "out", base, method=("lora", {}), max_steps=1, precision="fp32")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    packages = imported(TRAINING, str(tmp_path / "spec.json"))
    assert packages >= {"torch", "transformers", "peft", "pyarrow"}
    assert not packages & NOT_IN_TRAINING


# A part of another package, as an entry point offers it: by its module it is not Hone's.
FOREIGN = """
from hone.objectives import OBJECTIVES
from hone.objectives.text_classification import TextClassification
class Own(TextClassification): pass
Own.__module__ = "acme_text"
OBJECTIVES.built_in["text-classification"] = Own
from hone.training.libraries import import_libraries
import_libraries({"objective": ("text-classification", {}), "method": ("full", {})})
import pyarrow
assert pyarrow.table({"a": [1]}).to_pandas()["a"][0] == 1
"""


def test_a_part_of_another_package_has_pandas_at_hand() -> None:
    assert "pandas" in imported(FOREIGN)


def test_what_looked_absent_can_be_imported_afterwards() -> None:
    code = """
from hone.training.libraries import hide_packages
import importlib.util
with hide_packages(["scipy"]):
    assert importlib.util.find_spec("scipy") is None
    try:
        import scipy
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError
import scipy
"""
    assert "scipy" in imported(code)
