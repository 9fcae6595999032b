"""HTML to text, for texts that really hold HTML: `a < b`, `List<int>` and `x &= y` are left as they are."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_BLOCK = frozenset(
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 head header hr html legend li main nav ol option p pre section summary table tbody tfoot "
    "thead title tr ul".split()
)
_INLINE = frozenset(
    "a abbr acronym b bdi bdo big button cite code data del dfn em font i iframe ins kbd label mark meter noscript "
    "object output picture progress q rp rt ruby s samp select small span strike strong sub sup td template textarea "
    "th time tt u var video audio canvas colgroup map".split()
)
_HIDDEN = frozenset(("script", "style", "template"))
# Of these a start tag alone tells of HTML; `<source>` and `<input>` stand in usage lines, `<a>` in type parameters.
_TELLING = frozenset("br hr img p li div span tr td".split())
_KNOWN = _VOID | _BLOCK | _INLINE | _HIDDEN
_OPENING = re.compile(r"<([a-zA-Z][a-zA-Z0-9]*)(?:\s[^<>]*)?/?>")
_CLOSING = re.compile(r"</([a-zA-Z][a-zA-Z0-9]*)\s*>")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")


def to_text(text: str) -> str:
    """`text` without HTML's tags, comments, scripts and styles, a line for each block; entities as characters.

    A text without HTML comes back as it is. It counts as HTML when it holds a tag such as `<br>` or `<p>`, or one of
    HTML's elements opened and closed.
    """
    if "<" in text and _holds_html(text):
        reader = _Reader()
        reader.feed(text)
        reader.close()
        return reader.text()
    return _ENTITY.sub(lambda match: unescape(match[0]), text) if "&" in text else text


def _holds_html(text: str) -> bool:
    opened = {name.lower() for name in _OPENING.findall(text)}
    closed = {name.lower() for name in _CLOSING.findall(text)}
    return bool(opened & _TELLING or opened & closed & _KNOWN)


class _Reader(HTMLParser):
    """Collects what a reader of the page would see; tags that are not HTML's are text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._hidden = 0

    def text(self) -> str:
        return "".join(self._parts).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _KNOWN:
            self.handle_data(self.get_starttag_text() or "")
        elif tag in _HIDDEN:
            self._hidden += 1
        else:
            self._part(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _HIDDEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _KNOWN:
            self.handle_data(f"</{tag}>")
        elif tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        else:
            self._part(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)

    def _part(self, tag: str) -> None:
        if tag in _BLOCK and self._parts and not self._parts[-1].endswith("\n"):
            self._parts.append("\n")
        elif tag in ("td", "th") and self._parts and not self._parts[-1][-1:].isspace():
            self._parts.append(" ")
