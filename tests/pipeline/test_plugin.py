"""An objective in a package of its own, as docs/add-an-objective.md has it, goes the whole line."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests import preloaded

Hone = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "add-an-objective.md"
WORDS = "the a today we saw again there was some more of it in town with our own old friends".split()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as pip leaves it: the page's package, installed."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf8"), re.DOTALL)
    [toml] = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf8"), re.DOTALL)
    group, entry = re.findall(r'entry-points\."(.*?)"\]\n(.*?)\n', toml)[0]
    site = tmp_path / "site"
    for name, text in {
        "acme_text/__init__.py": "",
        "acme_text/pairs.py": code,
        "acme_text-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-text\nVersion: 1.0\n",
        "acme_text-1.0.dist-info/entry_points.txt": f"[{group}]\n{entry.replace(chr(34), '')}\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return site


@pytest.fixture
def pairs(conf: Path, tmp_path: Path) -> Path:
    """Two texts that share their last word, or do not."""
    draw = random.Random(1)
    lines = ["first,second,label"]
    for i in range(240):
        first, second = (draw.choices(WORDS, k=7) for _ in range(2))
        second[-1] = first[-1] if i % 2 else next(word for word in WORDS if word != first[-1])
        lines.append(f"{' '.join(first)},{' '.join(second)},{'same' if i % 2 else 'other'}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    tree = yaml.safe_load(conf.read_text())
    tree |= {"name": "pairs", "objective": {"kind": "pair-classification"}}
    tree["ingest"] = {"source": {"kind": "files", "paths": [str(tmp_path / "pairs.csv")]}}
    tree["training"]["epochs"] = 1
    path = tmp_path / "pairs.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_an_objective_of_another_package_goes_the_whole_line_and_answers_without_it(
    hone: Hone, pairs: Path, site: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    unknown = hone("plan", pairs)
    assert unknown.returncode == 2
    assert "no such choice as pair-classification" in unknown.stderr

    done = hone("run", pairs, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pairs version 1" in done.stdout

    # Its source decides what is a hit.
    code = site / "acme_text" / "pairs.py"
    code.write_text(code.read_text().replace("encode_texts(tokenizer, pairs", "encode_texts(tokenizer, pairs[:]"))
    assert "acme_text/pairs.py changed" in hone("plan", pairs, PYTHONPATH=str(site)).stdout

    # The registered model answers where neither the package nor hone can be imported.
    ask = (
        "import sys, json; sys.modules['hone'] = sys.modules['acme_text'] = None\n"
        "import mlflow, pandas as pd\n"
        "frame = pd.DataFrame({'first': ['we saw it'], 'second': ['saw it again']})\n"
        "print(mlflow.pyfunc.load_model('models:/pairs/1').predict(frame).to_json(orient='records'))\n"
    )
    uri = f"sqlite:///{environment['HONE_HOME']}/mlflow/mlflow.db"
    told = subprocess.run(
        [preloaded.python(), "-c", ask], capture_output=True, text=True, env=environment | {"MLFLOW_TRACKING_URI": uri}
    )
    assert told.returncode == 0, told.stderr
    [answer] = json.loads(told.stdout.splitlines()[-1])
    assert answer["label"] in ("same", "other")
    assert 0.5 <= answer["score"] <= 1


def test_a_package_that_cannot_be_imported_is_named(hone: Hone, conf: Path, site: Path) -> None:
    (site / "acme_text" / "pairs.py").write_text("import no_such_library\n")
    told = hone("plan", conf, PYTHONPATH=str(site))
    assert told.returncode == 2
    assert "acme-text" in told.stderr
    assert "no_such_library" in told.stderr
    assert "Traceback" not in told.stderr
