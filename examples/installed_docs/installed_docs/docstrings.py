"""From a Python file to the passages of its numpydoc docstrings. Runs as a process of its own, too; stdlib alone.

The file is parsed and not imported. What exists at run time alone is not seen: docstrings of compiled functions that
no `add_newdoc` call in a .py file gives, and the text that templates (`%(example)s`) are filled with.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent
from typing import TextIO

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

Passage = tuple[int, int, str, str, str]  # line, number in the docstring, owner, text, role


@dataclass(frozen=True)
class _Docstring:
    """A docstring, the name it documents (inside its module; with a + what `add_newdoc` calls it), and its line."""

    text: str
    owner: str
    line: int


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


def serve(stdin: TextIO, stdout: TextIO) -> None:
    """A reader process: a list of files in, a line of JSON for each out."""
    for file in json.load(stdin):
        stdout.write(json.dumps(read(Path(file))) + "\n")


def read(file: Path) -> list[Passage] | str:
    """A file's passages, or why it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as fault:
        return f"cannot be parsed: {fault}"
    return [
        (docstring.line, number, docstring.owner, text, role)
        for docstring in _docstrings(tree.body)
        for number, (text, role) in enumerate(passages(docstring.text), 1)
    ]


def _docstrings(body: Iterable[ast.stmt], inside: str = "") -> Iterator[_Docstring]:
    """Of public functions, classes and methods, and of `add_newdoc` calls; not of what functions define inside."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{inside}{node.name}"
            if not node.name.startswith("_") and (text := ast.get_docstring(node)):
                yield _Docstring(text, name, node.lineno)
            if isinstance(node, ast.ClassDef):
                yield from _docstrings(node.body, f"{name}.")
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _docstrings([*node.body, *node.orelse], inside)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _added(node.value)


def _added(call: ast.Call) -> Iterator[_Docstring]:
    """What `add_newdoc([place,] name, doc)` documents; doc is text, (attribute, text), or a list of such pairs."""
    if not (isinstance(call.func, ast.Name) and call.func.id == "add_newdoc" and len(call.args) > 1):
        return
    *names, doc = call.args
    owner = ".".join(str(node.value) for node in names if isinstance(node, ast.Constant))
    for attribute, node in _pairs(doc):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield _Docstring(cleandoc(node.value), f"+{owner}.{attribute}".rstrip("."), node.lineno)


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


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
