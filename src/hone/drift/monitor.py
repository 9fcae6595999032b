"""One drift check of a model: recent inputs against the rows recorded when a version was registered."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.sections import RunConfig
from hone.drift import recent
from hone.drift.check import Settings, Verdict, compute_verdict
from hone.drift.encoding import compute_embeddings
from hone.environment import Home
from hone.errors import DataError, ModelError, ServiceError
from hone.models.locate import locate_base_model
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.parts.moments import fill_as_of
from hone.registry import integrity, reference
from hone.registry.reference import Sample
from hone.registry.row_text import detect_languages, input_text
from hone.sources import SOURCES
from hone.tracking import reader
from hone.tracking.client import default_tracking_uri
from hone.tracking.links import fetch_run_file, parsing_run_file
from hone.tracking.reader import SCHEME, Version

if TYPE_CHECKING:
    from hone.config.parts import Part

# Outputs of objectives whose shares or distribution can be compared.
COMPARED = ("label", "labels", "value")


@dataclass(frozen=True)
class Encoder:
    """The model for embeddings, its name for people, and whether it may have been trained on the training rows."""

    path: Path
    name: str
    trained: bool


def check_version(version: Version, config: RunConfig, inputs: Part, home: Home) -> Verdict:
    """The verdict on the rows of the source `inputs`; apart from its section `monitoring`, `config` is the version's.

    Its facts are the numbers of rows read, sampled, distinct and unreadable, and the encoder. Raises ModelError if the
    version has no record of its rows, DataError if no row of the source has the model's inputs.
    """
    monitoring = config.monitoring
    objective = OBJECTIVES[config.objective.kind](**config.objective.options())
    with tempfile.TemporaryDirectory() as scratch:
        statistics = fetch_run_file(home.tracking_uri, version, reference.STATISTICS, Path(scratch))
        folder = fetch_run_file(home.tracking_uri, version, reference.FOLDER, Path(scratch))
        (folder / reference.STATISTICS).write_bytes(statistics.read_bytes())
        with parsing_run_file(home.tracking_uri, version, f"{reference.STATISTICS} or {reference.FOLDER}"):
            reference_sample, held_out, held_out_inputs = reference.read_reference(folder)
            rewriters = reference.read_rewriters(folder, version.uri)
    source = SOURCES[inputs.kind](**fill_as_of(inputs.options(), None))
    recent_rows = recent.read_recent(source, objective, config.ingest.columns, monitoring.sample, monitoring.seed)
    recent_sample = build_sample(recent.rewrite_recent(recent_rows, objective, rewriters), objective)
    reference_positions, recent_positions = select_distinct(reference_sample.texts, recent_sample.texts)
    held_out_positions, _ = select_distinct(held_out.texts, recent_sample.texts)
    facts = {
        "rows": recent_rows.rows_read,
        "sampled": len(recent_rows.rows),
        "distinct": len(set(recent_sample.texts)),
        "unreadable": recent_rows.unreadable,
    }
    reference_sample = reference_sample.take(reference_positions)
    recent_sample = recent_sample.take(recent_positions)
    held_out = held_out.take(held_out_positions)
    held_out_inputs = [held_out_inputs[position] for position in held_out_positions]
    settings = Settings(
        monitoring.level, monitoring.least_effect, monitoring.min_rows, monitoring.permutations, monitoring.seed
    )
    if min(len(reference_sample.texts), len(recent_sample.texts)) < settings.min_rows:
        return replace(compute_verdict(reference_sample, held_out, recent_sample, settings), facts=facts)
    encoder = find_encoder(version, config, home)
    reference_sample, held_out, recent_sample = _add_embeddings(
        encoder, reference_sample, held_out, recent_sample, config.tokenization.max_length
    )
    held_out, recent_sample = _add_predictions(
        version,
        objective,
        held_out,
        held_out_inputs,
        recent_sample,
        [recent_rows.rows[position] for position in recent_positions],
        home,
    )
    return replace(
        compute_verdict(reference_sample, held_out, recent_sample, settings), facts=facts | {"encoder": encoder.name}
    )


def build_sample(recent_rows: recent.Recent, objective: Objective) -> Sample:
    """The recent rows as a sample for the tests, their texts clipped like those of the reference."""
    texts = [input_text(objective, row) for row in recent_rows.rows]
    clipped = [text[: reference.MAX_TEXT_CHARACTERS] for text in texts]
    return Sample(clipped, list(map(len, texts)), detect_languages(clipped), recent_rows.missing)


def select_distinct(*samples: Sequence[str]) -> list[list[int]]:
    """The positions of the rows to compare in each sample of texts in random order: a text once in each part of it.

    The tests assume independent draws, which repeated requests of one client are not. The share of distinct texts falls
    with the number of rows: if texts repeat, each sample is divided into parts of as many rows as the smallest has, and
    what is left of it beyond whole parts is not compared. Rows without text are not either.
    """
    repeats = any(len(set(texts)) < len(texts) for texts in samples)
    size = min(map(len, samples)) if repeats else max(map(len, samples))
    return [_find_first_occurrences(texts, max(1, size)) for texts in samples]


def find_encoder(version: Version, config: RunConfig, home: Home) -> Encoder:
    """The frozen base model of the version; if it cannot be loaded, the version's own encoder."""
    base = version.tags.get("hone.base_model", "")
    if not config.model.scratch:
        try:
            base_model = locate_base_model(
                base,
                version.tags.get("hone.base_revision", ""),
                tracking_uri=home.tracking_uri,
                downloads=home.downloads,
                ignore_code=config.model.ignore_code,
            )
        except (ModelError, DataError, ServiceError):
            pass
        else:
            return Encoder(base_model.path, f"the frozen base model {base}", base.startswith(SCHEME))
    own = reader.model_directory(home.tracking_uri, version, home.downloads)
    return Encoder(own, f"version {version.version}'s own encoder", True)


