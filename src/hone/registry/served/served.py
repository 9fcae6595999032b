"""The code that answers for a registered model. It lies in the logged model, as do the parts of hone that it uses.

MLflow runs this file when it loads the model. `model_config` holds what a person may set at load:
`load_model(uri, model_config={"device": "cuda", "batch_size": 256, "base": DIR})`. What decides an answer is in
objective.json beside the weights: the objective, its options and targets, and the name of the copied package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Served(PythonModel):  # type: ignore[misc]
    """Rows with the objective's inputs in, one answer for each out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer; raises ValueError where a file is not the one that was registered or tuned."""
        import torch

        home, settings = Path(context.artifacts["model"]), context.model_config
        root = home.parents[1]
        self.package = next((root / "code").glob("served_*")).name
        wrong = self._module("hone.registry.served.sums").faults(root)
        if wrong:
            raise ValueError(f"{root} is not the model that was registered: {', '.join(wrong)}")
        self.about = json.loads((home / "objective.json").read_text("utf8"))
        device = settings["device"]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._module("hone.models.own_code").allow(self.about.get("code", ""))
        self.model = self._model(home, settings).eval().to(device)
        tokenizer = self._module("hone.objectives.shared.tokenizer").load_tokenizer(home)
        self.objective = self._module("objective").Objective(**self.about["options"])
        reading = self._module("hone.objectives.shared.reading")
        self.reader = reading.Reader(
            self.objective, tokenizer.pad_token_id, torch.device(device), tokenizer, int(settings["batch_size"])
        )

    # Of all hints for model_input, a frame's alone leaves the signature in force: MLflow makes a frame of a list.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A DataFrame with the objective's outputs; with the parameter `all_scores` also all else that it tells."""
        rows = rows_of(model_input, list(self.objective.inputs))
        answers = self.reader.answer(self.model, rows, self.about["targets"], int(self.about["max_length"]))
        told = None if (params or {}).get("all_scores") else list(self.objective.outputs)
        return pd.DataFrame(answers, columns=told)

    def _model(self, home: Path, settings: dict[str, Any]) -> Any:
        """The model in float32: its own weights, or those of its base with the adapter in or beside them."""
        import torch
        import transformers

        own_code = self._module("hone.models.own_code")
        known = {"local_files_only": True, "trust_remote_code": own_code.may_run(home)}
        config = transformers.AutoConfig.from_pretrained(home, **known)
        architecture = own_code.architecture(home, config)
        options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
        if not (home / "adapter_config.json").is_file():
            return architecture.from_pretrained(home, config=config, **options)
        base = locate_base(json.loads((home / "base.json").read_text("utf8")), settings.get("base", ""))
        # A base with another task's head gives that head up: the adapter brings its own.
        model = architecture.from_pretrained(base, config=config, ignore_mismatched_sizes=True, **options)
        return self._module("hone.methods.adapters").load_for_serving(model, home)

    def _module(self, name: str) -> Any:
        """A module of the copied package, of its source: bytecode beside it is neither read nor written."""
        before = sys.pycache_prefix
        with TemporaryDirectory() as elsewhere:
            sys.pycache_prefix = elsewhere
            try:
                return import_module(f"{self.package}.{name}")
            finally:
                sys.pycache_prefix = before


def rows_of(frame: pd.DataFrame, inputs: list[str]) -> list[dict[str, str]]:
    """The rows, each with the `inputs`; a list of texts arrives as column 0.

    Raises ValueError where a column is not there, and for a value that is no text.
    """
    if len(inputs) == 1 and frame.columns.equals(pd.RangeIndex(1)):
        frame = frame.set_axis(inputs, axis=1)
    missing = [name for name in inputs if name not in frame.columns]
    if missing:
        there = ", ".join(map(repr, frame.columns))
        alone = "a list of texts, or " if len(inputs) == 1 else ""
        wanted = " and ".join(map(repr, inputs))
        raise ValueError(f"there is no column {missing[0]!r} but {there}: send {alone}a frame with the column {wanted}")
    for name in inputs:
        for index, value in enumerate(frame[name]):
            if not isinstance(value, str):
                raise ValueError(f"row {index} is not a text but {value!r}")
    return [dict(zip(inputs, row, strict=True)) for row in frame[inputs].itertuples(index=False)]


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
    if not base["revision"] or (name.startswith("models:/") and Path(base["path"]).is_dir()):
        return Path(base["path"])
    if name.startswith("models:/"):
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(name)) / "artifacts" / "model"
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


set_model(Served())
