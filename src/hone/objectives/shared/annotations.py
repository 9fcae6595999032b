"""Annotated texts as annotation tools export them: Prodigy, doccano, Label Studio, argilla, brat and presidio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hone.errors import SkippedRow
from hone.objectives.shared.json_cells import load_json

_STARTS = ("start", "start_offset", "start_position", "start_char", "startOffset", "begin")
_ENDS = ("end", "end_offset", "end_position", "end_char", "endOffset", "stop")
_LABELS = ("label", "labels", "entity_type", "entity_group", "type", "entity", "tag", "category", "class")
_TEXTS = ("text", "entity_value", "value", "word", "surface", "mention")
_LISTS = ("spans", "entities", "labels", "label", "annotation", "annotations")  # columns that may hold spans
# Columns by which Prodigy's rows are known where there are no spans; `answer` alone may be any column of a data set.
_PRODIGY = ("_task_hash", "_input_hash", "_session_id", "_annotator_id", "spans")
_NOT_ACCEPTED = ("reject", "ignore")
_RESPONSES = (".responses", ".responses.status")  # ends of the names of argilla 2's columns: lists of users' answers


class Mark(NamedTuple):
    """A span as an export has it: where it starts and ends in whatever unit, its label, and its own text if any."""

    start: int
    end: int
    label: str
    text: str | None = None


def check_accepted(values: Mapping[str, Any]) -> None:
    """Raises SkippedRow for a row that nobody annotated, or that its annotator did not accept.

    Prodigy says so in `answer`, argilla in `status` or `NAME.responses.status`, Label Studio in `was_cancelled`.
    """
    answer, status = values.get("answer"), values.get("status")
    if answer in _NOT_ACCEPTED and any(name in values for name in _PRODIGY):
        raise SkippedRow(f"answer is {answer}")
    if isinstance(status, str) and status.lower() == "discarded" and "annotation" in values:
        raise SkippedRow("status is discarded")
    _check_responses(values)
    if _is_label_studio(values):
        annotations = parse_json(values["annotations"])
        if all(annotation.get("was_cancelled") for annotation in annotations):
            raise SkippedRow("annotation was cancelled" if annotations else "not annotated")


def _check_responses(values: Mapping[str, Any]) -> None:
    """Raises SkippedRow for a record of argilla 2 that nobody answered, or whose answers were all discarded."""
    answers = {name: parse_json(value) for name, value in values.items() if name.endswith(_RESPONSES)}
    statuses = [answer for name, answer in answers.items() if name.endswith(_RESPONSES[1]) and answer]
    if any(isinstance(users, list) and set(map(str, users)) == {"discarded"} for users in statuses):
        raise SkippedRow("response is discarded")
    if values.get("status") == "pending" and "_server_id" in values and not any(answers.values()):
        raise SkippedRow("not annotated")


def find_annotated(values: Mapping[str, Any], notes: Counter[str]) -> tuple[Any, list[Mark]] | None:
    """The text of a row and its marks, in the form of any of these tools; None for a row of another form.

    Raises SkippedRow for a row that nobody annotated, ValueError for marks that cannot be read. `notes`
    counts annotations by others than the first annotator, which are left out.
    """
    if _is_label_studio(values):
        return _read_label_studio(values, notes)
    if values.get("text") is None:
        return None
    for name in _LISTS:
        marks = parse_json(values.get(name))
        if name in _LISTS[:2] and marks is not None:
            return values["text"], parse_marks(marks or [], name)
        if has_marks(marks) or (marks == [] and not isinstance(values[name], str)):
            return values["text"], parse_marks(marks, name)
    return None


def has_marks(value: Any) -> bool:
    """Whether a value is a list of spans with offsets, as a list or as JSON text; an empty list is not."""
    items = parse_json(value)
    if isinstance(items, Mapping):
        items = _rows_of(items)
    if not isinstance(items, (list, tuple)) or not items:
        return False
    try:
        return _mark(items[0], 0, "") is not None
    except ValueError:
        return False


def parse_marks(value: Any, name: str) -> list[Mark]:
    """The marks in a list of them, or in a mapping of lists; ValueError names the column `name` and the item."""
    if isinstance(value, Mapping):
        value = _rows_of(value)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{name}: neither a list nor text but {value!r:.60}")
    marks = [_mark(item, index, name) for index, item in enumerate(value)]
    return [mark for mark in marks if mark is not None]


def parse_json(value: Any) -> Any:
    """The value of a text in JSON that is a list or a mapping; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return load_json(value)
        except ValueError:
            return value
    return value


