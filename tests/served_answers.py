"""What a served model answers to a test row, compared with what evaluation stored for that row, by objective."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pytest import approx

from hone.config.sections import RunConfig
from hone.curation import STEPS
from hone.evaluation.judging import predict
from hone.evaluation.judging.evaluate import MODEL
from hone.objectives import OBJECTIVES
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import encode_with_offsets, load_tokenizer
from hone.pipeline.stage import build_part
from hone.progress import ignore
from hone.splits import TEST
from hone.store import layout
from hone.store.artifact import Artifact

SPOILED_CASES = 3  # rows that curation would have rewritten; a further one is plain
TOLERANCE = 1e-4  # of float32 numbers that were computed in a batch with other rows

Row = Mapping[str, Any]
Inputs = list[dict[str, str]]
Answers = Sequence[Mapping[str, Any]]

# Evaluation stores nothing that a served model answers: compared is what the trained model answers, in this process, to
# the row that was evaluated.
NOT_STORED = {
    "preference": "evaluation scores the two completions of a row, a served model writes one of its own",
    "span-corruption": "evaluation gives the right tokens before each one that it scores, a served model writes all",
}


@dataclass(frozen=True)
class Case:
    """What a caller sends for a test row, and what evaluation stored for that row."""

    inputs: Inputs
    stored: dict[str, Any]


def choose_cases(config: RunConfig, made: Mapping[str, Artifact], is_spoiled: Callable[[Row], bool]) -> list[Case]:
    """Cases for a few of the evaluated rows, as they were read: spoiled ones, and one that curation leaves as it is.

    Curation would have rewritten all spoiled rows, had they been training rows; there is at least one.
    """
    evaluated = {row["id"]: row for row in pq.read_table(made["evaluate"].path / layout.PREDICTIONS).to_pylist()}
    read = pq.read_table(made["ingest"].path / layout.ROWS)
    read = read.filter(pa.array([name in evaluated for name in read["id"].to_pylist()]))
    trained = Trained(config, made)
    rewritten = read
    for step in config.curation.steps:
        rewritten = build_part(STEPS, step).apply(rewritten, trained.objective, ignore).rows
    spoiled, plain = [], []
    for row, other in zip(read.to_pylist(), rewritten.to_pylist(), strict=True):
        if is_spoiled(row):
            assert row != other, "curation would not have rewritten it"
            spoiled.append(row)
        elif row == other:
            plain.append(row)
    assert spoiled, "no spoiled row is in the test split"
    tested = {row["id"]: row for row in pq.read_table(made["validate"].path / layout.rows_file(TEST)).to_pylist()}
    rows = spoiled[:SPOILED_CASES] + plain[:1]
    return [trained.build_case(row, tested[row["id"]], evaluated[row["id"]]) for row in rows]


def check_answers(kind: str, answers: Answers, stored: Row) -> None:
    """Assert that these answers to a case's inputs are what was stored for it."""
    CHECKS[kind](answers, stored)


class Trained:
    """The trained model of a configuration, and what decides its answers."""

    def __init__(self, config: RunConfig, made: Mapping[str, Artifact]) -> None:
        self.objective = build_part(OBJECTIVES, config.objective)
        self._kind, self._max_length = config.objective.kind, config.tokenization.max_length
        self._folder = made["train"].path / MODEL
        self._tokenizer = load_tokenizer(self._folder)
        self._targets = json.loads((made["evaluate"].path / layout.TARGETS).read_text("utf8"))

    def build_case(self, row: Row, tested: Row, evaluated: Row) -> Case:
        """The case of a row as it was read, which in the test split is `tested`, with its row of the predictions."""
        stored = {**evaluated, "targets": self._targets}
        if self._kind == "embedding":
            return Case([{"text": row["anchor"]}, {"text": row["positive"]}], stored)
        if self._kind == "masked-lm":
            text, words = self._mask(row)
            return Case([{"text": text}], stored | {"words": words})
        if self._kind in NOT_STORED:
            stored["trained"] = self._answer(self._list_inputs(tested))
        return Case(self._list_inputs(row), stored)

    def _list_inputs(self, row: Row) -> Inputs:
        inputs = self.objective.inference_inputs(pa.Table.from_pylist([dict(row)]))
        if self._kind == "span-corruption":
            return [
                {"text": f"{text['text']} <extra_id_0>"} for text in inputs
            ]  # with nothing to fill in it is an echo
        return inputs

    def _mask(self, row: Row) -> tuple[str, list[str]]:
        """The text with the masks that it has in evaluation, and the words that are behind them."""
        table = pa.Table.from_pylist([dict(row)])
        tokens = self.objective.encode(table, self._tokenizer, self._max_length, self._targets)
        batch = self.objective.collate(tokens.to_pydict(), self._tokenizer.pad_token_id)
        text = row["text"]
        [encoding] = encode_with_offsets(self._tokenizer, [text], self._max_length)
        extents = [extent for piece in (encoding, *encoding.overflowing) for extent in piece.offsets]
        labels = [
            label
            for piece, ids in zip(batch["labels"].tolist(), tokens["input_ids"].to_pylist(), strict=True)
            for label in piece[: len(ids)]
        ]
        masked = [(extent, label) for extent, label in zip(extents, labels, strict=True) if label >= 0]
        for (start, end), _ in reversed(masked):
            text = text[:start] + self._tokenizer.mask_token + text[end:]
        return text, [self._tokenizer.decode([label]).strip() for _, label in masked]

    def _answer(self, inputs: Inputs) -> list[Any]:
        device = predict.best_device()
        model = predict.load_trained(self._folder, self._targets, device)
        reader = Reader(self.objective, self._tokenizer.pad_token_id, device, self._tokenizer)
        return reader.answer(model, inputs, self._targets, self._max_length)


