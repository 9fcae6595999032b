"""Where a part of a rewritten text was in the original one."""

from __future__ import annotations

import pytest

from hone.curation.redact import Redact
from hone.rewriting import Edit, Rewritten, rewrite_text

TEXT = "Write to ann@example.org or call 555-123-4567 today."


def test_a_part_of_a_rewritten_text_is_found_in_the_original_one() -> None:
    rewritten = rewrite_text(TEXT, [Redact()])
    assert rewritten.text == "Write to <EMAIL> or call <PHONE> today."
    for part, source in {
        "Write": "Write",
        "<EMAIL>": "ann@example.org",
        "to <EMAIL": "to ann@example.org",  # of a tag there are no parts
        "AI": "ann@example.org",
        ">": "ann@example.org",
        " or ": " or ",
        "<EMAIL> or call <": "ann@example.org or call 555-123-4567",
        "today.": "today.",
        rewritten.text: TEXT,
    }.items():
        start = rewritten.text.index(part)
        first, last = rewritten.find_source(start, start + len(part))
        assert TEXT[first:last] == source


def test_passes_are_undone_one_after_the_other() -> None:
    steps = [Redact(kinds=("email",), label_words=("email", "to")), Redact(kinds=("phone",), label_words=("today",))]
    rewritten = rewrite_text(TEXT, steps)
    assert rewritten.text == "Write <LABEL> <<LABEL>> or call <PHONE> <LABEL>."
    start = rewritten.text.index("<<")
    first, last = rewritten.find_source(start, start + 9)
    assert TEXT[first:last] == "ann@example.org"
    assert rewritten.find_source(len(rewritten.text) - 1, len(rewritten.text)) == (len(TEXT) - 1, len(TEXT))


@pytest.mark.parametrize("text", ["", "x"])
def test_edits_may_be_empty_and_at_the_ends(text: str) -> None:
    rewritten = Rewritten("abc").edit([Edit(0, 1, text), Edit(2, 3, text)])
    assert rewritten.text == f"{text}b{text}"
    place = rewritten.text.index("b")
    assert rewritten.find_source(place, place + 1) == (1, 2)
    assert Rewritten("abc").edit([]) == Rewritten("abc")
