"""The trained model as it will be registered: loaded from its files, asked, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import ModelError
from hone.objectives.objective import Batch, Objective
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Rows and padded tokens that go through a model at once. On 2 cores MiniLM reads 64 x 2,048 faster than 256 x 8,192.
LIMITS = {"cpu": (64, 2048), "cuda": (256, 65536)}
# The most that float32 scores of one row may differ between an adapter on its base and the merged weights.
MERGE_TOLERANCE = 1e-4
WARM_UP, REQUESTS = 5, 50

Advance = Callable[[int, str], None]


def advancing(total: int, on_progress: OnProgress) -> Advance:
    """A function that reports so many more rows of `total` done, and what is being done with them."""
    done = 0

    def advance(rows: int, note: str) -> None:
        nonlocal done
        done += rows
        on_progress(Progress(done, total, note=note))

    return advance


@dataclass(frozen=True)
class Reader:
    """How token rows become batches: the objective that collates them, the padding id, the device they go to."""

    objective: Objective
    pad_id: int
    device: torch.device

    def batches(self, tokens: pa.Table) -> Iterator[tuple[np.ndarray, Batch]]:
        """Positions and batches of rows of like length, longest first; every row once, the same ones each time."""
        import pyarrow as pa
        import pyarrow.compute as pc

        most_rows, most_tokens = LIMITS[self.device.type]
        table = tokens.drop_columns(["id"]).combine_chunks()
        lengths = pc.list_value_length(table["input_ids"]).to_numpy()
        order = np.argsort(-lengths, kind="stable")
        while len(order):
            fit = int(max(1, min(most_rows, most_tokens // max(1, lengths[order[0]]))))
            at, order = order[:fit], order[fit:]
            batch = self.objective.collate(table.take(pa.array(at)).to_pydict(), self.pad_id)
            yield at, {name: tensor.to(self.device) for name, tensor in batch.items()}


def best_device() -> torch.device:
    """CUDA where it is there, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_trained(path: Path, targets: Mapping[str, Any], device: torch.device) -> PreTrainedModel:
    """The saved model in the directory `path`, float32, by the architecture its config names, ready to be asked.

    Raises ModelError where it cannot be loaded, where a weight is not in its files (it would be random), or where its
    labels are not those of `targets` in their order.
    """
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        architecture = getattr(transformers, (config.architectures or ["no architecture"])[0])
        with _quiet():
            model, loading = architecture.from_pretrained(
                path, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, AttributeError) as fault:
        raise _not_loadable(path, str(fault)) from fault
    if loading["missing_keys"]:
        raise _not_loadable(path, f"its files lack the weights {', '.join(sorted(loading['missing_keys'])[:3])}")
    saved = [config.id2label[index] for index in sorted(config.id2label)]
    if saved != targets["labels"]:
        raise _not_loadable(path, f"its labels {saved[:5]} are not those it was trained for, {targets['labels'][:5]}")
    return model.eval().to(device)


