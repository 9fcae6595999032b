"""The directory that MLflow logs as a model: weights in safetensors, tokenizer, card, and the code that answers.

MLmodel, requirements.txt, input_example.json, served.py
SHA256SUMS          of every other file; its own digest is the version's tag hone.files_sha256
artifacts/model/    config.json, weights or adapter, tokenizer, README.md (the card), objective.json: what it was tuned
                    for, and where its base model is asked too (an adapter, DPO), base.json: which that is
code/served_HASH/   the parts of hone that answer, the very code that the model was tested with; its objective.py names
                    the class of the objective
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError
from hone.models import own_code
from hone.models.locate import WEIGHTS, BaseModel
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.parts.plugins import kind_of
from hone.registry.served import sums
from hone.store.artifact import Artifact
from hone.store.digests import digest_of, file_digest
from hone.store.recipe import read_sources

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CODE = Path(__file__).parent / "served" / "served.py"
# Which class of the copied package answers: a stored model names no module of hone, so that modules can be moved.
ENTRY = "objective.py"
USED_BY_SERVED = (
    "hone.models.own_code",
    "hone.objectives.shared.reading",
    "hone.objectives.shared.tokenizer",
    "hone.registry.served.sums",
)
USED_BY_ADAPTERS = ("hone.methods.adapters", "hone.models.places")
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "pyarrow")
ADAPTER_REQUIREMENTS = ("peft", "huggingface-hub")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class Form:
    """What is to be served: the trained files of `train` for `objective`, whole or as an adapter on its base."""

    train: Artifact
    objective: Objective
    targets: Mapping[str, Any]
    adapter: bool
    max_length: int

    @cached_property
    def code(self) -> dict[str, str]:
        """The source of the modules that answer, by path."""
        return serving_code(self.objective, self.adapter)

    @property
    def package(self) -> str:
        """The name of the package that the modules are copied to."""
        return package_name(self.code)

    def about(self) -> dict[str, Any]:
        """What decides an answer besides the weights: objective.json."""
        code = own_code.compute_digest(self.train.path / "model")
        return {
            "package": self.package,
            "kind": kind_of(OBJECTIVES, self.objective),
            "options": asdict(self.objective),
            "inputs": list(self.objective.inputs),
            "outputs": dict(self.objective.outputs),
            "targets": self.targets,
            "max_length": self.max_length,
            **({"code": code} if code else {}),
        }

    @property
    def key(self) -> str:
        """Digest of what decides an answer: two forms with one key are one model version."""
        return digest_of([self.train.digest, self.about(), self.adapter, file_digest(CODE)])[:20]


def package(
    place: Path, form: Form, base: BaseModel, *, card: str, example: Mapping[str, str], logged: LoggedModel
) -> str:
    """Write the model's directory at `place`; weights are linked, not copied, where the disk allows.

    What comes back is the digest of its SHA256SUMS.

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
    with tempfile.TemporaryDirectory() as scratch:
        copied = copy_code(form.code, Path(scratch))
        with _no_package_scan():
            mlflow.pyfunc.save_model(
                place,
                python_model=str(CODE),
                code_paths=[str(copied)],
                model_config={"batch_size": 32, "device": "auto", "base": ""},
                mlflow_model=described,
                signature=signature(form.objective),
                input_example=pd.DataFrame([example]),
                pip_requirements=requirements(form.adapter),
            )
    home = place / "artifacts" / "model"
    home.mkdir(parents=True)
    linked = _gather(home, form, base, card)
    refuse_pickles(place)
    _point_to(described, home, place)
    return sums.write_sums(place, {str((home / name).relative_to(place)): digest for name, digest in linked.items()})


@contextmanager
def _no_package_scan() -> Iterator[None]:
    """Within the block MLflow does not read the file lists of all installed packages, 0.7 s of processor time.

    save_model compares each requirement with the installed version, which these requirements are made from. It takes
    the scan for packages whose metadata it does not find, and no parameter turns it off (3.17).
    """
    from mlflow.utils import requirements_utils

    scanned = requirements_utils._MODULES_TO_PACKAGES
    requirements_utils._MODULES_TO_PACKAGES = scanned or {}
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = scanned


def signature(objective: Objective) -> ModelSignature:
    """The objective's inputs, all of them text, its outputs, and the parameter `all_scores`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    # A lone input has no name: with one MLflow would refuse a plain list of texts.
    names = [None] if len(objective.inputs) == 1 else objective.inputs
    kinds = {
        name: Array(DataType[kind[:-2]]) if kind.endswith("[]") else DataType[kind]
        for name, kind in objective.outputs.items()
    }
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, name) for name in names]),
        outputs=Schema([ColSpec(kind, name) for name, kind in kinds.items()]),
        params=ParamSchema([ParamSpec("all_scores", DataType.boolean, False)]),
    )


def serving_code(objective: Objective, adapter: bool) -> dict[str, str]:
    """The source of the modules that answer for the objective, by path, with their imports as they are in Hone."""
    cls = type(objective)
    modules = [cls.__module__, *USED_BY_SERVED, *(USED_BY_ADAPTERS if adapter else ())]
    entry = f"from {cls.__module__} import {cls.__name__} as Objective\n"
    return {ENTRY: entry, **read_sources(modules)}


def package_name(code: Mapping[str, str]) -> str:
    """The name of the package with this code: neither another model's nor Hone's own."""
    return f"served_{digest_of(code)[:12]}"


def copy_code(code: Mapping[str, str], folder: Path) -> Path:
    """Write the modules of `serving_code` as one package into `folder`, where they import each other; its directory."""
    home = folder / package_name(code)
    names = {name.partition("/")[0].removesuffix(".py") for name in code if name != ENTRY}
    packages = "|".join(map(re.escape, sorted(names)))
    for name, source in code.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        inside = re.sub(rf"^(\s*from )({packages})\b", rf"\1{home.name}.\2", source, flags=re.MULTILINE)
        file.write_text(inside, "utf8")
        for parent in file.parents[: len(Path(name).parents)]:
            (parent / "__init__.py").touch()
    return home


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
    """Put the model's files into `home`; the SHA-256 of those that are linked, by name: the train manifest has them."""
    digests = {name: entry["sha256"] for name, entry in form.train.manifest()["files"].items()}
    linked = {name: name.removeprefix("model/") for name in digests if name.startswith("model/")}
    written = {"README.md": card, "objective.json": json.dumps(form.about(), ensure_ascii=False, indent=1)}
    if form.adapter:
        linked = {name: new for name, new in linked.items() if ".safetensors" not in new}
        linked |= {
            name: name.removeprefix("adapter/") for name in digests if name == "adapter/adapter_model.safetensors"
        }
        written["adapter_config.json"] = _adapter_config(form.train.path / "adapter", base)
    if form.adapter or form.objective.needs_reference_model:
        written["base.json"] = json.dumps(base_record(base), indent=1)
    for name, new in linked.items():
        if new not in written:
            _link(form.train.path / name, home / new)
    for name, text in written.items():
        (home / name).write_text(text, "utf8")
    return {new: digests[name] for name, new in linked.items() if new not in written}


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
