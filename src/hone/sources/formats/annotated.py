"""Formats of annotated text: sentences in CoNLL columns, questions in SQuAD's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from hone.errors import DataError
from hone.sources.formats.formats import Row
from hone.sources.formats.places import NUL, split_lines

_SPACES = re.compile(" +")
_DOCUMENT, _COMMENT = "-DOCSTART-", "#"


def read_conll(text: Iterable[str]) -> Iterator[Row]:
    """Yield a row per sentence, with `tokens` and `tags`: the first and last column, separated by tabs or spaces.

    Where there are more columns, each is also a list under its number, from "0" on. Sentences end with an empty line;
    -DOCSTART- lines are skipped, and so are comments: lines before a sentence that begin with # and do not have the
    columns of the file. A sentence is refused if one of its lines has fewer than two columns, or another number of
    columns than the file's first line that is no comment.
    """
    columns, lines = _count_columns(split_lines(text))
    sentence: list[list[str]] = []
    reason = ""
    for number, line in enumerate(lines, 1):
        fields = _fields(line)
        if not fields or fields[0].startswith(_DOCUMENT):
            if sentence:
                yield _sentence(sentence), reason
            sentence, reason = [], ""
            continue
        if line.startswith(_COMMENT) and not sentence and len(fields) != columns:
            continue
        sentence.append(fields)
        reason = reason or _ragged(fields, columns, line, number)
    if sentence:
        yield _sentence(sentence), reason


def read_squad(text: Iterable[str], shown: str) -> Iterator[Row]:
    """Yield a row per question of a SQuAD 1.1 or 2.0 file: question_id, title, question, context, answers.

    `answers` is {text: [...], answer_start: [...]}, empty lists for a question without an answer. Raises DataError
    if the file does not have SQuAD's structure; a single question that does not is refused.
    """
    try:
        whole = json.loads("".join(text))
    except (ValueError, RecursionError) as fault:
        raise DataError(f"malformed JSON: {fault}", where=shown, fix="Export or download the file again.") from None
    for article_index, article in enumerate(_items(whole, "data", shown)):
        article_where = f"{shown}, data[{article_index}]"
        for paragraph_index, paragraph in enumerate(_items(article, "paragraphs", article_where)):
            paragraph_where = f"{article_where}.paragraphs[{paragraph_index}]"
            questions = _items(paragraph, "qas", paragraph_where)
            shared = {"title": article.get("title"), "context": paragraph.get("context")}
            for question in questions:
                yield _question(question, shared)


def _fields(line: str) -> list[str]:
    """The columns of a line, [] if it is empty. Tabs separate if there are any, so that columns may be empty."""
    plain = line.rstrip("\r\n")
    if not plain.strip(" \t"):
        return []
    return [field.strip(" ") for field in (plain.split("\t") if "\t" in plain else _SPACES.split(plain.strip(" ")))]


def _count_columns(lines: Iterable[str]) -> tuple[int, Iterable[str]]:
    """The number of columns in the first line with a token that does not begin with #, and all lines again.

    # begins comments, but is a token too: in a file of nothing else its first line counts.
    """
    rest = iter(lines)
    seen: list[str] = []
    counts = [0]
    for line in rest:
        seen.append(line)
        fields = _fields(line)
        if fields and not fields[0].startswith(_DOCUMENT):
            counts.append(len(fields))
            if not line.startswith(_COMMENT):
                return len(fields), chain(seen, rest)
    return counts[:2][-1], seen


def _ragged(fields: list[str], columns: int, line: str, number: int) -> str:
    if "\0" in line:
        return f"{NUL}: line {number}"
    if len(fields) < 2:
        return f"one column instead of a token and its tag: line {number}"
    if len(fields) != columns:
        return f"ragged: {len(fields)} columns in line {number}, {columns} in the first"
    return ""


def _sentence(sentence: list[list[str]]) -> dict[str, Any]:
    values = {"tokens": [fields[0] for fields in sentence], "tags": [fields[-1] for fields in sentence]}
    if len(sentence[0]) > 2 and all(len(fields) == len(sentence[0]) for fields in sentence):
        values |= {str(index): list(column) for index, column in enumerate(zip(*sentence, strict=True))}
    return values


def _items(value: Any, name: str, where: str) -> list[Any]:
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise DataError(
            f"has no list {name}: not SQuAD's format",
            where=where,
            fix="Expected: {data: [{paragraphs: [{context, qas: [{id, question, answers}]}]}]}; "
            "for other JSON set ingest.source.format: json.",
        )
    return items


def _question(question: Any, shared: dict[str, Any]) -> Row:
    if not isinstance(question, dict):
        return {**shared, "question": question}, "qas: an item is not an object"
    row = {"question_id": question.get("id"), "question": question.get("question"), **shared}
    answers = question.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        return {**row, "answers": answers}, "answers: not a list of {text, answer_start}"
    if question.get("is_impossible"):
        answers = []
    columns = {name: [answer.get(name) for answer in answers] for name in ("text", "answer_start")}
    return {**row, "answers": columns}, ""
