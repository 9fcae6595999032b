"""Rows for objectives that no data set is made for, derived from real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Command = tuple[str, list[str]]  # its text, and the tag of each word


def read_commands(datasets: Path) -> Iterator[Command]:
    """The training commands of snips."""
    lines = ((datasets / "snips" / "train" / name).read_text("utf8").splitlines() for name in ("seq.in", "seq.out"))
    return ((text.strip(), tags.split()) for text, tags in zip(*lines, strict=True))


def pair_answers(instructions: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """For embedding: instructions and their answers, which belong together."""
    return [{"anchor": f"{row['instruction']} {row['input']}", "positive": row["output"]} for row in instructions]


def list_slot_kinds(commands: Iterable[Command]) -> list[dict[str, Any]]:
    """For several labels: which of the four most frequent kinds of slots a command has."""
    kinds_by_text = [(text, {tag.partition("-")[2] for tag in tags} - {""}) for text, tags in commands]
    frequent = {kind for kind, _ in Counter(kind for _, kinds in kinds_by_text for kind in kinds).most_common(4)}
    return [{"text": text, "labels": sorted(kinds & frequent)} for text, kinds in kinds_by_text]


def list_ratings(commands: Iterable[Command]) -> Sequence[tuple[str, str]]:
    """For regression: commands and how many points they give a book, where that is a number."""
    ratings = []
    for text, tags in commands:
        if "B-rating_value" in tags and (points := text.split()[tags.index("B-rating_value")]).isdigit():
            ratings.append((text, points))
    return ratings
