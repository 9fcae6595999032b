"""The terminal of docs/morning.md: its commands are typed in a terminal of 80 columns, in the order of the page.

    python tests/morning_page.py      writes what they print into the page

In a `console` block, a line after `$` is a command, lines after `>` continue it, and the rest is what it printed.
What the page answers to a question is typed again. tests/pipeline/test_morning.py compares the two.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.terminal import type_command

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "morning.md"
MESSAGES = "datasets/sms_spam/sms.tsv"  # in the folder of real data sets
USER, HOME, PROJECT = "ada", "/home/ada", "/home/ada/hone"

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (.*(?:\n> .*)*)", re.MULTILINE)
_ANSWER = re.compile(r"\? (?:\[y/N\] )?(.+)$", re.MULTILINE)

Typed = Callable[[str, list[str]], str]


def type_page(page: str, type_one: Typed) -> str:
    """The page with the output of its commands, each typed by `type_one(command, answers)`."""

    def type_block(match: re.Match[str]) -> str:
        return "".join(
            f"$ {command}\n{_end_line(type_one(*_parse(command, output)))}"
            for command, output in _list_commands(match[0])
        )

    return _BLOCK.sub(type_block, page)


def list_blocks(page: str) -> list[str]:
    """The page's blocks of commands and what they print."""
    return _BLOCK.findall(page)


def _list_commands(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a block and what it printed."""
    _, *parts = _COMMAND.split(block)
    yield from zip(parts[::2], parts[1::2], strict=True)


def _parse(command: str, output: str) -> tuple[str, list[str]]:
    """What the shell runs, and the answers to its questions."""
    return command.replace("\n> ", "\n"), _ANSWER.findall(output)


def _end_line(output: str) -> str:
    return f"{output}\n" if output else ""


def make_project(folder: Path, shared: Path) -> None:
    """A clone of the project as far as the page needs it, and the messages that it trains on and predicts."""
    for name in ("conf", "deployments"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "data").mkdir()
    with (shared / MESSAGES).open(encoding="utf8", newline="") as file:
        messages = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        _write_rows(folder / "data/sms.csv", ["kind", "body"], islice(messages, 900))
        _write_rows(folder / "data/new.csv", ["body"], (row[1:] for row in islice(messages, 300)))


def _write_rows(path: Path, columns: list[str], rows: Iterator[list[str]]) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def type_morning(page: str, place: Path, shared: Path) -> str:
    """The page as it is typed in an empty folder: a home without anything of Hone, and a clone in it."""
    project = place / "hone"
    make_project(project, shared)
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("HONE_", "MLFLOW_", "PREFECT_")) and k != "COLUMNS"
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = kept | {"HOME": str(place), "PATH": path, "USER": USER, "LOGNAME": USER}

    def type_one(command: str, answers: list[str]) -> str:
        output, _ = type_command(command, environment, project, answers)
        return output.replace(str(project), PROJECT).replace(str(place), HOME)

    try:
        return type_page(page, type_one)
    finally:
        type_command("hone down", environment, project)


@contextmanager
def make_home() -> Iterator[Path]:
    """An empty folder with a short name: the paths of a longer one are wrapped where the page's are not."""
    with tempfile.TemporaryDirectory(prefix="", ignore_cleanup_errors=True) as place:
        yield Path(place)


if __name__ == "__main__":
    with make_home() as home:
        shared = Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
        PAGE.write_text(type_morning(PAGE.read_text("utf8"), home, shared), "utf8")
