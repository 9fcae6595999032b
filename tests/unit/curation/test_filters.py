from __future__ import annotations

import pyarrow as pa
import pytest

from hone.curation.filters import Filters, repeated_lines, repeated_phrases, symbols
from hone.errors import ConfigError
from hone.objectives.masked_lm import MaskedLM
from hone.progress import ignore


def judged(text: str, **options: object) -> tuple[str, str]:
    return Filters(**options).judge([text])[0]  # type: ignore[arg-type]


def test_reasons_name_the_limit_and_details_the_figure() -> None:
    assert judged("short", min_chars=10) == ("shorter than 10 characters", "5 characters")
    assert judged("much too long", max_chars=5) == ("longer than 5 characters", "13 characters")
    assert judged("two, words!", min_words=3) == ("fewer than 3 words", "2 words")
    assert judged(" \n ") == ("empty text", "")
    assert judged("{{[[((=+=))]]}} a", max_symbols=0.5) == ("mostly symbols", "a share of 0.94")
    assert judged("a line\n" * 3, max_repeated_lines=0.3) == ("repeated lines", "a share of 0.67")
    repeated = "one two three four five, " * 2 + "six seven eight nine ten"
    assert judged(repeated, max_repeated_phrases=0.15)[0] == "repeated phrases"


def test_ordinary_texts_stay() -> None:
    for text in (
        "I am still waiting on my card?",
        "Returns the indices that would sort an array along the given axis; a[::-1] reverses it.",
        "हिन्दी में लिखा हुआ एक छोटा वाक्य",
        "信用卡什么时候能够寄到我家里来呢",
        "No.",
        "Ok...",
        "@user @user @user so tired",
        "how much we earn and how much we spend and how much we earn and how much we spend",
        "C++",
        ":(",
        "no\nno\nno\nno",
    ):
        assert judged(text) == ("", "")


def test_limits_are_inclusive_and_can_be_turned_off() -> None:
    assert judged("12345", min_chars=5, max_chars=5) == ("", "")
    assert judged("!!!", max_symbols=1.0) == ("", "")
    assert judged("a\na\na", max_repeated_lines=1.0, max_repeated_phrases=1.0) == ("", "")


def test_measures() -> None:
    assert repeated_lines("a\nb\n\na\n") == pytest.approx(1 / 3)
    assert repeated_phrases("a b c d e f g h i j") == 0
    assert repeated_phrases("a b c d e " * 2) == pytest.approx(0.5)
    assert repeated_phrases("a " * 10) == pytest.approx(9 / 10)
    assert symbols("ab _-") == pytest.approx(0.5)
    assert symbols("हिन्दी") == 0


def test_languages_keep_those_listed() -> None:
    german, english = "Ich warte immer noch auf meine neue Karte", "I am still waiting for my new card to arrive"
    rows = pa.table({"id": ["1", "2"], "text": [german, english]})
    verdict = Filters(languages=("en",)).apply(rows, MaskedLM(), ignore)
    assert verdict.reasons == ["language other than en", ""]
    assert verdict.details[0] == "identified as de"
    assert Filters(languages=("de", "en")).apply(rows, MaskedLM(), ignore).reasons == ["", ""]


def test_a_language_that_there_is_not_is_a_fault_of_the_configuration() -> None:
    rows = pa.table({"id": ["1"], "text": ["text"]})
    with pytest.raises(ConfigError, match="unknown languages: klingon"):
        Filters(languages=("klingon",)).apply(rows, MaskedLM(), ignore)


@pytest.mark.parametrize("text", ["word " * 200_000, "!" * 1_000_000, "a\n" * 500_000])
def test_a_text_of_a_million_characters_is_judged(text: str) -> None:
    limits = {"max_repeated_lines": 0.3, "max_repeated_phrases": 0.15, "max_symbols": 0.5}
    assert judged(text, max_chars=2_000_000, **limits)[0] in ("repeated phrases", "mostly symbols", "repeated lines")
    assert judged(text)[0] == "longer than 100000 characters"
