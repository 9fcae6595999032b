"""redact: put tags in the place of personal data and secrets, and of words that give the label away."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from hone.curation.columns import rewritten
from hone.curation.parallel import over_texts
from hone.curation.text.personal_data import TAGS, redact
from hone.parts.options import option
from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict

WORTH = 8_000_000  # characters: some two seconds on one core


@dataclass(frozen=True)
class Redact:
    """Replaces personal data and secrets by tags such as <EMAIL>, and words that leak the label by <LABEL>."""

    kinds: tuple[Literal["url_secret", "email", "iban", "card", "ip", "phone"], ...] = option(
        ("url_secret", "email", "iban", "card", "ip", "phone"),
        "What is redacted: card numbers pass Luhn's check and IBANs their checksum; url_secret stands for passwords "
        "and tokens in URLs.",
    )
    label_words: tuple[str, ...] = option(
        (), "Words that give the label away, masked wherever they stand as whole words, in any case."
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Every row, redacted; `notes` counts what was replaced, by kind."""
        from hone.curation.step import Verdict

        notes: Counter[str] = Counter()
        rows, reasons, said = rewritten(
            rows, fields, lambda texts: over_texts(self.redact, texts, on_progress, worth=WORTH)
        )
        notes.update(kind for kinds in said for kind in kinds)
        return Verdict(rows, reasons, notes=dict(notes))

    def redact(self, texts: list[str]) -> list[tuple[str, list[str]]]:
        """Each text with tags in the place of what was found, and the kind of each."""
        return [self._redact(text) for text in texts]

    def _redact(self, text: str) -> tuple[str, list[str]]:
        text, found = redact(text, [kind for kind in TAGS if kind in self.kinds])
        if self.label_words:
            text, count = _whole_words(self.label_words).subn("<LABEL>", text)
            found = [*found, *["label word"] * count]
        return text, found


@lru_cache(maxsize=8)
def _whole_words(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of `words`, the longest first, where no letter or digit stands at its ends."""
    longest_first = sorted((word.split() for word in words if word.split()), key=lambda parts: -len(" ".join(parts)))
    choices = "|".join(r"\s+".join(map(re.escape, parts)) for parts in longest_first)
    return re.compile(rf"(?<!\w)(?:{choices})(?!\w)" if choices else r"(?!)", re.IGNORECASE)
