"""Base models: from what the config says (`model.base`) to a directory on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hone.errors import ModelError
from hone.models import own_code
from hone.parts.variables import expand
from hone.store.digests import digest_of
from hone.tracking import reader

# What decides a model and its tokenizer. Weights in safetensors alone: pickled ones can run code when loaded.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
FILES = (*WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja", "README.md")


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine. `revision` is the hub's commit, or the package's version; '' for a directory.

    Of a version in MLflow `base` is models:/NAME/NUMBER, `revision` the number, `run` the run that trained it. `code`
    is NAME@REVISION where code of its own is trusted and runs.
    """

    base: str
    path: Path
    revision: str
    licence: str
    run: str = ""
    code: str = ""

    def compute_digest(self, file_digest: Callable[[Path], str]) -> str:
        """SHA-256 over its files' digests, which `digest(file)` gives: not the README's, but that of code that runs."""
        files = sorted({f for pattern in FILES for f in self.path.glob(pattern) if f.name != "README.md"})
        code = own_code.list_files(self.path) if self.code else []
        return digest_of({str(file.relative_to(self.path)): file_digest(file) for file in (*files, *code)})


def locate_base_model(
    base: str,
    revision: str = "",
    licence: str = "",
    *,
    tracking_uri: str = "",
    downloads: Path = Path(),
    ignore_code: bool = False,
    trust_code: str = "",
) -> BaseModel:
    """The base model that `base` names: package:NAME/PATH, models:/NAME@ALIAS, a directory, or a hub id.

    `${VAR}` and `${VAR:-default}` in it are replaced. What is not on this machine is fetched, a version of MLflow at
    `tracking_uri` into `downloads`. Raises DataError where such a variable is not set, ModelError where there is no
    such model, where its weights are not in safetensors, and where it has code of its own. That is not run, unless
    `trust_code` is its name and revision: NAME@COMMIT of a hub id at that `revision`, NAME@DIGEST of any other. It may
    then run in this process, in this model and in what is trained of it; with `ignore_code` transformers' own class for
    such models is taken.
    """
    base, run, pinned = expand(base), "", ""
    if base.startswith("package:"):
        path, revision = _package_directory(base), _package_version(base)
    elif base.startswith(reader.SCHEME):
        version = reader.get_version(tracking_uri, base)
        path, base, revision, run = (
            reader.model_directory(tracking_uri, version, downloads),
            *(version.uri, version.version, version.run_id),
        )
        licence = licence or version.tags.get("hone.base_licence", "")
    elif Path(base).expanduser().is_dir():
        path = Path(base).expanduser().resolve()
    else:
        path, revision = _hub_snapshot(base, revision, bool(trust_code))
        pinned = revision
    _check_weights(path)
    code = _check_trust(path, f"{base}@{pinned or own_code.compute_digest(path)}", ignore_code, expand(trust_code))
    return BaseModel(base, path, revision, licence or _read_licence(path), run, code)


def _check_weights(path: Path) -> None:
    """Raise ModelError where the directory is no model with weights in safetensors."""
    if (path / "adapter_config.json").is_file():
        raise _adapter_error(path)
    if not (path / "config.json").is_file():
        raise ModelError("holds no config.json", where=str(path), fix="Name a directory that save_pretrained wrote.")
    if not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        pickled = sorted(file.name for file in path.glob("*.bin"))
        raise ModelError(
            f"holds no weights in safetensors{f', but pickled ones: {pickled[0]}' if pickled else ''}",
            where=str(path),
            fix="Convert it where you trust it: AutoModel.from_pretrained(...).save_pretrained(...) does.",
        )


