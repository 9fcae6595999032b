"""normalize: fix the encoding, unify characters, convert HTML to text, clean up the spacing.

What a model learns to write keeps its characters: the indentation of code, markup and entities belong to the answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from hone.characters import clean_characters, unify_line_ends
from hone.curation.columns import rewrite_texts
from hone.curation.parallel import over_texts
from hone.curation.text.html_text import html_to_text
from hone.parts.options import option
from hone.progress import OnProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Fields, Verdict

# Characters from which several processes pay off: two seconds on one core for ASCII, 15 for text that needs ftfy.
WORTH = 10_000_000

_NOT_PLAIN = re.compile(r"[^\t\n\x20-\x7e]")  # without a match the text is ASCII: nothing to fix
# Invisible: control characters, soft hyphen, zero-width space, direction marks, byte order mark. The joiners U+200C
# and U+200D stay: emoji and several scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_SPACES = re.compile(r"[^\S\n]+")
_AROUND_BREAK = re.compile(r" ?\n ?")
_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Normalize:
    """Fixes mojibake (ftfy), unifies Unicode characters, converts HTML to text and cleans up the spacing.

    In text that the model learns to write (answers, completions, documents) only line ends and invalid characters
    change, unless `generated` is set.
    """

    libraries: ClassVar[tuple[str, ...]] = ("ftfy",)

    form: Literal["NFC", "NFKC"] = option(
        "NFC", "Unicode normal form; NFKC also folds ligatures, full-width letters and superscripts."
    )
    encoding: bool = option(True, "Fix text that was decoded with the wrong encoding (ftfy).")
    html: bool = option(True, "Convert texts with HTML elements or entities to plain text.")
    spacing: Literal["collapse", "trim", "keep"] = option(
        "collapse",
        "collapse: single spaces, at most one empty line; trim: only remove spaces at line ends, which keeps the "
        "indentation of code; keep: no change.",
    )

    generated: bool = option(
        False,
        "Also normalize text that the model learns to write; by default only line ends and invalid characters change.",
    )

    def apply(self, rows: pa.Table, fields: Fields, on_progress: OnProgress) -> Verdict:
        """Normalize the texts of every row; `notes` counts the changed texts by kind of change."""
        from hone.curation.step import Verdict

        notes: Counter[str] = Counter()

        def change(column: str, texts: list[str]) -> list[tuple[str, tuple[str, ...]]]:
            if column in fields.generated and not self.generated:
                return [clean(text) for text in texts]
            return over_texts(self.normalize, texts, on_progress, worth=WORTH)

        rows, reasons, changes_by_text = rewrite_texts(rows, fields, change)
        notes.update(change for changes in changes_by_text for change in changes)
        return Verdict(rows, reasons, notes=dict(notes))

    def normalize(self, texts: list[str]) -> list[tuple[str, tuple[str, ...]]]:
        """Each text normalized, and the kinds of change made to it."""
        return [self._normalize(text) for text in texts]

    def _normalize(self, text: str) -> tuple[str, tuple[str, ...]]:
        changes: list[str] = []
        for change, rewrite in (
            ("encoding", self._fix_encoding),
            ("html", html_to_text if self.html else str),
            ("characters", self._unify),
            ("spacing", self._space),
        ):
            changed = rewrite(text)
            if changed != text:
                changes.append(change)
                text = changed
        if "characters" in changes:
            # Without an invisible character the rest may read as mojibake: fix it now, as a second run would.
            while (again := self._space(self._unify(self._fix_encoding(text)))) != text:
                text = again
        return text, tuple(changes)

    def _fix_encoding(self, text: str) -> str:
        if not self.encoding or not _NOT_PLAIN.search(text):
            return text
        import ftfy

        # Curly quotes, ligatures and widths may be intended by the author; form NFKC folds the latter two on request.
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
        return unicodedata.normalize(self.form, _UNSEEN.sub("", unify_line_ends(text)))

    def _space(self, text: str) -> str:
        if self.spacing == "keep":
            return text
        if self.spacing == "trim":
            return _TRAILING.sub("", text).strip("\n")
        return _EMPTY_LINES.sub("\n\n", _AROUND_BREAK.sub("\n", _SPACES.sub(" ", text))).strip()


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    """`text` with line feeds for line ends and without invalid characters, and the kinds of change made to it."""
    cleaned = clean_characters(text)
    return cleaned, ("characters",) if cleaned != text else ()
