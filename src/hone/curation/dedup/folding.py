"""Normal forms for comparing texts: without differences of case and spacing, or of case, spacing and punctuation."""

from __future__ import annotations

import hashlib
import re
import string

from hone.writing_systems import CHARACTER_WORD

QUOTES = "\"'`"
ENDINGS = ".,!?;:"  # between a word and a space they end a phrase; anywhere else they have a meaning, as in 3.5 and :)
SYMBOLS = "".join(sorted(set(string.punctuation) - set(QUOTES)))
LONGEST = 1_000_000  # characters of a text that are compared; the rest is ignored

_ASCII_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
_PUNCTUATION = re.compile("[“”‘’‚„«»‹›•¡¿、。，！？；：（）「」『』【】《》]")
_DASHES = re.compile("([–—…·])")  # between numbers they have a meaning
_UNSPACED = re.compile(f"({CHARACTER_WORD})")
_QUOTES = str.maketrans(dict.fromkeys(QUOTES, " "))
_ENDING = re.compile(rf"(?<=[^\s{re.escape(SYMBOLS)}])[{re.escape(ENDINGS)}](?=\s|\Z)")
_SYMBOL = re.compile(f"([{re.escape(SYMBOLS)}])")


def fold(text: str) -> str:
    """`text` in case-folded form with single spaces."""
    return " ".join(text.casefold().split())


def digest_text(text: str) -> bytes:
    """16 bytes that stand for a text where it is compared with all others: these take as much memory as the rows."""
    return hashlib.blake2b(text.encode("utf8", "surrogatepass"), digest_size=16).digest()


def spread(text: str) -> str:
    """`text` in case-folded form with spaces between words in any script; ASCII punctuation stays."""
    return " ".join(_UNSPACED.sub(r" \1 ", _DASHES.sub(r" \1 ", _PUNCTUATION.sub(" ", text.casefold()))).split())


def fold_to_words(text: str) -> str:
    """The case-folded words of the first million characters of `text`, without punctuation, separated by single spaces.

    A text that is only punctuation keeps it.
    """
    text = text[:LONGEST]
    folded = text.casefold() if text.isascii() else spread(text)
    return " ".join(folded.translate(_ASCII_PUNCTUATION).split()) or fold(text)


def fold_to_tokens(text: str) -> str:
    """The case-folded words and symbols of the first million characters of `text`, separated by single spaces.

    Symbols count because they can be all that differs: 3 + 4 and 3 - 4, C and C++. Quotes, and punctuation that ends a
    phrase, do not. A text of quotes alone keeps them.
    """
    text = text[:LONGEST]
    folded = (text.casefold() if text.isascii() else spread(text)).translate(_QUOTES)
    return " ".join(_SYMBOL.sub(r" \1 ", _ENDING.sub(" ", folded)).split()) or fold(text)
