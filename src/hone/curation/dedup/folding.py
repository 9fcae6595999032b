"""Normal forms for comparing texts: without differences of case, spacing and punctuation."""

from __future__ import annotations

import re
import string

LONGEST = 1_000_000  # characters of a text that are compared; the rest is ignored

_ASCII_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
_PUNCTUATION = re.compile("[“”‘’‚„«»‹›–—…·•¡¿、。，！？；：（）「」『』【】《》]")
# Thai, Lao, Myanmar, Khmer, kana and han are written without spaces: each character is a word of its own.
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0002ffff])")


def fold(text: str) -> str:
    """`text` in case-folded form with single spaces."""
    return " ".join(text.casefold().split())


def spread(text: str) -> str:
    """`text` in case-folded form with spaces between words in any script; ASCII punctuation stays."""
    return " ".join(_UNSPACED.sub(r" \1 ", _PUNCTUATION.sub(" ", text.casefold())).split())


def fold_to_words(text: str) -> str:
    """The case-folded words of the first million characters of `text`, without punctuation, separated by single spaces.

    A text that is only punctuation keeps it.
    """
    text = text[:LONGEST]
    folded = text.casefold() if text.isascii() else spread(text)
    return " ".join(folded.translate(_ASCII_PUNCTUATION).split()) or fold(text)
