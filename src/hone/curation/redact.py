"""redact: replace personal data, secrets and words that leak the label by tags."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from hone.curation.columns import rewrite_texts
from hone.curation.parallel import over_texts
from hone.curation.text.personal_data import TAGS, Match, find_personal_data
from hone.curation.text.word_lists import redact_words
from hone.parts.options import option
from hone.progress import OnProgress
from hone.rewriting import Edit, Rewritten

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict

_LABEL_TAG, _LABEL_KIND = "<LABEL>", "label word"
_WORD_LENGTH = 5  # characters, a space among them: lists of words are counted in words
WORTH = 8_000_000  # characters from which several processes pay off: about two seconds on one core


@dataclass(frozen=True)
class Redact:
    """Replaces personal data and secrets by tags such as <EMAIL>, and words that leak the label by <LABEL>.

    A `hone.rewriting.Rewriter`: the served model redacts what is sent.
    """

    kinds: tuple[Literal["url_secret", "email", "iban", "card", "ip", "phone"], ...] = option(
        ("url_secret", "email", "iban", "card", "ip", "phone"),
        "Kinds of data to redact. Card numbers and IBANs must have valid check digits; url_secret means passwords and "
        "tokens in URLs.",
    )
    label_words: tuple[str, ...] = option((), "Words that leak the label; replaced as whole words, ignoring case.")

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Redact every row; `notes` counts the replacements by kind."""
        from hone.curation.step import Verdict

        notes: Counter[str] = Counter()
        rows, reasons, kinds_by_text = rewrite_texts(
            rows,
            fields,
            lambda _, texts: over_texts(self.redact, texts, on_progress, worth=WORTH),
            lambda word_lists: over_texts(self.redact_words, word_lists, on_progress, worth=WORTH // _WORD_LENGTH),
        )
        notes.update(kind for kinds in kinds_by_text for kind in kinds)
        return Verdict(rows, reasons, notes=dict(notes))

    def redact(self, texts: list[str]) -> list[tuple[str, list[str]]]:
        """Each text with tags for the matches, and the kind of each match."""
        return [(rewritten.text, kinds) for rewritten, kinds in map(self._redact, texts)]

    def redact_words(self, word_lists: list[list[str]]) -> list[tuple[list[str], list[str]]]:
        """Each list with tags for matches in its words or over several of them, and the kind of each match."""
        kinds = [kind for kind in TAGS if kind in self.kinds]
        return [redact_words(words, kinds, self._find_label_words, _LABEL_TAG) for words in word_lists]

    def rewrite(self, text: str) -> Rewritten:
        """The text with tags for the matches."""
        return self._redact(text)[0]

    def rewrite_words(self, words: Sequence[str]) -> list[str]:
        """The words with tags for the matches."""
        [(redacted, _)] = self.redact_words([list(words)])
        return redacted

    def _redact(self, text: str) -> tuple[Rewritten, list[str]]:
        matches = find_personal_data(text, [kind for kind in TAGS if kind in self.kinds])
        kinds = [match.kind for match in matches]
        rewritten = Rewritten(text).edit(Edit(match.start, match.end, TAGS[match.kind]) for match in sorted(matches))
        if self.label_words:
            hits = list(self._label_pattern().finditer(rewritten.text))
            rewritten = rewritten.edit(Edit(*hit.span(), _LABEL_TAG) for hit in hits)
            kinds += [_LABEL_KIND] * len(hits)
        return rewritten, kinds

    def _find_label_words(self, text: str) -> list[Match]:
        """Where label words are in words joined by spaces, where each punctuation mark may be a word."""
        if not self.label_words:
            return []
        return [Match(*hit.span(), _LABEL_KIND) for hit in self._label_pattern(marks_apart=True).finditer(text)]

    def _label_pattern(self, marks_apart: bool = False) -> re.Pattern[str]:
        return _whole_words(tuple(self.label_words), marks_apart)  # from a model's record it is a list


@lru_cache(maxsize=8)
def _whole_words(words: tuple[str, ...], marks_apart: bool = False) -> re.Pattern[str]:
    """A pattern for any of `words` as a whole word; longer ones first, since alternation takes the first match.

    With `marks_apart` there may be spaces around the punctuation in them: C + +.
    """
    longest_first = sorted((word.split() for word in words if word.split()), key=lambda parts: -len(" ".join(parts)))
    escape = _escape_marks_apart if marks_apart else re.escape
    choices = "|".join(r"\s+".join(map(escape, parts)) for parts in longest_first)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)" if choices else r"(?!)", re.IGNORECASE)


def _escape_marks_apart(word: str) -> str:
    return r"\s?".join(map(re.escape, re.findall(r"\w+|\W", word)))
