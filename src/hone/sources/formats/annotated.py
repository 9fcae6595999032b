"""Formats of annotated text: sentences in CoNLL's columns, questions in SQuAD's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hone.errors import DataError
from hone.sources.formats.formats import Row
from hone.sources.formats.places import lines

_SPACES = re.compile(" +")
_DOCUMENT = "-DOCSTART-"


def read_conll(text: Iterable[str]) -> Iterator[Row]:
    """A row for each sentence, `tokens` and `tags`: the first and last of the columns that tabs or spaces part.

    Sentences end with an empty line; -DOCSTART- lines are left out. A sentence is refused whose lines have not as many
    columns as the file's first line, or fewer than two.
    """
    columns = 0
    sentence: list[list[str]] = []
    reason = ""
    for number, line in enumerate(lines(text), 1):
        fields = _fields(line)
        if not fields or fields[0].startswith(_DOCUMENT):
            if sentence:
                yield _sentence(sentence), reason
            sentence, reason = [], ""
            continue
        columns = columns or len(fields)
        sentence.append(fields)
        reason = reason or _ragged(fields, columns, line, number)
    if sentence:
        yield _sentence(sentence), reason


def read_squad(text: Iterable[str], shown: str) -> Iterator[Row]:
    """A row for each question of a SQuAD file, 1.1 or 2.0: question_id, title, question, context, answers.

    `answers` is {text: [...], answer_start: [...]}, empty lists for a question without an answer. Raises DataError
    where the file has not SQuAD's form; a question that has not is refused.
    """
    try:
        whole = json.loads("".join(text))
    except (ValueError, RecursionError) as fault:
        raise DataError(f"malformed JSON: {fault}", where=shown, fix="Write or fetch the file again.") from None
    for at, article in enumerate(_items(whole, "data", shown)):
        place = f"{shown}, data[{at}]"
        for below, paragraph in enumerate(_items(article, "paragraphs", place)):
            inside = f"{place}.paragraphs[{below}]"
            shared = {"title": article.get("title"), "context": paragraph.get("context")}
            for question in _items(paragraph, "qas", inside):
                yield _question(question, shared)


def _fields(line: str) -> list[str]:
    """The columns of a line, none where it is empty. A tab parts where there is one, so that others may be empty."""
    plain = line.rstrip("\r\n")
    if not plain.strip(" \t"):
        return []
    return [field.strip(" ") for field in (plain.split("\t") if "\t" in plain else _SPACES.split(plain.strip(" ")))]


def _ragged(fields: list[str], columns: int, line: str, number: int) -> str:
    if "\0" in line:
        return f"holds a NUL character: line {number}"
    if len(fields) < 2:
        return f"one column where there should be a token and its tag: line {number}"
    if len(fields) != columns:
        return f"ragged: {len(fields)} columns in line {number}, {columns} in the first"
    return ""


def _sentence(sentence: list[list[str]]) -> dict[str, Any]:
    return {"tokens": [fields[0] for fields in sentence], "tags": [fields[-1] for fields in sentence]}


def _items(value: Any, name: str, where: str) -> list[Any]:
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise DataError(
            f"has no list called {name}: not SQuAD's form",
            where=where,
            fix="It is {data: [{paragraphs: [{context, qas: [{id, question, answers}]}]}]}; "
            "for other JSON set ingest.source.format: json.",
        )
    return items


def _question(given: Any, shared: dict[str, Any]) -> Row:
    if not isinstance(given, dict):
        return {**shared, "question": given}, "qas: an item is not an object"
    row = {"question_id": given.get("id"), "question": given.get("question"), **shared}
    answers = given.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        return {**row, "answers": answers}, "answers: not a list of {text, answer_start}"
    if given.get("is_impossible"):
        answers = []
    columns = {name: [answer.get(name) for answer in answers] for name in ("text", "answer_start")}
    return {**row, "answers": columns}, ""
