"""Completion in the shells themselves: commands, options, and configurations of the working directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hone_app.cli.main import main

# Prints what the last of the words after the script is completed to.
ASK = {
    "bash": 'eval "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_hone; echo "${COMPREPLY[*]}"',
    "fish": 'eval "$argv[1]"; complete -C "$argv[2..]" | string replace -r "\\t.*" ""',
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "hone"))
    (tmp_path / "conf").mkdir()
    for name in ("topics.yaml", "tickets.yaml", "notes.txt"):
        (tmp_path / "conf" / name).touch()
    (tmp_path / "tables.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("shell", list(ASK))
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("hone roll", {"rollback"}),
        ("hone up --no", {"--no-auth", "--no-notifications"}),
        ("hone run to", {"topics"}),
        ("hone run t", {"topics", "tickets", "tables.yaml"}),
        ("hone rows topics ti", {"tickets"}),
        ("hone up --project co", {"conf"}),
        ("hone completion z", {"zsh"}),
    ],
)
def test_words_are_completed(
    shell: str, words: str, completions: set[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert not (project / "hone").exists()  # no look at the service
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    command = ["bash", "--norc", "-c", ASK["bash"], "bash", script, *words.split()]
    if shell == "fish":
        command = ["fish", "--no-config", "-c", ASK["fish"], script, words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {line.rstrip("/") for line in done.stdout.split()} == completions, done.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_defines_the_completion(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it offers, zsh computes in a terminal only."""
    assert main(["completion", "zsh"]) == 0
    ask = 'autoload -U compinit; compinit -D; eval "$1"; echo $_comps[hone]; _files() {}; compadd() { echo $names; }'
    command = ["zsh", "-f", "-c", f"{ask}; _hone_configurations", "zsh", capsys.readouterr().out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("_shtab_hone\ntickets topics\n", "")


def test_no_other_command_imports_the_generator() -> None:
    code = "import sys; from hone_app.cli.main import main; print(main([]), 'shtab' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
