"""Digests in one tag, read as tags of their own."""

from __future__ import annotations

import pytest

from hone.tracking.version_tags import DIGESTS, fold_digests, unfold_digests

OLD = {
    "hone.data_digest": "d",
    "hone.template_sha256": "t",
    "hone.rows_digest": "r",
    "hone.files_sha256": "f",
    "hone.register_key": "k",
    "hone.promotion.test_digest": "p",
    "team": "search",
}


def test_only_what_is_searched_for_stays_a_tag() -> None:
    folded = fold_digests(OLD)
    assert set(OLD) - set(folded) == {"hone.data_digest", "hone.template_sha256"}
    assert set(folded) - set(OLD) == {DIGESTS}
    assert fold_digests(folded) == folded
    assert fold_digests({"team": "search"}) == {"team": "search"}


def test_old_and_new_versions_are_read_alike() -> None:
    assert unfold_digests(OLD) == OLD
    assert unfold_digests(fold_digests(OLD)) == OLD


@pytest.mark.parametrize("edited", ["not JSON", "[1]", '"text"', ""])
def test_digests_that_a_person_edited_are_none(edited: str) -> None:
    assert unfold_digests({DIGESTS: edited, "team": "search"}) == {"team": "search"}
    assert fold_digests({DIGESTS: edited, "team": "search"}) == {"team": "search"}
    assert fold_digests({DIGESTS: edited, "hone.data_digest": "d"}) == fold_digests({"hone.data_digest": "d"})
