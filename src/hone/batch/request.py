"""The request for a batch prediction, and the batch: the request with a verified model version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hone.batch.writers import WRITERS
from hone.config.parts import Section, SourcePart
from hone.environment import Home
from hone.errors import ConfigError, ModelError
from hone.parts.options import location_options
from hone.registry.integrity import TAG, check_files
from hone.sources import SOURCES
from hone.sources.source import Source
from hone.store.digests import digest_of
from hone.store.recipe import code_digests, installed_versions
from hone.tracking.aliases import CHAMPION
from hone.tracking.reader import SCHEME, get_version

LIBRARIES = ("pyarrow", "tokenizers", "torch", "transformers")
CODE = ("hone.batch.rows", "hone.batch.answers", "hone.batch.output")


class Request(Section):
    """A batch prediction as a person or a schedule requests it."""

    model: str = Field(min_length=1, description="The registered model's name.")
    source: SourcePart = Field(description="The source of the rows: files, a query, or any other.")
    output: str = Field(
        min_length=1,
        description="One file, OUT.parquet, OUT.csv or OUT.jsonl, or a directory for Parquet part files.",
    )
    version: str = Field("", description="A version number or an alias; empty means the champion.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="The source's column for each model input whose name differs: {text: body}.",
    )
    shard_rows: int = Field(
        10_000, ge=1, description="Rows per shard: they are predicted, stored and retried together."
    )
    unanswered: Literal["keep", "stop"] = Field(
        "keep",
        description="What happens to a row that cannot be predicted (malformed, or without text): keep it, with the"
        " reason in place of a prediction, or stop the run.",
    )
    prefix: str = Field(
        "", description="Prefix for the names of the added columns, where the input has columns of these names."
    )

    @property
    def file_suffix(self) -> str:
        """The suffix of an output that is one file; '' for a directory."""
        suffix = Path(self.output).suffix.lower()
        return suffix if suffix in WRITERS and not self.output.endswith("/") else ""


@dataclass(frozen=True)
class Batch:
    """A resolved request: the version's `name` and `number`, and `proof`, the digest of its SHA256SUMS.

    `inputs` are the model's input columns, `outputs` its output columns with MLflow's names of their types; `data` is
    the digest of the source's content.
    """

    request: Request
    name: str
    number: str
    proof: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    data: str

    @property
    def version(self) -> str:
        """The version's URI: models:/NAME/NUMBER."""
        return f"{SCHEME}{self.name}/{self.number}"

    @property
    def renamed(self) -> dict[str, str]:
        """The source's column name for each input."""
        return {name: self.request.columns.get(name, name) for name in self.inputs}

    @property
    def added(self) -> dict[str, str]:
        """The added columns of the output and their types: the answer, the version, the reason.

        The model's first output is called `prediction`, whatever its name in the objective.
        """
        first, *other_names = self.outputs
        names = {first: "prediction"} | {name: name for name in other_names}
        kinds = {names[name]: kind for name, kind in self.outputs.items()} | {"model_version": "string"}
        return {self.request.prefix + name: kind for name, kind in (kinds | {"reason": "string"}).items()}

    @cached_property
    def key(self) -> str:
        """A digest (20 digits) of all that determines the output: rows, model, request, path, code and libraries."""
        options = self.request.model_dump(exclude={"model", "version", "source"})
        options |= {"output": str(Path(self.request.output).absolute())}
        parts = [options, self.source_options(), self.version, self.proof, self.data]
        return digest_of([*parts, code_digests(CODE), installed_versions(LIBRARIES)])[:20]

    def source_options(self) -> dict[str, Any]:
        """The source's options, without those that only locate its rows."""
        section = self.request.source.model_dump()
        return {
            name: value for name, value in section.items() if name not in location_options(SOURCES[section["kind"]])
        }


def resolve_request(request: Request, home: Home) -> Batch:
    """Resolve the request: verify the model version's files and take the digest of the source's current rows.

    Raises ModelError if there is no such version or its files are not those that were registered, ConfigError for
    columns that are not inputs of the model, and the source's errors.
    """
    check_output(request.output)
    version = get_version(home.tracking_uri, _build_uri(request))
    directory = check_files(home.tracking_uri, version, reuse=True)
    description = _read_description(directory, version.uri)
    unknown = [name for name in request.columns if name not in description["inputs"]]
    if unknown:
        raise ConfigError(
            f"the model has no input {unknown[0]}",
            where="columns",
            fix=f"Write --columns INPUT=COLUMN; the inputs are {', '.join(description['inputs'])}.",
        )
    inputs, outputs = tuple(description["inputs"]), description["outputs"]
    data = build_source(request).fingerprint(home.store.memo.digest)
    return Batch(request, version.name, version.version, version.tags[TAG], inputs, outputs, data)


def check_output(output: str) -> None:
    """Raise ConfigError for a URL, and for a suffix that is neither a file's that is written nor a directory's."""
    where = f"output {output}"
    if "://" in output:
        raise ConfigError("outputs are written to this machine's disks", where=where, fix="Give a path.")
    path = Path(output)
    if path.suffix and path.suffix.lower() not in WRITERS and not output.endswith("/") and not path.is_dir():
        *suffixes, last = WRITERS
        hint = f"Name a file {', '.join(suffixes)} or {last}, or a directory, with a slash at its end: {path.stem}/."
        raise ConfigError(f"files {path.suffix} cannot be written", where=where, fix=hint)


def build_source(request: Request) -> Source:
    """The source of the request's rows."""
    source: Source = SOURCES[request.source.kind](**request.source.options())
    return source


def _build_uri(request: Request) -> str:
    """The requested version's URI: models:/NAME/NUMBER or models:/NAME@ALIAS."""
    version = request.version.removeprefix("@") or CHAMPION
    return f"{SCHEME}{request.model}{'/' if re.fullmatch(r'[1-9][0-9]*', version) else '@'}{version}"


def _read_description(place: Path, uri: str) -> dict[str, Any]:
    file = place / "artifacts" / "model" / "objective.json"
    if not file.is_file():
        raise ModelError("was not registered by Hone", where=uri, fix="Name a model that `hone run` registered.")
    description: dict[str, Any] = json.loads(file.read_text("utf8"))
    return description
