"""What the image and the repository do not take along: passwords, databases, data folders."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[3]
SECRET = (
    "deployments/compose.env",
    "deployments/.env",
    "deployments/production.env",
    "conf/.env.local",
    "src/hone/prefect.db",
    "examples/mlflow.sqlite",
    "examples/mlflow.sqlite-wal",
    "conf/.hone/service/secrets.json",
    "conf/.hone/store/rows.parquet",
    "deployments/tls.key",
    "deployments/kubernetes/tls.pem",
)


def list_copied(root: Path) -> set[str]:
    """The files that `COPY` puts into an image of this folder, as Docker reads .dockerignore."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in patterns if line and not line.startswith("#")]
    sent = {path for path in exclude_paths(str(root), patterns) if (root / path).is_file()}
    lines = (ROOT / "deployments" / "Dockerfile").read_text().splitlines()
    sources = [source for line in lines if line.startswith("COPY ") for source in shlex.split(line)[1:-1]]
    return {path for path in sent if any(path == source or path.startswith(f"{source}/") for source in sources)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Every file of the repository, empty, and those that a person has beside them."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in (*tracked, *SECRET):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_the_image_has_the_code_and_no_secrets(checkout: Path) -> None:
    copied = list_copied(checkout)
    assert not copied & set(SECRET)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = ("src/", "tasks/", "flows/", "conf/", "deployments/", "examples/")
    assert {name for name in tracked if name.startswith(folders)} <= copied
    assert {"pyproject.toml", "constraints.txt", ".ci/install.py", "README.md"} <= copied


@pytest.mark.parametrize("name", SECRET)
def test_git_does_not_take_them(name: str) -> None:
    assert subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=ROOT).returncode == 0
