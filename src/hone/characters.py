"""Which characters of a text stay where all else of it is kept as it is."""

from __future__ import annotations

import re

# Not a character of XML 1.0 (https://www.w3.org/TR/xml/#charsets): NUL and other controls, lone surrogates.
_INVALID = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")


def unify_line_ends(text: str) -> str:
    """The text with a line feed for each line end."""
    return _LINE_ENDS.sub("\n", text)


def clean_characters(text: str) -> str:
    """The text with unified line ends and without invalid characters."""
    return _INVALID.sub("", unify_line_ends(text))
