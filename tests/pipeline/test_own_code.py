"""A base model that brings code of its own: refused, or trusted by name and revision, and then loudly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hone.models import own_code
from tests import preloaded
from tests.own_model import MODELING, own_bert
from tests.small_line import FILLING, WORDS

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

# Neither hone nor the base model is there: the version brings the code.
ASK = """
import sys
sys.modules["hone"] = None
import json, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/small/1")
print(json.dumps(model.predict(["rain sun cloud storm", "goal match team race"]).to_dict("list")))
print(type(model.unwrap_python_model().model).__name__)
"""


@pytest.fixture
def base(conf: Path, tmp_path: Path) -> Path:
    """The base model of the configuration, which brings its own code."""
    made = own_bert(tmp_path / "own", [*FILLING, *(word for group in WORDS.values() for word in group)])
    tree = yaml.safe_load(conf.read_text())
    tree["model"] = {"base": str(made)}
    conf.write_text(yaml.safe_dump(tree))
    return made


def ask(environment: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """What the version answers, or why it does not."""
    uri = f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db"
    command = [preloaded.python(), "-P", "-c", ASK, uri]
    return subprocess.run(command, capture_output=True, text=True, env=environment | more, check=False)


def test_trusted_code_is_run_and_goes_along_with_the_version(
    base: Path, hone: Hone, conf: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    refused = hone("run", conf)
    assert refused.returncode != 0
    told = re.sub(r"\s+", " ", refused.stderr + refused.stdout)
    assert "modeling_own.OwnForSequenceClassification" in told
    trusted = re.findall(r"model\.trust_code=(\S+@[0-9a-f]{64})", told)[0]
    assert trusted == f"{base}@{own_code.compute_digest(base)}"

    done = hone("run", conf, f"model.trust_code={trusted}", HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"hone: warning: the code of {trusted} runs" in done.stderr
    [report] = Path(environment["HONE_HOME"], "store", "register").glob("*/report.html")
    assert f"runs the code of {trusted}" in report.read_text()
    from mlflow import MlflowClient

    home = Path(environment["HONE_HOME"], "mlflow")
    version = MlflowClient(f"sqlite:///{home}/mlflow.db").get_model_version("small", "1")
    assert version.tags["hone.remote_code"] == trusted
    [card] = home.rglob("artifacts/model/README.md")
    assert f"**It runs its own code**: the Python files of {trusted}" in card.read_text()

    # Another line of code is other code.
    (base / "modeling_own.py").write_text(MODELING + "\nFLAG = 1\n")
    changed = hone("plan", conf, f"model.trust_code={trusted}")
    assert changed.returncode != 0
    assert "it is not run" in changed.stderr

    shutil.rmtree(base)
    asked = ask(environment, HF_MODULES_CACHE=str(tmp_path / "elsewhere"))
    assert asked.returncode == 0, asked.stderr
    answers, name = asked.stdout.strip().splitlines()[-2:]
    assert json.loads(answers)["label"] == ["weather", "sport"]
    assert name == "OwnForSequenceClassification"

    # Code that was changed in the version itself does not run.
    [code] = home.rglob("artifacts/model/modeling_own.py")
    code.unlink()  # it may be the very file of the store
    code.write_text(MODELING + "\nFLAG = 1\n")
    again = ask(environment)
    assert again.returncode != 0
    assert "is not the model that was registered: artifacts/model/modeling_own.py was changed" in again.stderr


def test_an_adapter_brings_the_code_of_its_base(
    base: Path, hone: Hone, conf: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    trusted = f"model.trust_code={base}@{own_code.compute_digest(base)}"
    done = hone("run", conf, trusted, "method={kind: lora, rank: 4, merged: false}")
    assert done.returncode == 0, done.stdout + done.stderr
    (base / "modeling_own.py").unlink()
    asked = ask(environment, HF_MODULES_CACHE=str(tmp_path / "elsewhere"))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip().endswith("OwnForSequenceClassification")
