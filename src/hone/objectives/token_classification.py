"""Token classification: a tag for each word, such as entities, slots or parts of speech."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, RowReader, Targets
from hone.objectives.shared import tagging
from hone.objectives.shared.annotations import Mark, find_annotated
from hone.objectives.shared.entity_counts import count_entities, describe_entities
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.label_account import describe_case_variants
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.plain_text import group_by_row, row_indices
from hone.objectives.shared.span_account import SpanAccount
from hone.objectives.shared.spans import SpanReading, read_spans
from hone.objectives.shared.statistics import metrics_by_group, safe_ratio
from hone.objectives.shared.tag_forms import (
    TagForm,
    convert_tags,
    describe_form,
    find_form,
    form_from_targets,
    form_to_targets,
    is_standard,
)
from hone.objectives.shared.tagging import Entity, Scheme
from hone.objectives.shared.tokenizer import encode_with_offsets, list_control_tokens, to_list_array
from hone.objectives.shared.word_windows import NO_TOKEN, merge_windows, split_encoding
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch
    from hone.objectives.prompting.prompting import Prompting

IGNORED = -100  # a token without a label of its own
NO_WORD = -2


@dataclass(frozen=True)
class TokenClassification(Objective):
    """Predict a tag for each word, from the word's first token."""

    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    forms: ClassVar[tuple[str, ...]] = ("text", "spans")
    text: ClassVar[tuple[str, ...]] = ("tokens",)
    single_answer: ClassVar[bool] = True
    word_lists: ClassVar[tuple[str, ...]] = ("tokens",)
    inputs: ClassVar[tuple[str, ...]] = ("tokens",)
    outputs: ClassVar[Mapping[str, str]] = {"entities": "string"}
    pipeline: ClassVar[str] = "token-classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "entity_f1": Metric("Entity F1"),
        "precision": Metric("Entity precision"),
        "recall": Metric("Entity recall"),
        "token_accuracy": Metric("Token accuracy"),
    }

    words: Literal["punctuation", "spaces"] = option(
        "punctuation",
        "How plain text is split into words, in data with character spans and in the served model: punctuation makes "
        "each punctuation mark a word, spaces splits at spaces alone.",
    )

    offsets: Literal["auto", "characters", "utf-16", "bytes"] = option(
        "auto",
        "What the offsets of spans count. auto: characters, unless the spans' own texts show that it is UTF-16 units "
        "(as JavaScript counts) or bytes.",
    )
    max_subword_spans: float = option(
        0.01,
        "Maximum share of spans that may begin or end inside a word, as wrong offsets do; 1 if they are meant to.",
        ge=0,
        le=1,
    )

    stride: int = option(
        32,
        "Tokens shared by neighbouring windows of a text longer than max_length; at most half a window is used.",
        ge=0,
    )

    @property
    def prompting(self) -> Prompting:
        """The answer of a prompted model is a list of entities."""
        from hone.objectives.prompting import EntityPrompting

        return EntityPrompting(self)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """`tokens` and `tags` as lists, from lists, JSON, texts split at spaces, or a text with spans.

        Spans may have the form of an annotation tool's export (`hone.objectives.shared.annotations`). Raises ValueError
        if the lengths differ, tags mix schemes, or spans are invalid; SkippedRow for a row that was not annotated.
        """
        return self.tag_row(values, Counter())[0]

    def start_reading(self) -> RowReader:
        """A reader that counts spans by what their offsets mean, and those that cut words."""
        return TagReader(self)

    def tag_row(
        self, values: Mapping[str, Any], notes: Counter[str]
    ) -> tuple[Mapping[str, Any], tuple[str, list[Mark], SpanReading] | None]:
        """The row as `normalize_row` returns it, and the text, marks and spans that it was made of, if it was.

        Raises what `normalize_row` raises. `notes` counts what of the row is left out.
        """
        if values.get("tokens") is not None and values.get("tags") is not None:
            tokens, tags = (tagging.parse_list(values[name], name) for name in ("tokens", "tags"))
            tagging.check_words(tokens, tags)
            return {"tokens": tokens, "tags": [tag.strip() for tag in tags]}, None
        annotated = find_annotated(values, notes)
        if annotated is None:
            return values, None
        text, marks = annotated
        if not isinstance(text, str):
            raise ValueError(f"text: not text but {text!r:.60}")
        reading = read_spans(text, marks, self.offsets)
        tagged = tagging.tag_spans(text, reading.spans, self.words)
        tagging.check_words(tagged["tokens"], tagged["tags"])
        return tagged, (text, marks, reading)

    def row_texts(self, rows: pa.Table) -> list[str]:
        """The words of each row, joined by spaces."""
        return [" ".join(words) for words in _parse_column(rows, "tokens")]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The words."""
        return list(json.loads(value or "[]"))

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The same number of words, since each has a tag: a word that became empty keeps its old text."""
        words = [piece if piece.strip() else word for word, piece in zip(json.loads(value or "[]"), texts, strict=True)]
        return json.dumps(words, ensure_ascii=False)

    def normalize_input(self, name: str, value: str) -> str:
        """The words as JSON, of a list of them or of plain text."""
        text, extents = tagging.find_words(value, self.words)
        return json.dumps([text[start:end] for start, end in extents], ensure_ascii=False)

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`labels`, the tags of the training rows in the standard form, sorted, and their `scheme`.

        `tag_form` says how they are written, where that is another form. Raises DataError if there are not at least two
        different tags, or if only some tags have prefixes.
        """
        tags = {tag for row_tags in _parse_column(train, "tags") for tag in row_tags}
        where, check = "the training split, column tags", "Check the column that ingest.columns maps to tags."
        try:
            form = find_form(tags)
            labels = sorted(set(convert_tags(tags, form)))
            scheme = tagging.find_scheme(labels)
        except ValueError as fault:
            raise DataError(str(fault), where=where, fix="Use tags of one scheme in all rows.") from None
        if scheme == "words" and len(labels) == 1:
            raise DataError(f"every word has the tag {labels[0]!r}; there is nothing to learn", where=where, fix=check)
        if not tagging.list_types(labels, scheme):
            fix = f"{check} Curation may have dropped the rows with entities."
            raise DataError(
                "no word is in an entity: every tag is O" if labels else "has no tags", where=where, fix=fix
            )
        return {"labels": labels, "scheme": scheme, **form_to_targets(form)}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """Encode the words, joined by spaces; a row for each window of a text longer than `max_length` tokens.

        `first_word`: the index of the window's first word. `words` (list<int32>): the position of each word's first
        token, -1 for a word without one. `content`: the position after the last word's tokens. With `labelled` also
        `labels` (list<int32>), the index of each word's tag in the targets, -100 for a tag that no training row has,
        and `tags` as JSON. `lost`: tokens of a single word that is longer than a window.
        """
        import pyarrow as pa

        joined = [_join_words(value, self.words) for value in rows["tokens"].to_pylist()]
        encoded = encode_with_offsets(tokenizer, [text for text, _ in joined], control=list_control_tokens(targets))
        windows_by_row = [
            split_encoding(encoding, extents, max_length, self.stride)
            for encoding, (_, extents) in zip(encoded, joined, strict=True)
        ]
        windows = [window for row_windows in windows_by_row for window in row_windows]
        row_ids = rows["id"].cast(pa.string()).to_pylist()
        ids = [name for name, row_windows in zip(row_ids, windows_by_row, strict=True) for _ in row_windows]
        columns = {
            "id": pa.array(ids, pa.string()),
            # A model cannot process zero tokens, and a text without any still needs a prediction.
            "input_ids": to_list_array([window.ids or [tokenizer.pad_token_id] for window in windows]),
            "first_word": pa.array([window.first for window in windows], pa.int32()),
            "words": to_list_array([window.words for window in windows]),
            "content": pa.array([window.content for window in windows], pa.int32()),
        }
        if labelled:
            label_index = {label: index for index, label in enumerate(targets["labels"])}
            form = form_from_targets(targets)
            _check_form(rows, form, targets["scheme"])
            tags_by_window = [
                convert_tags(tags[window.first : window.first + len(window.words)], form)
                for tags, row_windows in zip(_check_aligned(rows, joined), windows_by_row, strict=True)
                for window in row_windows
            ]
            columns["labels"] = to_list_array(
                [[label_index.get(tag, IGNORED) for tag in tags] for tags in tags_by_window]
            )
            columns["tags"] = pa.array([json.dumps(tags, ensure_ascii=False) for tags in tags_by_window], pa.string())
        return pa.table({**columns, "lost": pa.array([window.lost for window in windows], pa.int32())})

    def list_unseen_labels(self, rows: pa.Table, targets: Targets) -> list[str]:
        """The types that no training row has, of each row that has any."""
        scheme, form = targets["scheme"], form_from_targets(targets)
        types = set(tagging.list_types(targets["labels"], scheme))
        row_types = (tagging.list_types(convert_tags(tags, form), scheme) for tags in _parse_column(rows, "tags"))
        return [", ".join(unseen) for names in row_types if (unseen := [name for name in names if name not in types])]

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask, `words` [rows, most words], padded with -2; labels [rows, tokens]."""
        import numpy as np
        import torch

        ids = rows["input_ids"]
        batch = {"input_ids": pad_rows(ids, pad_id), "attention_mask": attention_mask(ids)}
        batch["words"] = pad_rows(rows["words"], NO_WORD)
        if "labels" in rows:
            labels = np.full(tuple(batch["input_ids"].shape), IGNORED, np.int64)
            for row, (words, tags) in enumerate(zip(rows["words"], rows["labels"], strict=True)):
                positions = np.asarray(words, np.int64)
                labels[row, positions[positions >= 0]] = np.asarray(tags, np.int64)[positions >= 0]
            batch["labels"] = torch.from_numpy(labels)
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head of one output for each tag.

        Raises ModelError if the weights do not fit the architecture or it has no such head.
        """
        return load_with_head("AutoModelForTokenClassification", base, labels=targets["labels"])

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of the words' first tokens, float32, and their number."""
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        total = cross_entropy(_logits(model, batch).transpose(1, 2), labels, ignore_index=IGNORED, reduction="sum")
        return total, int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """For each word the index of its most likely label `said`, -1 if it has no token, and probability `scores`."""
        words = batch["words"]
        positions = words.clamp(min=0)
        probabilities, likeliest = _logits(model, batch).softmax(-1).max(-1)
        has_token = words >= 0
        scores = probabilities.gather(1, positions).where(has_token, 0.0).detach().cpu().numpy()
        labels = likeliest.gather(1, positions).where(has_token, NO_TOKEN).cpu().numpy()
        counts = (words != NO_WORD).sum(1).tolist()
        return {
            "scores": [row[:count] for row, count in zip(scores, counts, strict=True)],
            "said": [row[:count] for row, count in zip(labels, counts, strict=True)],
        }

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: for each type correct, reference and predicted entities; then correctly tagged words, and words.

        The last type collects types of no training row.
        """
        import numpy as np

        scheme = targets["scheme"]
        reference_tags = _merge_by_row(tokens, [json.loads(tags) for tags in tokens["tags"].to_pylist()])
        predicted_tags = [_tag_names(row, targets) for row in _merge_by_row(tokens, predictions["said"])]
        reference_entities, predicted_entities = (
            [tagging.find_entities(tags, scheme) for tags in rows_tags]
            for rows_tags in (reference_tags, predicted_tags)
        )
        words = np.array(
            [[sum(map(eq, a, b)), len(a)] for a, b in zip(reference_tags, predicted_tags, strict=True)], np.float64
        )
        texts = _parse_column(rows, "tokens") if rows is not None else [None] * len(reference_tags)
        return Outcome(
            statistics=np.concatenate(
                [count_entities(reference_entities, predicted_entities, targets), words.reshape(-1, 2)], axis=1
            ),
            predictions=[describe_entities(row, text) for row, text in zip(predicted_entities, texts, strict=True)],
            references=[describe_entities(row, text) for row, text in zip(reference_entities, texts, strict=True)],
            errors=np.array(
                [float(len(set(a) ^ set(b))) for a, b in zip(reference_entities, predicted_entities, strict=True)]
            ),
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Micro-averaged over all entities, like seqeval's; `token_accuracy` over all words."""
        import numpy as np

        right, support, predicted = (part.sum(0) for part in np.split(sums[:-2], 3))
        return {
            "entity_f1": safe_ratio(2 * right, support + predicted),
            "precision": safe_ratio(right, predicted),
            "recall": safe_ratio(right, support),
            "token_accuracy": safe_ratio(sums[-2], sums[-1]),
        }

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """`precision`, `recall`, `f1` and `support` (entities) of each type."""
        import numpy as np

        return metrics_by_group(tagging.list_types(targets["labels"], targets["scheme"]), *np.split(sums[:-2], 3))

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`most_frequent`: each word's most frequent tag in training; for a new word the most frequent tag of all."""
        import numpy as np

        counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        all_counts: Counter[int] = Counter()
        previous, counted = "", 0  # the row of the window before, and how many of its words were counted
        for row in train.select(["id", "first_word", "input_ids", "words", "content", "labels"]).to_pylist():
            shared = counted - row["first_word"] if row["id"] == previous else 0
            previous, counted = row["id"], row["first_word"] + len(row["words"])
            for index, word in _word_tokens(row):
                if index >= shared:
                    counts[word][row["labels"][index]] += 1
                    all_counts[row["labels"][index]] += 1
        likeliest = {word: tags.most_common(1)[0] for word, tags in counts.items()}
        default_tag, default_count = all_counts.most_common(1)[0]
        predicted, scores = [], []
        for row in test.select(["input_ids", "words", "content"]).to_pylist():
            tags = np.full(len(row["words"]), NO_TOKEN)
            scores_row = np.zeros(len(row["words"]), np.float32)
            for index, word in _word_tokens(row):
                tags[index], count = likeliest.get(word, (default_tag, default_count))
                scores_row[index] = count / (counts[word].total() if word in likeliest else all_counts.total())
            predicted.append(tags)
            scores.append(scores_row)
        return {"most_frequent": {"said": predicted, "scores": scores}}

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """`entities` in JSON: text, type, score (the mean of its words' probabilities), start and end in characters.

        Offsets refer to the plain text that was sent, or to the words of a list joined by spaces. Also `tags`: each
        word with its tag and probability; the tag is None for a word without tokens.
        """
        answers = []
        label_ids_by_row, scores_by_row = (_merge_by_row(tokens, predictions[name]) for name in ("said", "scores"))
        for row, label_ids, scores in zip(rows, label_ids_by_row, scores_by_row, strict=True):
            text, extents = tagging.find_words(row["tokens"], self.words)
            tags = _tag_names(label_ids, targets)
            entities = [
                _entity_answer(entity, text, extents, scores)
                for entity in tagging.find_entities(tags, targets["scheme"])
            ]
            word_tags = [
                {"word": text[start:end], "tag": tag, "score": float(score)}
                for (start, end), tag, score in zip(extents, tags, scores, strict=True)
            ]
            answers.append({"entities": json.dumps(entities, ensure_ascii=False), "tags": word_tags})
        return answers

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The tags of the words; `-` for a word without tokens."""
        return " ".join(word["tag"] or "-" for word in answer["tags"])


class TagReader(RowReader):
    """Counts, over all rows, what the offsets of spans mean, which of them cut words, and how tags are written."""

    def __init__(self, objective: TokenClassification) -> None:
        super().__init__(objective.normalize_row)
        self._objective, self._account = objective, SpanAccount(objective.max_subword_spans)
        self._tags: Counter[str] = Counter()
        self._rows, self._numbered = 0, 0

    def convert(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `TokenClassification.normalize_row`."""
        row, annotated = self._objective.tag_row(values, self.notes)
        if annotated is not None:
            self._account.add(*annotated)
        if row is not values:  # converted, not of an unknown form
            self._tags.update(row["tags"])
            self._rows += len(row["tags"]) > 1
            self._numbered += len(row["tags"]) > 1 and row["tokens"] == list(map(str, range(1, len(row["tags"]) + 1)))
        return row

    def finish(self) -> Mapping[str, int]:
        """The notes.

        Raises DataError if tokens are but numbers of words, if it is not clear what offsets count, or if too many spans
        cut words.
        """
        if self._numbered > self._rows / 2:
            raise DataError(
                f"in {self._numbered} of {self._rows} rows the tokens are 1, 2, 3 and so on: numbers of words",
                where="column tokens",
                fix="Choose the columns of a CoNLL file by number, from 0 on: ingest.columns: {tokens: 1, tags: 2}.",
            )
        self._account.check()
        return {**self.notes, **self._account.list_notes(), **self._describe_tags()}

    def _describe_tags(self) -> dict[str, int]:
        """Notes on tags that are written in another form than the standard one, or that differ by case alone."""
        with suppress(ValueError):  # of the training rows' tags, tokenize decides
            form = find_form(self._tags)
            changed = sum(count for tag, count in self._tags.items() if convert_tags([tag], form) != [tag])
            description = describe_form(form, self._tags)
            return (
                {f"tags read in another form: {description}": changed}
                if changed
                else describe_case_variants(self._tags)
            )
        return {}


