"""What decides a stage's output: digests of code, versions of libraries, and the reasons for a cache miss."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hone.parts.plugins import plugin_folders
from hone.store.digests import digest_of

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Recipe:
    """All that decides a stage's output; `key` is its digest."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    versions: dict[str, str]

    @property
    def key(self) -> str:
        """20 hexadecimal digits of the SHA-256 over the canonical JSON of the recipe."""
        return digest_of(asdict(self))[:20]


def code_digests(modules: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Digests of the hone modules named and of all they import, by path (`src/hone/curation/dedup/near.py`).

    Comments, docstrings and layout do not count: the digest is over the syntax tree. Tables of parts
    (`__init__.py`) are not followed, so that a new part leaves the keys of runs that do not use it alone.
    `files` are further files of the package (templates), taken by their bytes.
    """
    found = {_shown(path): _read(path)[0] for path in _used(modules)}
    for name in files:
        found[_shown(PACKAGE / name)] = hashlib.sha256((PACKAGE / name).read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def sources(modules: Iterable[str]) -> dict[str, str]:
    """The source of the modules named and of all they import, by package and path (`hone/curation/near.py`)."""
    return {_in_package(path): path.read_text("utf8") for path in sorted(_used(modules))}


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The installed versions of `distributions`, and Python's; 'absent' for one that is not installed."""
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}"} | {
        name: _version(name) for name in sorted(set(distributions))
    }


def reasons(recipe: Recipe, before: Recipe | None) -> list[str]:
    """Why `recipe` is another than `before`, a line each, in the user's terms; never empty."""
    if before is None:
        return ["no earlier result"]
    config = json.loads(json.dumps(recipe.config))  # as a manifest keeps it: without tuples
    lines = [f"{path} {_brief(old)} -> {_brief(new)}" for path, old, new in _changes(before.config, config)]
    lines += [f"input {name} changed" for name, _, _ in _changes(before.inputs, recipe.inputs)]
    lines += _code_reasons(recipe, before)
    lines += [f"{name} {old} -> {new}" for name, old, new in _changes(before.versions, recipe.versions)]
    return lines or ["its directory in the store is gone or damaged"]


def _code_reasons(recipe: Recipe, before: Recipe) -> list[str]:
    """A line for each module that changed; one line for all where most of them lie elsewhere than before."""
    changes = list(_changes(before.code, recipe.code))
    gone = [path for path, _, new in changes if new is None]
    if len(gone) > len(before.code) / 2:
        return [
            f"the code of {recipe.stage} was moved: {len(gone)} of its {len(before.code)} modules lie elsewhere now"
        ]
    return [
        f"{path} {'changed' if old and new else 'is new' if new else 'is no longer used'}" for path, old, new in changes
    ]


def nearest(recipe: Recipe, manifests: Iterable[Mapping[str, Any]], name: str) -> Recipe | None:
    """The recipe to compare with: the newest that was made under `name`, else the most alike."""
    recipes = [(manifest["name"], Recipe(**manifest["recipe"])) for manifest in manifests]
    for made_by, before in recipes:
        if made_by == name:
            return before
    return min((r for _, r in recipes), key=lambda r: len(reasons(recipe, r)), default=None)


def _changes(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two trees of plain values differ: (dotted path, before, after), None where absent."""
    before, after = _named(before), _named(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield path, before, after


def _named(value: Any) -> Any:
    """A list of parts as a mapping by their kind, so that a change is told by name and not by position."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "kind" in item for item in value):
        kinds = [item["kind"] for item in value]
        if len(set(kinds)) == len(kinds):
            return {"order": kinds} | {item["kind"]: item for item in value}
    return value


def _brief(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _module_file(module: str) -> Path | None:
    """The source of a module of hone, or of a package that brings parts.

    None for any other, and for packages, whose `__init__.py` holds nothing but a table.
    """
    top, *inside = module.split(".")
    home = _homes().get(top)
    if home is None or home.suffix == ".py":
        return home
    path = home.joinpath(*inside).with_suffix(".py")
    return path if inside and path.is_file() else None


def _homes() -> dict[str, Path]:
    return {"hone": PACKAGE, **plugin_folders()}


def _in_package(path: Path) -> str:
    """A module's path with its package's name in front: `hone/curation/near.py`."""
    for name, home in _homes().items():
        if path == home:
            return path.name
        if path.is_relative_to(home):
            return f"{name}/{path.relative_to(home)}"
    raise ValueError(f"{path} is in no package that brings parts")


def _used(modules: Iterable[str]) -> set[Path]:
    """The files of the modules and of all they import."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = _module_file(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting.extend(_read(path)[1])
    return found


def _shown(path: Path) -> str:
    return f"src/{_in_package(path)}" if path.is_relative_to(PACKAGE) else _in_package(path)


@lru_cache(maxsize=256)
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of a module's syntax tree, and the names of the modules that it may import."""
    tree = ast.parse(path.read_bytes())
    imports = tuple(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]


def _imports(tree: ast.AST) -> Iterator[str]:
    """Names that `tree` imports, both a and a.b for `from a import b`; not those for type checkers alone."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))
