"""The text of a row, its language and its words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hone.curation.dedup.folding import fold_to_words
from hone.objectives.base import Objective

LANGUAGE_SAMPLE = 500  # characters used for language detection: py3langid reads about 300,000 per second


def input_text(objective: Objective, row: Mapping[str, str | None]) -> str:
    """The model input as readable text: the row's `inputs` joined by newlines, '' if there are none."""
    return "\n".join(
        piece for name in objective.inputs for piece in _pieces(objective, name, row.get(name) or "") if piece
    )


def detect_languages(texts: Iterable[str]) -> list[str]:
    """The language of each text (ISO 639-1) by py3langid; '' for a text without letters."""
    return [
        str(_load_identifier().classify(text[:LANGUAGE_SAMPLE])[0])
        if any(map(str.isalpha, text[:LANGUAGE_SAMPLE]))
        else ""
        for text in texts
    ]


def split_words(text: str) -> Sequence[str]:
    """The words of a text without case and punctuation; single characters in scripts without spaces."""
    return fold_to_words(text).split()


def _pieces(objective: Objective, name: str, value: str) -> list[str]:
    if name not in objective.text or not value:
        return [value]
    try:
        return objective.extract_texts(name, value)
    except ValueError:  # recent inputs may not have the form of training rows: use the value as it is
        return [value]


@lru_cache(maxsize=1)
def _load_identifier() -> Any:
    """py3langid's model, cached per process: loading takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
