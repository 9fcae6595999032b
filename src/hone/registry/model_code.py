"""The code that answers for a registered text classifier. It lies in the logged model and needs no hone.

MLflow runs this file when it loads the model. `model_config` holds what decides an answer (`max_length`) and
what a person may set at load: `load_model(uri, model_config={"device": "cuda", "batch_size": 256, "base": DIR})`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class TextClassifier(PythonModel):  # type: ignore[misc]
    """Texts in; for each its likeliest label and that label's probability out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer; raises ValueError where the base model is not the one that was tuned."""
        import torch

        home, settings = Path(context.artifacts["model"]), context.model_config
        device = settings["device"]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.batch_size, self.max_length = int(settings["batch_size"]), int(settings["max_length"])
        self.model = load_model(home, settings).eval().to(device)
        self.tokenizer = load_tokenizer(home)
        self.labels = [self.model.config.id2label[index] for index in range(self.model.config.num_labels)]

    # Of all hints for model_input, a frame's alone leaves the signature in force: MLflow makes a frame of a list.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A DataFrame with `label` and `score` (0..1); with `all_scores` also `scores`, {label: probability}."""
        scores = self.scores(texts_of(model_input))
        best = scores.argmax(1)
        answer: dict[str, Any] = {"label": [self.labels[index] for index in best]}
        answer["score"] = scores[np.arange(len(scores)), best].astype(np.float64)
        if (params or {}).get("all_scores"):
            answer["scores"] = [dict(zip(self.labels, map(float, row), strict=True)) for row in scores]
        return pd.DataFrame(answer)

    def scores(self, texts: list[str]) -> np.ndarray:
        """Class probabilities [texts, labels], float32. Texts of like length go through the model together."""
        import torch

        scores = np.zeros((len(texts), len(self.labels)), np.float32)
        tokens = [encoding.ids for encoding in self._encode(texts)]
        order = sorted(range(len(texts)), key=lambda index: len(tokens[index]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            with torch.inference_mode():
                batch = self._pad([tokens[row] for row in rows])
                scores[rows] = self.model(**batch).logits.float().softmax(-1).cpu().numpy()
        return scores

    def _encode(self, texts: list[str]) -> list[Any]:
        backend = self.tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.max_length, direction=self.tokenizer.truncation_side)
        encodings: list[Any] = backend.encode_batch_fast(texts)
        return encodings

    def _pad(self, rows: list[list[int]]) -> dict[str, Any]:
        """A batch, padded on the right as in training."""
        import torch

        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, self.tokenizer.pad_token_id, np.int64)
        ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in rows])
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}


def texts_of(frame: pd.DataFrame) -> list[str]:
    """The texts in the first column, the one that MLflow hands over; a list of texts arrives as column 0.

    Raises ValueError for a column of another name, and for a value that is no text.
    """
    name = frame.columns[0]
    if isinstance(name, str) and name != "text":
        raise ValueError(f"the first column is {name!r}: send a list of texts, or a frame with the column 'text'")
    texts = list(frame[name])
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"row {index} is not a text but {text!r}")
    return texts


def load_tokenizer(home: Path) -> Any:
    """The tokenizer beside the weights, with a padding token as in training."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_model(home: Path, settings: dict[str, Any]) -> Any:
    """The model in float32: its own weights, or those of its base with the adapter merged into them."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(home, local_files_only=True)
    architecture = getattr(transformers, config.architectures[0])
    options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
    if not (home / "adapter_config.json").is_file():
        return architecture.from_pretrained(home, config=config, **options)
    from peft import PeftModel

    base = locate_base(json.loads((home / "base.json").read_text("utf8")), settings.get("base", ""))
    # A base with another task's head gives that head up: the adapter brings its own.
    model = architecture.from_pretrained(base, config=config, ignore_mismatched_sizes=True, **options)
    return PeftModel.from_pretrained(model, home, torch_device="cpu").merge_and_unload()


def locate_base(base: dict[str, Any], given: str) -> Path:
    """The directory of the base model: `given`, the package, the directory or the hub's snapshot it was tuned from.

    Raises ValueError where it is not there, or where its weights are not the very bytes of then.
    """
    path = Path(given) if given else _known_place(base)
    for name, digest in base["files"].items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{base['id']} was tuned with {name}, which {path} does not have. {_ADVICE}")
        if _sha256(file) != digest:
            raise ValueError(f"{file} is not the file of {base['id']} {base['revision']} that was tuned. {_ADVICE}")
    return path


_ADVICE = "Name the right directory: load_model(uri, model_config={'base': DIRECTORY})."


def _known_place(base: dict[str, Any]) -> Path:
    name = str(base["id"])
    if name.startswith("package:"):
        package, _, inside = name.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"the base model's package {package} ({base['revision']}) is not installed. {_ADVICE}")
        return Path(spec.submodule_search_locations[0]) / inside
    if not base["revision"]:
        return Path(base["path"])
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {"revision": base["revision"], "allow_patterns": list(base["files"])}
    try:
        return Path(str(snapshot_download(name, local_files_only=True, **wanted)))
    except LocalEntryNotFoundError:
        return Path(str(snapshot_download(name, **wanted)))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


set_model(TextClassifier())