def _find_first_occurrences(texts: Sequence[str], size: int) -> list[int]:
    """The first position of each text in each whole part of `size` rows; a sample smaller than a part is one."""
    parts = max(1, len(texts) // size)
    first: dict[tuple[int, str], int] = {}
    for position, text in enumerate(texts[: parts * size]):
        if text.strip():
            first.setdefault((position // size, text), position)
    return list(first.values())


def _add_embeddings(
    encoder: Encoder, reference_sample: Sample, held_out: Sample, recent_sample: Sample, max_length: int
) -> tuple[Sample, Sample, Sample]:
    """The samples with embeddings; on the reference side of rows that the encoder was not trained on."""
    compared = held_out if encoder.trained else reference_sample
    vectors = compute_embeddings(encoder.path, [*compared.texts, *recent_sample.texts], max_length)
    compared_vectors, recent_vectors = vectors[: len(compared.texts)], vectors[len(compared.texts) :]
    if encoder.trained:
        held_out = replace(held_out, embeddings=compared_vectors)
    else:
        reference_sample = replace(reference_sample, embeddings=compared_vectors)
    return reference_sample, held_out, replace(recent_sample, embeddings=recent_vectors)


def _add_predictions(
    version: Version,
    objective: Objective,
    held_out: Sample,
    held_out_inputs: Sequence[recent.Row],
    recent_sample: Sample,
    rows: Sequence[recent.Row],
    home: Home,
) -> tuple[Sample, Sample]:
    """Both samples with the version's predictions, if these are a label, labels or a number."""
    names = [name for name in COMPARED if name in objective.outputs]
    if not names or not held_out_inputs:
        return held_out, recent_sample
    model = _load_model(version, home)
    return tuple(  # type: ignore[return-value]
        replace(sample, predictions=_predict(model, inputs, objective, names))
        for sample, inputs in ((held_out, held_out_inputs), (recent_sample, rows))
    )


def _load_model(version: Version, home: Home) -> Any:
    with default_tracking_uri(home.tracking_uri):
        model, _ = integrity.load_verified(home.tracking_uri, version)
        return model


def _predict(
    model: Any, rows: Sequence[recent.Row], objective: Objective, names: Sequence[str]
) -> dict[str, list[Any]]:
    import pandas as pd

    frame = pd.DataFrame([{name: row.get(name) or "" for name in objective.inputs} for row in rows])
    answers = model.predict(frame)
    return {name: [_simplify(value) for value in answers[name].tolist()] for name in names}


def _simplify(value: Any) -> str | float:
    """A label as it is, a number as a float, several labels joined into one name."""
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(map(str, value)))
    return value if isinstance(value, str) else float(value)
