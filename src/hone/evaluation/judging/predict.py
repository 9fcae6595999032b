"""Load the trained model from its files, as it will be registered; predict with it, and time it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import ModelError
from hone.methods.adapters import load_for_serving
from hone.models import own_code
from hone.objectives.base import Predictions, Targets
from hone.objectives.shared.reading import Reader
from hone.progress import OnProgress, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from transformers import PreTrainedModel

    from hone.objectives.base import Batch

# Maximum difference of float32 scores of one row between an adapter on its base and the merged weights.
MERGE_TOLERANCE = 1e-4
# Requests that are not timed, requests that are, and the total seconds after which no more are sent.
WARM_UP, REQUESTS, REQUEST_SECONDS = 5, 50, 30.0

Advance = Callable[[int, str], None]


def make_advance(total: int, on_progress: OnProgress) -> Advance:
    """A function that adds to the rows done of `total` and reports them with a note on the current step."""
    done = 0

    def advance(rows: int, note: str) -> None:
        nonlocal done
        done += rows
        on_progress(Progress(done, total, note=note))

    return advance


def best_device() -> torch.device:
    """CUDA if it is available, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_trained(path: Path, targets: Targets, device: torch.device) -> PreTrainedModel:
    """The saved model in the directory `path`: float32, of the architecture that its config names, in eval mode.

    Raises ModelError if it cannot be loaded, if its files lack a weight (which would be random), or if its labels are
    not those of `targets` in the same order.
    """
    import torch
    import transformers

    try:
        options = {"local_files_only": True, "trust_remote_code": own_code.may_run(path)}
        config = transformers.AutoConfig.from_pretrained(path, **options)
        architecture = own_code.get_architecture(path, config)
        with _quiet():
            model, loading = architecture.from_pretrained(
                path, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, AttributeError) as fault:
        raise _not_loadable(path, str(fault)) from fault
    if loading["missing_keys"]:
        raise _not_loadable(path, f"its files lack the weights {', '.join(sorted(loading['missing_keys'])[:3])}")
    saved = [config.id2label[index] for index in sorted(config.id2label)]
    if saved != targets.get("labels", saved):
        raise _not_loadable(path, f"its labels {saved[:5]} are not those it was trained for, {targets['labels'][:5]}")
    return model.eval().to(device)


def load_base(base: Path, device: torch.device) -> PreTrainedModel:
    """The frozen base model without a head, float32; of an encoder-decoder the encoder alone.

    Raises ModelError if it cannot be loaded.
    """
    import torch
    from transformers import AutoModel

    try:
        with _quiet():
            model = AutoModel.from_pretrained(
                base,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=own_code.may_run(base),
            )
    except (OSError, ValueError, RuntimeError) as fault:
        raise ModelError(
            f"cannot be loaded for its embeddings: {fault}",
            where=str(base),
            fix="Choose a base model that transformers' AutoModel knows.",
        ) from fault
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    return encoder.eval().to(device)


def embed_batch(model: Any, batch: Batch) -> np.ndarray:
    """Unit-length embeddings of a batch, float32 [rows, dimensions]: the mean of the last hidden state over its tokens.

    Reimers and Gurevych, Sentence-BERT, 2019.
    """
    import torch

    with torch.inference_mode():
        mask = batch["attention_mask"]
        hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors: np.ndarray = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
    return vectors


def read(model: Any, tokens: pa.Table, reader: Reader, advance: Advance, note: str) -> tuple[Predictions, float]:
    """The model's predictions for the encoded rows, in the order of `tokens`, and the seconds that took.

    Raises ModelError for a score that is not finite.
    """
    raw, seconds = reader.predict(model, tokens, lambda rows: advance(rows, note))
    for row, scores in enumerate(raw["scores"]):
        if not np.isfinite(scores).all():
            name = tokens["id"][row].as_py()
            raise ModelError(
                "its scores are not finite numbers", where=f"test row {name}", fix="Train with a lower learning rate."
            )
    return raw, seconds


