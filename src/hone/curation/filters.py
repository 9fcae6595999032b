"""filters: drop texts that are too short, too long, repetitive, mostly symbols, or in another language."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from hone.curation.dedup.folding import fold_to_words
from hone.curation.parallel import over_texts
from hone.errors import ConfigError
from hone.parts.options import option
from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict

# Characters from which several processes pay off: about two seconds of work on one core.
WORTH, WORTH_LANGUAGES = 8_000_000, 1_000_000
PHRASE = 5  # words per phrase, for the share of repeated phrases
LANGUAGE_SAMPLE = 2_000  # characters used to identify the language

_SYMBOL = re.compile(r"[^\w\s]|_")


@dataclass(frozen=True)
class Filters:
    """Drops texts by length, repetition, symbols and language.

    The measures of repetition are those of Rae et al., Scaling Language Models (Gopher, 2021), table A1. They were made
    for web pages and have no limits by default: short texts and answers repeat themselves for good reasons.
    """

    libraries: ClassVar[tuple[str, ...]] = ("py3langid",)

    min_chars: int = option(1, "Minimum length of a text, in characters.", ge=1)
    max_chars: int = option(100_000, "Maximum length of a text, in characters.", ge=1)
    min_words: int = option(1, "Minimum length of a text, in words.", ge=0)
    max_repeated_lines: float = option(
        1.0, "Maximum share of lines that repeat an earlier line; 1 means no limit.", ge=0, le=1
    )
    max_repeated_phrases: float = option(
        1.0, "Maximum share of characters in repeated five-word phrases; 1 means no limit.", ge=0, le=1
    )
    max_symbols: float = option(
        1.0, "Maximum share of characters other than letters, digits and spaces; 1 means no limit.", ge=0, le=1
    )
    languages: tuple[str, ...] = option(
        (), "Languages to keep, as ISO 639-1 codes ([en, de]); empty keeps all. Unreliable below about 20 characters."
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Drop each text beyond a limit, with the measured value as detail."""
        from hone.curation.step import Verdict

        if self.languages:
            _check_languages(self.languages)
        worth = WORTH_LANGUAGES if self.languages else WORTH
        outcomes = over_texts(self.judge, fields.row_texts(rows), on_progress, worth=worth)
        return Verdict(rows, [reason for reason, _ in outcomes], [detail for _, detail in outcomes])

    def judge(self, texts: list[str]) -> list[tuple[str, str]]:
        """The reason to drop each text, and the measured value; ('', '') for a text to keep."""
        return [self._judge(text) for text in texts]

    def _judge(self, text: str) -> tuple[str, str]:
        if not text.strip():
            return "empty text", ""
        if len(text) < self.min_chars:
            return f"shorter than {self.min_chars} characters", f"{len(text)} characters"
        if len(text) > self.max_chars:
            return f"longer than {self.max_chars} characters", f"{len(text)} characters"
        if self.min_words > 1 and (words := fold_to_words(text).count(" ") + 1) < self.min_words:
            return f"fewer than {self.min_words} words", f"{words} words"
        for reason, limit, measure in (
            ("repeated lines", self.max_repeated_lines, repeated_lines),
            ("repeated phrases", self.max_repeated_phrases, repeated_phrases),
            ("mostly symbols", self.max_symbols, symbols),
        ):
            if limit < 1 and (share := measure(text)) > limit:
                return reason, f"a share of {share:.2f}"
        if self.languages and (language := _identify(text)) not in self.languages:
            return f"language other than {', '.join(self.languages)}", f"identified as {language}"
        return "", ""


def repeated_lines(text: str) -> float:
    """The share of lines that repeat an earlier line; empty lines do not count."""
    if "\n" not in text:
        return 0.0
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def repeated_phrases(text: str) -> float:
    """The share of characters, without spaces, in words of phrases (PHRASE words) that occur earlier in `text`."""
    words = text.split()
    phrases = list(zip(*(words[offset:] for offset in range(PHRASE)), strict=False))
    if len(set(phrases)) == len(phrases):
        return 0.0
    seen_phrases: set[tuple[str, ...]] = set()
    repeated = counted = 0  # words before index `counted` are already counted
    for start, phrase in enumerate(phrases):
        if phrase in seen_phrases:
            repeated += sum(map(len, words[max(start, counted) : start + PHRASE]))
            counted = start + PHRASE
        seen_phrases.add(phrase)
    return repeated / sum(map(len, words))


def symbols(text: str) -> float:
    """The share of characters, without spaces, that are neither letters, digits nor combining marks."""
    symbol_characters = _SYMBOL.findall(text)
    if not text.isascii():
        symbol_characters = [symbol for symbol in symbol_characters if unicodedata.category(symbol)[0] != "M"]
    return len(symbol_characters) / max(1, sum(map(len, text.split())))


def _check_languages(languages: tuple[str, ...]) -> None:
    supported = _identifier().labels
    unknown = [language for language in languages if language not in supported]
    if unknown:
        raise ConfigError(
            f"unknown languages: {', '.join(unknown)}",
            where="curation.steps.filters.languages",
            fix=f"Supported are {', '.join(sorted(supported))}.",
        )


def _identify(text: str) -> str:
    return str(_identifier().classify(text[:LANGUAGE_SAMPLE])[0])


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """py3langid's model, loaded once per process: it takes half a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
