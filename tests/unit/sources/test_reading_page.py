"""docs/reading.md lists every form that is read, and nothing else."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from hone.sources.files import _SUFFIXES, Files
from hone.sources.formats.packing import COMPRESSED_SUFFIXES
from tests.pages import fill_page
from tests.reading_page import ENCODINGS, FORMS, PAGE, SCRIPT, Form, build_tables, read_form


def test_the_page_is_what_the_examples_give() -> None:
    page = PAGE.read_text("utf8")
    assert fill_page(page, SCRIPT, build_tables()) == page, "run: python tests/reading_page.py"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name} {form.path}")
def test_an_example_is_read(form: Form, tmp_path: Path) -> None:
    first, *_ = read_form(form, tmp_path)
    assert (first.values, first.refused) == (form.first, "")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    text = ENCODINGS[encoding][0]
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert [row.values["text"] for row in Files(paths=[str(tmp_path / "a.txt")], encoding=encoding).rows()] == [text]


def test_every_format_extension_compression_and_option_has_an_example() -> None:
    names = " ".join(form.path for form in FORMS)
    assert [suffix for suffix in (*_SUFFIXES, *COMPRESSED_SUFFIXES, ".zip", ".tar") if suffix not in names] == []
    formats = set(get_args(get_type_hints(Files)["format"])) - {"auto", "lines", *_SUFFIXES.values()}
    assert formats - {form.options.get("format") for form in FORMS} == set()
    used = {name for form in FORMS for name in form.options}
    # Which rows belong to which split, what a text is in, and a limit, is not a form; quoting has two values that are
    # defaults.
    elsewhere = {"paths", "splits", "split_column", "encoding", "quoting", "max_expansion"}
    assert {option.name for option in fields(Files)} - elsewhere == used
