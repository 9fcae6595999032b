"""normalize: mend the encoding, bring characters to one form, turn HTML into text, tidy the spacing."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from hone.curation.columns import rewritten
from hone.curation.parallel import over_texts
from hone.curation.text.html_text import to_text
from hone.parts.options import option
from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict

WORTH = 10_000_000  # characters: two seconds on one core for ASCII, 15 for text that ftfy must look at

_NOT_PLAIN = re.compile(r"[^\t\n\x20-\x7e]")  # without a match a text is ASCII and there is nothing to mend
# Shown by nothing: control characters, soft hyphen, zero-width space, marks of direction, byte order mark. The joiners
# U+200C and U+200D stay: emoji and several scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_BREAKS = re.compile("\r\n?|[\x85\u2028\u2029]")
_SPACES = re.compile(r"[^\S\n]+")
_AROUND_BREAK = re.compile(r" ?\n ?")
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Normalize:
    """Mends mojibake (ftfy), brings characters to one unicode form, turns HTML into text and tidies the spacing."""

    libraries: ClassVar[tuple[str, ...]] = ("ftfy",)

    form: Literal["NFC", "NFKC"] = option(
        "NFC", "Unicode form; NFKC also folds ligatures, full-width letters and superscripts."
    )
    encoding: bool = option(True, "Mend text that was decoded in a wrong encoding (ftfy).")
    html: bool = option(True, "Turn texts that hold HTML elements or entities into plain text.")
    spacing: Literal["collapse", "trim", "keep"] = option(
        "collapse",
        "collapse: one space between words, at most one empty line; trim: only spaces at the ends of lines go, "
        "as indented code needs; keep: nothing changes.",
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Every row, its texts normalized; `notes` counts the texts that changed, by what changed them."""
        from hone.curation.step import Verdict

        notes: Counter[str] = Counter()
        rows, reasons, said = rewritten(
            rows, fields, lambda texts: over_texts(self.normalize, texts, on_progress, worth=WORTH)
        )
        notes.update(change for changes in said for change in changes)
        return Verdict(rows, reasons, notes=dict(notes))

    def normalize(self, texts: list[str]) -> list[tuple[str, tuple[str, ...]]]:
        """Each text normalized, and what changed it."""
        return [self._normalize(text) for text in texts]

    def _normalize(self, text: str) -> tuple[str, tuple[str, ...]]:
        changes: list[str] = []
        for change, mend in (
            ("encoding", self._mend),
            ("html", to_text if self.html else str),
            ("characters", self._unify),
            ("spacing", self._space),
        ):
            mended = mend(text)
            if mended != text:
                changes.append(change)
                text = mended
        return text, tuple(changes)

    def _mend(self, text: str) -> str:
        if not self.encoding or not _NOT_PLAIN.search(text):
            return text
        import ftfy

        # Quotes, ligatures and widths are characters that an author may mean: NFKC folds them where that is wanted.
        return str(
            ftfy.fix_text(
                text,
                unescape_html=False,
                uncurl_quotes=False,
                fix_latin_ligatures=False,
                fix_character_width=False,
                fix_line_breaks=False,
                normalization=None,
            )
        )

    def _unify(self, text: str) -> str:
        if not _NOT_PLAIN.search(text):
            return text
        return unicodedata.normalize(self.form, _UNSEEN.sub("", _BREAKS.sub("\n", text)))

    def _space(self, text: str) -> str:
        if self.spacing == "keep":
            return text
        if self.spacing == "trim":
            return _TRAILING.sub("", text).strip("\n")
        return _EMPTY_LINES.sub("\n\n", _AROUND_BREAK.sub("\n", _SPACES.sub(" ", text))).strip()
