"""The description of a version: written, written again, and kept where it is a person's."""

from __future__ import annotations

import pytest

from hone.registry.page import HINT, LIMIT, select_card_sections, set_promotion, update_page


def test_the_verdict_comes_first_and_a_person_can_add_notes() -> None:
    text = update_page("", "**worth it**", {"How to use": "load it", "Limits": "none"})
    assert text.startswith("**worth it**")
    assert text.index("## How to use") < text.index("## Limits") < text.index("## Notes") < text.index(HINT)
    noted = f"{text}\nWeak on Mondays.\n\n## Asked by\n\nAda"
    again = update_page(noted, "**not proven**", {"Limits": "some"})
    assert again.startswith("**not proven**") and "load it" not in again
    assert again.endswith("Weak on Mondays.\n\n## Asked by\n\nAda")


def test_a_description_that_a_person_wrote_becomes_the_notes() -> None:
    text = update_page("Do not use before May.", "**worth it**", {})
    assert text.startswith("**worth it**")
    assert text.endswith(f"{HINT}\nDo not use before May.")
    assert update_page(text, "**worth it**", {}) == text


def test_tables_have_space_between_their_columns() -> None:
    card = "# x\n\n## Data\n\n| step | rows |\n| --- | ---: |\n| a \\| b | 5 |\n\n## Lineage\n\n| k | v |"
    assert select_card_sections(card) == {"Data": "| step&emsp; | rows |\n| --- | ---: |\n| a \\| b&emsp; | 5 |"}


def test_a_decision_stays_when_the_version_is_registered_again_and_gives_way_to_the_next() -> None:
    text = set_promotion(update_page("", "head", {"Limits": "none"}), "refused")
    assert text.index("head") < text.index("## Promotion\n\nrefused") < text.index("## Limits")
    text = update_page(text, "new head", {"Limits": "none"})
    assert "refused" in text
    text = set_promotion(text, "promoted")
    assert "promoted" in text and "refused" not in text and text.count("## Promotion") == 1


def test_a_version_of_an_earlier_release_gets_the_decision_too() -> None:
    assert set_promotion("", "promoted").startswith("## Promotion\n\npromoted")
    assert "by hand" in set_promotion("by hand", "promoted")


@pytest.mark.parametrize("lines", [3, 300])
def test_what_the_database_cannot_hold_is_left_out_from_the_end(lines: int) -> None:
    long = "\n".join("a line of twenty char" for _ in range(lines))
    text = set_promotion(
        update_page("my own", "head", {"How to use": long, "Data": "d" * LIMIT, "Limits": "short"}), long
    )
    assert len(text) <= LIMIT
    assert "## Promotion" in text and "my own" in text and "ddd" not in text


@pytest.mark.parametrize("spare", [0, 10, 200])
def test_notes_that_fill_the_description_stay_whole(spare: int) -> None:
    notes = "n" * (LIMIT - spare)
    text = set_promotion(update_page(notes, "head", {"Limits": "none"}), "promoted")
    assert len(text) <= LIMIT and notes in text
    assert update_page(text, "head", {"Limits": "none"}).count(notes) == 1
    assert ("promoted" in text) is (spare == 200)
