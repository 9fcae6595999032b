"""Episodes of drift: an episode lasts from the first check with drift to the next one without.

An episode is announced once, however many checks it contains. Its state is stored in the version's tags, which every
machine can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hone.drift.check import Decision
from hone.tracking.client import connect, translate_errors
from hone.tracking.reader import Version

STATE, EPISODE = "hone.drift.state", "hone.drift.episode"


@dataclass(frozen=True)
class Episode:
    """The number of the episode, 0 before the first, and whether this check begins or ends it."""

    number: int
    begins: bool = False
    ends: bool = False

    def key(self, version: Version) -> str:
        """A key that identifies the episode of a version, so that concurrent checks announce it once."""
        return f"{version.uri}#{self.number}"


def next_episode(tags: Mapping[str, str], decision: Decision) -> Episode:
    """The episode after a check with this decision, from the version's tags; `too few rows` changes nothing."""
    number, drifting = int(tags.get(EPISODE, "0")), tags.get(STATE) == "drift"
    if decision == "drift" and not drifting:
        return Episode(number + 1, begins=True)
    return Episode(number, ends=drifting and decision == "no drift")


def save_episode(tracking_uri: str, version: Version, decision: Decision, episode: Episode) -> None:
    """Tag the version with the state after a check; raises ServiceError."""
    if not (episode.begins or episode.ends):
        return
    client = connect(tracking_uri)
    with translate_errors(tracking_uri):
        for tag, value in ((EPISODE, str(episode.number)), (STATE, decision)):
            client.set_model_version_tag(version.name, version.version, tag, value)
