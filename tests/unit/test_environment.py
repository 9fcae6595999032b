"""Who may read what Hone writes: the umask of its processes, and data folders of older releases."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.environment import Home, close_home, set_umask
from hone.errors import ConfigError


@pytest.fixture(autouse=True)
def kept_umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests' own umask comes back."""
    monkeypatch.delenv("HONE_UMASK", raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, str]:
    """The permissions of each file and folder in octal."""
    return {str(path.relative_to(root)): f"{stat.S_IMODE(path.stat().st_mode):o}" for path in (root, *root.rglob("*"))}


def open_home(root: Path) -> Home:
    """A data folder as older releases made it, with a link to a file elsewhere."""
    (root / "mlflow").mkdir(parents=True)
    (root / "mlflow/mlflow.db").write_text("")
    (root / "run.sh").write_text("")
    (root / "run.sh").chmod(0o755)
    (root.parent / "elsewhere").write_text("")
    (root / "link").symlink_to(root.parent / "elsewhere")
    return Home(root)


def test_an_open_data_folder_is_closed_once_and_this_is_reported(tmp_path: Path) -> None:
    home = open_home(tmp_path / "hone")
    assert (
        close_home(home)
        == f"{home.root}: was open to other users and is closed now. For a shared folder, set HONE_UMASK."
    )
    (home.root / "link").unlink()
    assert modes(home.root) == {".": "700", "mlflow": "700", "mlflow/mlflow.db": "600", "run.sh": "700"}
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o644
    assert close_home(home) == ""


def test_an_interrupted_call_is_continued(tmp_path: Path) -> None:
    home = open_home(tmp_path / "hone")
    (home.root / "mlflow").chmod(0o700)
    assert close_home(home)
    assert modes(home.root)["mlflow/mlflow.db"] == "600"


def test_a_shared_folder_stays_open_to_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_UMASK", "007")
    home = open_home(tmp_path / "hone")
    home.root.chmod(0o2770)
    assert close_home(home) == ""
    (home.root / "new").mkdir()
    assert modes(home.root)["new"].endswith("770")


@pytest.mark.parametrize("text", ["abc", "0o77", "088", "177", "777", "-1"])
def test_a_umask_that_is_none_or_denies_the_user_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_UMASK", text)
    with pytest.raises(ConfigError, match=r"HONE_UMASK: .* is not a umask"):
        set_umask()


def test_files_of_a_command_and_of_what_it_starts_are_private(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; from pathlib import Path; from hone_app.cli.main import main; main(['down']);"
        "subprocess.run([sys.executable, '-c', 'open(\"child\", \"w\")'], check=True); Path('folder').mkdir()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env={**os.environ, "HONE_HOME": "home"})
    assert modes(tmp_path) | {".": ""} == {".": "", "child": "600", "folder": "700"}
