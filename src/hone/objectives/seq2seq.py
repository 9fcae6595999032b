"""Sequence to sequence: a text from another (summary, translation), with encoder-decoders such as T5 and BART."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hone.errors import ConfigError, DataError, ModelError
from hone.models.positions import get_max_tokens
from hone.objectives.base import Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.generation import generate_ids, set_generation_config
from hone.objectives.shared.heads import load_with_head
from hone.objectives.shared.json_cells import load_json
from hone.objectives.shared.overlap import ROUGE, bleu_counts, bleu_from_counts, rouge_scores
from hone.objectives.shared.padding import attention_mask, pad_rows
from hone.objectives.shared.statistics import safe_ratio
from hone.objectives.shared.tokenizer import encode_texts, list_control_tokens, list_truncated
from hone.parts.options import option

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone.objectives.base import Batch
    from hone.objectives.prompting.prompting import Prompting

MASKED = -100  # the label of padding; PyTorch's cross entropy skips it
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Seq2Seq(Objective):
    """Predict a target text for a source text."""

    columns: ClassVar[tuple[str, ...]] = ("text", "target")
    forms: ClassVar[tuple[str, ...]] = ("source",)
    text: ClassVar[tuple[str, ...]] = ("text", "target")
    near_repeats: ClassVar[bool] = False
    generated: ClassVar[tuple[str, ...]] = ("target",)
    inputs: ClassVar[tuple[str, ...]] = ("text",)
    outputs: ClassVar[Mapping[str, str]] = {"text": "string", "truncated": "boolean"}
    pipeline: ClassVar[str] = "text2text-generation"
    writes_answers: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("rouge-score", "sacrebleu")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "rougeL": Metric("ROUGE-L"),
        "rouge1": Metric("ROUGE-1"),
        "rouge2": Metric("ROUGE-2"),
        "bleu": Metric("BLEU (0 to 100)", share=False),
    }
    works_untuned: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True

    prefix: str = option("", "Text added before each source, such as 'summarize: ' for T5.")
    max_target_length: int = option(
        64, "Maximum number of tokens of a target in training, and of a generated text.", ge=2
    )
    num_beams: int = option(1, "Number of beams when generating; 1 is greedy.", ge=1, le=64)

    @property
    def prompting(self) -> Prompting:
        """The answer of a prompted model is the target text."""
        from hone.objectives.prompting import TextPrompting

        return TextPrompting(self)

    def normalize_row(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """`text`, which may be named `source` and be a list of sentences, and `target`, a text or a list of references.

        Raises ValueError if either is empty or not text.
        """
        name = "text" if "text" in values else "source"
        source, target = values.get(name), values.get("target")
        if source is None or target is None:
            return values  # ingest reports the missing column
        if isinstance(source, (list, tuple)):
            source = " ".join(_check_text(part, f"{name}[{n}]").strip() for n, part in enumerate(source))
        if not _check_text(source, name).strip():
            raise ValueError(f"empty text: {name}")
        if isinstance(target, str):
            target = parse_references(target)
        if not isinstance(target, (list, tuple)) or not target:
            raise ValueError("no reference: target is neither a text nor a list of texts")
        for n, reference in enumerate(target):
            if not _check_text(reference, f"target[{n}]").strip():
                raise ValueError(f"empty text: target[{n}]")
        return {**values, "text": source, "target": list(target) if len(target) > 1 else target[0]}

    def row_texts(self, rows: pa.Table) -> list[str]:
        """The source and all references, one per line."""
        both = zip(*(rows[name].to_pylist() for name in self.columns), strict=True)
        return ["\n".join([source or "", *parse_references(target or "")]) for source, target in both]

    def identity_texts(self, rows: pa.Table) -> list[str]:
        """The sources: one source may have several right targets."""
        return [source or "" for source in rows["text"].to_pylist()]

    def answer_keys(self, rows: pa.Table) -> list[str]:
        """The references of each source."""
        return [target or "" for target in rows["target"].to_pylist()]

    def extract_texts(self, column: str, value: str) -> list[str]:
        """The source itself, or each of the references."""
        return parse_references(value) if column == "target" else [value]

    def replace_texts(self, column: str, value: str, texts: list[str]) -> str:
        """The value with its texts replaced: JSON for several references."""
        return texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)

    def realign_annotations(self, before: pa.Table, after: pa.Table) -> tuple[pa.Table, list[str]]:
        """Drop rows with a reference that became empty."""
        all_filled = [
            all(reference.strip() for reference in parse_references(value or ""))
            for value in after["target"].to_pylist()
        ]
        return after, ["" if filled else "an emptied reference" for filled in all_filled]

    def build_targets(self, train: pa.Table) -> dict[str, Any]:
        """Empty: the head is the base model's own."""
        return {}

    def encode(
        self,
        rows: pa.Table,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        targets: Targets,
        labelled: bool = True,
    ) -> pa.Table:
        """`id`, `input_ids` of prefix and source, `labels` of the first reference (list<int32>), and tokens cut off.

        `lost` counts tokens of the source beyond `max_length`, `target_lost` tokens of the reference beyond
        `max_target_length` (int32). Raises DataError for a null text, ModelError for a tokenizer that marks sources and
        targets with codes of their languages: targets would be learned with the source's.
        """
        import pyarrow as pa

        if labelled and hasattr(tokenizer, "_switch_to_target_mode"):  # what transformers does for text_target
            raise ModelError(
                f"its tokenizer ({type(tokenizer).__name__}) encodes targets otherwise than sources, with the code of"
                " their language or words of their own, which this objective does not support",
                where="model.base",
                fix="Choose a base model with one vocabulary and no language codes, such as T5, mT5, BART or Pegasus.",
            )

        required = self.columns if labelled else self.inputs
        for name in required:
            if rows[name].null_count:
                row_id = rows["id"].filter(rows[name].is_null())[0].as_py()
                raise DataError(f"a row has no {name}", where=f"row {row_id}", fix="Drop such rows.")
        # One limit for both: the limit is state of the tokenizer, which threads share.
        longest, control = max(max_length, self.max_target_length), list_control_tokens(targets)
        sources = [self.prefix + text for text in rows["text"].to_pylist()]
        ids, lost = _truncate_rows(tokenizer, *encode_texts(tokenizer, sources, longest, control), max_length)
        columns = {"id": rows["id"].cast(pa.string()), "input_ids": ids}
        if labelled:
            first_references = [parse_references(value)[0] for value in rows["target"].to_pylist()]
            labels, target_lost = _truncate_rows(
                tokenizer, *encode_texts(tokenizer, first_references, longest, control), self.max_target_length
            )
            columns |= {"labels": labels, "target_lost": target_lost}
        return pa.table({**columns, "lost": lost})

    def collate(self, rows: Mapping[str, Sequence[Any]], pad_id: int, training: bool = False) -> Batch:
        """input_ids, attention_mask [rows, source] and labels [rows, target], padded with -100."""
        batch = {"input_ids": pad_rows(rows["input_ids"], pad_id), "attention_mask": attention_mask(rows["input_ids"])}
        return {**batch, "labels": pad_rows(rows["labels"], MASKED)} if "labels" in rows else batch

    def load_model(self, base: Path, targets: Targets) -> PreTrainedModel:
        """The encoder-decoder with its own head, float32.

        Raises ModelError if the base is not an encoder-decoder, ConfigError if it has fewer than `max_target_length`
        positions.
        """
        model = load_with_head("AutoModelForSeq2SeqLM", base, all_weights=True)
        positions = get_max_tokens(model.config)
        if self.max_target_length > positions:
            raise ConfigError(
                f"{self.max_target_length} is more than the {positions} tokens that the base model can write",
                where="objective.max_target_length",
                fix=f"Set it to {positions} or less.",
            )
        return set_generation_config(model, beams=self.num_beams, max_new_tokens=self.max_target_length)

    def compute_loss(self, model: Any, batch: Batch) -> tuple[Tensor, int]:
        """The summed cross entropy of the references' tokens, float32, and their number."""
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        total = cross_entropy(_logits(model, batch).flatten(0, 1), labels.flatten(), reduction="sum")
        return total, int((labels != MASKED).sum())

    def predict_batch(self, model: Any, batch: Batch) -> dict[str, Any]:
        """`generated`: the token ids that the model generates; with labels also `scores`, the mean loss of each row."""
        from torch.nn.functional import cross_entropy

        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        outputs: dict[str, Any] = {
            "generated": generate_ids(model, inputs, max_new_tokens=self.max_target_length, beams=self.num_beams)
        }
        if "labels" in batch:
            labels = batch["labels"]
            losses = cross_entropy(_logits(model, batch).transpose(1, 2), labels, reduction="none").sum(1)
            outputs["scores"] = (losses / (labels != MASKED).sum(1)).detach().cpu().numpy()
        return outputs

    def decode_generated(self, predictions: Predictions, tokenizer: PreTrainedTokenizerBase) -> Predictions:
        """Adds `text`, the generated text."""
        texts = [str(tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in predictions["generated"]]
        return {**predictions, "text": texts}

    def compute_outcome(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: pa.Table | None = None
    ) -> Outcome:
        """Statistics: one, ROUGE-1, 2 and L against the best reference, and sacreBLEU's counts against all of them.

        The error is 1 minus ROUGE-L.
        """
        import numpy as np

        if rows is None:
            raise ValueError("rows are required: ROUGE and BLEU compare words")
        references = [parse_references(value) for value in rows["target"].to_pylist()]
        scores = rouge_scores(predictions["text"], references)
        counts = bleu_counts(predictions["text"], references)
        return Outcome(
            statistics=np.concatenate([np.ones((len(scores), 1)), scores, counts], axis=1),
            predictions=predictions["text"],
            references=["\n".join(row_references) for row_references in references],
            errors=1 - scores[:, 2],
        )

    def compute_metrics(self, sums: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Each of `metrics`: mean ROUGE scores, and corpus BLEU."""
        means = dict(zip(ROUGE, safe_ratio(sums[1:4], sums[0]), strict=True))
        return {name: bleu_from_counts(sums[4:]) if name == "bleu" else means[name] for name in self.metrics}

    def baseline_predictions(
        self, train: pa.Table, test: pa.Table, targets: Targets, rows: pa.Table
    ) -> dict[str, Predictions]:
        """`lead`: the first sentence of the source. `copy`: all of it."""
        sources = [text.strip() for text in rows["text"].to_pylist()]
        return {"lead": {"text": [_SENTENCE.split(text)[0] for text in sources]}, "copy": {"text": sources}}

    def build_answers(
        self, tokens: pa.Table, predictions: Predictions, targets: Targets, rows: Sequence[Mapping[str, str]]
    ) -> list[Any]:
        """The `text` generated for each source; `truncated`: whether the end of the source was not read."""
        pairs = zip(predictions["text"], list_truncated(tokens), strict=True)
        return [{"text": text, "truncated": truncated} for text, truncated in pairs]

    def describe_answer(self, answer: Mapping[str, Any]) -> str:
        """The generated text."""
        return str(answer["text"])


def parse_references(target: str) -> list[str]:
    """The references in a value of the column `target`: those of a JSON list of texts, or the value itself."""
    if target.startswith("["):
        try:
            parsed = load_json(target)
        except ValueError:
            return [target]
        if isinstance(parsed, list) and parsed and all(isinstance(text, str) for text in parsed):
            return parsed
    return [target]


def _check_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not text: {where} is a {type(value).__name__}")
    return value


def _truncate_rows(
    tokenizer: PreTrainedTokenizerBase, ids: pa.ListArray, lost: np.ndarray, max_tokens: int
) -> tuple[pa.ListArray, pa.Array]:
    """The rows cut to `max_tokens` tokens, keeping the special tokens at their end, and each one's tokens cut in total.

    `lost` has the tokens already cut off each row.
    """
    import numpy as np
    import pyarrow as pa

    lengths = np.diff(ids.offsets.to_numpy())
    if lengths.max(initial=0) <= max_tokens:
        return ids, pa.array(lost)
    mask = tokenizer.backend_tokenizer.encode("a").special_tokens_mask
    closing = next((n for n, special in enumerate(reversed(mask)) if not special), 0)
    rows = [
        row if len(row) <= max_tokens else [*row[: max_tokens - closing], *row[len(row) - closing :]]
        for row in ids.to_pylist()
    ]
    return pa.array(rows, ids.type), pa.array(lost + np.maximum(lengths - max_tokens, 0).astype(np.int32))


def _logits(model: Any, batch: Batch) -> Tensor:
    """Logits [rows, target, vocabulary], float32, of each label, from the labels before it."""
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits: Tensor = model(**inputs, decoder_input_ids=decoder_input_ids).logits
    return logits.float()
