"""Serving code of a registered model. It is copied into the logged model with the modules of hone that it uses.

The import of `find_faults` is replaced by the source of sums.py: until the files are verified, nothing that lies beside
this file is imported. MLflow puts the folder code/ before all installed packages: `import torch` may be code/torch.py.

MLflow runs this file when it loads the model. `model_config` holds the settings that a caller may choose:
`load_model(uri, model_config={"device": "cuda", "batch_size": 256, "base": DIR, "max_characters": 0})`.
Settings that change answers are in objective.json beside the weights: the objective, its options and its targets.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from hone.registry.served.sums import find_faults


class Served(PythonModel):  # type: ignore[misc]
    """A pyfunc model: takes rows with the objective's inputs, returns one answer per row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load weights and tokenizer. Raises ValueError for a file that differs from the registered one."""
        home, settings = Path(context.artifacts["model"]), context.model_config
        root = home.parents[1]
        faults = find_faults(root)
        if faults:
            raise ValueError(f"{root} is not the model that was registered: {', '.join(faults)}")
        import torch

        self.package = next((root / "code").glob("served_*")).name
        self.about = json.loads((home / "objective.json").read_text("utf8"))
        device = settings["device"]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._module("hone.models.own_code").allow_code(self.about.get("code", ""))
        self.model = self._model(home, settings).eval().to(device)
        tokenizer = self._module("hone.objectives.shared.tokenizer").load_tokenizer(home)
        self.objective = self._module("objective").Objective(**self.about["options"])
        reading = self._module("hone.objectives.shared.reading")
        self.reader = reading.Reader(
            self.objective,
            tokenizer.pad_token_id,
            torch.device(device),
            tokenizer,
            int(settings["batch_size"]),
            [self._rewriter(record) for record in self.about.get("rewriters", [])],
        )

    # Of all hints for model_input, a frame's alone leaves the signature in force: MLflow makes a frame of a list.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A DataFrame with the objective's outputs; with the parameter `all_scores`, with all its columns."""
        rows = frame_to_rows(model_input, list(self.objective.inputs))
        check_lengths(rows, int(context.model_config["max_characters"]))
        answers = self.reader.answer(self.model, rows, self.about["targets"], int(self.about["max_length"]))
        columns = None if (params or {}).get("all_scores") else list(self.objective.outputs)
        return pd.DataFrame(answers, columns=columns)

    def _rewriter(self, record: dict[str, Any]) -> Any:
        return self._module("objective").REWRITERS[record["kind"]](**record["options"])

    def _model(self, home: Path, settings: dict[str, Any]) -> Any:
        """The model in float32: its own weights, or the base model's weights with the adapter."""
        import torch
        import transformers

        own_code = self._module("hone.models.own_code")
        loading = {"local_files_only": True, "trust_remote_code": own_code.may_run(home)}
        config = transformers.AutoConfig.from_pretrained(home, **loading)
        architecture = own_code.get_architecture(home, config)
        options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
        if not (home / "adapter_config.json").is_file():
            return architecture.from_pretrained(home, config=config, **options)
        base = self._locate_base(json.loads((home / "base.json").read_text("utf8")), settings.get("base", ""))
        # A base with another task's head loses that head: the adapter contains its own.
        model = architecture.from_pretrained(base, config=config, ignore_mismatched_sizes=True, **options)
        return self._module("hone.methods.adapters").load_for_serving(model, home)

    def _locate_base(self, record: dict[str, Any], directory: str) -> Path:
        try:
            base: Path = self._module("hone.models.places").locate_recorded(record, _fetch_version, directory)
        except ValueError as fault:
            advice = "Name the right directory: load_model(uri, model_config={'base': DIRECTORY})."
            raise ValueError(f"{fault}. {advice}") from fault
        return base

    def _module(self, name: str) -> Any:
        """Import a module of the copied package from source: bytecode beside it is neither read nor written."""
        previous_prefix = sys.pycache_prefix
        with TemporaryDirectory() as empty:
            sys.pycache_prefix = empty
            try:
                return import_module(f"{self.package}.{name}")
            finally:
                sys.pycache_prefix = previous_prefix


def frame_to_rows(frame: pd.DataFrame, inputs: list[str]) -> list[dict[str, str]]:
    """The frame's rows as dictionaries of the `inputs`; MLflow passes a list of texts as column 0.

    Raises ValueError for a missing column and for a value that is not a string.
    """
    if len(inputs) == 1 and frame.columns.equals(pd.RangeIndex(1)):
        frame = frame.set_axis(inputs, axis=1)
    missing = [name for name in inputs if name not in frame.columns]
    if missing:
        present = ", ".join(map(repr, frame.columns))
        text_list = "a list of texts, or " if len(inputs) == 1 else ""
        required = " and ".join(map(repr, inputs))
        raise ValueError(
            f"there is no column {missing[0]!r} but {present}: send {text_list}a frame with the column {required}"
        )
    for name in inputs:
        for index, value in enumerate(frame[name]):
            if not isinstance(value, str):
                raise ValueError(f"row {index} is not a text but {value!r}")
    return [dict(zip(inputs, row, strict=True)) for row in frame[inputs].itertuples(index=False)]


def check_lengths(rows: list[dict[str, str]], max_characters: int) -> None:
    """Raise ValueError for a row with more characters; 0 is no limit.

    A text is tokenized as a whole before it is cut off or read in windows: 5 MB took 29 s and 1 GB.
    """
    for index, row in enumerate(rows):
        characters = sum(map(len, row.values()))
        if characters > max_characters > 0:
            raise ValueError(
                f"row {index} has {characters:,} characters, more than {max_characters:,}: shorten it, or load the"
                f" model with model_config={{'max_characters': {characters}}}"
            )


def _fetch_version(uri: str) -> Path:
    """The model of a version in MLflow's registry, downloaded to a temporary directory."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(uri)) / "artifacts" / "model"


set_model(Served())
