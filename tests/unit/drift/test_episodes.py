"""When drift begins, goes on and ends."""

from __future__ import annotations

from hone.drift.check import Decision
from hone.drift.episodes import EPISODE, STATE, Episode, next_episode
from hone.tracking.reader import Version


def test_an_episode_begins_once_and_another_after_it_ended() -> None:
    tags: dict[str, str] = {}
    seen: list[tuple[int, str]] = []
    checks: list[Decision] = [
        *("no drift", "drift", "drift", "too few rows", "drift", "no drift", "too few rows", "no drift", "drift")
    ]
    for decision in checks:
        now = next_episode(tags, decision)
        seen.append((now.number, "begins" if now.begins else "ends" if now.ends else ""))
        if now.begins or now.ends:
            tags |= {EPISODE: str(now.number), STATE: decision}
    assert seen == [*((0, ""), (1, "begins"), (1, ""), (1, ""), (1, ""), (1, "ends"), (1, ""), (1, ""), (2, "begins"))]


def test_one_episode_has_one_id_and_each_version_its_own() -> None:
    first, second = (Version("demo", number, "", "", {}) for number in ("1", "2"))
    assert Episode(1).key(first) == Episode(1, begins=True).key(first)
    assert len({Episode(1).key(first), Episode(2).key(first), Episode(1).key(second)}) == 3
