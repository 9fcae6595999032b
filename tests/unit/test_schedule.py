"""The order of tests and the groups that share a process, in a run of pytest with xdist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CONFTEST = f"""
import sys
import pytest
sys.path.insert(0, {str(ROOT)!r})
from tests import schedule

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    schedule.arrange(config, items)

@pytest.fixture(scope="session")
def service(): pass

@pytest.fixture(scope="session")
def workers(): pass

@pytest.fixture(scope="session")
def postgresql(): pass

@pytest.fixture(scope="module")
def made(): pass
"""
FILES = {
    "gpu/test_cuda.py": "def test_cuda(): pass",
    "unit/test_words.py": "def test_first(): pass\ndef test_second(): pass",
    "unit/test_sql.py": "def test_parsing(): pass\ndef test_reading(postgresql): pass",
    "unit/families/test_family.py": "def test_family(): pass",
    "faults/test_kills.py": "def test_kill(): pass",
    "browser/test_page.py": "def test_page(): pass",
    "pipeline/test_line.py": "def test_alone(): pass\ndef test_sharing(made): pass\ndef test_too(made): pass",
    "pipeline/test_pool.py": "def test_pool(workers): pass",
    "pipeline/test_up.py": "def test_up(service): pass\ndef test_database(service, postgresql): pass",
}


def names_in_order(folder: Path, *words: str) -> list[str]:
    """The tests as they ran in a process, each followed by @ and its group where it has one."""
    for name, content in {"conftest.py": CONFTEST, **FILES}.items():
        file = folder / "tests" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf8")
    command = [sys.executable, "-m", "pytest", "-v", "--import-mode=importlib", f"--rootdir={folder}", *words, "tests"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"tests/\S+::\S+", "\n".join(line for line in done.stdout.splitlines() if "PASSED" in line))


def test_servers_run_first_then_folders_by_length_and_groups_share_a_process(tmp_path: Path) -> None:
    words = ("--numprocesses=1", "--dist=loadgroup", "--no-loadscope-reorder")
    assert names_in_order(tmp_path, *words) == [
        "tests/pipeline/test_up.py::test_up@service",
        "tests/pipeline/test_up.py::test_database@service",
        "tests/pipeline/test_pool.py::test_pool@workers",
        "tests/unit/test_sql.py::test_reading@postgresql",
        # Those that share a fixture of their file before those that fill the last seconds of other processes.
        "tests/pipeline/test_line.py::test_sharing@tests/pipeline/test_line.py",
        "tests/pipeline/test_line.py::test_too@tests/pipeline/test_line.py",
        "tests/pipeline/test_line.py::test_alone",
        "tests/browser/test_page.py::test_page@tests/browser/test_page.py",
        "tests/faults/test_kills.py::test_kill@tests/faults/test_kills.py",
        "tests/unit/families/test_family.py::test_family@tests/unit/families/test_family.py",
        "tests/unit/test_sql.py::test_parsing@tests/unit/test_sql.py",
        "tests/unit/test_words.py::test_first@tests/unit/test_words.py",
        "tests/unit/test_words.py::test_second@tests/unit/test_words.py",
        "tests/gpu/test_cuda.py::test_cuda@tests/gpu/test_cuda.py",
    ]


def test_without_xdist_the_order_is_the_same(tmp_path: Path) -> None:
    names = names_in_order(tmp_path, "-pno:xdist")
    assert names[:4] == [
        "tests/pipeline/test_up.py::test_up",
        "tests/pipeline/test_up.py::test_database",
        "tests/pipeline/test_pool.py::test_pool",
        "tests/unit/test_sql.py::test_reading",
    ]
    assert names[-1] == "tests/gpu/test_cuda.py::test_cuda"
