"""Code in a model's own files, which config.json's `auto_map` names: whether it may run, and how it is loaded.

Such code runs only if its digest was allowed in this process: code that the configuration trusts by name and revision
(`hone.models.locate.locate_base_model`), and code that a registered model was tested with. Every loader of a base
model, or of a model trained from it (which has a copy of the files beside its weights), checks here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TOKENIZER = "AutoTokenizer"
_ALLOWED: set[str] = set()


def allow_code(code: str) -> None:
    """Allow code with this digest to run in this process; '' is ignored."""
    _ALLOWED.update(filter(None, [code]))


def forbid_code(code: str) -> None:
    """Withdraw the permission of code with this digest."""
    _ALLOWED.discard(code)


def may_run(model: Path) -> bool:
    """Whether the model in this directory has code of its own that is allowed."""
    return bool(_ALLOWED) and compute_digest(model) in _ALLOWED


def allowed_digest(model: Path) -> str:
    """The digest of a model's allowed code, '' if there is none: what another process passes to `allow_code`."""
    return compute_digest(model) if may_run(model) else ""


def list_classes(model: Path) -> list[str]:
    """The classes of the model's own code that config.json names, such as `modeling_own.OwnModel`."""
    return _flatten(ref for kind, ref in _read_auto_map(model, "config.json").items() if kind != TOKENIZER)


def list_tokenizer_classes(model: Path) -> list[str]:
    """The classes of the model's own code for its tokenizer: such code never runs."""
    inside = _read_auto_map(model, "config.json").get(TOKENIZER)
    return _flatten([inside, *_read_auto_map(model, "tokenizer_config.json").values()])


def list_files(model: Path) -> list[Path]:
    """The Python files in a model's directory."""
    return sorted(file for file in model.rglob("*.py") if file.is_file())


def compute_digest(model: Path) -> str:
    """SHA-256 of the classes that config.json names and of all Python files beside it; '' if it names none."""
    if not list_classes(model):
        return ""
    sums = [
        [file.relative_to(model).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()]
        for file in list_files(model)
    ]
    return hashlib.sha256(json.dumps([list_classes(model), sums]).encode()).hexdigest()


def get_architecture(model: Path, config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class that a model's configuration names: from its own code if that may run, else from transformers.

    Raises AttributeError if there is no such class.
    """
    import transformers

    name = (config.architectures or ["no architecture"])[0]
    own_classes = [ref for ref in list_classes(model) if ref.rpartition(".")[2] == name] if may_run(model) else []
    if own_classes:
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        model_class: type[PreTrainedModel] = get_class_from_dynamic_module(
            own_classes[0], str(model), local_files_only=True
        )
        return model_class
    return getattr(transformers, name)  # type: ignore[no-any-return]


def copy_code(base: Path, model: Path) -> None:
    """Replace the code in `model` with the code of `base` if that may run, else remove it."""
    config = model / "config.json"
    settings: dict[str, Any] = json.loads(config.read_text("utf8"))
    settings.pop("auto_map", None)
    for file in list_files(model):
        file.unlink()
    if may_run(base):
        settings["auto_map"] = _read_auto_map(base, "config.json")
        for file in list_files(base):
            target = model / file.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf8")


def check_complete(model: Path) -> None:
    """Raise ModelError if code that config.json names is not in the model's own directory."""
    missing = [
        ref for ref in list_classes(model) if "--" in ref or not (model / f"{ref.partition('.')[0]}.py").is_file()
    ]
    if missing:
        raise ModelError(
            f"names code that is not among its own files ({', '.join(missing)}): such code never runs",
            where=str(model / "config.json"),
            fix="Copy the model and its code into one directory, read the code, and trust that directory.",
        )


def _flatten(values: Iterable[Any]) -> list[str]:
    parts = [part for value in values for part in (value if isinstance(value, list) else [value]) if part]
    return list(dict.fromkeys(map(str, parts)))


def _read_auto_map(model: Path, file: str) -> dict[str, Any]:
    path = model / file
    auto_map = (json.loads(path.read_text("utf8")).get("auto_map") or {}) if path.is_file() else {}
    return auto_map if isinstance(auto_map, dict) else {"": auto_map}
