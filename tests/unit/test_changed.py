"""Which test files `pytest --changed` chooses, in a tiny repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.changed import Project, changes

FILES = {
    "src/lib/__init__.py": "",
    "src/lib/parts/__init__.py": "from lib.parts.one import One\nfrom lib.parts.two import Two\nPARTS = [One, Two]\n",
    "src/lib/parts/one.py": "from lib.base import Base\n\n\nclass One(Base): ...\n",
    "src/lib/parts/two.py": "class Two: ...\n",
    "src/lib/base.py": "class Base: ...\n",
    "src/lib/page.py": "from pathlib import Path\n\nSTYLE = Path(__file__).with_name('page.css').read_text()\n",
    "src/lib/page.css": "body {}\n",
    "src/lib/command.py": "print('done')\n",
    "docs/guide.md": "A guide.\n",
    "tests/conftest.py": """
import pytest
from tests.start import start

@pytest.fixture
def started():
    return start()
""",
    "tests/start.py": "COMMAND = ['python', '-m', 'lib.command']\n\n\ndef start(): ...\n",
    "tests/test_one.py": "from lib.parts.one import One\n",
    "tests/test_parts.py": "from lib.parts import PARTS\n",
    "tests/test_page.py": "from lib import page\n",
    "tests/test_command.py": "def test_it(started): ...\n",
    "tests/test_script.py": "SCRIPT = 'import sys\\nfrom lib.parts.two import Two'\n",
    "tests/test_guide.py": "GUIDE = ROOT / 'docs' / 'guide.md'\n",
}
EVERY = {Path(name).stem for name in FILES if name.startswith("tests/test_")}


def git(root: Path, *words: str) -> None:
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *own, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The repository, on a branch beside main."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "switch", "-qc", "work")
    return tmp_path


def chosen(root: Path) -> set[str]:
    project, differing = Project(root), changes(root)
    return {file.stem for file in root.glob("tests/test_*.py") if differing & project.used_by_tests(file)}


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("src/lib/base.py", {"test_one", "test_parts"}),
        ("src/lib/parts/one.py", {"test_one", "test_parts"}),
        ("src/lib/parts/two.py", {"test_parts", "test_script"}),
        ("src/lib/parts/__init__.py", {"test_parts"}),  # the table of parts, which a part does not use
        ("src/lib/page.css", {"test_page"}),
        ("src/lib/command.py", {"test_command"}),
        ("tests/start.py", {"test_command"}),
        ("docs/guide.md", {"test_guide"}),
        ("tests/test_one.py", {"test_one"}),
        ("tests/conftest.py", EVERY),
    ],
)
def test_a_change_chooses_the_files_that_use_what_changed(file: str, tests: set[str], root: Path) -> None:
    assert chosen(root) == set()
    (root / file).write_text(FILES[file] + "\n")
    assert chosen(root) == tests
    git(root, "commit", "-qam", "second")
    assert chosen(root) == tests


def test_a_new_file_is_a_change(root: Path) -> None:
    (root / "tests" / "test_new.py").write_text("")
    assert chosen(root) == {"test_new"}


def test_what_changed_on_main_meanwhile_is_none(root: Path) -> None:
    git(root, "switch", "-q", "main")
    (root / "src/lib/base.py").write_text("class Base: pass\n")
    git(root, "commit", "-qam", "theirs")
    git(root, "switch", "-q", "work")
    assert chosen(root) == set()


def test_without_a_branch_main_it_says_so(root: Path) -> None:
    git(root, "branch", "-qD", "main")
    with pytest.raises(pytest.UsageError, match=r"git diff --name-only main\.\.\."):
        changes(root)