def close(value: Any) -> Any:
    """A number, or a list of numbers, up to rounding."""
    return approx(value, abs=TOLERANCE, rel=TOLERANCE)


def check_label(answers: Answers, stored: Row) -> None:
    [answer] = answers
    assert answer["label"] == stored["prediction"]
    assert answer["score"] == close(stored["confidence"])
    assert [answer["scores"][label] for label in stored["targets"]["labels"]] == close(stored["scores"])


def check_labels(answers: Answers, stored: Row) -> None:
    [answer] = answers
    assert (", ".join(sorted(answer["labels"])) or "(none)") == stored["prediction"]
    assert [answer["all_scores"][label] for label in stored["targets"]["labels"]] == close(stored["scores"])


def check_number(answers: Answers, stored: Row) -> None:
    [answer] = answers
    [standard] = stored["scores"]
    targets = stored["targets"]
    assert answer["value"] == close(targets["mean"] + targets["deviation"] * standard)
    assert answer["value"] == approx(float(stored["prediction"]), rel=1e-3)  # four digits


def check_entities(answers: Answers, stored: Row) -> None:
    [answer] = answers
    entities = [f"{entity['text']} [{entity['type']}]" for entity in json.loads(answer["entities"])]
    assert ("; ".join(entities) or "no entity") == stored["prediction"]
    assert [word["score"] for word in answer["tags"]] == close(stored["scores"])


def check_span(answers: Answers, stored: Row) -> None:
    [answer] = answers
    assert (answer["answer"] or "no answer") == stored["prediction"]
    assert answer["score"] == close(stored["confidence"])


def check_vectors(answers: Answers, stored: Row) -> None:
    assert np.concatenate([answer["embedding"] for answer in answers]).tolist() == close(stored["scores"])


def check_text(answers: Answers, stored: Row) -> None:
    [answer] = answers
    assert answer["text"] == stored["prediction"]


def check_answer(answers: Answers, stored: Row) -> None:
    [answer] = answers
    assert answer["answer"] == stored["prediction"]


def check_perplexity(answers: Answers, stored: Row) -> None:
    """Of the text itself; what the served model adds to it is not evaluated."""
    [answer] = answers
    assert answer["perplexity"] == close(exp(stored["error"]))
    assert f"{answer['tokens']} tokens" == stored["reference"]


def check_masked_words(answers: Answers, stored: Row) -> None:
    """The words behind the masks: how many are the likeliest, and how likely they are."""
    [answer] = answers
    words = stored["words"]
    assert f"{len(words)} masked tokens" == stored["reference"]
    fills = list(zip(answer["fills"], words, strict=True))
    right = sum(fill[0]["word"] == word for fill, word in fills)
    assert f"{right} found" == stored["prediction"]
    chances = [{candidate["word"]: candidate["score"] for candidate in fill}[word] for fill, word in fills]
    assert stored["error"] == close(0 if right == len(words) else -sum(map(log, chances)) / len(words))


def check_trained(answers: Answers, stored: Row) -> None:
    """All that the trained model answers, in the process that has hone."""
    for answer, trained in zip(answers, stored["trained"], strict=True):
        assert answer.keys() == trained.keys()
        for name, value in trained.items():
            assert answer[name] == (close(value) if isinstance(value, float) else value)


CHECKS: dict[str, Callable[[Answers, Row], None]] = {
    "text-classification": check_label,
    "multi-label-classification": check_labels,
    "regression": check_number,
    "token-classification": check_entities,
    "question-answering": check_span,
    "embedding": check_vectors,
    "seq2seq": check_text,
    "chat": check_answer,
    "causal-lm": check_perplexity,
    "masked-lm": check_masked_words,
    **dict.fromkeys(NOT_STORED, check_trained),
}
