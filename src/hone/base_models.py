"""Base models: from what the config says (`model.base`) to a directory on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from hone.artifacts import digest_of
from hone.errors import ModelError
from hone.registry import versions
from hone.sources.places import expand

# What decides a model and its tokenizer. Weights in safetensors alone: pickled ones can run code when loaded.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
FILES = (*WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja", "README.md")


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine. `revision` is the hub's commit, or the package's version; '' for a directory.

    Of a version in MLflow `base` is models:/NAME/NUMBER, `revision` the number, `run` the run that trained it.
    """

    base: str
    path: Path
    revision: str
    licence: str
    run: str = ""

    def digest(self, digest: Callable[[Path], str]) -> str:
        """SHA-256 over its files' digests, which `digest(file)` gives; the README does not count."""
        files = sorted({f for pattern in FILES for f in self.path.glob(pattern) if f.name != "README.md"})
        return digest_of({file.name: digest(file) for file in files})


def locate(
    base: str,
    revision: str = "",
    licence: str = "",
    *,
    tracking_uri: str = "",
    downloads: Path = Path(),
    ignore_code: bool = False,
) -> BaseModel:
    """The base model that `base` names: package:NAME/PATH, models:/NAME@ALIAS, a directory, or a hub id.

    `${VAR}` and `${VAR:-default}` in it are replaced. What is not on this machine is fetched, a version of MLflow at
    `tracking_uri` into `downloads`. Raises DataError where such a variable is not set, ModelError where there is no
    such model, where its weights are not in safetensors, and, unless `ignore_code`, where it has code of its own: that
    is never run.
    """
    base, run = expand(base), ""
    if base.startswith("package:"):
        path, revision = _package_directory(base), _package_version(base)
    elif base.startswith(versions.SCHEME):
        found = versions.find(tracking_uri, base)
        path, base, revision, run = (
            versions.directory(tracking_uri, found, downloads),
            *(found.uri, found.version, found.run_id),
        )
        licence = licence or found.tags.get("hone.base_licence", "")
    elif Path(base).expanduser().is_dir():
        path = Path(base).expanduser().resolve()
    else:
        path, revision = _hub_snapshot(base, revision)
    _check(path, ignore_code)
    return BaseModel(base, path, revision, licence or _licence(path), run)


def _check(path: Path, ignore_code: bool) -> None:
    """Raise ModelError where the directory is no model that can be loaded without running code of its own."""
    if (path / "adapter_config.json").is_file():
        raise _adapter_alone(path)
    if not (path / "config.json").is_file():
        raise ModelError("holds no config.json", where=str(path), fix="Name a directory that save_pretrained wrote.")
    if not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        pickled = sorted(file.name for file in path.glob("*.bin"))
        raise ModelError(
            f"holds no weights in safetensors{f', but pickled ones: {pickled[0]}' if pickled else ''}",
            where=str(path),
            fix="Convert it where you trust it: AutoModel.from_pretrained(...).save_pretrained(...) does.",
        )
    own = [] if ignore_code else _own_code(path)
    if own:
        raise ModelError(
            f"brings code of its own ({', '.join(own)}), which is never run",
            where=str(path / "config.json"),
            fix="If transformers has a class of its own for this model, model.ignore_code=true takes that one.",
        )


def _own_code(path: Path) -> list[str]:
    """The classes that config.json and tokenizer_config.json would have loaded from the model's own files."""
    found = []
    for name in ("config.json", "tokenizer_config.json"):
        if (path / name).is_file():
            named = json.loads((path / name).read_text("utf8")).get("auto_map") or {}
            values = named.values() if isinstance(named, dict) else [named]
            found += [part for value in values for part in (value if isinstance(value, list) else [value]) if part]
    return list(dict.fromkeys(map(str, found)))


def _adapter_alone(path: Path) -> ModelError:
    adapter = json.loads((path / "adapter_config.json").read_text("utf8"))
    below = adapter.get("base_model_name_or_path") or "its base model"
    fix = "Register it merged (method.merged: true) and name that version."
    if adapter.get("peft_type") in ("PROMPT_TUNING", "PREFIX_TUNING"):
        fix = f"Its kind ({adapter['peft_type']}) cannot be merged: begin from {below}."
    return ModelError(f"is an adapter for {below}, and no whole model", where=str(path), fix=fix)


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


def _hub_snapshot(base: str, revision: str) -> tuple[Path, str]:
    """A snapshot of a hub model in the local cache and its commit, downloaded if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    commit = revision or None
    try:
        try:
            path = snapshot_download(base, revision=commit, allow_patterns=list(FILES), local_files_only=True)
        except LocalEntryNotFoundError:
            path = snapshot_download(base, revision=commit, allow_patterns=list(FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as fault:
        raise ModelError(
            f"no such base model here, and none could be fetched ({type(fault).__name__})",
            where=f"model.base {base}" + (f" at {revision}" if revision else ""),
            fix="Check the id and the network, or name a local directory or package:NAME/PATH.",
        ) from fault
    return Path(path), Path(path).name


def _licence(path: Path) -> str:
    """The licence that the model card's front matter names; 'unknown' where it does not."""
    card = path / "README.md"
    if card.is_file():
        head = card.read_text("utf8", errors="replace").split("---")[1:2]
        for line in head[0].splitlines() if head else ():
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    config = json.loads((path / "config.json").read_text("utf8"))
    return str(config.get("license", "unknown"))
