"""Extractive question answering: the answer to a question as a span of a text, or no answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, RowReader, Targets
from hone.objectives.shared import squad
from hone.objectives.shared.answers import (
    NO_POSITION,
    dump_answers,
    locate_answers,
    parse_answers,
    realign_answers,
)
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.spans import Unit
from hone.objectives.shared.statistics import safe_ratio
from hone.objectives.shared.tokenizer import list_control_tokens
from hone.objectives.shared.windows import Frame, Window, split_into_windows
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch
    from hone.objectives.prompting.prompting import Prompting
    from hone.rewriting import Rewritten

_EXCLUDED = -1e9  # the logit of a position where no answer can begin or end
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\w+")


class Answer(NamedTuple):
    """An answer: its text ('' for none), its extent in the context, its probability, and that of no answer."""

    text: str
    start: int
    end: int
    score: float
    none: float


@dataclass(frozen=True)
class QuestionAnswering(Objective):
    """Predict the answer to a question as a span of a text, or that there is none."""

    columns: ClassVar[tuple[str, ...]] = ("question", "context", "answers")
    forms: ClassVar[tuple[str, ...]] = ("is_impossible",)
    text: ClassVar[tuple[str, ...]] = ("question", "context", "answers")
    split_contexts: ClassVar[bool] = False
    single_answer: ClassVar[bool] = True
    inputs: ClassVar[tuple[str, ...]] = ("question", "context")
    outputs: ClassVar[Mapping[str, str]] = {"answer": "string", "score": "double", "start": "long", "end": "long"}
    pipeline: ClassVar[str] = "question-answering"
    writes_answers: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, Metric]] = {
        "f1": Metric("F1"),
        "exact_match": Metric("Exact match"),
        "has_answer_f1": Metric("F1, questions with an answer"),
        "has_answer_exact_match": Metric("Exact match, questions with an answer"),
        "no_answer_accuracy": Metric("Accuracy, questions without an answer"),
    }
    needs_rows: ClassVar[bool] = True
    tunes_targets: ClassVar[bool] = True

    stride: int = option(
        128,
        "Tokens shared by neighbouring windows of a long context; at most half a window is used.",
        ge=0,
    )
    max_answer: int = option(30, "Maximum number of tokens of an answer.", learning=True, ge=1, le=1000)
    null_threshold: float = option(
        0.0,
        "No answer is predicted if its logit exceeds that of the best span by more than this. Used only if training "
        "rows have questions without an answer.",
        learning=True,
    )
    tune_threshold: bool = option(
        True,
        "Choose null_threshold on the validation rows, if enough of them have an answer and enough have none.",
        learning=True,
    )

    @property
    def prompting(self) -> Prompting:
        """The answer of a prompted model is a part of the context."""
        from hone.objectives.prompting import AnswerPrompting

        return AnswerPrompting(self)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """`answers` as {text: [...], answer_start: [...]}: from that form, a list of {text, answer_start}, or JSON.

        Starts that count UTF-16 units or bytes, as all answers of the row show, are converted to characters. Raises
        ValueError if an answer is not in the context at its start.
        """
        return self.normalize_answers(values)[0]

    def start_reading(self) -> RowReader:
        """A reader that counts the rows whose answer starts were converted."""
        return AnswerReader(self)

    def normalize_answers(self, values: Mapping[str, Any]) -> tuple[Mapping[str, Any], Unit]:
        """The row as `normalize_row` returns it, and what its answer starts count; raises what that raises."""
        if isinstance(values.get("data"), list) and "question" not in values:
            raise ValueError("data: a whole SQuAD file in one row; set ingest.source.format: squad")
        for name in ("question", "context"):
            if not isinstance(values.get(name, ""), str | None):
                raise ValueError(f"{name}: is not a text")
        if None in (values.get("question"), values.get("context")) or "answers" not in values:
            return values, "characters"
        pairs = [] if values.get("is_impossible") is True else parse_answers(values["answers"])
        texts, unit, starts = [text for text, _ in pairs], *locate_answers(pairs, values["context"])
        return {**values, "answers": {"text": texts, "answer_start": starts}}, unit

    def row_texts(self, rows: pa.Table) -> list[str]:
        """Each question, and its context on the next line."""
        both = zip(rows["question"].to_pylist(), rows["context"].to_pylist(), strict=True)
        return [f"{question or ''}\n{context or ''}" for question, context in both]

    def identity_texts(self, rows: pa.Table) -> list[str]:
        """The questions: one passage has many."""
        return [question or "" for question in rows["question"].to_pylist()]

    def context_texts(self, rows: pa.Table) -> list[str]:
        """The passages."""
        return [context or "" for context in rows["context"].to_pylist()]

    def answer_keys(self, rows: pa.Table) -> list[str]:
        """The texts and places of all answers of each question, sorted."""
        answers = [
            json.loads(value) if value else {"text": [], "answer_start": []} for value in rows["answers"].to_pylist()
        ]
        pairs = (zip(answer["text"], answer["answer_start"], strict=True) for answer in answers)
        return [json.dumps(sorted(set(row_pairs)), ensure_ascii=False) for row_pairs in pairs]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The texts of the answers; questions and contexts are plain text."""
        return list(json.loads(value)["text"]) if column == "answers" and value else [value]

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The answers with their texts replaced; `realign_annotations` updates their starts."""
        if column != "answers" or not value:
            return texts[0]
        return dump_answers({**json.loads(value), "text": texts})

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """Update answer starts: the n-th occurrence of an answer in the old context is the n-th in the new one.

        Drop a row if an answer does not occur in the new context as often as in the old one: its start becomes -1.
        """
        import pyarrow as pa

        answers, reasons = [], []
        columns = [table[name].to_pylist() for table in (before, after) for name in ("context", "answers")]
        for context, old, changed, new in zip(*columns, strict=True):
            realigned, reason = (
                (new, "") if (context, old) == (changed, new) else realign_answers(context, old, changed, new)
            )
            answers.append(realigned)
            reasons.append(reason)
        index = after.column_names.index("answers")
        return after.set_column(index, "answers", pa.array(answers, pa.string())), reasons

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`no_answer`: whether some training rows have no answer; raises DataError if none has one."""
        answered = [bool(json.loads(value or "{}").get("text")) for value in train["answers"].to_pylist()]
        if not any(answered):
            raise DataError(
                "has no question with an answer; there is nothing to learn",
                where="the training split, column answers",
                fix="Check the column that ingest.columns maps to answers, and the curation steps that drop rows.",
            )
        return {"no_answer": not all(answered)}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """A row for each window of a context, with the question; `lost` counts the question's tokens cut off.

        `types` (list<int32>): segment ids. `begin`: position of the context's first token; `starts`, `ends`: the extent
        of each context token in characters. `cls`: the position whose logits stand for no answer. With `labelled` also
        `first` and `last`, the positions of the first reference, both `cls` if it is not wholly in the window.
        """
        import pyarrow as pa

        pairs = list(zip(rows["question"].to_pylist(), rows["context"].to_pylist(), strict=True))
        windows_by_row = split_into_windows(tokenizer, pairs, max_length, self.stride, list_control_tokens(targets))
        frame, spans = Frame.from_tokenizer(tokenizer), _first_answers(rows) if labelled else [None] * len(rows)
        encoded = [
            {
                "id": str(name),
                "lost": 0 if index else window.lost,
                **_encode_window(window, span, frame, tokenizer.cls_token_id),
            }
            for name, row_windows, span in zip(rows["id"].to_pylist(), windows_by_row, spans, strict=True)
            for index, window in enumerate(row_windows)
        ]
        fields = [field for field in _schema() if labelled or field.name not in ("first", "last")]
        return pa.Table.from_pylist(encoded, pa.schema(fields))

    def locate_in_source(self, tokens: pa.Table, texts: Sequence[Mapping[str, Sequence[Rewritten]]]) -> pa.Table:
        """The tokens' extents in the context that was sent: a token of a replaced part has the extent of that part."""
        import pyarrow as pa

        columns: dict[str, list[list[int]]] = {"starts": [], "ends": []}
        windows = [(int(window), row) for row, indices in enumerate(_windows_by_row(tokens)) for window in indices]
        for window, row in windows:
            starts, ends = (tokens[name][window].as_py() for name in columns)
            for context in texts[row].get("context", ()):
                extents = [context.find_source(*extent) for extent in zip(starts, ends, strict=True)]
                starts, ends = [start for start, _ in extents], [end for _, end in extents]
            columns["starts"].append(starts)
            columns["ends"].append(ends)
        for name, extents_of_windows in columns.items():
            index = tokens.column_names.index(name)
            tokens = tokens.set_column(index, name, pa.array(extents_of_windows, tokens.schema.field(name).type))
        return tokens

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask, token_type_ids, `inside` (1 for the context's tokens) [rows, longest]; int64.

        And `begin`, `cls`, `first`, `last` [rows].
        """
        import torch

        ids = rows["input_ids"]
        batch = {"input_ids": pad_rows(ids, pad_id), "attention_mask": attention_mask(ids)}
        batch["token_type_ids"] = pad_rows(rows["types"], 0)
        for name in ("begin", "cls", "first", "last"):
            if name in rows:
                batch[name] = torch.tensor([int(value) for value in rows[name]])
        positions = torch.arange(batch["input_ids"].shape[1])
        begin, count = batch["begin"][:, None], torch.tensor([len(starts) for starts in rows["starts"]])[:, None]
        batch["inside"] = ((positions >= begin) & (positions < begin + count)).long()
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head that scores each token as an answer's first and last.

        Raises ModelError if the weights do not fit the architecture or it has no such head.
        """
        return load_with_head("AutoModelForQuestionAnswering", base)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy, float32, the mean of those of first and last token, and the number of windows."""
        from torch.nn.functional import cross_entropy

        allowed = _allowed(batch)
        logits = [side_logits.masked_fill(~allowed, _EXCLUDED) for side_logits in _logits(model, batch)]
        first, last = (
            cross_entropy(side_logits, batch[name], reduction="sum")
            for side_logits, name in zip(logits, ("first", "last"), strict=True)
        )
        return (first + last) / 2, len(batch["cls"])

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """The best span of at most `max_answer` tokens in each window.

        `span` [rows, 2]: its first and last context token, -1 if there are none. `best` and `null`: the
        summed logits of that span and of no answer. `scores` [rows, 2]: their probabilities in the window.
        """
        import torch

        inside, allowed, rows = batch["inside"].bool(), _allowed(batch), torch.arange(len(batch["cls"]))
        start, end = _logits(model, batch)
        best, first, last = _best_span(start, end, inside, self.max_answer)
        cls, rows = batch["cls"], rows.to(start.device)
        log_start, log_end = (logits.masked_fill(~allowed, _EXCLUDED).log_softmax(1) for logits in (start, end))
        has_context = inside.any(1)
        span_probability = (log_start[rows, first] + log_end[rows, last]).exp().where(has_context, 0.0)
        none_probability = (log_start[rows, cls] + log_end[rows, cls]).exp()
        span = (torch.stack([first, last], 1) - batch["begin"][:, None]).where(has_context[:, None], NO_POSITION)
        outputs = {
            "scores": torch.stack([span_probability, none_probability], 1),
            "best": best,
            "null": start[rows, cls] + end[rows, cls],
            "span": span,
        }
        return {name: tensor.detach().cpu().numpy() for name, tensor in outputs.items()}

    def tune_targets(self, tokens: pa.Table, predictions: Predictions, targets: Targets) -> Targets:
        """The targets with the `null_threshold` that has the best F1 on `tokens` (`squad.choose_threshold`).

        Answers are compared by their tokens here, since the texts are not at hand.
        """
        import numpy as np

        if not (self.tune_threshold and targets["no_answer"] and "best" in predictions):
            return targets
        first, last, cls = (tokens[name].to_numpy() for name in ("first", "last", "cls"))
        best, null = np.asarray(predictions["best"], np.float64), np.asarray(predictions["null"], np.float64)
        rows = []
        for indices in _windows_by_row(tokens):
            window, has_answer = indices[best[indices].argmax()], bool((first[indices] != cls[indices]).any())
            begin = int(tokens["begin"][int(window)].as_py())
            gold = (int(first[window]) - begin, int(last[window]) - begin) if first[window] != cls[window] else None
            span = tuple(int(token) for token in predictions["span"][window])
            rows.append((null[indices].min() - best[window], squad.overlap(span, gold), has_answer))
        margins, answered_f1, has_answers = (np.array(column) for column in zip(*rows, strict=True))
        threshold = squad.choose_threshold(margins, answered_f1, has_answers, self.null_threshold)
        return {**targets, "null_threshold": threshold}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics are F1, exact match and 1; the same for questions with an answer; for questions without one
        whether that was predicted, and 1.
        """
        import numpy as np

        if rows is None:
            raise TypeError("rows are required: answers are parts of their contexts")
        references = [list(json.loads(value)["text"]) for value in rows["answers"].to_pylist()]
        confidences = None
        if "texts" in predictions:
            texts = list(predictions["texts"])
        else:
            answers = self._best_answers(tokens, predictions, targets, rows["context"].to_pylist())
            texts = [answer.text for answer in answers]
            confidences = np.array([answer.score for answer in answers], np.float64)
        f1, exact = (
            np.array([squad.score_answer(*pair) for pair in zip(texts, references, strict=True)]).reshape(-1, 2).T
        )
        has_answer, ones = (
            np.array([bool(texts_of_row) for texts_of_row in references], np.float64),
            np.ones(len(references)),
        )
        parts = [
            f1,
            exact,
            ones,
            f1 * has_answer,
            exact * has_answer,
            has_answer,
            exact * (1 - has_answer),
            1 - has_answer,
        ]
        # At least 1e-6: a wrong answer of probability 0 still has an error above 0.
        confidence = ones if confidences is None else np.maximum(confidences, 1e-6)
        return Outcome(
            statistics=np.stack(parts, 1),
            predictions=[text or "no answer" for text in texts],
            references=[" | ".join(dict.fromkeys(texts_of_row)) or "no answer" for texts_of_row in references],
            errors=np.where(exact == 1, 0.0, (2 - f1) * confidence),
            confidences=confidences,
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """`f1` and `exact_match`; if training has questions without an answer, also for both kinds of questions."""
        f1, exact, rows, has_f1, has_exact, has, none_right, none = sums
        metrics = {"f1": safe_ratio(f1, rows), "exact_match": safe_ratio(exact, rows)}
        if targets["no_answer"]:
            metrics["has_answer_f1"] = safe_ratio(has_f1, has)
            metrics["has_answer_exact_match"] = safe_ratio(has_exact, has)
            metrics["no_answer_accuracy"] = safe_ratio(none_right, none)
        return metrics

    def count_rows(self, sums: np.ndarray, targets: Targets) -> dict[str, int]:
        """The questions with and without an answer."""
        with_answer, without = int(sums[5]), int(sums[7])
        both = dict.fromkeys(("has_answer_f1", "has_answer_exact_match"), with_answer)
        return both | {"no_answer_accuracy": without}

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`overlap`: the context's sentence with the most words of the question. `no_answer`: never an answer, if
        training has questions without one.
        """
        both = zip(rows["question"].to_pylist(), rows["context"].to_pylist(), strict=True)
        predictions: dict[str, Predictions] = {"overlap": {"texts": [_likeliest_sentence(*pair) for pair in both]}}
        if targets["no_answer"]:
            predictions["no_answer"] = {"texts": [""] * len(rows)}
        return predictions

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """`answer`, a part of the context or '' for none, its probability `score`, its `start` and `end` in characters
        (-1 for none), and `no_answer`, the probability of no answer.
        """
        answers = self._best_answers(tokens, predictions, targets, [row["context"] for row in rows])
        return [
            {
                "answer": answer.text,
                "score": answer.score,
                "start": answer.start,
                "end": answer.end,
                "no_answer": answer.none,
            }
            for answer in answers
        ]

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The part of the context; '' for no answer."""
        return str(answer["answer"])

    def _best_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, contexts: Sequence[str]
    ) -> list[Answer]:
        """The answer to each question: the best span of all its windows, or none.

        As BERT's run_squad.py: logits are compared across windows; the logit of no answer is the minimum over windows.
        """
        import numpy as np

        best, null = np.asarray(predictions["best"], np.float64), np.asarray(predictions["null"], np.float64)
        answers, threshold = [], float(targets.get("null_threshold", self.null_threshold))
        for context, indices in zip(contexts, _windows_by_row(tokens), strict=True):
            window, blank = indices[best[indices].argmax()], indices[null[indices].argmin()]
            none_probability = float(predictions["scores"][blank][1])
            first, last = (int(token) for token in predictions["span"][window])
            if first == NO_POSITION or (targets["no_answer"] and null[blank] - best[window] > threshold):
                answers.append(Answer("", NO_POSITION, NO_POSITION, none_probability, none_probability))
                continue
            begin, end = tokens["starts"][int(window)][first].as_py(), tokens["ends"][int(window)][last].as_py()
            # Some tokens include the space before them.
            begin += len(context[begin:end]) - len(context[begin:end].lstrip())
            end -= len(context[begin:end]) - len(context[begin:end].rstrip())
            answers.append(
                Answer(context[begin:end], begin, end, float(predictions["scores"][window][0]), none_probability)
            )
        return answers


def _schema() -> pa.Schema:
    import pyarrow as pa

    names = ("id", "input_ids", "types", "begin", "cls", "starts", "ends", "first", "last", "lost")
    lists = dict.fromkeys(("input_ids", "types", "starts", "ends"), pa.list_(pa.int32()))
    return pa.schema([(name, lists.get(name, pa.string() if name == "id" else pa.int32())) for name in names])


def _encode_window(window: Window, span: tuple[int, int] | None, frame: Frame, cls_id: int | None) -> dict[str, Any]:
    """The columns of a window; `cls` is 0 if the tokenizer has no such token."""
    ids, types, begin = frame.wrap_window(window)
    cls = ids.index(cls_id) if cls_id in ids else 0
    answer_tokens = window.find_tokens(*span) if span else None
    first, last = (begin + token for token in answer_tokens) if answer_tokens else (cls, cls)
    positions = {"begin": begin, "cls": cls, "first": first, "last": last}
    return {"input_ids": ids, "types": types, "starts": window.starts, "ends": window.ends, **positions}


class AnswerReader(RowReader):
    """Counts the rows whose answer starts count something else than characters."""

    def __init__(self, objective: QuestionAnswering) -> None:
        super().__init__(objective.normalize_row)
        self._objective = objective

    def convert(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `QuestionAnswering.normalize_row`."""
        row, unit = self._objective.normalize_answers(values)
        if unit != "characters":
            self.notes[f"rows whose answer starts count {unit}, converted"] += 1
        return row


def _first_answers(rows: pa.Table) -> Iterator[tuple[int, int] | None]:
    """The extent of each row's first answer that is in its context; None if there is none."""
    for value in rows["answers"].to_pylist():
        answers = json.loads(value)
        pairs = zip(answers["answer_start"], answers["text"], strict=True)
        yield next(((start, start + len(text)) for start, text in pairs if start != NO_POSITION), None)


def _windows_by_row(tokens: pa.Table) -> list[np.ndarray]:
    """The indices of each row's windows, in order; a row's windows are consecutive."""
    import numpy as np

    ids = np.array(tokens["id"].to_pylist(), object)
    indices = np.arange(len(ids))
    return np.split(indices, indices[1:][ids[1:] != ids[:-1]]) if len(ids) else []


def _logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    names = ["input_ids", "attention_mask"]
    # Other models have no segments, even if their tokenizer returns them.
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
        # PEFT 0.21's PeftModelForQuestionAnswering drops them; its adapters are in the layers of the model inside it.
        if hasattr(model, "get_base_model") and not model.active_peft_config.is_prompt_learning:
            model = model.get_base_model()
    output = model(**{name: batch[name] for name in names})
    return output.start_logits.float(), output.end_logits.float()


def _allowed(batch: Batch) -> Tensor:
    """Whether an answer may begin or end at each token: in the context, or at `cls` for none; bool [rows, tokens]."""
    allowed = batch["inside"].bool()
    return allowed.scatter(1, batch["cls"][:, None], True)


def _best_span(start: Tensor, end: Tensor, inside: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest sum of a start's and an end's logit, of a span of at most `longest` tokens, and its positions."""
    import torch

    start, end = (logits.masked_fill(~inside, _EXCLUDED) for logits in (start, end))
    width = start.shape[1]
    best = torch.full_like(start[:, 0], 2 * _EXCLUDED)
    first = last = torch.zeros(len(start), dtype=torch.long, device=start.device)
    for distance in range(min(longest, width)):
        value, position = (start[:, : width - distance] + end[:, distance:]).max(1)
        better = value > best
        best, first, last = (
            best.maximum(value),
            position.where(better, first),
            (position + distance).where(better, last),
        )
    return best, first, last


def _likeliest_sentence(question: str, context: str) -> str:
    """The sentence of the context that shares the most words with the question."""
    question_words = set(_WORD.findall(question.lower()))
    sentences = [sentence.strip() for sentence in _SENTENCE_END.split(context)]
    return max(sentences, key=lambda sentence: len(question_words & set(_WORD.findall(sentence.lower()))), default="")
