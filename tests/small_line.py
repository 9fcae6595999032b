"""A small real line: a tiny BERT, and rows of two topics that can be learned."""

from __future__ import annotations

import random
from pathlib import Path

from tests.tiny_bases import tiny_bert

WORDS = {
    "weather": "rain sun cloud storm wind snow frost hail fog thunder".split(),
    "sport": "goal match team race player coach score league ball win".split(),
}
FILLING = "the a today we saw again there was some more of it in town with our own old friends and many others".split()


def topic_rows(path: Path, rows: int = 300, seed: int = 1, label: str = "topic") -> Path:
    """A CSV of `rows` rows of the two topics by turns, told apart by their words."""
    draw = random.Random(seed)
    lines = [f"text,{label}"]
    for i in range(rows):
        topic = list(WORDS)[i % 2]
        words = draw.choices(FILLING, k=9) + draw.choices(WORDS[topic], k=3)
        draw.shuffle(words)
        lines.append(f"{' '.join(words)},{topic}")
    path.write_text("\n".join(lines) + "\n")
    return path


def topic_base(place: Path, positions: int = 512) -> Path:
    """A randomly initialised BERT of two layers that knows their words, as save_pretrained writes it."""
    words = [*FILLING, *(word for group in WORDS.values() for word in group)]
    return tiny_bert(place, words=words, hidden=32, positions=positions, seed=1, initializer_range=0.02)
