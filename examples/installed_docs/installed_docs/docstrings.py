"""Extracts passages of numpydoc docstrings from a Python file. Also runs as a separate process; standard library only.

The file is parsed, not imported. What exists only at run time is not found: docstrings of compiled functions without
an `add_newdoc` call in a .py file, and the text that replaces templates (`%(example)s`).
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

# numpydoc's headings (numpydoc.readthedocs.io/en/latest/format.html) and the role of the text below them.
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
    """A docstring, the name it documents (in its module; after a + the name given to `add_newdoc`), and its line."""

    text: str
    owner: str
    line: int


def passages(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield (text, role) for each passage of a cleaned numpydoc docstring; none if no section has a role."""
    parts = _HEADING.split(docstring)
    sections = [(ROLES.get(name.lower(), ""), body) for name, body in zip(parts[1::3], parts[3::3], strict=True)]
    if not any(role for role, _ in sections):
        return
    found_passages = [(text, "summary") for text in _summary(parts[0])]
    for role, body in sections:
        texts = _paragraphs(body) if role == "notes" else _descriptions(body) if role else []
        found_passages += [(text, role) for text in texts]
    yield from ((text, role) for text, role in found_passages if not _TEMPLATE.fullmatch(text))


def serve(stdin: TextIO, stdout: TextIO) -> None:
    """Reader process: reads a JSON list of files, writes one line of JSON per file."""
    for file in json.load(stdin):
        stdout.write(json.dumps(read_passages(Path(file))) + "\n")


def read_passages(file: Path) -> list[Passage] | str:
    """The passages of a file, or the reason why it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # third-party docstrings may contain invalid escapes
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as fault:
        return f"cannot be parsed: {fault}"
    return [
        (docstring.line, number, docstring.owner, text, role)
        for docstring in _docstrings(tree.body)
        for number, (text, role) in enumerate(passages(docstring.text), 1)
    ]


def _docstrings(body: Iterable[ast.stmt], inside: str = "") -> Iterator[_Docstring]:
    """Docstrings of public functions, classes, methods and `add_newdoc` calls; not of definitions in functions."""
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
            yield from _added_docstrings(node.value)


def _added_docstrings(call: ast.Call) -> Iterator[_Docstring]:
    """Docstrings given to `add_newdoc([place,] name, doc)`; doc is text, (attribute, text), or a list of such pairs."""
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
    """The first paragraph that is not a signature."""
    return [text for text in _paragraphs(head) if not _SIGNATURE.fullmatch(text)][:1]


def _paragraphs(body: str) -> list[str]:
    """The paragraphs; an indented one belongs to the paragraph before it, as in reStructuredText."""
    paragraphs: list[str] = []
    for block in re.split(r"\n[ \t]*\n", body.strip("\n")):
        if paragraphs and block[:1].isspace():
            paragraphs[-1] += f"\n\n{block}"
        elif block.strip():
            paragraphs.append(block)
    return [text.strip() for text in paragraphs]


def _descriptions(body: str) -> list[str]:
    """The indented block below each unindented line: the descriptions, without names and types."""
    blocks: list[list[str]] = []
    for line in body.strip("\n").split("\n"):
        if line and not line[0].isspace():
            blocks.append([])
        elif blocks:
            blocks[-1].append(line)
    texts = (dedent("\n".join(lines)).strip() for lines in blocks)
    return [text for text in texts if text]


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
