"""A model version loaded from the registry to be compared, with its objective and targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ModelError
from hone.evaluation.judging import baselines, predict
from hone.models import own_code, places
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective, Predictions, Targets
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.progress import ignore
from hone.registry.integrity import check_files
from hone.registry.rewriters import build_rewriters
from hone.tracking.reader import Version, get_version, model_directory

if TYPE_CHECKING:
    import pyarrow as pa

    from hone.curation.step import Step


@dataclass(frozen=True)
class Contender:
    """A loaded version. `base` is the directory of its base model, if the objective compares with that (DPO).

    `rewriters` are the curation steps that are part of the model.
    """

    version: Version
    objective: Objective
    targets: Targets
    max_length: int
    model: Any
    reader: Reader
    base: Path | None = None
    rewriters: Sequence[Step] = ()

    @property
    def weight_bytes(self) -> int:
        """The size of all weights as loaded."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    def rewrite(self, rows: pa.Table) -> pa.Table:
        """The rows as this version is evaluated on them: rewritten as it rewrites what is sent to it."""
        for step in self.rewriters:
            rows = step.apply(rows, self.objective, ignore).rows
        return rows

    def encode(self, rows: pa.Table, labels: Sequence[str]) -> pa.Table:
        """The rows encoded by this version's own tokenizer; label indices refer to `labels`."""
        tokens = self.objective.encode(rows, self.reader.tokenizer, self.max_length, self.widen_targets(labels))
        if self.base is None:
            return tokens
        predictions = baselines.untuned(self.base, tokens, self.reader, lambda *_: None, self.targets)
        return baselines.beside(tokens, self.objective.reference_columns(predictions))

    def predict(self, tokens: pa.Table, labels: Sequence[str]) -> Predictions:
        """The predictions for encoded rows, with a score of 0 for labels that the version does not have."""
        raw, _ = predict.read(self.model, tokens, self.reader, lambda *_: None, "")
        own = self.targets.get("labels")
        if not own or list(own) == list(labels):
            return raw
        import numpy as np

        scores = np.zeros((len(tokens), len(labels)), np.float32)
        scores[:, [labels.index(label) for label in own]] = np.asarray(raw["scores"])
        return {**raw, "scores": scores}

    def widen_targets(self, labels: Sequence[str]) -> Targets:
        """The version's targets, with `labels` instead of its own if it has labels."""
        return {**self.targets, "labels": list(labels)} if "labels" in self.targets else self.targets

    def answer(self, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        """The answers that a caller gets for rows with the objective's inputs."""
        answers: list[dict[str, Any]] = self.reader.answer(self.model, rows, self.targets, self.max_length)
        return answers


def load_contender(tracking_uri: str, version: Version, downloads: Path) -> Contender:
    """The version, loaded on the best available device.

    Raises ModelError if it was not registered by Hone, if its files differ from the registered ones, or if its
    objective is not installed.
    """
    check_files(tracking_uri, version, reuse=True)
    place = model_directory(tracking_uri, version, downloads)
    description_file = place / "objective.json"
    if not description_file.is_file():
        raise ModelError("has no objective.json", where=version.uri, fix="Register it with Hone: hone run CONF.")
    description = json.loads(description_file.read_text("utf8"))
    objective = _objective(description, version)
    own_code.allow_code(description.get("code", ""))  # it was trusted when the version was registered, and is the same
    tokenizer = load_tokenizer(place)
    rewriters = build_rewriters(description.get("rewriters", []), version.uri)
    reader = Reader(objective, tokenizer.pad_token_id, predict.best_device(), tokenizer, rewriters=rewriters)
    adapter = (place / "adapter_config.json").is_file()
    base = _locate_base(version, place, tracking_uri, downloads) if adapter or objective.needs_reference_model else None
    if adapter and base:
        model = predict.load_adapted(place, base, description["targets"], reader)
    else:
        model = predict.load_trained(place, description["targets"], reader.device)
    reference = base if objective.needs_reference_model else None
    max_length = int(description["max_length"])
    return Contender(version, objective, description["targets"], max_length, model, reader, reference, rewriters)


def common_labels(contenders: Sequence[Contender], tables: Sequence[pa.Table]) -> list[str]:
    """The union of the labels of the contenders and the rows; [] for an objective without labels.

    Raises ModelError if the objectives differ, or if their labels differ in an objective with several labels per row.
    """
    first, objective = contenders[0], contenders[0].objective
    for other in contenders[1:]:
        if type(other.objective) is not type(objective):
            raise ModelError(
                f"was trained for {other.objective.pipeline}, and {first.version.uri} for {objective.pipeline}: they"
                " cannot be compared",
                where=other.version.uri,
                fix="Register it under another name.",
            )
    labels_by_contender = [list(contender.targets.get("labels", ())) for contender in contenders]
    if not objective.label:
        if any(labels != labels_by_contender[0] for labels in labels_by_contender):
            differing = sorted(set(labels_by_contender[0]).symmetric_difference(*labels_by_contender[1:]))
            raise ModelError(
                f"their labels differ ({', '.join(differing[:5])}), and with {objective.pipeline} they"
                " cannot be compared",
                where=" and ".join(contender.version.uri for contender in contenders),
                fix="Register the one with other labels under another name.",
            )
        return labels_by_contender[0]
    row_labels = {label for rows in tables for label in rows[objective.label].unique().drop_null().to_pylist()}
    return sorted(row_labels.union(*labels_by_contender))


def _objective(description: dict[str, Any], version: Version) -> Objective:
    kind = description["kind"] if "kind" in description else _kind_by_class(description["module"], description["class"])
    if kind not in OBJECTIVES:
        raise ModelError(
            f"was trained for the objective {kind or description['class']}, which is not installed",
            where=version.uri,
            fix="Install the package that provides it.",
        )
    try:
        return OBJECTIVES[kind](**description["options"])
    except TypeError as fault:
        raise ModelError(
            f"its objective has options that are not known here: {fault}",
            where=version.uri,
            fix="Compare it with the release of Hone that registered it, or train it again.",
        ) from fault


def _kind_by_class(module: str, name: str) -> str:
    """The kind of the objective that a version of Hone 0.1 names by module and class; '' where there is none.

    Hone's own modules have moved since, its classes have not been renamed; those of plugins are looked up as they were.
    """
    for kind, cls in OBJECTIVES.items():
        own = module.startswith("hone.") and cls.__module__.startswith("hone.")
        if cls.__name__ == name and (own or cls.__module__ == module):
            return kind
    return ""


def _locate_base(version: Version, directory: Path, tracking_uri: str, downloads: Path) -> Path:
    """The base model that a version was tuned from, verified by its file digests."""

    def fetch_version(uri: str) -> Path:
        return model_directory(tracking_uri, get_version(tracking_uri, uri), downloads)

    record = json.loads((directory / "base.json").read_text("utf8"))
    try:
        return places.locate_recorded(record, fetch_version)
    except ValueError as fault:
        raise ModelError(str(fault), where=version.uri, fix="Put the base model's own files back.") from fault