def load_base(base: Path, device: torch.device) -> PreTrainedModel:
    """The frozen base model without a head, float32: the encoder, where it is one of a pair.

    Raises ModelError where it cannot be loaded.
    """
    import torch
    from transformers import AutoModel

    try:
        with _quiet():
            model = AutoModel.from_pretrained(base, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as fault:
        raise ModelError(
            f"cannot be loaded for its embeddings: {fault}",
            where=str(base),
            fix="Choose a base model that transformers' AutoModel knows.",
        ) from fault
    reads = model.get_encoder() if model.config.is_encoder_decoder else model
    return reads.eval().to(device)


def class_scores(model: Any, tokens: pa.Table, reader: Reader, advance: Advance, note: str) -> tuple[np.ndarray, float]:
    """Scores of every row in the order of `tokens`, float32 [rows, classes], and the seconds the model took.

    Raises ModelError where a score is not finite.
    """
    import torch

    found: np.ndarray | None = None
    seconds = 0.0
    for at, batch in reader.batches(tokens):
        began = time.perf_counter()
        with torch.inference_mode():
            scores = reader.objective.scores(model, batch).float().cpu().numpy()
        seconds += time.perf_counter() - began
        found = np.empty((len(tokens), scores.shape[1]), np.float32) if found is None else found
        found[at] = scores
        advance(len(at), note)
    if found is None:
        raise ValueError("no rows to score")
    if not np.isfinite(found).all():
        row = tokens["id"][int(np.flatnonzero(~np.isfinite(found).all(1))[0])]
        raise ModelError("its scores are not finite numbers", where=f"test row {row}", fix="Train at a lower rate.")
    return found, seconds


def adapter_scores(
    adapter: Path, base: Path, targets: Mapping[str, Any], tokens: pa.Table, reader: Reader, advance: Advance
) -> np.ndarray:
    """What the adapter in the directory `adapter` says of every row when it is put on its base model, unmerged."""
    from peft import PeftModel

    try:
        with _quiet():
            model = PeftModel.from_pretrained(reader.objective.model(base, targets), adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as fault:
        raise _not_loadable(adapter, str(fault)) from fault
    scores, _ = class_scores(model.eval().to(reader.device), tokens, reader, advance, "testing the adapter")
    return scores


def check_merged(merged: np.ndarray, unmerged: np.ndarray, path: Path) -> dict[str, Any]:
    """`rows` compared and the `largest_difference` of their scores; raises ModelError where it is above 1e-4."""
    largest = float(np.abs(merged.astype(np.float64) - unmerged).max())
    if largest > MERGE_TOLERANCE:
        raise ModelError(
            f"merged and on its base the adapter scores the test rows differently, by up to {largest:.2g}"
            f" where {MERGE_TOLERANCE:g} is allowed",
            where=str(path),
            fix="The adapter must hold the head too (PEFT's modules_to_save), and the base be the one it learned on.",
        )
    return {"rows": len(merged), "largest_difference": largest}


def speed(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: pa.Table,
    tokens: pa.Table,
    targets: Mapping[str, Any],
    reader: Reader,
    forward: float,
) -> dict[str, Any]:
    """Latency of single requests, p50 and p95 in milliseconds, rows/s in batches, and the seconds of each part.

    `rows` are those of `tokens`, in its order; `forward` is the seconds the model took for them. Raises ModelError
    where the tokenizer beside the model gives other tokens than those of the test.
    """
    import pyarrow.compute as pc

    longest = pc.max(pc.list_value_length(tokens["input_ids"])).as_py()
    began = time.perf_counter()
    encoded = reader.objective.encode(rows, tokenizer, longest, targets)
    tokenized = time.perf_counter()
    if encoded["input_ids"].to_pylist() != tokens["input_ids"].to_pylist():
        raise ModelError(
            "the tokenizer beside the model gives other tokens than those the model was tested on",
            where=tokenizer.name_or_path,
            fix="The base model's tokenizer files must lie unchanged beside the trained weights.",
        )
    scores = np.zeros((len(rows), len(targets["labels"])), np.float32)
    answering = time.perf_counter()
    _answers(scores, targets)
    parts = {"tokenize": tokenized - began, "forward": forward, "post": time.perf_counter() - answering}
    latencies = _latencies(model, tokenizer, rows, longest, targets, reader)
    p50, p95 = np.quantile(latencies, (0.5, 0.95)) * 1000
    return {
        "latency_ms": {"p50": float(p50), "p95": float(p95)},
        "rows_per_second": len(rows) / sum(parts.values()),
        "parts": parts,
        "slowest": max(parts, key=lambda name: parts[name]),
    }


def _latencies(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: pa.Table,
    longest: int,
    targets: Mapping[str, Any],
    reader: Reader,
) -> list[float]:
    """Seconds of single requests, text in and label out, for rows spread over the test split, after a warm-up."""
    import torch

    seconds = []
    for position in np.linspace(0, len(rows) - 1, WARM_UP + REQUESTS).astype(int).tolist():
        row = rows.slice(position, 1)
        began = time.perf_counter()
        [(_, batch)] = reader.batches(reader.objective.encode(row, tokenizer, longest, targets))
        with torch.inference_mode():
            scores = reader.objective.scores(model, batch).float().cpu().numpy()
        _answers(scores, targets)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


def _answers(scores: np.ndarray, targets: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What a caller is told of each row: its label, and how sure the model is."""
    best = scores.argmax(1)
    return [(targets["labels"][i], float(s)) for i, s in zip(best, scores[np.arange(len(best)), best], strict=True)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block transformers draws no loading bar and reports no weights that are left out on purpose."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _not_loadable(path: Path, why: str) -> ModelError:
    return ModelError(
        f"cannot be loaded as it would be served: {why}", where=str(path), fix="Run the stage that wrote it again."
    )
