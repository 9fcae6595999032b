"""Rows out of the docstrings of installed packages: what a passage says, and which role it plays there.

The packages' files are parsed and not imported: that is safe, the same everywhere, and takes no more than the
reading. What exists at run time alone is not seen: docstrings of compiled functions that no `add_newdoc` call in a
.py file gives, and the text that templates (`%(example)s`) are filled with.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

from hone.artifacts import digest_of
from hone.errors import DataError
from hone.options import option
from hone.sources.source import RawRow

# numpydoc's headings (numpydoc.readthedocs.io/en/latest/format.html) and the role of what stands below them.
ROLES = {
    "parameters": "parameters",
    "other parameters": "parameters",
    "returns": "returns",
    "yields": "returns",
    "raises": "raises",
    "warns": "raises",
    "notes": "notes",
    "attributes": "attributes",
}
_HEADING = re.compile(r"^(\w[\w ]*?)[ ]*\n([-=])\2{2,}[ ]*$", re.MULTILINE)
_SIGNATURE = re.compile(r"([\w., ]+=\s*)?[\w.]+\(.*\)(\s*->.*)?", re.DOTALL)
_TEMPLATE = re.compile(r"(%\(\w+\)s|\{\w+\})\s*")
_LEFT_OUT = {"tests", "_tests", "conftest.py"}


@dataclass(frozen=True)
class _Docstring:
    """A docstring, the dotted name it documents, and the line where it or its owner begins."""

    text: str
    owner: str
    line: int


@dataclass(frozen=True)
class InstalledDocs:
    """Passages of numpydoc docstrings: text, label (the role it plays), library, object.

    Each parameter, return value, exception and attribute that is described is a passage; so is each paragraph of the
    notes, and the summary. The headings, names and types are left out of the text: they would give the label away.
    """

    packages: list[str] = option(
        ["numpy", "scipy", "pandas", "sklearn", "matplotlib", "networkx"],
        "Import names of installed packages whose docstrings are in numpydoc's format.",
        min_length=1,
    )

    libraries: ClassVar[tuple[str, ...]] = ()

    def fingerprint(self, digest: Callable[[Path], str]) -> str:
        """Digest over the packages' versions."""
        distributions = packages_distributions()
        versions = {}
        for package in self.packages:
            _directory(package)
            versions[package] = [f"{name} {version(name)}" for name in sorted(set(distributions.get(package, [])))]
        return digest_of(versions)

    def rows(self) -> Iterator[RawRow]:
        """Every passage, by package, file and line. A file that this Python cannot parse is a refused row."""
        for package in self.packages:
            root = _directory(package)
            for file in sorted(root.rglob("*.py")):
                inner = file.relative_to(root.parent)
                if not _LEFT_OUT.intersection(inner.parts):
                    yield from _file_rows(file, inner, package)


def passages(docstring: str) -> Iterator[tuple[str, str]]:
    """(text, role) of each passage of a cleaned numpydoc docstring; none where it has no section with a role."""
    parts = _HEADING.split(docstring)
    sections = [(ROLES.get(name.lower(), ""), body) for name, body in zip(parts[1::3], parts[3::3], strict=True)]
    if not any(role for role, _ in sections):
        return
    found = [(text, "summary") for text in _summary(parts[0])]
    for role, body in sections:
        texts = _paragraphs(body) if role == "notes" else _descriptions(body) if role else []
        found += [(text, role) for text in texts]
    yield from ((text, role) for text, role in found if not _TEMPLATE.fullmatch(text))


def _directory(package: str) -> Path:
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the package {package} is not installed",
            where="ingest.source.packages",
            fix="Install it (pip install 'hone[demo]' for the demo's), or leave it out.",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _file_rows(file: Path, inner: Path, package: str) -> Iterator[RawRow]:
    where = inner.as_posix()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as fault:
        yield RawRow(where, package, {}, refused=f"cannot be parsed: {fault}")
        return
    module = ".".join(inner.with_suffix("").parts).removesuffix(".__init__")
    for docstring in _docstrings(tree.body, module):
        for number, (text, role) in enumerate(passages(docstring.text), 1):
            values = {"text": text, "label": role, "library": package, "object": docstring.owner}
            yield RawRow(f"{where}:{docstring.line}:{number}", package, values)


def _docstrings(body: Iterable[ast.stmt], owner: str) -> Iterator[_Docstring]:
    """Of public functions, classes and methods, and of `add_newdoc` calls; not of what functions define inside."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{owner}.{node.name}"
            if not node.name.startswith("_") and (text := ast.get_docstring(node)):
                yield _Docstring(text, name, node.lineno)
            if isinstance(node, ast.ClassDef):
                yield from _docstrings(node.body, name)
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _docstrings([*node.body, *node.orelse], owner)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _added(node.value, owner)


def _added(call: ast.Call, module: str) -> Iterator[_Docstring]:
    """What `add_newdoc([place,] name, doc)` documents; doc is text, (attribute, text), or a list of such pairs."""
    if not (isinstance(call.func, ast.Name) and call.func.id == "add_newdoc" and len(call.args) > 1):
        return
    *place, doc = call.args
    names = [node.value for node in place if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    library = module.partition(".")[0]
    owner = ".".join(names if names[:1] and names[0].split(".")[0] == library else [module.rpartition(".")[0], *names])
    for attribute, node in _pairs(doc):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _Docstring(cleandoc(node.value), f"{owner}.{attribute}" if attribute else owner, node.lineno)


def _pairs(doc: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(doc, ast.List):
        for item in doc.elts:
            yield from _pairs(item)
    elif isinstance(doc, ast.Tuple) and len(doc.elts) == 2 and isinstance(doc.elts[0], ast.Constant):
        yield str(doc.elts[0].value), doc.elts[1]
    else:
        yield "", doc


def _summary(head: str) -> list[str]:
    """The first paragraph that is no signature."""
    return [text for text in _paragraphs(head) if not _SIGNATURE.fullmatch(text)][:1]


def _paragraphs(body: str) -> list[str]:
    """Paragraphs; one that is indented belongs to the one before it, as in reStructuredText."""
    found: list[str] = []
    for block in re.split(r"\n[ \t]*\n", body.strip("\n")):
        if found and block[:1].isspace():
            found[-1] += f"\n\n{block}"
        elif block.strip():
            found.append(block)
    return [text.strip() for text in found]


def _descriptions(body: str) -> list[str]:
    """What is indented below each line that is not: the descriptions, without names and types."""
    found: list[list[str]] = []
    for line in body.strip("\n").split("\n"):
        if line and not line[0].isspace():
            found.append([])
        elif found:
            found[-1].append(line)
    texts = (dedent("\n".join(lines)).strip() for lines in found)
    return [text for text in texts if text]
