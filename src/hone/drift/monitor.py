"""One check of a model: its standing version's own memory of the rows it was made from, against recent inputs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.config.sections import RunConfig
from hone.drift import recent
from hone.drift.check import Settings, Verdict, judge
from hone.drift.encoding import embed
from hone.environment import Home
from hone.errors import DataError, ModelError, ServiceError
from hone.models.locate import locate
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.parts.moments import fill_as_of
from hone.registry import integrity, reference
from hone.registry.reference import Sample
from hone.registry.row_text import languages, text_of
from hone.sources import SOURCES
from hone.tracking import reader
from hone.tracking.client import as_default
from hone.tracking.links import fetch
from hone.tracking.reader import SCHEME, Version

if TYPE_CHECKING:
    from hone.config.parts import Part

# What a model may say that has shares or a distribution to compare, by the names of objectives' outputs.
COMPARED = ("label", "labels", "value")


@dataclass(frozen=True)
class Encoder:
    """The model that gives embeddings, in words, and whether it may have learned from the training rows."""

    path: Path
    name: str
    trained: bool


def check(version: Version, config: RunConfig, inputs: Part, home: Home) -> Verdict:
    """The verdict on the rows of the source `inputs`, by `config.monitoring`; `config` is the version's own otherwise.

    Facts: rows read and compared, repeated, unreadable, and the encoder. Raises ModelError where the version has no
    memory of its rows, DataError where the source has none with the model's inputs.
    """
    wanted = config.monitoring
    objective = OBJECTIVES[config.objective.kind](**config.objective.options())
    with tempfile.TemporaryDirectory() as scratch:
        fetch(home.tracking_uri, version, reference.STATISTICS, Path(scratch))
        folder = fetch(home.tracking_uri, version, reference.FOLDER, Path(scratch))
        (folder / reference.STATISTICS).write_bytes((Path(scratch) / reference.STATISTICS).read_bytes())
        then, held_out, asked = reference.read(folder)
    source = SOURCES[inputs.kind](**fill_as_of(inputs.options(), None))
    found = recent.read(source, objective, config.ingest.columns, wanted.sample, wanted.seed)
    now = sample_of(found, objective)
    kept_then, kept_now = distinct(then.texts, now.texts)
    facts = {
        "rows": found.of,
        "sampled": len(found.rows),
        "distinct": len(kept_now),
        "unreadable": found.unreadable,
    }
    then, now = then.take(kept_then), now.take(kept_now)
    settings = Settings(wanted.level, wanted.min_rows, wanted.permutations, wanted.seed)
    if min(len(then.texts), len(now.texts)) < settings.min_rows:
        return replace(judge(then, held_out, now, settings), facts=facts)
    encoder = encoder_of(version, config, home)
    then, held_out, now = _embedded(encoder, then, held_out, now, config.tokenization.max_length)
    held_out, now = _predicted(version, objective, held_out, asked, now, [found.rows[at] for at in kept_now], home)
    return replace(judge(then, held_out, now, settings), facts=facts | {"encoder": encoder.name})


def sample_of(found: recent.Recent, objective: Objective) -> Sample:
    """The recent rows as the tests see them, texts clipped as those of the reference are."""
    texts = [text_of(objective, row) for row in found.rows]
    clipped = [text[: reference.CLIP] for text in texts]
    return Sample(clipped, list(map(len, texts)), languages(clipped), found.missing)


def distinct(then: Sequence[str], now: Sequence[str]) -> tuple[list[int], list[int]]:
    """The rows of each sample to compare: those with a text, each text once.

    The tests hold rows for independent draws, and a client that asks the same again and again is none. Where texts
    repeat, samples of one size are taken first: of more rows a smaller share is distinct.
    """
    if len(set(then)) < len(then) or len(set(now)) < len(now):
        size = min(len(then), len(now))
        then, now = then[:size], now[:size]
    return _first_of_each(then), _first_of_each(now)


def encoder_of(version: Version, config: RunConfig, home: Home) -> Encoder:
    """The frozen base model that the version was tuned from; where it is not to be had, the version's own encoder."""
    base = version.tags.get("hone.base_model", "")
    if not config.model.scratch:
        try:
            found = locate(
                base,
                version.tags.get("hone.base_revision", ""),
                tracking_uri=home.tracking_uri,
                downloads=home.downloads,
                ignore_code=config.model.ignore_code,
            )
        except (ModelError, DataError, ServiceError):
            pass
        else:
            return Encoder(found.path, f"the frozen base model {base}", base.startswith(SCHEME))
    own = reader.directory(home.tracking_uri, version, home.downloads)
    return Encoder(own, f"version {version.version}'s own encoder", True)


def _first_of_each(texts: Sequence[str]) -> list[int]:
    first = {text: at for at, text in reversed(list(enumerate(texts))) if text.strip()}
    return sorted(first.values())


def _embedded(
    encoder: Encoder, then: Sample, held_out: Sample, now: Sample, max_length: int
) -> tuple[Sample, Sample, Sample]:
    """The samples with embeddings: of the rows that recent ones are compared with, those the encoder did not learn."""
    known = held_out if encoder.trained else then
    vectors = embed(encoder.path, [*known.texts, *now.texts], max_length)
    of_known, of_now = vectors[: len(known.texts)], vectors[len(known.texts) :]
    if encoder.trained:
        held_out = replace(held_out, embeddings=of_known)
    else:
        then = replace(then, embeddings=of_known)
    return then, held_out, replace(now, embeddings=of_now)


def _predicted(
    version: Version,
    objective: Objective,
    held_out: Sample,
    asked: Sequence[recent.Row],
    now: Sample,
    rows: Sequence[recent.Row],
    home: Home,
) -> tuple[Sample, Sample]:
    """Both samples with what the version says of them, where that is a label, labels or a number."""
    names = [name for name in COMPARED if name in objective.outputs]
    if not names or not asked:
        return held_out, now
    model = _load(version, home)
    return tuple(  # type: ignore[return-value]
        replace(sample, predictions=_said(model, of, objective, names))
        for sample, of in ((held_out, asked), (now, rows))
    )


def _load(version: Version, home: Home) -> Any:
    import mlflow

    with as_default(home.tracking_uri):
        return mlflow.pyfunc.load_model(str(integrity.check(home.tracking_uri, version, reuse=True)))


def _said(model: Any, rows: Sequence[recent.Row], objective: Objective, names: Sequence[str]) -> dict[str, list[Any]]:
    import pandas as pd

    frame = pd.DataFrame([{name: row.get(name) or "" for name in objective.inputs} for row in rows])
    said = model.predict(frame)
    return {name: [_plain(value) for value in said[name].tolist()] for name in names}


def _plain(value: Any) -> str | float:
    """A label as it is, a number as one, several labels as one name."""
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(sorted(map(str, value)))
    return value if isinstance(value, str) else float(value)
