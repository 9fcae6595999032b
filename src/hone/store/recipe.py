"""Recipe, everything that decides a stage's output: configuration, inputs, code, libraries; and reasons for a miss."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hone.parts.plugins import plugin_folders
from hone.store.digests import digest_of

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a stage's output; `key` is its digest."""

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    versions: dict[str, str]

    @cached_property
    def key(self) -> str:
        """20 hexadecimal digits of the SHA-256 over the canonical JSON of the recipe."""
        return digest_of(asdict(self))[:20]


def code_digests(modules: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """Digests of the named hone modules and all modules they import, by path (`src/hone/curation/dedup/near.py`).

    The digest covers the syntax tree, so comments, docstrings and formatting do not matter. Tables of parts
    (`__init__.py`) are not followed, so that a new part does not change the keys of runs that do not use it.
    `files` are further files of the package (templates), digested by their bytes.
    """
    digests = {_key_path(path): _parse(path)[0] for path in _list_files(modules)}
    for name in files:
        digests[_key_path(PACKAGE / name)] = hashlib.sha256((PACKAGE / name).read_bytes()).hexdigest()
    return dict(sorted(digests.items()))


def read_sources(modules: Iterable[str]) -> dict[str, str]:
    """The source of the named modules and all modules they import, by package and path (`hone/curation/near.py`)."""
    return {_in_package(path): path.read_text("utf8") for path in sorted(_list_files(modules))}


def list_imports(modules: Iterable[str]) -> set[str]:
    """The names of all modules that the named hone modules import, directly or through each other."""
    return {name for path in _list_files(modules) for name in _parse(path)[1]}


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """The installed versions of `distributions`, and Python's; 'absent' if one is not installed."""
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}"} | {
        name: _version(name) for name in sorted(set(distributions))
    }


def list_reasons(recipe: Recipe, previous: Recipe | None) -> list[str]:
    """The differences between `recipe` and `previous`, one line each, in the user's terms; never empty."""
    if previous is None:
        return ["no earlier result"]
    config = json.loads(json.dumps(recipe.config))  # as in a manifest: tuples become lists
    lines = _config_reasons(previous.config, config)
    lines += [f"input {name} changed" for name, _, _ in _changes(previous.inputs, recipe.inputs)]
    lines += _code_reasons(recipe, previous)
    lines += [f"{name} {old} -> {new}" for name, old, new in _changes(previous.versions, recipe.versions)]
    return lines or ["its directory in the store is gone or damaged"]


def _config_reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each changed option; a single line for the empty ones that an earlier release did not have."""
    changes = list(_changes(before, after))
    new_options = [path for path, old, new in changes if old is None and new in ("", {}, [])]
    lines = [f"{path} {_brief(old)} -> {_brief(new)}" for path, old, new in changes if path not in new_options]
    return [*lines, *([f"new options: {', '.join(new_options)}"] if new_options else [])]


def _code_reasons(recipe: Recipe, previous: Recipe) -> list[str]:
    """A line for each changed module; a single line if more than half of them moved, or the list would be useless."""
    changes = list(_changes(previous.code, recipe.code))
    removed = [path for path, _, new in changes if new is None]
    if len(removed) > len(previous.code) / 2:
        return [
            f"the code of {recipe.stage} was moved: {len(removed)} of its {len(previous.code)} modules have new paths"
        ]
    return [
        f"{path} {'changed' if old and new else 'is new' if new else 'is no longer used'}" for path, old, new in changes
    ]


def find_nearest(recipe: Recipe, manifests: Iterable[Mapping[str, Any]], name: str) -> Recipe | None:
    """The recipe to compare with: the newest with the run name `name`, else the one with the fewest differences."""
    recipes = [(manifest["name"], Recipe(**manifest["recipe"])) for manifest in manifests]
    for run_name, previous in recipes:
        if run_name == name:
            return previous
    return min((r for _, r in recipes), key=lambda r: len(list_reasons(recipe, r)), default=None)


def _changes(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two trees of plain values differ: (dotted path, before, after), None if absent."""
    before, after = _by_kind(before), _by_kind(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield path, before, after


def _by_kind(value: Any) -> Any:
    """A list of parts as a mapping by kind, so that a change is reported by name, not by position."""
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
    """The source file of a module of hone or of a plugin package.

    None for any other module, and for packages: their `__init__.py` contains nothing but a table.
    """
    top, *inside = module.split(".")
    home = _package_homes().get(top)
    if home is None or home.suffix == ".py":
        return home
    path = home.joinpath(*inside).with_suffix(".py")
    return path if inside and path.is_file() else None


def _package_homes() -> dict[str, Path]:
    return {"hone": PACKAGE, **plugin_folders()}


def _in_package(path: Path) -> str:
    """A module's path that begins with its package's name: `hone/curation/near.py`."""
    for name, home in _package_homes().items():
        if path == home:
            return path.name
        if path.is_relative_to(home):
            return f"{name}/{path.relative_to(home)}"
    raise ValueError(f"{path} is neither in hone nor in a plugin package")


def _list_files(modules: Iterable[str]) -> set[Path]:
    """The files of the modules and of all modules they import, directly or not."""
    paths: set[Path] = set()
    pending = list(modules)
    while pending:
        path = _module_file(pending.pop())
        if path is not None and path not in paths:
            paths.add(path)
            pending.extend(_parse(path)[1])
    return paths


def _key_path(path: Path) -> str:
    return f"src/{_in_package(path)}" if path.is_relative_to(PACKAGE) else _in_package(path)


@lru_cache(maxsize=256)
def _parse(path: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of a module's syntax tree without docstrings, and the names of the modules that it may import."""
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
    """Names that `tree` imports, both a and a.b for `from a import b`; imports under TYPE_CHECKING are left out."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))
