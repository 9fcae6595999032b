"""Guesses the objective that rows are meant for, from the names and values of their columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Any], bool]


def guess_objective(row: Mapping[str, Any]) -> str:
    """The kind of objective that a row like this is data for, '' if unknown."""
    for objective, *columns in SIGNATURES:
        if all(any(name in row and fits(row[name]) for name in names) for names, fits in columns):
            return objective
    return ""


def _any(value: Any) -> bool:
    return value is not None


def _list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, str) and value.lstrip().startswith("["))


def _spans(value: Any) -> bool:
    """A list of spans: mappings with a start and an end, or lists of two offsets and a label."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    first = value[0] if isinstance(value, (list, tuple)) and value else None
    if isinstance(first, Mapping):
        return "result" in first or all(any(str(key).startswith(edge) for key in first) for edge in ("start", "end"))
    return isinstance(first, (list, tuple)) and len(first) == 3 and sum(type(item) is int for item in first) == 2


def _fraction(value: Any) -> bool:
    """A number such as 3.5 or "3.5"; whole numbers may be classes."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isfinite(number) and not number.is_integer()


_LABEL = ("label", "category", "class", "intent", "topic")
_SCORE = ("score", "rating", "value", "target", *_LABEL)
_TEXT = (("text", "sentence", "content", "body"), _any)

# An objective, and groups of columns; rows must have one column of each group. The first match is used.
SIGNATURES: tuple[tuple[str, *tuple[tuple[tuple[str, ...], Test], ...]], ...] = (
    ("preference", (("chosen",), _any), (("rejected",), _any)),
    ("preference", (("prompt", "messages"), _any), (("completion", "messages"), _any), (("label", "kto_tag"), _any)),
    ("chat", (("messages", "conversations", "conversation", "dialogue"), _list)),
    ("chat", (("instruction",), _any), (("output", "response"), _any)),
    ("chat", (("prompt",), _any), (("completion", "response"), _any)),
    ("token-classification", (("tokens", "words"), _list), (("tags", "ner_tags", "pos_tags", "labels"), _list)),
    ("token-classification", (("spans", "entities", "labels", "label", "annotation", "annotations"), _spans)),
    ("question-answering", (("question",), _any), (("context",), _any)),
    ("embedding", (("anchor", "query"), _any), (("positive", "positives"), _any)),
    (
        "seq2seq",
        (("source", "document", "article"), _any),
        (("target", "targets", "summary", "highlights"), _any),
    ),
    ("multi-label-classification", _TEXT, (("labels", *_LABEL), _list)),
    ("regression", _TEXT, (_SCORE, _fraction)),
    ("text-classification", _TEXT, (_LABEL, _any)),
)
