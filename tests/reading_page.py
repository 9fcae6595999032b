"""The tables of docs/reading.md: every form and encoding that is read, each from a file that is read here.

    python tests/reading_page.py      writes them into the page

A form that is not an example here is not on the page; tests/unit/sources/test_reading_page.py compares the two, and the
examples with the formats, extensions and compressions that the code knows.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.annotation_exports import EXPORTS
from tests.pages import fill_page

PAGE = Path(__file__).parents[1] / "docs" / "reading.md"
SCRIPT = "tests/reading_page.py"


@dataclass(frozen=True)
class Form:
    """A form of data: its name, a file of it (a path from the folder of the data), the options that it needs.

    `files` are further files that belong to it. `first` is the first row that is read from it. `pattern` is what the
    source's `paths` name, where that is not the path.
    """

    name: str
    path: str
    content: str | bytes
    first: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    pattern: str = ""


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _class_names() -> bytes:
    described = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps(described)})
    return _parquet(pa.table([["a"], [1]], schema=schema))


def _zip(name: str, content: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def _tar(name: str, content: str, compression: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content.encode()))
    return buffer.getvalue()


_CSV, _ROW = "text,label\na,x\n", {"text": "a", "label": "x"}
_SQUAD = {"id": "1", "question": "q", "answers": [{"text": "c", "answer_start": 0}]}

FORMS: Sequence[Form] = (
    Form("delimited text, RFC 4180", "rows.csv", 'text,label\n"a ""b"", c",x\n', {"text": 'a "b", c', "label": "x"}),
    Form("another delimiter", "rows.csv", "text;label\na;x\n", _ROW, {"delimiter": ";"}),
    Form("a delimiter that the first line declares", "rows.csv", "sep=;\ntext;label\na;x\n", _ROW),
    Form("columns at the end without a name", "rows.csv", "text,label,,\na,x,,\n", _ROW),
    Form("quotes escaped by a backslash", "rows.csv", 'text\n"a \\"b\\""\n', {"text": 'a "b"'}, {"escape": "\\"}),
    Form("no header line", "rows.csv", "x,a\n", _ROW, {"column_names": ["label", "text"]}),
    Form("tab-separated text", "rows.tsv", 'text\tlabel\nsays "a"\tx\n', {"text": 'says "a"', "label": "x"}),
    Form("tab-separated text", "rows.tab", "text\tlabel\na\tx\n", _ROW),
    Form("JSON lines", "rows.jsonl", '{"text": "a", "label": "x"}\n', _ROW),
    Form("JSON lines", "rows.ndjson", '{"text": "a", "label": "x"}\n', _ROW),
    Form("a JSON list of objects", "rows.json", '[{"text": "a", "label": "x"}]', _ROW),
    Form("a JSON object with a list for each split", "rows.json", '{"train": [["a", "x"]], "test": []}', _ROW),
    Form(
        "the same, some of its keys",
        "rows.json",
        '{"train": [["a", "x"]], "oos": []}',
        _ROW,
        {"split_keys": {"train": "train"}},
    ),
    Form("Parquet", "rows.parquet", _parquet(pa.table({"text": ["a"], "label": ["x"]})), _ROW),
    Form("Parquet", "rows.pq", _parquet(pa.table({"text": ["a"], "label": ["x"]})), _ROW),
    Form("Parquet with the class names of `datasets`", "rows.parquet", _class_names(), {"text": "a", "label": "pos"}),
    Form("a row per line", "rows.txt", "a\n", {"text": "a"}),
    Form("a row per line", "rows.text", "a\n", {"text": "a"}),
    Form("documents between empty lines", "rows.txt", "a\nb\n\nc\n", {"text": "a\nb"}, {"separator": "\n\n"}),
    Form("a label and a text per line (TREC, SST)", "rows.txt", "x a\n", _ROW, {"format": "labelled"}),
    Form("fastText", "rows.txt", "__label__x a\n", {"labels": ["x"], "label": "x", "text": "a"}),
    Form("a file per text, a folder per class", "x/1.txt", "a\n", _ROW, {"format": "folders"}),
    Form(
        "a file per column", "", "", _ROW, {"column_files": {"text": "in", "label": "out"}}, {"in": "a\n", "out": "x\n"}
    ),
    Form("columns from folders (Hive, Spark)", "label=x/part-0.csv", "text\na\n", _ROW, pattern="*/part-*.csv"),
    Form("a column of another name in some files", "rows.csv", "text,y\na,x\n", _ROW, {"aliases": {"y": "label"}}),
    Form("CoNLL", "rows.conll", "a O\nb B-X\n", {"tokens": ["a", "b"], "tags": ["O", "B-X"]}),
    Form("CoNLL", "rows.iob", "a O\n", {"tokens": ["a"], "tags": ["O"]}),
    Form("CoNLL", "rows.bio", "a O\n", {"tokens": ["a"], "tags": ["O"]}),
    Form(
        "SQuAD 1.1 and 2.0",
        "rows.json",
        json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [_SQUAD]}]}]}),
        {
            "question_id": "1",
            "question": "q",
            "title": "t",
            "context": "c",
            "answers": {"text": ["c"], "answer_start": [0]},
        },
        {"format": "squad"},
    ),
    Form("gzip", "rows.csv.gz", gzip.compress(_CSV.encode()), _ROW),
    Form("zstandard", "rows.csv.zst", zstandard.compress(_CSV.encode()), _ROW),
    Form("bzip2", "rows.csv.bz2", bz2.compress(_CSV.encode()), _ROW),
    Form("xz", "rows.csv.xz", lzma.compress(_CSV.encode()), _ROW),
    Form("any of these without its extension", "rows.csv", gzip.compress(_CSV.encode()), _ROW),
    Form("zip", "rows.zip", _zip("rows.csv", _CSV), _ROW),
    Form("tar", "rows.tar", _tar("rows.csv", _CSV, ""), _ROW),
    Form("compressed tar", "rows.tar.gz", _tar("rows.csv", _CSV, "gz"), _ROW),
)

# A text in each encoding that is on the page, and what the page has to say of it.
ENCODINGS: Mapping[str, tuple[str, str]] = {
    "utf-8": ("naïve 日本 😀", "the default; a byte order mark is removed"),
    "utf-16": ("naïve 日本 😀", "with a byte order mark; without one, the error names the one to set"),
    "utf-16-le": ("naïve 日本 😀", ""),
    "utf-16-be": ("naïve 日本 😀", ""),
    "utf-32": ("naïve 日本 😀", "as utf-16"),
    "latin-1": ("naïve", "Western European; every byte is a character, so that a wrong choice is not noticed"),
    "cp1252": ("naïve “quoted”", "Western European, Windows"),
    "cp1251": ("Привет", "Cyrillic, Windows"),
    "koi8-r": ("Привет", "Russian"),
    "iso8859-2": ("źródło", "Central European"),
    "shift_jis": ("日本", "Japanese"),
    "euc_jp": ("日本", "Japanese"),
    "gb18030": ("汉字", "Chinese"),
    "big5": ("漢字", "Chinese, traditional"),
    "euc_kr": ("한국어", "Korean"),
}


def _as_yaml(value: Any) -> str:
    """An option's value as a person would write it in a configuration."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_as_yaml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    return value if re.fullmatch(r"[\w;\\]+", value) else json.dumps(value)