def load_adapted(
    adapter: Path,
    base: Path,
    targets: Targets,
    reader: Reader,
    put_on: Callable[[PreTrainedModel, Path], Any] = load_for_serving,
) -> Any:
    """The base model with the adapter in the directory `adapter`, loaded by `put_on`: by default as it is served.

    Raises ModelError if there is no adapter, or if it does not fit the base model.
    """
    if not adapter.is_dir():
        raise ModelError("the method trains an adapter, but there is none", where=str(adapter), fix="Train again.")
    try:
        with _quiet():
            model = put_on(reader.objective.load_model(base, targets), adapter)
    except (OSError, ValueError, RuntimeError, KeyError) as fault:
        raise _not_loadable(adapter, str(fault)) from fault
    return model.eval().to(reader.device)


def check_merged(merged: Predictions, unmerged: Predictions, path: Path) -> dict[str, Any]:
    """The number of `rows` compared and the `largest_difference` of scores; raises ModelError if that is above 1e-4."""
    ours, theirs = (_flatten_scores(raw["scores"]) for raw in (merged, unmerged))
    largest = float(np.abs(ours - theirs).max())
    if largest > MERGE_TOLERANCE:
        raise ModelError(
            f"the scores of the merged weights and of the adapter on its base differ by up to {largest:.2g}"
            f" on the test rows, where {MERGE_TOLERANCE:g} is allowed",
            where=str(path),
            fix="The adapter must include the head (PEFT's modules_to_save), and be on the base it was trained on.",
        )
    return {"rows": len(merged["scores"]), "largest_difference": largest}


def _flatten_scores(scores: Any) -> np.ndarray:
    return np.concatenate([np.ravel(row) for row in scores]).astype(np.float64)


def measure_speed(
    model: Any,
    rows: pa.Table,
    tokens: pa.Table,
    targets: Targets,
    reader: Reader,
    max_length: int,
    raw: Predictions,
    forward: float,
) -> dict[str, Any]:
    """Latency of single requests (p50 and p95, in ms), throughput in batches (rows/s), and the seconds of each part.

    `rows` are those of `tokens`, in its order; `raw` are their predictions, made in `forward` seconds. Raises
    ModelError if the model's tokenizer gives tokens other than those of the test.
    """
    objective, tokenizer = reader.objective, reader.tokenizer
    began = time.perf_counter()
    encoded = objective.encode(rows, tokenizer, max_length, targets)
    tokenized = time.perf_counter()
    if encoded["input_ids"].to_pylist() != tokens["input_ids"].to_pylist():
        raise ModelError(
            "the model's tokenizer gives other tokens than those the model was tested on",
            where=tokenizer.name_or_path,
            fix="Keep the base model's tokenizer files, unchanged, in the directory of the trained weights.",
        )
    inputs = objective.inference_inputs(rows)
    answering = time.perf_counter()
    objective.build_answers(tokens, raw, targets, inputs)
    parts = {"tokenize": tokenized - began, "forward": forward, "post": time.perf_counter() - answering}
    latencies = _measure_latencies(model, inputs, targets, reader, max_length)
    p50, p95 = np.quantile(latencies, (0.5, 0.95)) * 1000
    return {
        "latency_ms": {"p50": float(p50), "p95": float(p95)},
        "rows_per_second": len(rows) / sum(parts.values()),
        "parts": parts,
        "slowest": max(parts, key=lambda name: parts[name]),
    }


def _measure_latencies(
    model: Any,
    inputs: list[dict[str, str]],
    targets: Targets,
    reader: Reader,
    max_length: int,
) -> list[float]:
    """Seconds of single requests, answered as a server does, for rows spread over the test split, after a warm-up.

    Stops early once the requests have taken REQUEST_SECONDS together.
    """
    seconds: list[float] = []
    for position in np.linspace(0, len(inputs) - 1, WARM_UP + REQUESTS).astype(int).tolist():
        began = time.perf_counter()
        reader.answer(model, [inputs[position]], targets, max_length)
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > REQUEST_SECONDS:
            break
    return seconds[WARM_UP:] or seconds


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, transformers shows no loading bar and does not warn of weights that are left out on purpose."""
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
