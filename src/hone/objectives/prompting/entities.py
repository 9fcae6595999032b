"""Token classification in words: the answer is a JSON list of entities, or of words with their tags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from typing import TYPE_CHECKING, NamedTuple

from hone.objectives.base import Outcome, Targets
from hone.objectives.prompting import forms
from hone.objectives.prompting.prompting import Judgement, Prompting
from hone.objectives.prompting.word_search import WordSearch
from hone.objectives.shared import tagging
from hone.objectives.shared.entity_counts import count_entities, describe_entities
from hone.objectives.shared.tag_forms import OUTSIDE, convert_tags, form_from_targets
from hone.objectives.shared.tagging import Entity

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.objectives.token_classification import TokenClassification


class Mention(NamedTuple):
    """An entity in an answer: its text, its type, and where it begins in the question, None if that is left out."""

    text: str
    type: str
    start: int | None


class Reading(NamedTuple):
    """An answer's tags, one for each word of the row, the entities they make up, and entities that are in no words."""

    tags: list[str | None]
    entities: list[Entity]
    misplaced: list[Mention]


@dataclass(frozen=True)
class EntityPrompting(Prompting):
    """The answer is a JSON list of `{"text", "type"}`, in the order of the text, and perhaps `start`.

    The first entity with a text is at its first occurrence after the entity before, and so on; `start`, the offset of
    its first character, chooses another occurrence. Only whole words count as occurrences, whatever spaces are in them.
    """

    objective: TokenClassification

    @property
    def metric(self) -> str:
        """Entity F1."""
        return self.objective.main_metric

    def describe_task(self, targets: Targets) -> str:
        """Which types there are, and to list the entities of a text."""
        types = tagging.list_types(targets["labels"], targets["scheme"])
        names = "\n".join(f"- {json.dumps(name, ensure_ascii=False)}" for name in types)
        if targets["scheme"] == "words":
            return (
                f"Tag each word of the text with one of these tags:\n{names}\n"
                'Write only a JSON list with all words in their order: [{"text": "...", "type": "..."}], where text is '
                "the word and type its tag."
            )
        return (
            f"Find all entities of these types in the text:\n{names}\n"
            'Write only a JSON list with the entities in the order of the text: [{"text": "...", "type": "..."}], '
            "where text is copied exactly from the text and consists of whole words. Add "
            '"start", the offset of its first character from 0, only to an entity whose text also occurs earlier where '
            "it is no entity. If there is no entity, write []."
        )

    def build_questions(self, rows: pa.Table) -> list[str]:
        """The words, joined by spaces."""
        return self.objective.row_texts(rows)

    def build_answers(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The entities as JSON, with `start` only in rows that cannot be read without it."""
        answers = []
        for words, tags in _list_tagged(rows, targets):
            entities, search = tagging.find_entities(tags, targets["scheme"]), WordSearch(words)
            mentions = [Mention(search.extract(e.start, e.end), e.type, None) for e in entities]
            if _place(mentions, search) != [(e.start, e.end) for e in entities]:
                mentions = [
                    mention._replace(start=search.offset(entity.start))
                    if search.is_ambiguous(mention.text)
                    else mention
                    for mention, entity in zip(mentions, entities, strict=True)
                ]
            answers.append(json.dumps([_to_item(mention) for mention in mentions], ensure_ascii=False))
        return answers

    def judge(self, answers: Sequence[str], tokens: pa.Table, targets: Targets, rows: pa.Table) -> Judgement:
        """As `Prompting.judge`.

        An entity that is in no words of the row which no entity before it has, or whose type does not exist, is wrong:
        it counts as predicted, of its type or of the last. Neighbouring entities of one type are one entity where the
        tags of the training rows cannot separate them. An invalid answer, not such a list, predicts no entity and no
        word's tag; its error is the number of the row's entities, at least 1, since it is wrong where there are none.
        `token_accuracy` counts words outside of right entities by tags written as in the training rows: B-, I-, and
        E- or S- if there are such.
        """
        import numpy as np

        choices = forms.Choices(types := tagging.list_types(targets["labels"], targets["scheme"]))
        mentions_by_row = [_parse_mentions(answer, choices, types) for answer in answers]
        tagged = list(_list_tagged(rows, targets))
        references = [tagging.find_entities(tags, targets["scheme"]) for _, tags in tagged]
        readings = [
            _read_mentions(mentions or [], words, targets)
            for mentions, (words, _) in zip(mentions_by_row, tagged, strict=True)
        ]
        invalid = np.array([mentions is None for mentions in mentions_by_row], bool)
        predicted = [
            reading.entities + [Entity(-2 - n, -1, mention.type) for n, mention in enumerate(reading.misplaced)]
            for reading in readings
        ]
        counts = [
            [0 if is_invalid else _count_right_tags(tags, entities, reading), len(tags)]
            for (_, tags), entities, reading, is_invalid in zip(tagged, references, readings, invalid, strict=True)
        ]
        errors = [float(len(set(a) ^ set(b))) for a, b in zip(references, predicted, strict=True)]
        outcome = Outcome(
            statistics=np.concatenate(
                [count_entities(references, predicted, targets), np.array(counts, np.float64).reshape(-1, 2)], axis=1
            ),
            predictions=[
                answer.strip() if is_invalid else _describe(reading, words)
                for answer, is_invalid, reading, (words, _) in zip(answers, invalid, readings, tagged, strict=True)
            ],
            references=[describe_entities(row, words) for row, (words, _) in zip(references, tagged, strict=True)],
            errors=np.where(invalid, np.maximum(errors, 1.0), errors),
        )
        return Judgement(outcome, invalid)


def _list_tagged(rows: pa.Table, targets: Targets) -> list[tuple[list[str], list[str]]]:
    """Each row's words, and their tags in the standard form."""
    form = form_from_targets(targets)
    words, tags = ([json.loads(value or "[]") for value in rows[name].to_pylist()] for name in ("tokens", "tags"))
    return [(row_words, convert_tags(row_tags, form)) for row_words, row_tags in zip(words, tags, strict=True)]


def _to_item(mention: Mention) -> dict[str, str | int]:
    start = {} if mention.start is None else {"start": mention.start}
    return {"text": mention.text, "type": mention.type, **start}


def _parse_mentions(answer: str, choices: forms.Choices, types: Sequence[str]) -> list[Mention] | None:
    """The entities in an answer, whose type is '' if it does not exist; None if the answer has no readable form."""
    try:
        items = forms.parse_answer(answer)
    except ValueError:
        return None
    if not isinstance(items, list):
        return None
    mentions = []
    for item in items:
        text, name = (item.get("text"), forms.as_name(item.get("type"))) if isinstance(item, dict) else (None, None)
        if not isinstance(text, str) or name is None:
            return None
        index, start = choices.find([name]), item.get("start")
        is_offset = isinstance(start, int) and not isinstance(start, bool)
        mentions.append(Mention(text, "" if index is None else types[index], start if is_offset else None))
    return mentions


def _place(mentions: Sequence[Mention], search: WordSearch) -> list[tuple[int, int] | None]:
    """The words of each mention, first and after the last; None for one without any that no earlier mention has."""
    places: list[tuple[int, int] | None] = []
    used: set[int] = set()
    cursor = 0
    for mention in mentions:
        free = [place for place in search.find(mention.text) if used.isdisjoint(range(*place))]
        place = _choose(free, cursor, mention.start, search) if free else None
        if place is not None:
            used.update(range(*place))
            cursor = place[1]
        places.append(place)
    return places


def _choose(free: Sequence[tuple[int, int]], cursor: int, start: int | None, search: WordSearch) -> tuple[int, int]:
    """The place closest to the character `start`, or the first from the word `cursor` on, or the first."""
    if start is not None:
        return min(free, key=lambda place: abs(search.offset(place[0]) - start))
    return next((place for place in free if place[0] >= cursor), free[0])


def _read_mentions(mentions: Sequence[Mention], words: Sequence[str], targets: Targets) -> Reading:
    """The mentions as tags of the row's words."""
    scheme = targets["scheme"]
    tags: list[str | None] = [None if scheme == "words" else OUTSIDE] * len(words)
    misplaced = []
    for mention, place in zip(mentions, _place(mentions, WordSearch(words)), strict=True):
        if place is None or not mention.type:
            misplaced.append(mention)
        else:
            tags[slice(*place)] = _build_tags(mention.type, place[1] - place[0], targets)
    return Reading(tags, tagging.find_entities(tags, scheme), misplaced)


def _build_tags(name: str, count: int, targets: Targets) -> list[str]:
    """The tags of an entity of `count` words, with the letters that the training rows have."""
    if targets["scheme"] != "prefixed":
        return [name] * count
    letters = {label[0] for label in targets["labels"] if label != OUTSIDE}
    row = ["I"] * count
    if letters & set("BES"):
        row[0] = "B"
    if letters & set("ES"):
        row[-1] = "E" if count > 1 else "S"
    return [letter if name == "_" else f"{letter}-{name}" for letter in row]


def _count_right_tags(tags: Sequence[str], references: Sequence[Entity], reading: Reading) -> int:
    """How many words have the right tag; those of a right entity have, in whichever scheme their tags are written."""
    predicted = list(reading.tags)
    for entity in set(references) & set(reading.entities):
        predicted[entity.start : entity.end] = tags[entity.start : entity.end]
    return sum(map(eq, tags, predicted))


def _describe(reading: Reading, words: Sequence[str]) -> str:
    """The entities as text for people, those that are in no words or of no type last."""
    # JSON may hold halves of characters (\ud800), which no file can.
    texts = [mention.text.encode("utf8", "replace").decode() for mention in reading.misplaced]
    wrong = [f"{text} [{m.type or 'unknown type'}]" for text, m in zip(texts, reading.misplaced, strict=True)]
    right = [describe_entities(reading.entities, words)] if reading.entities or not wrong else []
    return "; ".join([*right, *wrong])
