"""redact: replace personal data, secrets and words that leak the label by tags."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from hone.curation.columns import rewrite_texts
from hone.curation.parallel import over_texts
from hone.curation.text.personal_data import TAGS, redact_text
from hone.parts.options import option
from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict

WORTH = 8_000_000  # characters from which several processes pay off: about two seconds on one core


@dataclass(frozen=True)
class Redact:
    """Replaces personal data and secrets by tags such as <EMAIL>, and words that leak the label by <LABEL>."""

    rewrites_held_out: ClassVar[bool] = True

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
            rows, fields, lambda _, texts: over_texts(self.redact, texts, on_progress, worth=WORTH)
        )
        notes.update(kind for kinds in kinds_by_text for kind in kinds)
        return Verdict(rows, reasons, notes=dict(notes))

    def redact(self, texts: list[str]) -> list[tuple[str, list[str]]]:
        """Each text with tags for the matches, and the kind of each match."""
        return [self._redact(text) for text in texts]

    def _redact(self, text: str) -> tuple[str, list[str]]:
        text, found_kinds = redact_text(text, [kind for kind in TAGS if kind in self.kinds])
        if self.label_words:
            text, count = _whole_words(self.label_words).subn("<LABEL>", text)
            found_kinds = [*found_kinds, *["label word"] * count]
        return text, found_kinds


@lru_cache(maxsize=8)
def _whole_words(words: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern for any of `words` as a whole word; longer ones first, since alternation takes the first match."""
    longest_first = sorted((word.split() for word in words if word.split()), key=lambda parts: -len(" ".join(parts)))
    choices = "|".join(r"\s+".join(map(re.escape, parts)) for parts in longest_first)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)" if choices else r"(?!)", re.IGNORECASE)
