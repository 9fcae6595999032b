"""Converts HTML to text, only for texts that really are HTML: `a < b`, `List<int>` and `x &= y` stay unchanged.

Uses patterns instead of `html.parser`, which raises AssertionError on `<![;` and needs quadratic time on broken markup.
"""

from __future__ import annotations

import re
from html import unescape

_BLOCK = frozenset(
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 head header hr html legend li main nav ol option p pre section summary table tbody tfoot "
    "thead title tr ul".split()
)
_CELL = frozenset(("td", "th"))
_INLINE = frozenset(
    "a abbr acronym area audio b base bdi bdo big button canvas cite code col colgroup data del dfn em embed font i "
    "iframe img input ins kbd label link map mark meta meter noscript object output picture progress q rp rt ruby s "
    "samp select small source span strike strong sub sup textarea time track tt u var video wbr".split()
)
_KNOWN = _BLOCK | _CELL | _INLINE
# A start tag of these alone indicates HTML. `<source>` and `<input>` occur in usage lines, `<a>` as type parameter.
_INDICATORS = frozenset("br hr img p li div span tr td".split())

_OPENING = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)(?:\s[^<>]*)?/?>")
_CLOSING = re.compile(r"</([a-zA-Z][a-zA-Z0-9]*)\s*>")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
_MARKUP = re.compile(
    r"""
    <!--.*?(?:-->|\Z)                                        # a comment
    | <(script|style|template)\b[^<>]*>.*?(?:</\1\s*>|\Z)    # content that is not displayed
    | <[!?][a-zA-Z\[][^<>]*>                                 # a declaration
    | </?(?P<tag>[a-zA-Z][a-zA-Z0-9]*)(?:\s(?:[^<>"']|"[^"<]*"|'[^'<]*')*+|\s[^<>]*)?/?>
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# Markdown code: a fence of three or more backticks or tildes up to one as long (CommonMark 4.5), in quotes and lists
# too, or a code span between equal runs of backticks.
_CODE = re.compile(
    r"^[ \t>*+\-0-9.)]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t>]*(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?<!`)(?P<run>`+)(?!`)[^\n]*?(?<!`)(?P=run)(?!`)",
    re.DOTALL | re.MULTILINE,
)


def html_to_text(text: str) -> str:
    """Remove HTML tags, comments, scripts and styles, put blocks on separate lines, and decode entities.

    A text counts as HTML if it contains a tag such as `<br>` or `<p>`, or an HTML element opened and closed. Other
    texts keep their tags, as do tags that are not HTML's. Markdown code, fenced or in backticks, is not changed.
    """
    if "`" not in text and "~~~" not in text:
        return _convert(text)
    converted, end = [], 0
    for code in _CODE.finditer(text):
        converted += [_convert(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*converted, _convert(text[end:])])


def _convert(text: str) -> str:
    if "<" in text and _holds_html(text):
        text = _MARKUP.sub(_replacement, text)
    return _ENTITY.sub(lambda match: unescape(match[0]), text) if "&" in text else text


def _holds_html(text: str) -> bool:
    opened = {name.lower() for name in _OPENING.findall(text)}
    closed = {name.lower() for name in _CLOSING.findall(text)}
    return bool(opened & _INDICATORS or opened & closed & _KNOWN)


def _replacement(match: re.Match[str]) -> str:
    tag = (match["tag"] or "").lower()
    if tag in _BLOCK:
        return "\n"
    if tag in _CELL:
        return " "
    return match[0] if tag and tag not in _KNOWN else ""