def _parse_column(rows: pa.Table, name: str) -> list[Any]:
    return [json.loads(value or "[]") for value in rows[name].to_pylist()]


def _join_words(value: str, split: str) -> tuple[str, list[tuple[int, int]]]:
    """The words joined by spaces, and the extent of each in that text."""
    text, extents = tagging.find_words(value, split)
    return tagging.join_words([text[start:end] for start, end in extents])


def _check_form(rows: pa.Table, form: TagForm, scheme: Scheme) -> None:
    """Raise DataError for a tag that is not written as the training rows' tags are: it would be another type."""
    if scheme != "prefixed":
        return
    for name, tags in zip(rows["id"].to_pylist(), _parse_column(rows, "tags"), strict=True):
        for tag, standard in zip(tags, convert_tags(tags, form), strict=True):
            if not is_standard(standard):
                raise DataError(
                    f"its tag {tag!r} is not written as the tags of the training rows are",
                    where=f"row {name}, column tags",
                    fix="Use tags of one form in all splits.",
                )


def _check_aligned(rows: pa.Table, joined: Sequence[tuple[str, Sequence[tuple[int, int]]]]) -> Iterator[list[str]]:
    """Each row's tags; raises DataError if their number differs from that of the words."""
    for name, tags, (_, extents) in zip(rows["id"].to_pylist(), _parse_column(rows, "tags"), joined, strict=True):
        if len(tags) != len(extents):
            raise DataError(
                f"has {len(extents)} tokens and {len(tags)} tags", where=f"row {name}", fix="Ingest the rows again."
            )
        yield tags


