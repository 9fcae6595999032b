"""The directory that MLflow logs as a model: weights in safetensors, tokenizer, card, and the code that answers.

MLmodel, requirements.txt, input_example.json, model_code.py
artifacts/model/    config.json, weights or adapter, tokenizer, README.md (the card), SHA256SUMS, base.json
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.artifacts import Artifact, digest_of, file_digest
from hone.base_models import WEIGHTS, BaseModel
from hone.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CODE = {"text-classification": Path(__file__).with_name("model_code.py")}
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas")
ADAPTER_REQUIREMENTS = ("peft", "huggingface-hub")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class Form:
    """What is to be served: the trained files of `train` for `pipeline`, whole or as an adapter on its base."""

    train: Artifact
    pipeline: str
    adapter: bool
    max_length: int

    @property
    def code(self) -> Path:
        """The code that answers; raises ConfigError where there is none for the pipeline."""
        if self.pipeline not in CODE:
            raise ConfigError(
                "cannot be served: there is no code that answers for it",
                where=f"objective {self.pipeline}",
                fix=f"There is for {', '.join(CODE)}.",
            )
        return CODE[self.pipeline]

    @property
    def key(self) -> str:
        """Digest of what decides an answer: two forms with one key are one model version."""
        parts = [self.train.digest, self.pipeline, self.adapter, self.max_length, file_digest(self.code)]
        return digest_of(parts)[:20]


def package(place: Path, form: Form, base: BaseModel, *, card: str, example: str, logged: LoggedModel) -> None:
    """Write the model's directory at `place`; weights are linked, not copied, where the disk allows.

    Raises ModelError where a weight file is not in safetensors.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    described = Model(
        artifact_path=logged.artifact_location,
        run_id=logged.source_run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    mlflow.pyfunc.save_model(
        place,
        python_model=str(form.code),
        model_config={"max_length": form.max_length, "batch_size": 32, "device": "auto", "base": ""},
        mlflow_model=described,
        signature=signature(),
        input_example=pd.DataFrame({"text": [example]}),
        pip_requirements=requirements(form.adapter),
    )
    home = place / "artifacts" / "model"
    home.mkdir(parents=True)
    sums = _gather(home, form, base, card)
    (home / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())), "utf8")
    refuse_pickles(place)
    _point_to(described, home, place)


def signature() -> ModelSignature:
    """A text in (a list, or a frame's column `text`), a label and its score out, and the parameter `all_scores`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),  # with a name MLflow would refuse a plain list of texts
        outputs=Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")]),
        params=ParamSchema([ParamSpec("all_scores", DataType.boolean, False)]),
    )


def requirements(adapter: bool) -> list[str]:
    """The installed versions of what the code imports; a build's own suffix (`+cpu`) is on no index and left out."""
    names = REQUIREMENTS + (ADAPTER_REQUIREMENTS if adapter else ())
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def refuse_pickles(place: Path) -> None:
    """Raise ModelError where a file could run code when it is loaded."""
    found = [str(file.relative_to(place)) for file in sorted(place.rglob("*")) if file.suffix in PICKLED]
    if found:
        raise ModelError(
            f"would be registered with weights that are not in safetensors: {', '.join(found)}",
            where=str(place),
            fix="Have the model saved with save_pretrained(..., safe_serialization=True).",
        )


def _gather(home: Path, form: Form, base: BaseModel, card: str) -> dict[str, str]:
    """Put the model's files into `home`; their SHA-256, by name. The train manifest has those of linked files."""
    digests = {name: entry["sha256"] for name, entry in form.train.manifest()["files"].items()}
    linked = {name: name.removeprefix("model/") for name in digests if name.startswith("model/")}
    written = {"README.md": card}
    if form.adapter:
        linked = {name: new for name, new in linked.items() if ".safetensors" not in new}
        linked |= {
            name: name.removeprefix("adapter/") for name in digests if name == "adapter/adapter_model.safetensors"
        }
        written |= {
            "adapter_config.json": _adapter_config(form.train.path / "adapter", base),
            "base.json": json.dumps(base_record(base), indent=1),
        }
    for name, new in linked.items():
        if new not in written:
            _link(form.train.path / name, home / new)
    for name, text in written.items():
        (home / name).write_text(text, "utf8")
    sums = {new: digests[name] for name, new in linked.items() if new not in written}
    return sums | {name: file_digest(home / name) for name in written}


def base_record(base: BaseModel) -> dict[str, Any]:
    """What finds the base model again and proves it: its id, revision, directory, and its weights' SHA-256."""
    files = sorted({file for pattern in WEIGHTS for file in base.path.glob(pattern)})
    return {
        "id": base.base,
        "revision": base.revision,
        "path": str(base.path),
        "files": {file.name: file_digest(file) for file in files},
    }


def _adapter_config(adapter: Path, base: BaseModel) -> str:
    """PEFT's own config, with the base's id in place of a directory of this machine."""
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text("utf8"))
    return json.dumps(config | {"base_model_name_or_path": base.base}, indent=1, sort_keys=True)


def _link(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def _point_to(described: Any, home: Path, place: Path) -> None:
    """Say in MLmodel where the files lie; handed to save_model instead, they would be copied twice."""
    inside = str(home.relative_to(place))
    described.flavors["python_function"]["artifacts"] = {"model": {"path": inside, "uri": inside}}
    described.model_size_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    described.save(str(place / "MLmodel"))
