"""Evaluate: is the trained model better than baselines that need no training?"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.errors import DataError
from hone.evaluation.judging import baselines, flips, metrics, predict
from hone.evaluation.judging.benchmarks import BenchmarkResults, judge_benchmarks
from hone.evaluation.judging.comparison import compare_paired
from hone.evaluation.judging.groups import LabelledRows, check_groups, judge_groups
from hone.evaluation.judging.intervals import Interval, metric_intervals
from hone.evaluation.judging.lexicon import Lexicon
from hone.evaluation.judging.paired_rows import count_paired_rows
from hone.evaluation.judging.rivals import Answers, judge_rivals
from hone.evaluation.judging.slices import check_slices, slice_figures, slice_parts
from hone.evaluation.judging.with_passages import Retrieved, ask_with_passages, read_passages
from hone.methods.method import AdapterMethod, Method
from hone.objectives.base import NOT_ASKED, UNSEEN, Metric, Objective, Outcome, Predictions, Targets
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.progress import OnProgress, ignore
from hone.splits import FLAW, TEST, TRAIN, VALID
from hone.store import layout
from hone.store.artifact import Product
from hone.store.tables import take_rows
from hone.tokenization.tokenize import dropped_ids, read_tokens

if TYPE_CHECKING:
    import pyarrow as pa

# The slice of given test rows that curation would have dropped, had they been training rows.
CURATION, FLAWED, SOUND = "curation", "rows that curation would drop", "other rows"
MODEL, ADAPTER = "model", "adapter"
CLIP = 500  # characters of text and labels in the report's worst errors


@dataclass(frozen=True)
class Trial:
    """The outcomes of all systems on the same test rows, the model first; `rows` is the text of those rows."""

    rows: pa.Table
    objective: Objective
    targets: Targets
    outcomes: Mapping[str, Outcome]

    confidence: float

    @property
    def ours(self) -> Outcome:
        """The model's outcome."""
        return self.outcomes[MODEL]

    def figures(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The objective's metrics by name, each [n], from summed statistics [k, n]."""
        return self.objective.compute_metrics(sums, self.targets)

    def intervals(self, sums: np.ndarray, rows: int) -> dict[str, Interval]:
        """Each metric with its interval, from the summed statistics [k, 1 + resamples] of `rows` rows."""
        rows_by_metric = self.objective.count_rows(sums[:, 0], self.targets)
        return metric_intervals(self.figures(sums), self.objective.metrics, self.confidence, rows, rows_by_metric)


def evaluate(
    model: Path,
    tokens: Path,
    splits: Path,
    out: Path,
    *,
    base: Path,
    objective: Objective,
    method: Method,
    max_length: int,
    slices: Sequence[str],
    groups: Sequence[str] = (),
    lexicon: Lexicon | None = None,
    neighbours: int,
    resamples: int,
    confidence: float,
    worst: int,
    seed: int,
    rivals: Answers | None = None,
    benchmarks: BenchmarkResults | None = None,
    on_progress: OnProgress = ignore,
) -> Product:
    """Evaluate the trained model in `model`/model and the baselines on all test rows; the results go to `out`.

    Writes metrics.json (`whole`: whether the model has weights of its own), predictions.parquet, speed.json and
    targets.json (the targets of `tokens`, tuned on the validation rows). An adapter that cannot be merged has no
    weights in `model`/model: it is evaluated as it is served, on its base model. `groups` are columns whose values are
    compared as groups of rows; with the words of `lexicon` swapped the model is asked again. `rivals` are the answers
    of prompted models, if any were asked; `benchmarks` the results of tasks that show what was forgotten.

    Raises ConfigError for a slice or a group that is not a column, DataError if the test split is empty or not the one
    that was tokenized, ModelError if the saved model cannot be loaded as it would be served, or if the merged weights
    and the adapter give different scores.
    """
    data = _read_data(tokens, splits, objective, slices, groups)
    plan = flips.plan_flips(objective, data.rows, lexicon) if lexicon else None
    passages = read_passages(rivals.folder) if rivals else []
    whole = method.can_merge if isinstance(method, AdapterMethod) else True
    more = (len(plan.inputs) if plan else 0) + sum(len(retrieved.passages) for retrieved in passages)
    advance = predict.make_advance(_count_row_passes(data, objective, method, whole) + more, on_progress)
    tokenizer = load_tokenizer(model / MODEL)
    reader = Reader(objective, tokenizer.pad_token_id, predict.best_device(), tokenizer)

    tested = _test_model(
        _load_served(model, base, data.targets, reader, whole), data, reader, max_length, plan, passages, advance
    )
    raw, targets = tested.raw, tested.targets
    merged = _check_merge(method, raw, model, base, targets, data.test, reader, advance) if whole else None
    cheap = _predict_baselines(base, data, splits, neighbours, reader, advance)
    outcomes = _compute_outcomes(objective, data.test, data.rows, {MODEL: (raw, targets), **cheap})
    trial = Trial(data.rows, objective, targets, outcomes, confidence)
    draws = metrics.resample(len(data.rows), resamples, seed)
    training = _read_labelled_rows(data.train, splits / layout.rows_file(TRAIN), groups, objective, data.targets)
    median = tested.speed["latency_ms"]["p50"]
    report = {
        **compute_report(trial, draws, seed),
        "slices": compute_slices(trial, draws, slices),
        "worst": list_worst_errors(trial, worst),
        "groups": judge_groups(trial, draws, groups, training),
        "flips": flips.judge_flips(plan, tested.swapped, objective, data.rows, confidence) if plan else None,
        "rivals": judge_rivals(rivals, trial, data.test, draws, median, tested.with_passages) if rivals else [],
        "benchmarks": judge_benchmarks(benchmarks, resamples, confidence, seed) if benchmarks else None,
        "merged": merged,
        "whole": whole,
    }
    _write_results(out, report, tested.speed, trial, raw)
    return Product(len(data.rows), (layout.METRICS, layout.PREDICTIONS, layout.TARGETS), _collect_facts(report))


@dataclass(frozen=True)
class _Data:
    """The encoded rows of the splits, `valid` without rows if nothing is tuned; `rows` has the text of `test`.

    `targets` are those of the tokens, before any tuning.
    """

    train: pa.Table
    valid: pa.Table
    test: pa.Table
    rows: pa.Table
    targets: Targets


def _read_data(tokens: Path, splits: Path, objective: Objective, slices: Sequence[str], groups: Sequence[str]) -> _Data:
    train, test = (read_tokens(tokens / layout.tokens_file(split)) for split in (TRAIN, TEST))
    rows = _read_test_rows(test, splits / layout.rows_file(TEST), slices, groups, objective, dropped_ids(tokens, TEST))
    valid = read_tokens(tokens / layout.tokens_file(VALID)) if objective.tunes_targets else test.slice(0, 0)
    return _Data(train, valid, test, rows, json.loads((tokens / layout.TARGETS).read_text("utf8")))


@dataclass(frozen=True)
class _Tested:
    """What the trained model gave: its predictions for the test rows, its targets, tuned, and its speed.

    `swapped` are its answers to the inputs of the flips, `with_passages` those with a rival's passages, by rival and
    row id.
    """

    raw: Predictions
    targets: Targets
    speed: dict[str, Any]
    swapped: list[Any]
    with_passages: dict[str, dict[str, str]]


def _test_model(
    trained: Any,
    data: _Data,
    reader: Reader,
    max_length: int,
    plan: flips.Plan | None,
    passages: Sequence[Retrieved],
    advance: predict.Advance,
) -> _Tested:
    """Ask the trained model all that it is asked. Nothing refers to it afterwards: others are loaded in its place."""
    objective, targets = reader.objective, data.targets
    if len(data.valid):
        valid_raw, _ = predict.read(trained, data.valid, reader, advance, "tuning")
        targets = objective.tune_targets(data.valid, valid_raw, targets)
    raw, seconds = predict.read(trained, data.test, reader, advance, "testing the model")
    speed = predict.measure_speed(trained, data.rows, data.test, targets, reader, max_length, raw, seconds)
    swapped = _ask_swapped(plan, trained, reader, targets, max_length, advance) if plan else []
    with_passages = {
        retrieved.rival: ask_with_passages(
            retrieved, objective, data.rows, trained, reader, targets, max_length, advance
        )
        for retrieved in passages
    }
    return _Tested(raw, targets, speed, swapped, with_passages)


def _count_row_passes(data: _Data, objective: Objective, method: Method, whole: bool) -> int:
    """The number of rows that pass through the compared models, for a progress report."""
    test, valid = len(data.test), len(data.valid)
    passes = (1 + objective.has_neighbour_baseline) * (test + valid)
    passes += (objective.works_untuned + (method.adapter and whole)) * test
    return passes + objective.has_neighbour_baseline * len(data.train)


def compute_report(trial: Trial, draws: np.ndarray, seed: int) -> dict[str, Any]:
    """All systems' metrics with intervals, the model compared with each baseline, and details of the model.

    `draws` is [rows, 1 + resamples], from `metrics.resample`.
    """
    measures, confidence, rows = dict(trial.objective.metrics), trial.confidence, len(trial.rows)
    sums = {name: metrics.totals(outcome.statistics, draws) for name, outcome in trial.outcomes.items()}
    figures = {name: trial.figures(system_sums) for name, system_sums in sums.items()}
    systems = {name: trial.intervals(system_sums, rows) for name, system_sums in sums.items()}
    details: dict[str, Any] = {}
    ours, main = trial.ours, trial.objective.main_metric
    if ours.confidences is not None:
        measures["ece"] = Metric("Calibration error", lower=True)
        correct = ours.errors == 0
        systems[MODEL]["ece"] = metrics.ece_interval(ours.confidences, correct, draws, confidence, seed)
        details["calibration"] = metrics.calibration(ours.confidences, correct)
    if ours.classes is not None:
        reference_classes, predicted_classes = ours.classes
        labels = list(trial.targets["labels"])
        if reference_classes.max() == len(labels):
            labels.append(UNSEEN)
        details["confusion"] = metrics.confusion(reference_classes, predicted_classes, labels, confidence)
    lower, share_rows = measures[main].lower, rows if measures[main].share else 0
    return {
        "main_metric": main,
        "measures": {name: asdict(measure) for name, measure in measures.items()},
        "rows": rows,
        "confidence": confidence,
        "resamples": draws.shape[1] - 1,
        "systems": systems,
        "comparisons": {
            name: compare_paired(main, figures[MODEL][main], system_figures[main], confidence, lower, share_rows)
            | {"paired": _count_paired(trial, figures, name)}
            for name, system_figures in figures.items()
            if name != MODEL
        },
        "per_class": metrics.by_group(trial.objective.compute_group_metrics(sums[MODEL], trial.targets), confidence),
        **details,
    }


def _count_paired(trial: Trial, figures: Mapping[str, Mapping[str, np.ndarray]], name: str) -> dict[str, Any]:
    """How the model and the system `name` differ on the test rows."""
    main = trial.objective.main_metric
    values = (float(figures[system][main][0]) for system in (MODEL, name))
    return asdict(count_paired_rows(trial.ours, trial.outcomes[name], *values))


def compute_slices(trial: Trial, draws: np.ndarray, slices: Sequence[str]) -> dict[str, Any]:
    """For each of `slices` its parts, with metrics of the model and of the baseline that is best on all rows.

    The slice CURATION is added if some rows have flaws.
    """
    statistics = {name: trial.outcomes[name].statistics for name in (MODEL, *find_best_baseline(trial))}
    texts = trial.objective.row_texts(trial.rows)
    return {
        name: slice_figures(slice_parts(name, trial.rows, texts), statistics, trial.intervals, draws)
        for name in (*slices, *({CURATION} & set(trial.rows.column_names)))
    }


def find_best_baseline(trial: Trial) -> list[str]:
    """The name of the baseline with the best main metric; empty without baselines."""
    main = trial.objective.main_metric
    sign = -1 if trial.objective.metrics[main].lower else 1
    values = {
        name: sign * float(trial.figures(outcome.statistics.sum(0)[:, None])[main][0])
        for name, outcome in trial.outcomes.items()
        if name != MODEL
    }
    return [max(values, key=lambda name: values[name])] if values else []


def list_worst_errors(trial: Trial, limit: int) -> list[dict[str, Any]]:
    """The `limit` rows with the largest errors of the model, with at most 500 characters of text each."""

    ours = trial.ours
    wrong = np.flatnonzero(ours.errors > 0)
    worst = wrong[np.argsort(-ours.errors[wrong], kind="stable")][:limit]
    rows = take_rows(trial.rows, worst)
    return [
        {
            "id": row["id"],
            "text": _clip(text),
            "label": _clip(ours.references[position]),
            "predicted": _clip(ours.predictions[position]),
            "confidence": None if ours.confidences is None else float(ours.confidences[position]),
            "source": row["source"],
        }
        for position, row, text in zip(worst.tolist(), rows.to_pylist(), trial.objective.row_texts(rows), strict=True)
    ]


def _load_served(model: Path, base: Path, targets: Targets, reader: Reader, whole: bool) -> Any:
    """The model as it will be served: its own weights if it is `whole`, else the adapter on its base model."""
    if whole:
        return predict.load_trained(model / MODEL, targets, reader.device)
    return predict.load_adapted(model / ADAPTER, base, targets, reader)


def _check_merge(
    method: Method,
    merged: Predictions,
    model: Path,
    base: Path,
    targets: Targets,
    test: pa.Table,
    reader: Reader,
    advance: predict.Advance,
) -> dict[str, Any] | None:
    """Check that adapter and merged weights give the same scores; None if the method has no adapter."""
    if not isinstance(method, AdapterMethod):
        return None
    adapted = predict.load_adapted(model / ADAPTER, base, targets, reader, method.load_on_base)
    unmerged, _ = predict.read(adapted, test, reader, advance, "testing the adapter")
    return predict.check_merged(merged, unmerged, model / ADAPTER)


def _predict_baselines(
    base: Path, data: _Data, splits: Path, neighbours: int, reader: Reader, advance: predict.Advance
) -> dict[str, tuple[Predictions, Targets]]:
    """Each baseline's predictions for the test rows, and its targets, tuned on the validation rows if there are any."""
    import pyarrow as pa

    train, valid, test, rows, targets = data.train, data.valid, data.test, data.rows, data.targets
    objective = reader.objective
    raw_by_name = objective.baseline_predictions(train, test, targets, rows)
    predictions = {name: (raw, targets) for name, raw in raw_by_name.items()}
    # Validation and test rows in one call, so that the training rows are embedded once.
    both = pa.concat_tables([valid, test])
    learned: dict[str, Predictions] = {}
    if objective.class_labels(train, targets) is not None:
        texts = {
            split: _read_texts(splits, split, tokens, objective) for split, tokens in ((TRAIN, train), (VALID, valid))
        }
        both_texts = [*texts[VALID], *objective.row_texts(rows)]
        learned = baselines.word_predictions(objective, train, texts[TRAIN], both_texts, targets)
    if objective.has_neighbour_baseline:
        learned |= baselines.embedding_predictions(base, train, both, neighbours, reader, advance, targets)
    for name, raw in learned.items():
        valid_raw = {column: values[: len(valid)] for column, values in raw.items()}
        test_raw = {column: values[len(valid) :] for column, values in raw.items()}
        predictions[name] = test_raw, objective.tune_targets(valid, valid_raw, targets) if len(valid) else targets
    if objective.works_untuned:
        predictions["untuned"] = baselines.untuned(base, test, reader, advance, targets), targets
    return predictions


def _compute_outcomes(
    objective: Objective, test: pa.Table, rows: pa.Table, predictions: Mapping[str, tuple[Predictions, Targets]]
) -> dict[str, Outcome]:
    """Each system's outcome on the test rows, from its predictions and targets.

    If the objective works untuned, the encoded rows get the base model's predictions as further columns first.
    """
    if objective.works_untuned:
        test = baselines.beside(test, objective.reference_columns(predictions["untuned"][0]))
    return {name: objective.compute_outcome(test, raw, targets, rows) for name, (raw, targets) in predictions.items()}


def _read_texts(splits: Path, split: str, tokens: pa.Table, objective: Objective) -> list[str]:
    """The texts of a split's encoded rows, in their order."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not len(tokens):
        return []
    rows = pq.read_table(splits / layout.rows_file(split), columns=["id", *objective.text])
    return objective.row_texts(take_rows(rows, pc.index_in(tokens["id"], value_set=rows["id"]).to_numpy()))


def _read_labelled_rows(
    tokens: pa.Table, path: Path, groups: Sequence[str], objective: Objective, targets: Targets
) -> LabelledRows | None:
    """The classes of the encoded training rows with their columns `groups`, from the split at `path`; None without."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    classes = objective.class_labels(tokens, targets) if groups else None
    if classes is None:
        return None
    rows = pq.read_table(path, columns=["id", *groups])
    rows = take_rows(rows, pc.index_in(tokens["id"], value_set=rows["id"]).to_numpy())
    return LabelledRows({name: rows[name].to_pylist() for name in groups}, classes)


def _ask_swapped(
    plan: flips.Plan, model: Any, reader: Reader, targets: Targets, max_length: int, advance: predict.Advance
) -> list[Any]:
    """The served model's answers to the inputs of a plan."""
    return flips.ask(
        plan,
        lambda inputs: reader.answer(model, inputs, targets, max_length),
        lambda rows: advance(rows, "asking with words swapped"),
    )


def _read_test_rows(
    tokens: pa.Table,
    path: Path,
    slices: Sequence[str],
    groups: Sequence[str],
    objective: Objective,
    dropped: Collection[str],
) -> pa.Table:
    """The rows of the split at `path` in the order of `tokens`, in which a row may have several consecutive entries.

    Raises DataError if they are not the same rows, apart from those with the ids `dropped`, and ConfigError for a slice
    or a group that is not a column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    check_slices(slices, rows.column_names, objective.text)
    check_groups(groups, rows.column_names, objective.columns)
    if not len(rows):
        raise DataError("has no rows to test the model on", where=str(path), fix="Raise curation.split.test.")
    rows = rows.filter(pc.invert(pc.is_in(rows["id"], value_set=pa.array(sorted(dropped), pa.string()))))
    tokenized = tokens["id"].unique()
    places = pc.index_in(tokenized, value_set=rows["id"])
    if len(rows) != len(tokenized) or places.null_count:
        raise DataError(
            f"its {len(rows)} rows are not the {len(tokenized)} that were tokenized",
            where=str(path),
            fix="Evaluate with the tokens that were made from these splits.",
        )
    rows = take_rows(rows, places.to_numpy())
    if FLAW in rows.column_names and any(flaws := rows[FLAW].to_pylist()):
        parts = [FLAWED if flaw else SOUND for flaw in flaws]
        rows = rows.append_column(CURATION, pa.array(parts, pa.string()))
    return rows


def _collect_facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """The facts for the manifest and MLflow."""
    systems = {name: metrics.values(figures) for name, figures in report["systems"].items()}
    return {
        "metrics": systems.pop(MODEL),
        "baselines": systems,
        "rivals": {rival["name"]: metrics.values(rival["theirs"]) for rival in report["rivals"]},
        "comparisons": report["comparisons"],
        "rows": report["rows"],
        "merged": report["merged"],
        "whole": report["whole"],
    }


def _clip(text: str) -> str:
    return text if len(text) <= CLIP else text[: CLIP - 1] + "…"


def _write_results(
    out: Path, report: Mapping[str, Any], speed: Mapping[str, Any], trial: Trial, raw: Predictions
) -> None:
    for name, content in ((layout.METRICS, report), (layout.SPEED, speed), (layout.TARGETS, trial.targets)):
        _write_json(out / name, content)
    _write_predictions(out / layout.PREDICTIONS, trial, raw)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1), "utf8")


def _list_written(trial: Trial, outcome: Outcome) -> list[str | None]:
    """The answers in words of another system; None where the model or the system was not asked for one."""
    pairs = zip(outcome.predictions, trial.ours.predictions, strict=True)
    return [theirs if NOT_ASKED not in (theirs, ours) else None for theirs, ours in pairs]


def _write_predictions(path: Path, trial: Trial, raw: Predictions) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ours = trial.ours
    columns = {
        "id": trial.rows["id"],
        "reference": pa.array(ours.references, pa.string()),
        "prediction": pa.array(ours.predictions, pa.string()),
        "error": pa.array(ours.errors, pa.float64()),
    }
    if trial.objective.writes_answers and "untuned" in trial.outcomes:
        columns["untuned"] = pa.array(_list_written(trial, trial.outcomes["untuned"]), pa.string())
    if ours.confidences is not None:
        columns["confidence"] = pa.array(ours.confidences, pa.float64())
    if len(raw["scores"]) == len(trial.rows):
        scores = [np.ravel(row).astype(np.float32) for row in raw["scores"]]
        columns["scores"] = pa.array(scores, pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), path, compression="zstd")
