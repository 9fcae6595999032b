"""The check of the words in texts that users read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "prose.py"


def check(folder: Path, source: str) -> tuple[int, list[str]]:
    """The exit status and the lines printed for a folder with one module."""
    (folder / "part.py").write_text(source, "utf8")
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, [line.removeprefix(f"{folder}/") for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("The least rows of a class.", "The least"),
        ("The most tokens of a row.", "The most tokens"),
        ("How rows are parted.", "parted"),
        ("Mend the file.", "Mend"),
        ("Metrics are told apart.", "told"),
        ("The config says no kind.", "says"),
        ("It hears of each step.", "hears"),
        ("A key stands twice.", "stands"),
        ("Shows what came of it.", "what came of"),
        ("Stop whoever uses it.", "whoever"),
        ("Waits for so many seconds.", "so many"),
        ("The model is not to be had.", "to be had"),
        ("The plan is unsure.", "unsure"),
    ],
)
def test_each_kind_of_word_is_found_with_its_place(tmp_path: Path, text: str, word: str) -> None:
    status, lines = check(tmp_path, f"x = 1\nrows = option(1, {text!r}, ge=1)\n")
    assert status == 1
    assert [line.partition(" -> ")[0] for line in lines] == [f"part.py:2: {word}"]
    assert lines[0].partition(" -> ")[2]


@pytest.mark.parametrize(
    "source",
    [
        "Field(0, description='Mend it.')",
        "parser.add_argument('--rows', help='Mend it.')",
        "argparse.ArgumentParser(description='Mend it.')",
        "raise DataError('Mend it.')",
        "raise ValidationFailed('bad', where='mend', fix='')",
        "error = HoneError('bad', fix=f'Mend {name}.')",
        "raise StoreError('bad' + ('; mend it' if near else ''))",
        "fix = 'Mend it.'",
    ],
)
def test_every_place_where_a_user_reads_text_is_looked_at(tmp_path: Path, source: str) -> None:
    status, lines = check(tmp_path, source)
    assert (status, len(lines)) == (1, 1)


@pytest.mark.parametrize(
    "source",
    [
        "option(1, 'The most recent rows, at least 5; * stands for any text.')",
        "raise ServiceError('the server says: no')",
        "raise DataError('there are so many long rows that none is left')",
        "raise ValueError('mend')",
        "note = 'Mend it.'",
        "option(told, f'{says} rows')",
    ],
)
def test_good_english_and_other_strings_pass(tmp_path: Path, source: str) -> None:
    assert check(tmp_path, source) == (0, [])


def test_names_that_say_nothing_are_found(tmp_path: Path) -> None:
    source = "at = 1\ndef read(said):\n    found = [one for one in said]\n    rows = found\n    return rows\n"
    status, lines = check(tmp_path, source)
    assert status == 1
    assert [line.split(": ", 1) for line in lines] == [
        ["part.py:2", "said -> what it holds"],
        ["part.py:3", "found -> what it holds"],
        ["part.py:3", "one -> what it holds"],
    ]
