"""One label for a text: sentiment, intent, topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import DataError, ModelError
from hone.objectives.tokenizer import encode_texts, load_tokenizer
from hone.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.objective import Batch


@dataclass(frozen=True)
class TextClassification:
    """One label for a text."""

    columns: ClassVar[tuple[str, ...]] = ("text", "label")
    text: ClassVar[tuple[str, ...]] = ("text",)
    label: ClassVar[str] = "label"
    main_metric: ClassVar[str] = "accuracy"
    pipeline: ClassVar[str] = "text-classification"

    label_smoothing: float = option(0.0, "The share of the target that is spread over all labels.", ge=0, lt=1)

    def targets(self, train: pa.Table) -> dict[str, Any]:
        """`{"labels": [names, sorted]}` of the training rows; raises DataError where there are fewer than two."""
        labels = sorted(train["label"].unique().drop_null().to_pylist())
        if len(labels) < 2:
            found = f"the one label {labels[0]}" if labels else "no label at all"
            raise DataError(
                f"has {found}; telling texts apart takes two or more",
                where="the training split, column label",
                fix="Check the column that ingest.columns maps to label, and the curation steps that drop rows.",
            )
        return {"labels": labels}

    def encode(
        self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, targets: Mapping[str, Any]
    ) -> pa.Table:
        """`id`, `input_ids` (list<int32>), `label` (int64, its place in the targets), `lost` (int32, tokens cut off).

        Raises DataError for a text that is null and for a label that the targets do not have.
        """
        import pyarrow as pa

        label = _label_indices(rows, targets["labels"])
        if rows["text"].null_count:
            raise DataError("a row has no text", where=_first_id(rows, rows["text"].is_null()), fix="Drop such rows.")
        input_ids, lost = encode_texts(tokenizer, rows["text"].to_pylist(), max_length)
        ids = rows["id"].cast(pa.string())
        return pa.table({"id": ids, "input_ids": input_ids, "label": label, "lost": pa.array(lost)})

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int) -> Batch:
        """input_ids, attention_mask [rows, longest] and labels [rows], all int64; padded on the right with `pad_id`."""
        import numpy as np
        import torch

        lengths = np.array([len(row) for row in rows["input_ids"]])
        mask = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.full(mask.shape, pad_id, np.int64)
        input_ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in rows["input_ids"]])
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "labels": torch.from_numpy(np.array(rows["label"], np.int64)),
        }

    def model(self, base: Path, targets: Mapping[str, Any]) -> PreTrainedModel:
        """The base model in float32 with a classification head of one output for each label.

        A new head's weights are random: seed torch before. `config.pad_token_id` is the id to collate with.
        Raises ModelError where the weights do not fit the architecture, or it has no such head.
        """
        import torch
        from transformers import AutoModelForSequenceClassification

        names = dict(enumerate(targets["labels"]))
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base,
                num_labels=len(names),
                id2label=names,
                label2id={name: index for index, name in names.items()},
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # of another task's head, which gives way to the new one
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as fault:
            raise ModelError(
                f"cannot be loaded for text classification: {fault}",
                where=str(base),
                fix="Choose a base model that transformers' AutoModelForSequenceClassification knows.",
            ) from fault
        _refuse_random_body(model, loading, base)
        _set_padding(model, base)
        return model

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of a batch, float32, and its number of rows."""
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        total = cross_entropy(_logits(model, batch), labels, reduction="sum", label_smoothing=self.label_smoothing)
        return total, len(labels)

    def scores(self, model: Any, batch: Batch) -> Tensor:
        """Class probabilities [rows, labels], float32."""
        return _logits(model, batch).softmax(-1)

    def metrics(self, references: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        """`accuracy`, and `macro_f1`: the mean F1 of the labels that are there or were predicted, as scikit-learn's."""
        import numpy as np

        counts = _confusion(references, scores)
        right = np.diagonal(counts)
        size = counts.sum(0) + counts.sum(1)
        f1 = 2 * right[size > 0] / size[size > 0]
        return {"accuracy": float(right.sum() / counts.sum()), "macro_f1": float(f1.mean())}

    def details(self, references: np.ndarray, scores: np.ndarray, targets: Mapping[str, Any]) -> dict[str, Any]:
        """`per_class` {label: precision, recall, f1 in 0..1, support in rows}, and `confusion` {labels, counts}.

        `counts[i][j]` rows of label i were predicted to be label j. A share of nothing is 0, as in scikit-learn.
        """
        import numpy as np

        counts = _confusion(references, scores)
        right, support, predicted = np.diagonal(counts), counts.sum(1), counts.sum(0)
        figures = {
            "precision": right / np.maximum(predicted, 1),
            "recall": right / np.maximum(support, 1),
            "f1": 2 * right / np.maximum(support + predicted, 1),
        }
        per_class = {
            label: {**{name: float(values[i]) for name, values in figures.items()}, "support": int(support[i])}
            for i, label in enumerate(targets["labels"])
        }
        return {"per_class": per_class, "confusion": {"labels": list(targets["labels"]), "counts": counts.tolist()}}


def _logits(model: Any, batch: Batch) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits.float()


def _confusion(references: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[labels, labels] counts of rows: true label by predicted label."""
    import numpy as np

    classes = scores.shape[1]
    cells = references.astype(np.int64) * classes + scores.argmax(1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _label_indices(rows: pa.Table, labels: Sequence[str]) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    given = rows["label"]
    indices = pc.index_in(given, value_set=pa.array(labels, given.type))
    if indices.null_count:
        unknown = given.filter(indices.is_null()).unique().to_pylist()
        names = ", ".join("null" if name is None else str(name) for name in unknown[:5])
        raise DataError(
            f"{len(unknown)} label(s) that no training row has: {names}",
            where=_first_id(rows, indices.is_null()),
            fix="Add training rows with them, or drop the rows that have them.",
        )
    return indices.cast(pa.int64())


def _first_id(rows: pa.Table, where: pa.ChunkedArray) -> str:
    return f"row {rows['id'].filter(where)[0].as_py()}"


def _refuse_random_body(model: PreTrainedModel, loading: Mapping[str, Any], base: Path) -> None:
    """Raise ModelError where weights other than the head's and the pooler's were not there, or of another shape."""
    inside = f"{model.base_model_prefix}."
    absent = [*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])]
    lacking = sorted(key for key in absent if key.startswith(inside) and ".pooler." not in key)
    if lacking:
        raise ModelError(
            f"{len(lacking)} of its weights are not in its files, or not of the shape config.json says: "
            + ", ".join(lacking[:3]),
            where=str(base),
            fix="config.json and the safetensors must be of the same model.",
        )


def _set_padding(model: PreTrainedModel, base: Path) -> None:
    """Decoders find a row's last token by the padding id: it must be the one that batches are padded with."""
    if (base / "tokenizer_config.json").is_file() or model.config.pad_token_id is None:
        model.config.pad_token_id = load_tokenizer(base).pad_token_id