def read_form(form: Form, folder: Path) -> list[Any]:
    """The rows of the form's example, written to `folder`."""
    from hone.sources.files import Files

    contents = {form.path: form.content, **form.files} if form.path else form.files
    for name, content in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(Files(paths=[str(folder / (form.pattern or form.path))], **form.options).rows())


def build_tables() -> dict[str, str]:
    """The Markdown of each table of the page, by its name."""
    rows_by_form: dict[tuple[str, str, str], list[str]] = {}
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            columns = ", ".join(f"`{name}`" for name in read_form(form, Path(folder))[0].values)
        options = _as_yaml(form.options)[1:-1]
        options = f"`{options}`" if options else ""
        path = f"`{form.path}`" if form.path else ", ".join(f"`{name}`" for name in form.files)
        path += f" by the path `{form.pattern}`" if form.pattern else ""
        rows_by_form.setdefault((form.name, options, columns), []).append(path)
    forms = ["| form | such as | options of `source` | columns |", "| --- | --- | --- | --- |"]
    for (name, options, columns), paths in rows_by_form.items():
        forms.append(f"| {name} | {', '.join(paths)} | {options} | {columns} |")
    exports = ["| export | columns | a span |", "| --- | --- | --- |"]
    for name, row in EXPORTS.items():
        columns = ", ".join(f"`{column}`" for column in row)
        exports.append(f"| {name} | {columns} | `{_first_span(row)}` |")
    encodings = [
        "| `encoding` | |",
        "| --- | --- |",
        *(f"| {name} | {note} |" for name, (_, note) in ENCODINGS.items()),
    ]
    return {"forms": "\n".join(forms), "exports": "\n".join(exports), "encodings": "\n".join(encodings)}


def _first_span(row: Mapping[str, Any]) -> str:
    """The first span of an export's row, as JSON; what stands for it in a mapping of lists."""
    spans = next(
        row[name] for name in ("spans", "entities", "annotations", "annotation", "labels", "label") if name in row
    )
    if isinstance(spans, str):
        spans = json.loads(spans)
    if isinstance(spans, Mapping):
        return json.dumps(spans)
    first = spans[0]["result"][0]["value"] if isinstance(spans[0], Mapping) and "result" in spans[0] else spans[0]
    return json.dumps(first)


if __name__ == "__main__":
    PAGE.write_text(fill_page(PAGE.read_text("utf8"), SCRIPT, build_tables()), "utf8")
