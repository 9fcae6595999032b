"""What a row's text is, in what language, and of which words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hone.curation.dedup.folding import fold_to_words
from hone.objectives.base import Objective

LANGUAGE_SAMPLE = 500  # characters that the language is told from: py3langid reads some 300,000 a second


def text_of(objective: Objective, row: Mapping[str, str | None]) -> str:
    """What a model is asked with as a person reads it: the row's `inputs` one below the other, '' for none."""
    return "\n".join(
        piece for name in objective.inputs for piece in _pieces(objective, name, row.get(name) or "") if piece
    )


def languages(texts: Iterable[str]) -> list[str]:
    """The language of each text (ISO 639-1), by py3langid; '' where there are no letters to tell it from."""
    return [
        str(_identifier().classify(text[:LANGUAGE_SAMPLE])[0]) if any(map(str.isalpha, text[:LANGUAGE_SAMPLE])) else ""
        for text in texts
    ]


def words_of(text: str) -> Sequence[str]:
    """The words of a text, without case and punctuation; each character of a script that has no spaces."""
    return fold_to_words(text).split()


def _pieces(objective: Objective, name: str, value: str) -> list[str]:
    if name not in objective.text or not value:
        return [value]
    try:
        return objective.extract_texts(name, value)
    except ValueError:  # not of the form that the objective learns from: what there is, as it stands
        return [value]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's model, read once in each process: it takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
