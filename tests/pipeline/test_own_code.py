"""A base model that brings code of its own: refused, or trusted by name and revision, and then loudly."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.own_model import own_bert
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


@pytest.mark.parametrize(
    "method", [{"kind": "full"}, {"kind": "lora", "rank": 4, "merged": False}], ids=["full", "lora"]
)
def test_trusted_code_is_run_and_goes_along_with_the_version(
    method: dict[str, object], hone: Hone, conf: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    base = own_bert(tmp_path / "own", [*FILLING, *(word for group in WORDS.values() for word in group)])
    tree = yaml.safe_load(conf.read_text())
    tree["model"], tree["method"] = {"base": str(base)}, method
    conf.write_text(yaml.safe_dump(tree))

    refused = hone("run", conf)
    assert refused.returncode != 0
    told = re.sub(r"\s+", " ", refused.stderr + refused.stdout)
    assert "modeling_own.OwnForSequenceClassification" in told
    trusted = re.findall(r"model\.trust_code=(\S+@[0-9a-f]{64})", told)[0]
    assert trusted.startswith(f"{base}@")

    done = hone("run", conf, f"model.trust_code={trusted}", HF_MODULES_CACHE=str(tmp_path / "modules"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"hone: warning: the code of {trusted} is run" in done.stderr
    [registered] = Path(environment["HONE_HOME"], "store", "register").glob("*/report.html")
    assert f"runs the code of {trusted}" in registered.read_text()

    from mlflow import MlflowClient

    home = Path(environment["HONE_HOME"], "mlflow")
    uri = f"sqlite:///{home}/mlflow.db"
    assert MlflowClient(uri).get_model_version("small", "1").tags["hone.remote_code"] == trusted
    [card] = home.rglob("artifacts/model/README.md")
    assert f"**It runs code of its own**: the Python files of {trusted}" in card.read_text()

    # Another line of code is other code: nothing that came of the base is found again, and it is refused.
    (base / "modeling_own.py").write_text((base / "modeling_own.py").read_text() + "\nFLAG = 1\n")
    changed = hone("plan", conf, f"model.trust_code={trusted}")
    assert changed.returncode != 0
    assert "and not the trusted" in changed.stderr + changed.stdout

    if method["kind"] == "full":
        shutil.rmtree(base)
    else:
        (base / "modeling_own.py").unlink()
    asked = subprocess.run(
        [sys.executable, "-P", "-c", ASK, uri],
        capture_output=True,
        text=True,
        env=environment | {"HF_MODULES_CACHE": str(tmp_path / "elsewhere")},
    )
    assert asked.returncode == 0, asked.stderr
    answers, name = asked.stdout.strip().splitlines()[-2:]
    assert json.loads(answers)["label"] == ["weather", "sport"]
    assert name == "OwnForSequenceClassification"

    # Code that was changed in the version itself does not run.
    [code] = home.rglob("artifacts/model/modeling_own.py")
    text = code.read_text()
    code.unlink()  # it may be the very file of the store
    code.write_text(text + "\nFLAG = 1\n")
    again = subprocess.run([sys.executable, "-P", "-c", ASK, uri], capture_output=True, text=True, env=environment)
    assert again.returncode != 0
    assert "own-bert" in again.stderr or "trust_remote_code" in again.stderr
