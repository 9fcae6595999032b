"""A tag for each word: entities, slots, parts of speech."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hone.errors import DataError
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared import tagging
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.statistics import metrics_by_group, safe_ratio
from hone.objectives.shared.tagging import Entity
from hone.objectives.shared.tokenizer import count_lost_tokens, encode_with_offsets, to_list_array
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from tokenizers import Encoding
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch

IGNORED = -100  # a token without a label of its own
NO_TOKEN, NO_WORD = -1, -2
UNSEEN = "(not in training)"


@dataclass(frozen=True)
class TokenClassification(Objective):
    """A tag for each word: entities, slots, parts of speech. The first token of a word carries its tag."""

    columns: ClassVar[tuple[str, ...]] = ("tokens", "tags")
    text: ClassVar[tuple[str, ...]] = ("tokens",)
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
        "How plain text is parted into words, where spans of characters are given and where a served model is asked: "
        "each mark of punctuation is a word, or spaces alone part words.",
    )

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """`tokens` and `tags` as lists: given as lists, in JSON, parted by spaces, or as `text` with `spans`.

        Raises ValueError where they are not of one length and one scheme, and for spans that are not right.
        """
        if values.get("tokens") is not None and values.get("tags") is not None:
            tokens, tags = (tagging.parse_list(values[name], name) for name in ("tokens", "tags"))
            tagging.check_words(tokens, tags)
            return {"tokens": tokens, "tags": tags}
        spans = values.get("spans", values.get("entities"))
        if "tokens" in values or values.get("text") is None or spans is None:
            return values
        found = tagging.tag_spans(values["text"], spans, self.words)
        tagging.check_words(found["tokens"], found["tags"])
        return found

    def row_texts(self, rows: pa.Table) -> list[str]:
        """The words of each row with a space between."""
        return [" ".join(words) for words in _column(rows, "tokens")]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The words."""
        return list(json.loads(value or "[]"))

    def replace_texts(self, column: str, value: str, pieces: list[str]) -> str:
        """As many words as before: one of which nothing was left stays as it was, for a tag belongs to it."""
        kept = [piece if piece.strip() else word for word, piece in zip(json.loads(value or "[]"), pieces, strict=True)]
        return json.dumps(kept, ensure_ascii=False)

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """`labels`, the tags of the training rows, sorted, and their `scheme`.

        Raises DataError where there is nothing to tell apart, and where tags with prefixes stand among others.
        """
        labels = sorted({tag for tags in _column(train, "tags") for tag in tags})
        where, check = "the training split, column tags", "Check the column that ingest.columns maps to tags."
        try:
            scheme = tagging.find_scheme(labels)
        except ValueError as fault:
            raise DataError(str(fault), where=where, fix="All rows must have tags of one scheme.") from None
        if scheme == "words" and len(labels) == 1:
            raise DataError(
                f"every word has the tag {labels[0]!r}; there is nothing to tell apart", where=where, fix=check
            )
        if not tagging.list_types(labels, scheme):
            fix = f"{check} Curation may have dropped the rows with entities."
            raise DataError(
                "no word is in an entity: every tag is O" if labels else "has no tags at all", where=where, fix=fix
            )
        return {"labels": labels, "scheme": scheme}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """The words joined by spaces, as tokens.

        `words` (list<int32>): where each word's first token stands, -1 for a word that has none or was cut off.
        `content`: where the last word's tokens end. With `labelled`: `labels` (list<int32>), each word's tag as its place
        in the targets, -100 for one that no training row has; and `tags`, as they were given (JSON).
        """
        import pyarrow as pa

        parted = [_parted(value, self.words) for value in rows["tokens"].to_pylist()]
        encoded = encode_with_offsets(tokenizer, [text for text, _ in parted], max_length)
        places = [_first_tokens(one, extents) for one, (_, extents) in zip(encoded, parted, strict=True)]
        columns = {
            "id": rows["id"].cast(pa.string()),
            # A text without a token is asked about all the same.
            "input_ids": to_list_array([one.ids or [tokenizer.pad_token_id] for one in encoded]),
            "words": to_list_array([words for words, _ in places]),
            "content": pa.array([end for _, end in places], pa.int32()),
        }
        if labelled:
            known = {label: at for at, label in enumerate(targets["labels"])}
            columns["labels"] = to_list_array(
                [[known.get(tag, IGNORED) for tag in tags] for tags in _aligned(rows, places)]
            )
            columns["tags"] = rows["tags"].cast(pa.string())
        return pa.table({**columns, "lost": pa.array([count_lost_tokens(one) for one in encoded], pa.int32())})

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask, `words` [rows, most words], -2 where there is none; labels [rows, tokens]."""
        import numpy as np
        import torch

        ids = rows["input_ids"]
        batch = {"input_ids": pad_rows(ids, pad_id), "attention_mask": attention_mask(ids)}
        batch["words"] = pad_rows(rows["words"], NO_WORD)
        if "labels" in rows:
            labels = np.full(tuple(batch["input_ids"].shape), IGNORED, np.int64)
            for row, (words, tags) in enumerate(zip(rows["words"], rows["labels"], strict=True)):
                at = np.asarray(words, np.int64)
                labels[row, at[at >= 0]] = np.asarray(tags, np.int64)[at >= 0]
            batch["labels"] = torch.from_numpy(labels)
        return batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The base model in float32 with a head of one output for each tag.

        Raises ModelError where the weights do not fit the architecture, or it has no such head.
        """
        return load_with_head("AutoModelForTokenClassification", base, labels=targets["labels"])

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of the words' first tokens, float32, and how many they are."""
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        total = cross_entropy(_logits(model, batch).transpose(1, 2), labels, ignore_index=IGNORED, reduction="sum")
        return total, int((labels != IGNORED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """For each word its likeliest label's place `said`, -1 where it has no token, and probability `scores`."""
        words = batch["words"]
        at = words.clamp(min=0)
        sure, said = _logits(model, batch).softmax(-1).max(-1)
        there = words >= 0
        scores = sure.gather(1, at).where(there, 0.0).detach().cpu().numpy()
        labels = said.gather(1, at).where(there, NO_TOKEN).cpu().numpy()
        counts = (words != NO_WORD).sum(1).tolist()
        return {
            "scores": [row[:count] for row, count in zip(scores, counts, strict=True)],
            "said": [row[:count] for row, count in zip(labels, counts, strict=True)],
        }

    def compute_outcome(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics are, for each type: entities found, there, said; then words rightly tagged, and words.

        A word that was cut off has no tag: its entity is missed. The last type stands for those of no training row.
        """
        import numpy as np

        scheme = targets["scheme"]
        given = [json.loads(tags) for tags in tokens["tags"].to_pylist()]
        said = [_names(row, targets) for row in raw["said"]]
        there, found = ([tagging.find_entities(tags, scheme) for tags in of] for of in (given, said))
        words = np.array([[sum(map(eq, a, b)), len(a)] for a, b in zip(given, said, strict=True)], np.float64)
        texts = _column(rows, "tokens") if rows is not None else [None] * len(given)
        return Outcome(
            statistics=np.concatenate([_counts(there, found, targets), words.reshape(-1, 2)], axis=1),
            predictions=[_told(row, text) for row, text in zip(found, texts, strict=True)],
            references=[_told(row, text) for row, text in zip(there, texts, strict=True)],
            errors=np.array([float(len(set(a) ^ set(b))) for a, b in zip(there, found, strict=True)]),
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Micro-averaged over all entities, as seqeval's; `token_accuracy` over all words."""
        import numpy as np

        right, support, predicted = (part.sum(0) for part in np.split(sums[:-2], 3))
        return {
            "entity_f1": safe_ratio(2 * right, support + predicted),
            "precision": safe_ratio(right, predicted),
            "recall": safe_ratio(right, support),
            "token_accuracy": safe_ratio(sums[-2], sums[-1]),
        }

    def compute_group_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, dict[str, np.ndarray]]:
        """By type `precision`, `recall`, `f1` and `support`, its entities."""
        import numpy as np

        names = [*tagging.list_types(targets["labels"], targets["scheme"]), UNSEEN]
        found = metrics_by_group(names, *np.split(sums[:-2], 3))
        if not found[UNSEEN]["support"][0]:
            del found[UNSEEN]
        return found

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`most_frequent`: each word's most frequent tag in training; for a new word the most frequent tag of all."""
        import numpy as np

        counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        every: Counter[int] = Counter()
        for row in train.select(["input_ids", "words", "content", "labels"]).to_pylist():
            for place, word in _words_of(row):
                counts[word][row["labels"][place]] += 1
                every[row["labels"][place]] += 1
        likeliest = {word: tags.most_common(1)[0] for word, tags in counts.items()}
        usual, often = every.most_common(1)[0]
        said, scores = [], []
        for row in test.select(["input_ids", "words", "content"]).to_pylist():
            tags = np.full(len(row["words"]), NO_TOKEN)
            sure = np.zeros(len(row["words"]), np.float32)
            for place, word in _words_of(row):
                tags[place], times = likeliest.get(word, (usual, often))
                sure[place] = times / (counts[word].total() if word in likeliest else every.total())
            said.append(tags)
            scores.append(sure)
        return {"most_frequent": {"said": said, "scores": scores}}

    def build_answers(
        self, tokens: pa.Table, raw: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """`entities` in JSON: text, type, score (the mean of its words' probabilities), start and end in characters.

        These count in the plain text that was sent, or in the words joined by spaces where a list was. And `tags`: each
        word with its tag and probability, None for a word that was cut off.
        """
        answers = []
        for row, said, scores in zip(rows, raw["said"], raw["scores"], strict=True):
            text, extents = tagging.find_words(row["tokens"], self.words)
            tags = _names(said, targets)
            entities = [
                _answer(entity, text, extents, scores) for entity in tagging.find_entities(tags, targets["scheme"])
            ]
            each = [
                {"word": text[start:end], "tag": tag, "score": float(score)}
                for (start, end), tag, score in zip(extents, tags, scores, strict=True)
            ]
            answers.append({"entities": json.dumps(entities, ensure_ascii=False), "tags": each})
        return answers


def _column(rows: pa.Table, name: str) -> list[Any]:
    return [json.loads(value or "[]") for value in rows[name].to_pylist()]


def _parted(value: str, split: str) -> tuple[str, list[tuple[int, int]]]:
    """The words joined by spaces, and where each stands in that."""
    text, extents = tagging.find_words(value, split)
    return tagging.join_words([text[start:end] for start, end in extents])


def _aligned(rows: pa.Table, places: Sequence[tuple[list[int], int]]) -> Iterator[list[str]]:
    """Each row's tags; raises DataError where they are not as many as the words."""
    for name, tags, (words, _) in zip(rows["id"].to_pylist(), _column(rows, "tags"), places, strict=True):
        if len(tags) != len(words):
            raise DataError(
                f"has {len(words)} tokens and {len(tags)} tags", where=f"row {name}", fix="Ingest the rows again."
            )
        yield tags


def _first_tokens(encoding: Encoding, extents: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Where the first token of each word stands, -1 for none, and where the tokens of words end."""
    import numpy as np

    if not extents or not len(encoding):
        return [NO_TOKEN] * len(extents), 0
    starts, ends = np.array(extents).T
    begin, end = np.array(encoding.offsets).T
    word = np.searchsorted(ends, begin, side="right")  # a token that begins with a space is of the word behind it
    inside = (end > begin) & (np.array(encoding.special_tokens_mask) == 0)
    inside &= (word < len(starts)) & (end > starts[np.minimum(word, len(starts) - 1)])
    at = np.flatnonzero(inside)
    found = np.full(len(starts), NO_TOKEN)
    found[word[at][::-1]] = at[::-1]
    return found.tolist(), int(at[-1]) + 1 if len(at) else 0


def _words_of(row: Mapping[str, Any]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The place of each word that has tokens, and their ids."""
    there = [(place, at) for place, at in enumerate(row["words"]) if at >= 0]
    ends = [at for _, at in there[1:]] + [row["content"]]
    for (place, at), end in zip(there, ends, strict=True):
        yield place, tuple(row["input_ids"][at:end])


def _logits(model: Any, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def _names(said: Sequence[int], targets: Targets) -> list[str | None]:
    return [targets["labels"][label] if label >= 0 else None for label in said]


def _counts(there: Sequence[list[Entity]], found: Sequence[list[Entity]], targets: Targets) -> np.ndarray:
    """Entities rightly found, there, and said, of each type: float64 [rows, 3 * (types + 1)]."""
    import numpy as np

    types = {name: at for at, name in enumerate(tagging.list_types(targets["labels"], targets["scheme"]))}
    counts = np.zeros((len(there), 3, len(types) + 1))
    for row, (right, said) in enumerate(zip(there, found, strict=True)):
        for place, some in enumerate((set(right) & set(said), right, said)):
            for entity in some:
                counts[row, place, types.get(entity.type, len(types))] += 1
    return counts.reshape(len(there), -1)


def _told(entities: Sequence[Entity], words: Sequence[str] | None) -> str:
    """The entities as a person reads them: their words, or their places where the words are not known."""
    told = [f"{' '.join(words[e.start : e.end]) if words else f'{e.start}-{e.end}'} [{e.type}]" for e in entities]
    return "; ".join(told) or "no entity"


def _answer(entity: Entity, text: str, extents: Sequence[tuple[int, int]], scores: Sequence[float]) -> dict[str, Any]:
    start, end = extents[entity.start][0], extents[entity.end - 1][1]
    of = [float(score) for score in scores[entity.start : entity.end]]
    return {"text": text[start:end], "type": entity.type, "score": sum(of) / len(of), "start": start, "end": end}
