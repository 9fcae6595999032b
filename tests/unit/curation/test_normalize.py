from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hone.curation.normalize import Normalize
from hone.curation.text.html_text import html_to_text
from hone.objectives.masked_lm import MaskedLM
from hone.progress import ignore


def normalized(text: str, **options: object) -> str:
    return Normalize(**options).normalize([text])[0][0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: x &= y",
        "List<int> and Map<String, List<b>> and vector<p>"[:40],
        "usage: copy <source> <input> <output>",
        "AT&T, R&D; Q&A",
        "x <- 3; y << 2; a <b> c",
        "“Curly” quotes, 10³ and ﬁgures",
        "emoji 👩‍💻 and हिन्दी",
    ],
)
def test_text_that_only_looks_like_markup_stays(text: str) -> None:
    assert normalized(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("cafÃ© â€” naÃ¯ve", "café — naïve"),
        ("e\u0301te\u0301", "été"),
        ("a\u200bb\ufeffc\x00d\x07e", "abcde"),
        ("one  two\t three \n\n\n\n four ", "one two three\n\nfour"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("non\u00a0breaking", "non breaking"),
        ("Fish &amp; chips &#8212; &lt;3", "Fish & chips — <3"),
        ("<p>One <b>bold</b> move</p><p>Two<br>lines</p>", "One bold move\n\nTwo\nlines"),
        ("<div>seen<script>var hidden = '<p>';</script><!-- hidden --> too</div>", "seen too"),
        ("<p>A List<int> of 3 < 4</p>", "A List<int> of 3 < 4"),
        ("<a href=\"/x?a=1>2\" title='b > c'>link</a><br/>next", "link\nnext"),
        ("<!DOCTYPE html><html><body><P CLASS=x>Loud</P></body></html>", "Loud"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_dirt_goes(dirty: str, clean: str) -> None:
    assert normalized(dirty) == clean


def test_options() -> None:
    assert normalized("ﬁve²", form="NFKC") == "five2"
    assert normalized("cafÃ©", encoding=False) == "cafÃ©"
    assert normalized("<p>kept</p>", html=False) == "<p>kept</p>"
    assert normalized("def f():\n    return 1  \n", spacing="trim") == "def f():\n    return 1"
    assert normalized(" a  b ", spacing="keep") == " a  b "


def test_notes_count_the_texts_that_changed_and_nothing_is_dropped() -> None:
    rows = pa.table({"id": ["1", "2", "3"], "text": ["fine", "two  spaces", "<p>x  y</p>"]})
    verdict = Normalize().apply(rows, MaskedLM(), ignore)
    assert verdict.rows["text"].to_pylist() == ["fine", "two spaces", "x y"]
    assert verdict.reasons == ["", "", ""]
    assert verdict.notes == {"html": 1, "spacing": 2}


@given(st.text())
@example("\x8dÜ\x86")  # without its control characters it is mojibake
def test_what_is_normal_stays_as_it_is(text: str) -> None:
    once = normalized(text, html=False)
    assert normalized(once, html=False) == once


@given(st.text(alphabet="<>/!-[]&;# abpbrdiv\"'=?", max_size=60))
def test_no_markup_however_broken_is_too_much(text: str) -> None:
    assert "<p>" not in html_to_text("<p>" + text)


@pytest.mark.parametrize(
    "unit", ["<", "<a", "<!--", "<![", "<a b=", "<a '", '<a "b" ', "</", "<script>", "&", "< ", "<p "]
)
def test_a_million_characters_of_broken_markup_take_linear_time(unit: str) -> None:
    assert html_to_text("<p>" + unit * (1_000_000 // len(unit))).count("<p>") == 0


def test_a_text_of_a_million_characters() -> None:
    assert len(normalized("<p>" + "naïve <b>text</b> &amp; " * 40_000)) == len("naïve text & ") * 40_000 - 1