def _rows_of(columns: Mapping[str, Any]) -> Any:
    """The mappings that a mapping of lists of equal length holds, as `datasets` writes a list of mappings."""
    lists = list(columns.values())
    if not lists or not all(isinstance(values, (list, tuple)) and len(values) == len(lists[0]) for values in lists):
        return columns
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _is_label_studio(values: Mapping[str, Any]) -> bool:
    """Whether a row is a task of Label Studio, which has its columns in `data` if nobody annotated it yet."""
    annotations = parse_json(values.get("annotations"))
    if not isinstance(annotations, list):
        return False
    if not annotations:
        return isinstance(parse_json(values.get("data")), Mapping)
    return all(isinstance(item, Mapping) and "result" in item for item in annotations)


def _read_label_studio(values: Mapping[str, Any], notes: Counter[str]) -> tuple[Any, list[Mark]]:
    annotations = parse_json(values["annotations"])
    finished = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if not finished:
        raise SkippedRow("annotation was cancelled" if annotations else "not annotated")
    if len(finished) > 1:
        notes["annotations by a second annotator, left out"] += len(finished) - 1
    text = values.get("text")
    return _label_studio_text(values.get("data")) if text is None else text, parse_marks(
        finished[0]["result"], "annotations"
    )


def _label_studio_text(data: Any) -> Any:
    data = parse_json(data)
    texts = {name: value for name, value in data.items() if isinstance(value, str)} if isinstance(data, Mapping) else {}
    if "text" in texts:
        return texts["text"]
    if len(texts) != 1:
        raise ValueError(
            f"data: which is the text, {', '.join(texts) or 'none'}? Set ingest.columns: {{text: data.NAME}}"
        )
    return next(iter(texts.values()))


def _mark(item: Any, index: int, name: str) -> Mark | None:
    """The mark that an item is; None for what is no span, such as a relation between two."""
    if isinstance(item, Mapping):
        if isinstance(item.get("value"), Mapping):  # Label Studio
            item = item["value"]
            if not any(start in item for start in _STARTS):
                return None
        if item.get("type") == "relation":
            return None
        start, end, label = (_first(item, names) for names in (_STARTS, _ENDS, _LABELS))
        text = next((item[key] for key in _TEXTS if isinstance(item.get(key), str)), None)
    else:
        (start, end, label), text = _triple(item, index, name), None
    if isinstance(label, (list, tuple)) and len(label) == 1:
        label = label[0]
    start, end = _whole(start), _whole(end)
    if start is None or end is None:
        raise ValueError(f"{name}: start and end of item {index} are not whole numbers")
    if isinstance(label, (list, tuple)) and label:
        raise ValueError(f"{name}: item {index} has several labels: {label!r:.60}")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{name}: item {index} has no label")
    return Mark(start, end, label.strip(), text)


def _triple(item: Any, index: int, name: str) -> Sequence[Any]:
    """Start, end and label of a list: in that order, label first as in argilla, or brat's id, label and extents."""
    if isinstance(item, (list, tuple)) and len(item) == 3:
        first, second, third = item
        if isinstance(second, str) and isinstance(third, list):
            if len(third) != 1 or not isinstance(third[0], (list, tuple)) or len(third[0]) != 2:
                raise ValueError(f"{name}: item {index} is not in one piece: {third!r:.60}")
            return [*third[0], second]
        return [second, third, first] if isinstance(first, str) and not isinstance(third, str) else item
    raise ValueError(f"{name}: item {index} has not the form {{start, end, label}}")


def _first(item: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _whole(value: Any) -> int | None:
    """The whole number that a value is; a column with gaps holds its whole numbers as floats."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None