def _check_trust(path: Path, identity: str, ignore_code: bool, trust_code: str) -> str:
    """`known_as` where the model has code of its own and that is trusted: it may run now; '' where none is to run.

    Raises ModelError where there is code that is neither trusted nor ignored, or none where some is trusted.
    """
    code, tokenizer = own_code.list_classes(path), own_code.list_tokenizer_classes(path)
    if trust_code != identity or tokenizer:
        own_code.forbid_code(own_code.compute_digest(path))
    if ignore_code or not (code or tokenizer or trust_code):
        return ""
    if not trust_code:
        raise ModelError(
            f"brings code of its own ({', '.join([*code, *tokenizer])}), and nobody said that it may run",
            where=str(path),
            fix="If transformers has a class of its own for it, model.ignore_code=true takes that one. Else read its"
            f" code, and if you trust it set model.trust_code={identity}",
        )
    if tokenizer or not code:
        what = f"its tokenizer brings code of its own ({tokenizer[0]})" if tokenizer else "brings no code of its own"
        fix = "Code of a tokenizer is never run: save a fast one." if tokenizer else "Leave out model.trust_code."
        raise ModelError(f"is trusted to run code, but {what}", where=str(path), fix=fix)
    own_code.check_complete(path)
    if trust_code != identity:
        raise ModelError(
            f"brings code of its own, which is {identity} and not the trusted {trust_code}: it is not run",
            where=str(path),
            fix="Read it, and if you trust it set model.trust_code to what it is; of a hub id also model.revision.",
        )
    own_code.allow_code(own_code.compute_digest(path))
    return identity


def _adapter_error(path: Path) -> ModelError:
    adapter = json.loads((path / "adapter_config.json").read_text("utf8"))
    base = adapter.get("base_model_name_or_path") or "its base model"
    fix = "Register it merged (method.merged: true) and name that version."
    if adapter.get("peft_type") in ("PROMPT_TUNING", "PREFIX_TUNING"):
        fix = f"Its kind ({adapter['peft_type']}) cannot be merged: begin from {base}."
    return ModelError(f"is an adapter for {base}, and no whole model", where=str(path), fix=fix)


def _package_directory(base: str) -> Path:
    package, _, inside = base.removeprefix("package:").partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the package {package} is not installed",
            where=base,
            fix="Install it: pip install 'hone[demo]' for the demo.",
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.is_dir():
        raise ModelError(f"the package {package} has no folder {inside}", where=base, fix="Mend model.base.")
    return path


@lru_cache(maxsize=16)
def _package_version(base: str) -> str:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    package = base.removeprefix("package:").partition("/")[0]
    try:
        return f"{package.replace('_', '-')} {version(package)}"
    except PackageNotFoundError:  # the distribution has another name: looking through all of them takes a second
        distribution = packages_distributions().get(package, [package])[0]
        return f"{distribution} {version(distribution)}"


def _hub_snapshot(base: str, revision: str, with_code: bool) -> tuple[Path, str]:
    """A snapshot of a hub model in the local cache and its commit, downloaded if need be; with its `code` if wanted."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    selection: dict[str, Any] = {
        "revision": revision or None,
        "allow_patterns": [*FILES, *(["*.py"] if with_code else [])],
    }
    try:
        try:
            path = snapshot_download(base, local_files_only=True, **selection)
            if with_code and own_code.list_classes(Path(path)) and not own_code.list_files(Path(path)):
                path = snapshot_download(base, **selection)
        except LocalEntryNotFoundError:
            path = snapshot_download(base, **selection)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as fault:
        raise ModelError(
            f"no such base model here, and none could be fetched ({type(fault).__name__})",
            where=f"model.base {base}" + (f" at {revision}" if revision else ""),
            fix="Check the id and the network, or name a local directory or package:NAME/PATH.",
        ) from fault
    return Path(path), Path(path).name


def _read_licence(path: Path) -> str:
    """The licence that the model card's front matter names; 'unknown' where it does not."""
    card = path / "README.md"
    if card.is_file():
        head = card.read_text("utf8", errors="replace").split("---")[1:2]
        for line in head[0].splitlines() if head else ():
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    config = json.loads((path / "config.json").read_text("utf8"))
    return str(config.get("license", "unknown"))
