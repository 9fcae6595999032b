"""Finds words that do not read as plain English in option descriptions, help texts and error messages, and locals
whose names say nothing.

    python tests/prose.py [FOLDER ...]      without folders: src/hone, src/hone_app, tasks and flows

Prints `file:line: word -> what to write instead` for each find and exits with status 1 if there is one, else 0.
Looked at are the texts of `option(...)`, of pydantic's `Field(description=...)`, of argparse's `help=`, `description=`
and `epilog=`, of each HoneError that is made, and the texts assigned to a variable called `fix` or `hint`; and the
names that functions assign to.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = tuple(ROOT / name for name in ("src/hone", "src/hone_app", "tasks", "flows"))
ERRORS = ROOT / "src/hone/errors.py"

# A unit after "the most" makes it a maximum; "the most recent rows" or "the most frequent class" are good English.
_UNITS = (
    "that|bytes|characters|classes|epochs|examples|files|hours|labels|layers|memory|megabytes|minutes|neighbours|"
    "permutations|resamples|requests|rows|seconds|sequences|steps|time|tokens|words"
)
# What to write instead, and what to look for. Exceptions are good English: "stands for", "the server says: ...".
PATTERNS = tuple(
    (re.compile(pattern, re.IGNORECASE), instead)
    for pattern, instead in (
        (r"\bthe least\b(?! recently\b)", "minimum, smallest"),
        (rf"\bthe most (?:{_UNITS})\b", "maximum, limit"),
        (r"\bparted\b", "split, separated"),
        (r"\bmend(?:s|ed|ing)?\b", "fix"),
        (r"\btold\b", "reported, logged, distinguished"),
        (r"\bsays\b(?!:)", "reports, states, is"),
        (r"\bhears\b", "receives"),
        (r"\bstands\b(?! for\b)", "is, is listed"),
        (r"\bwhat (?:came|comes|became|becomes) of\b", "the result, the outcome"),
        (r"\bwhoever\b", "the person, the caller, the process that"),
        (r"\bso many\b(?!(?: \w+){1,4} that\b)", "the number of"),
        (r"\bto be had\b", "available"),
        (r"\bunsure\b", "pending, unknown"),
    )
)

VAGUE = frozenset("at found given kept known of one said told".split())


def error_classes(source: str) -> set[str]:
    """The names of HoneError and of the classes in the module's source that inherit from it."""
    names = {"HoneError"}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id in names for b in node.bases):
            names.add(node.name)
    return names


def find_words(source: str, errors: set[str]) -> Iterator[tuple[int, str, str]]:
    """(line, word, what to write instead) for each find in the texts of a module, in the order of lines.

    `errors` are the names of the exception classes whose messages count.
    """
    found = {
        (line, match[0], instead)
        for expression in _texts(ast.parse(source), errors)
        for line, text in _strings(expression)
        for pattern, instead in PATTERNS
        for match in pattern.finditer(text)
    }
    yield from sorted(found)


def list_local_names(source: str) -> list[tuple[int, str]]:
    """(line, name) of each name that a function of a module assigns to or takes, once per line and in their order."""
    names: set[tuple[int, str]] = set()
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            names.update((argument.lineno, argument.arg) for argument in arguments)
            names.update(
                (node.lineno, node.id)
                for node in ast.walk(function)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            )
    return sorted(names)


def find_vague_names(source: str) -> Iterator[tuple[int, str, str]]:
    """(line, name, what to write instead) for each vague name among a module's local names."""
    yield from ((line, name, "what it holds") for line, name in list_local_names(source) if name in VAGUE)


def _texts(tree: ast.Module, errors: set[str]) -> Iterator[ast.expr]:
    """The expressions whose strings a user reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id in ("fix", "hint") for t in node.targets
        ):
            yield node.value
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in errors:
            yield from node.args
            yield from (keyword.value for keyword in node.keywords if keyword.arg in ("where", "fix"))
        elif name == "option":
            yield from node.args[1:2]
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "description")
        else:
            yield from (k.value for k in node.keywords if k.arg in ("description", "help", "epilog"))


def _strings(node: ast.expr) -> Iterator[tuple[int, str]]:
    """The texts that an expression is made of, with their lines; an f-string's values are left out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    elif isinstance(node, ast.JoinedStr):
        yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _strings(part.value)
    elif isinstance(node, ast.BinOp):
        yield from _strings(node.left)
        yield from _strings(node.right)
    elif isinstance(node, ast.IfExp):
        yield from _strings(node.body)
        yield from _strings(node.orelse)


def main(arguments: Sequence[str]) -> int:
    """Print the finds in the folders named, or in all; the exit status."""
    errors = error_classes(ERRORS.read_text("utf8"))
    count = 0
    for folder in map(Path, arguments) if arguments else FOLDERS:
        for file in sorted(folder.rglob("*.py")):
            source = file.read_text("utf8")
            for line, word, instead in (*find_words(source, errors), *find_vague_names(source)):
                shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
                sys.stdout.write(f"{shown}:{line}: {word} -> {instead}\n")
                count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