def _merge_by_row(tokens: pa.Table, values_by_window: Sequence[Any]) -> list[list[Any]]:
    """The values of each row's words, from those of its windows."""
    row_index, firsts = row_indices(tokens), tokens["first_word"].to_pylist()
    groups = zip(group_by_row(row_index, firsts), group_by_row(row_index, values_by_window), strict=True)
    return [merge_windows(*group) for group in groups]


def _word_tokens(row: Mapping[str, Any]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The index of each word that has tokens, and their ids."""
    with_tokens = [(index, position) for index, position in enumerate(row["words"]) if position >= 0]
    ends = [position for _, position in with_tokens[1:]] + [row["content"]]
    for (index, position), end in zip(with_tokens, ends, strict=True):
        yield index, tuple(row["input_ids"][position:end])


def _logits(model: Any, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def _tag_names(label_ids: Sequence[int], targets: Targets) -> list[str | None]:
    return [targets["labels"][label] if label >= 0 else None for label in label_ids]


def _entity_answer(
    entity: Entity, text: str, extents: Sequence[tuple[int, int]], scores: Sequence[float]
) -> dict[str, Any]:
    start, end = extents[entity.start][0], extents[entity.end - 1][1]
    word_scores = [float(score) for score in scores[entity.start : entity.end]]
    return {
        "text": text[start:end],
        "type": entity.type,
        "score": sum(word_scores) / len(word_scores),
        "start": start,
        "end": end,
    }
