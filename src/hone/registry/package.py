"""Builds the directory that MLflow logs as a model: weights in safetensors, tokenizer, card and serving code.

MLmodel, requirements.txt, input_example.json, served.py
SHA256SUMS          of every other file; its own digest is the version's tag hone.files_sha256
artifacts/model/    config.json, weights or adapter, tokenizer, README.md (the card), objective.json: objective, options
                    and targets, and what rewrites the inputs (`rewriters`); and base.json, the base model, if serving
                    needs that too (an adapter, DPO)
code/served_HASH/   the modules of hone that serving needs, the same code that the model was tested with; its
                    objective.py imports the class of the objective, and those of rewriters
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.curation import STEPS
from hone.errors import ModelError
from hone.models import own_code
from hone.models.locate import WEIGHTS, BaseModel
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.parts.plugins import kind_of
from hone.registry.rewriters import describe_rewriters
from hone.registry.served import sums
from hone.rewriting import Rewriter
from hone.store.artifact import Artifact
from hone.store.digests import digest_of, file_digest
from hone.store.recipe import read_sources

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

CODE = Path(__file__).parent / "served" / "served.py"
SUMS_IMPORT = "from hone.registry.served.sums import find_faults\n"
# Imports classes within the copied package: a stored model names no module of hone, so these can move.
ENTRY = "objective.py"
MAX_CHARACTERS = 1_000_000  # of a row that a served model answers, unless who loads it sets another limit
USED_BY_SERVED = (
    "hone.models.own_code",
    "hone.objectives.shared.reading",
    "hone.objectives.shared.tokenizer",
)
USED_BY_ADAPTERS = ("hone.methods.adapters", "hone.models.places")
REQUIREMENTS = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "pyarrow")
ADAPTER_REQUIREMENTS = ("peft", "huggingface-hub")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class Form:
    """What is served: the trained files of `train` for `objective`, whole or as an adapter on its base model.

    `rewriters` are the curation steps that also rewrite what is sent.
    """

    train: Artifact
    objective: Objective
    targets: Mapping[str, Any]
    adapter: bool
    max_length: int
    rewriters: Sequence[Rewriter] = ()

    @cached_property
    def code(self) -> dict[str, str]:
        """The source of the modules that serving needs, by path."""
        return serving_code(self.objective, self.adapter, self.rewriters)

    @property
    def package(self) -> str:
        """The name of the package that the modules are copied to."""
        return package_name(self.code)

    def about(self) -> dict[str, Any]:
        """The content of objective.json: everything but the weights that determines an answer."""
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
            **({"rewriters": describe_rewriters(self.rewriters)} if self.rewriters else {}),
        }

    @cached_property
    def key(self) -> str:
        """Digest of everything that determines an answer: forms with the same key are one model version."""
        return digest_of([self.train.digest, self.about(), self.adapter, digest_of(build_entry())])[:20]


def package(
    place: Path, form: Form, base: BaseModel, *, card: str, example: Mapping[str, str], logged: LoggedModel
) -> str:
    """Write the model's directory at `place`; weights are hard-linked if the file system allows it, else copied.

    Returns the digest of its SHA256SUMS. Raises ModelError if a weight file is not in safetensors.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    mlflow_model = Model(
        artifact_path=logged.artifact_location,
        run_id=logged.source_run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    with tempfile.TemporaryDirectory() as scratch:
        copied = copy_code(form.code, Path(scratch))
        entry = Path(scratch) / CODE.name
        entry.write_text(build_entry(), "utf8")
        with _no_package_scan():
            mlflow.pyfunc.save_model(
                place,
                python_model=str(entry),
                code_paths=[str(copied)],
                model_config={"batch_size": 32, "device": "auto", "base": "", "max_characters": MAX_CHARACTERS},
                mlflow_model=mlflow_model,
                signature=build_signature(form.objective),
                input_example=pd.DataFrame([example]),
                pip_requirements=list_requirements(form.adapter, form.rewriters),
            )
    home = place / "artifacts" / "model"
    home.mkdir(parents=True)
    linked = _write_model_files(home, form, base, card)
    refuse_pickles(place)
    _add_artifact_path(mlflow_model, home, place)
    return sums.write_sums(place, {str((home / name).relative_to(place)): digest for name, digest in linked.items()})


@contextmanager
def _no_package_scan() -> Iterator[None]:
    """Within the block MLflow does not read the file lists of all installed packages (0.7 s of processor time).

    save_model compares each requirement with the installed version, from which these requirements are made. It scans
    for packages whose metadata it does not find, and no parameter disables the scan (MLflow 3.17).
    """
    from mlflow.utils import requirements_utils

    original = requirements_utils._MODULES_TO_PACKAGES
    requirements_utils._MODULES_TO_PACKAGES = original or {}
    try:
        yield
    finally:
        requirements_utils._MODULES_TO_PACKAGES = original


def build_entry() -> str:
    """The served.py of a model: with the functions that verify the model's files instead of their import."""
    own_sums = Path(sums.__file__).read_text("utf8").replace("from __future__ import annotations\n", "")
    return CODE.read_text("utf8").replace(SUMS_IMPORT, own_sums)


def build_signature(objective: Objective) -> ModelSignature:
    """The MLflow signature: the objective's inputs (strings), its outputs, and the parameter `all_scores`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    # A single input has no name: with a name MLflow would refuse a plain list of texts.
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


def serving_code(objective: Objective, adapter: bool, rewriters: Sequence[Rewriter] = ()) -> dict[str, str]:
    """The source of the modules that serving the objective needs, by path, with their imports as in Hone."""
    cls = type(objective)
    modules = [cls.__module__, *USED_BY_SERVED, *(USED_BY_ADAPTERS if adapter else ())]
    entry = f"from {cls.__module__} import {cls.__name__} as Objective\n"
    classes = {kind_of(STEPS, rewriter): type(rewriter) for rewriter in rewriters}
    if classes:
        modules += [rewriter.__module__ for rewriter in classes.values()]
        for number, rewriter in enumerate(classes.values()):
            entry += f"from {rewriter.__module__} import {rewriter.__name__} as Rewriter{number}\n"
        entry += "REWRITERS = {" + ", ".join(f"{kind!r}: Rewriter{n}" for n, kind in enumerate(classes)) + "}\n"
    return {ENTRY: entry, **read_sources(modules)}


def package_name(code: Mapping[str, str]) -> str:
    """The name of the package with this code; by its hash it differs from other models' packages and from Hone."""
    return f"served_{digest_of(code)[:12]}"


def copy_code(code: Mapping[str, str], folder: Path) -> Path:
    """Write the modules of `serving_code` as one package into `folder`, imports adapted; returns its directory."""
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


def list_requirements(adapter: bool, rewriters: Sequence[Rewriter] = ()) -> list[str]:
    """Pip requirements of the serving code at the installed versions; a local suffix (`+cpu`), on no index, is cut."""
    names = list(REQUIREMENTS + (ADAPTER_REQUIREMENTS if adapter else ()))
    names += sorted({name for rewriter in rewriters for name in getattr(rewriter, "libraries", ())} - {*names})
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def refuse_pickles(place: Path) -> None:
    """Raise ModelError for a file that could run code when it is loaded."""
    pickled = [str(file.relative_to(place)) for file in sorted(place.rglob("*")) if file.suffix in PICKLED]
    if pickled:
        raise ModelError(
            f"would be registered with weights that are not in safetensors: {', '.join(pickled)}",
            where=str(place),
            fix="Have the model saved with save_pretrained(..., safe_serialization=True).",
        )


def _write_model_files(home: Path, form: Form, base: BaseModel, card: str) -> dict[str, str]:
    """Write or link the model's files into `home`; returns the SHA-256 of the linked ones, from the train manifest."""
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
    """The content of base.json: the base model's id, revision, directory, and the SHA-256 of its weights."""
    files = sorted({file for pattern in WEIGHTS for file in base.path.glob(pattern)})
    return {
        "id": base.base,
        "revision": base.revision,
        "path": str(base.path),
        "files": {file.name: file_digest(file) for file in files},
    }


def _adapter_config(adapter: Path, base: BaseModel) -> str:
    """PEFT's config, with the base model's id in place of a directory on this machine."""
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text("utf8"))
    return json.dumps(config | {"base_model_name_or_path": base.base}, indent=1, sort_keys=True)


def _link(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


def _add_artifact_path(mlflow_model: Any, home: Path, place: Path) -> None:
    """Record the files' path in MLmodel; passed to save_model instead, the files would be copied twice."""
    inside = str(home.relative_to(place))
    mlflow_model.flavors["python_function"]["artifacts"] = {"model": {"path": inside, "uri": inside}}
    mlflow_model.model_size_bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    mlflow_model.save(str(place / "MLmodel"))
