"""The answers to a question in the rows: SQuAD's forms, where they are in the context, and after it was rewritten."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hone.objectives.shared.json_cells import load_json
from hone.objectives.shared.spans import UNITS, Unit, convert_positions

NO_POSITION = -1


def parse_answers(answers: Any) -> list[tuple[Any, Any]]:
    """The texts and starts of answers in any supported form; raises ValueError for others."""
    if isinstance(answers, str):
        try:
            answers = load_json(answers)
        except ValueError:
            raise ValueError("answers: not JSON") from None
    if isinstance(answers, Mapping):
        texts, starts = answers.get("text"), answers.get("answer_start")
        if isinstance(texts, str):
            return [(texts, starts)]
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            return list(zip(texts, starts, strict=True))
    if isinstance(answers, list) and all(isinstance(answer, Mapping) for answer in answers):
        return [(answer.get("text"), answer.get("answer_start")) for answer in answers]
    raise ValueError(
        "answers: neither {text: [...], answer_start: [...]} of equal lengths nor a list of {text, answer_start}"
    )


def locate_answers(pairs: Sequence[tuple[Any, Any]], context: str) -> tuple[Unit, list[int]]:
    """What the starts count, and the answers' starts in characters; raises ValueError for one that is elsewhere."""
    for index, (text, start) in enumerate(pairs):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"answers: text {index} is not text but {text!r:.60}")
        if type(start) is not int or start < 0:
            raise ValueError(f"answers: answer_start {index} is not an offset but {start!r:.60}")
    for unit in UNITS:
        starts = convert_positions(context, [start for _, start in pairs], unit)
        located = [start for start in starts if start is not None]
        if len(located) == len(pairs) and all(map(context.startswith, (text for text, _ in pairs), located)):
            return unit, located
    text, start = next((text, start) for text, start in pairs if not context.startswith(text, start))
    place = context.find(text)
    hint = f"; that is at {place}" if place >= 0 else ""
    context_text = context[start : start + len(text)]
    raise ValueError(f"answers: at {start} the context has {context_text!r:.60}, not the answer {text!r:.60}{hint}")


def dump_answers(answers: Mapping[str, Any]) -> str:
    """The answers as they are in the column."""
    return json.dumps(answers, ensure_ascii=False)


def realign_answers(context: str, old: str, changed: str, new: str) -> tuple[str, str]:
    """The answers with their starts in the changed context, and '' or the reason to drop the row.

    The start of an answer that is no longer there is NO_POSITION, as is one that was none before.
    """
    answers = json.loads(new)
    starts = []
    for old_text, new_text, start in zip(
        json.loads(old)["text"], answers["text"], answers["answer_start"], strict=True
    ):
        before, after = _find_all(old_text, context), _find_all(new_text, changed)
        is_lost = not new_text.strip() or len(before) != len(after) or start not in before
        starts.append(NO_POSITION if is_lost else after[before.index(start)])
    reason = "an answer is no longer in the context" if NO_POSITION in starts else ""
    return dump_answers({**answers, "answer_start": starts}), reason


def _find_all(text: str, context: str) -> list[int]:
    """The starts of all occurrences of `text` in `context`, overlapping ones included."""
    return [match.start() for match in re.finditer(f"(?={re.escape(text)})", context)]
