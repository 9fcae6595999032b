"""Measures the source code: lengths, comments and names.

    python tests/measures.py [FOLDER ...]      without folders: src/hone, src/hone_app, tasks and flows

- Length of a module: the lines of its file, all of them.
- Length of a function: the lines of its body that hold code. The signature, the docstring, comments and blank lines do
  not count; a function within it counts, and is measured by itself too.
- Comments per 100 lines: the comments, those at the end of a line of code too, per 100 lines of the modules.
- Vague local names: the share of those that tests/prose.py finds among the names that functions assign to or take.

p95 is the smallest length that at least 95% do not exceed.
"""

from __future__ import annotations

import ast
import io
import math
import statistics
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import prose

_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass
class Measures:
    """What was measured in the modules so far."""

    modules: list[int] = field(default_factory=list)  # their lengths
    functions: list[int] = field(default_factory=list)
    comments: int = 0
    names: int = 0
    vague_names: int = 0

    def add_module(self, source: str) -> None:
        """Measure one more module."""
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        self.modules.append(len(source.splitlines()))
        self.functions += measure_functions(source, tokens)
        self.comments += sum(token.type == tokenize.COMMENT for token in tokens)
        self.names += len(prose.list_local_names(source))
        self.vague_names += len(list(prose.find_vague_names(source)))

    def describe(self) -> Iterator[str]:
        """The lines to print."""
        yield f"modules            {len(self.modules)}"
        yield f"module lengths     {describe_lengths(self.modules)}"
        yield f"functions          {len(self.functions)}"
        yield f"function lengths   {describe_lengths(self.functions)}"
        yield f"comments           {100 * self.comments / max(1, sum(self.modules)):.1f} per 100 lines"
        yield f"vague local names  {100 * self.vague_names / max(1, self.names):.1f}% of {self.names}"


def measure_functions(source: str, tokens: Sequence[tokenize.TokenInfo]) -> list[int]:
    """The length of each function of a module, methods and functions within functions included."""
    code = {line for token in tokens if token.type not in _LAYOUT for line in range(token.start[0], token.end[0] + 1)}
    lengths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines: set[int] = set()
            for statement in node.body:
                lines.update(range(_first_line(statement), (statement.end_lineno or 0) + 1))
            docstrings = {
                line
                for inner in ast.walk(node)
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                if ast.get_docstring(inner) is not None
                for line in range(inner.body[0].lineno, (inner.body[0].end_lineno or 0) + 1)
            }
            lengths.append(len(lines & code - docstrings))
    return lengths


def describe_lengths(lengths: Sequence[int]) -> str:
    """The median, p95 and maximum."""
    if not lengths:
        return "none"
    p95 = sorted(lengths)[math.ceil(0.95 * len(lengths)) - 1]
    return f"median {statistics.median(lengths):g}, p95 {p95}, max {max(lengths)}"


def _first_line(statement: ast.stmt) -> int:
    """Its first line, that of its first decorator where it has some."""
    return min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", ()))])


def main(arguments: Sequence[str]) -> None:
    """Print the measures of the folders named, or of all."""
    measures = Measures()
    for folder in map(Path, arguments) if arguments else prose.FOLDERS:
        for file in sorted(folder.rglob("*.py")):
            measures.add_module(file.read_text("utf8"))
    sys.stdout.writelines(f"{line}\n" for line in measures.describe())


if __name__ == "__main__":
    main(sys.argv[1:])
