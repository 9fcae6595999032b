"""`pytest --changed`: only the test files that a change could matter to.

A file is chosen where it, or anything that it uses, differs from the branch main: what it imports, and what that
imports in turn; modules and files that a string names; and of a conftest.py the fixtures that it uses.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import pytest

BASE = "main"


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of files that no change matters to."""
    project = Project(config.rootpath)
    differing = changes(config.rootpath)
    verdicts = {path: bool(differing & project.used_by_tests(path)) for path in {item.path for item in items}}
    left_out = [item for item in items if not verdicts[item.path]]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if verdicts[item.path]]


def changes(root: Path, base: str = BASE) -> set[Path]:
    """The files that differ from where this branch left `base`, committed or not, and those that git does not know."""
    found: set[Path] = set()
    for words in (
        ("diff", "--name-only", f"{base}..."),
        ("diff", "--name-only", "HEAD"),
        ("ls-files", "-o", "--exclude-standard"),
    ):
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise pytest.UsageError(f"--changed: git {' '.join(words)}: {done.stderr.strip()}")
        found |= {root / name for name in done.stdout.splitlines()}
    return found


@dataclass
class Unit:
    """A file, or a function of one: modules that it imports, modules and files that its strings name, and its names."""

    modules: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


@dataclass
class Project:
    """The Python files below `root`, in src/ and in the folders beside it."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        """The file of each module, packages included."""
        places = [path.parent for path in self.root.glob("src/*/__init__.py")]
        places += [path for path in self.root.iterdir() if path.name != "src" and next(path.glob("*.py"), None)]
        found = {}
        for place in places:
            for file in place.rglob("*.py"):
                parts = file.relative_to(place.parent).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
        return found

    def used_by_tests(self, path: Path) -> set[Path]:
        """All files that the tests of a file use, itself among them."""
        found = self.used([path])
        names = {name for file in found for name in unit_of(tree_of(file)).names if file.is_relative_to(path.parent)}
        for folder in path.parents:
            conftest = folder / "conftest.py"
            if folder.is_relative_to(self.root) and conftest.is_file():
                found.add(conftest)
                unit, names = fixtures(tree_of(conftest), names | unit_of(tree_of(path)).names)
                found |= self.used(self.direct(conftest, unit))
        return found

    def used(self, files: Iterable[Path]) -> set[Path]:
        """The files and all that they use."""
        found: set[Path] = set()
        waiting = list(files)
        while waiting:
            if (path := waiting.pop()) not in found:
                found.add(path)
                if path.suffix == ".py":
                    waiting.extend(self.direct(path, unit_of(tree_of(path))))
        return found

    def direct(self, path: Path, unit: Unit) -> Iterator[Path]:
        """What a part of the file `path` uses by itself."""
        for name in unit.modules:
            if file := self.modules.get(name) or self.modules.get(name.rpartition(".")[0]):
                yield file
        for name in unit.named:
            if (file := self.modules.get(name)) and file.name != "__init__.py":  # those are groups of entry points
                yield file
        for text in unit.texts:
            for place in (path.parent / text, self.root / text):
                if place.is_file():
                    yield place
                elif place.is_dir() and place.parent == self.root and not next(place.rglob("*.py"), None):
                    yield from (file for file in place.rglob("*") if file.is_file())


@lru_cache(maxsize=1000)
def tree_of(path: Path) -> ast.Module:
    """The file's syntax tree; an empty one where it is no Python."""
    return ast.parse(path.read_bytes()) if path.suffix == ".py" else ast.Module([], [])


# In the scripts that tests start, too.
IMPORTED = re.compile(r"\b(?:from|import) ([a-z_]+(?:\.[a-z_0-9]+)+)")
NAMED = re.compile(r"\b[a-z_]+(?:\.[a-z_0-9]+)+\b")


@lru_cache(maxsize=10_000)
def unit_of(tree: ast.AST) -> Unit:
    """What a part of a file uses."""
    unit, waiting = Unit(), [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.Import):
            unit.modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            unit.modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            unit.named |= set(NAMED.findall(node.value))
            unit.modules |= set(IMPORTED.findall(node.value))
            unit.texts |= {node.value} if re.fullmatch(r"[\w./-]{2,100}", node.value) else set()
        elif isinstance(node, ast.Name):
            unit.names.add(node.id)
        elif isinstance(node, ast.arg):
            unit.names.add(node.arg)
        waiting.extend(ast.iter_child_nodes(node))
    return unit


def fixtures(tree: ast.Module, names: set[str]) -> tuple[Unit, set[str]]:
    """What those parts of a conftest.py use that have one of the names or are `autouse`; all names that they use."""
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imports: dict[str, ast.Import | ast.ImportFrom] = {}
    assigned: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
        elif isinstance(node, ast.Assign):
            assigned |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    automatic = {
        name for name, node in defined.items() if "autouse=True" in "".join(map(ast.unparse, node.decorator_list))
    }
    parts, whole, waiting = defined | assigned, Unit(), [*names, *automatic]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in filter(None, (parts.get(name), imports.get(name) if name not in names else None)):
            unit = unit_of(node)
            whole.modules |= unit.modules
            whole.named |= unit.named
            whole.texts |= unit.texts
            waiting += unit.names
    return whole, seen
