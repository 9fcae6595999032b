"""The figures of the source code, on a small tree where each can be counted by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "measures.py"

READING = '''\
"""Reads rows."""

# A comment of the module.
LIMIT = 3


def read(path, given):
    """Read a file.

    Its docstring has three lines.
    """
    # A comment of its own line.
    rows = [
        path,  # a comment beside code
        given,
    ]

    def first():
        """The first."""
        return rows[0]

    return first()
'''
WRITING = '''\
class Writer:
    """Writes rows."""

    async def write(self, rows):
        text = """# no comment
        # none either"""
        return text


def keep(): ...
'''


def measure(*folders: Path) -> list[str]:
    done = subprocess.run([sys.executable, SCRIPT, *folders], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_modules_functions_comments_and_names_are_counted(tmp_path: Path) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "deep" / "reading.py").write_text(READING, "utf8")  # 22 lines; functions of 7 and 1
    (tmp_path / "two" / "writing.py").write_text(WRITING, "utf8")  # 10 lines; functions of 3 and 1
    (tmp_path / "two" / "notes.txt").write_text("# no module\n" * 50, "utf8")
    assert measure(tmp_path / "one", tmp_path / "two") == [
        "modules            2",
        "module lengths     median 16, p95 22, max 22",
        "functions          4",
        "function lengths   median 2, p95 7, max 7",
        "comments           9.4 per 100 lines",  # 3 in 32
        "vague local names  16.7% of 6",  # `given` among path, given, rows; self, rows, text
    ]


def test_p95_leaves_a_twentieth_above_it(tmp_path: Path) -> None:
    for lines in range(1, 21):
        (tmp_path / f"m{lines}.py").write_text("x = 1\n" * lines, "utf8")
    assert measure(tmp_path)[1:4] == [
        "module lengths     median 10.5, p95 19, max 20",
        "functions          0",
        "function lengths   none",
    ]
