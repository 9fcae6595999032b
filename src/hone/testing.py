"""Conformance checks for a source, step, objective or method of one's own, to be called from its package's tests.

    from hone.testing import check_step

    def test_shouting_conforms() -> None:
        check_step(Shouting(max_capitals=0.3), rows, TextClassification())

Each check raises AssertionError with what the part does not keep to. `check_objective` and `check_method` train a few
steps, so give them a tiny base model. They raise KeyError if the part is registered by no entry point: the training
process finds it by its kind.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.curation.step import Fields, Step
from hone.methods import METHODS
from hone.methods.method import AdapterMethod, Method
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.objectives.text_classification import TextClassification
from hone.parts.plugins import kind_of
from hone.progress import ignore
from hone.rewriting import Rewriter
from hone.sources.source import Source
from hone.splits import SPLITS, TEST
from hone.store import layout
from hone.store.digests import file_digest

if TYPE_CHECKING:
    import pyarrow as pa

# Enough for two checkpoints before the training is interrupted.
STEPS = 4
SETTINGS = {"max_steps": STEPS, "batch_size": 4, "learning_rate": 1e-3, "device": "cpu", "precision": "fp32"}
SERVE = """
import json, sys
sys.modules["hone"] = None
sys.path.insert(0, sys.argv[1])
import torch
from importlib import import_module
from pathlib import Path
request = json.load(open(sys.argv[2]))
objective = import_module(request["package"] + ".objective").Objective(**request["options"])
own_code = import_module(request["package"] + ".hone.models.own_code")
tokenizer = import_module(request["package"] + ".hone.objectives.shared.tokenizer").load_tokenizer(request["model"])
import transformers
config = transformers.AutoConfig.from_pretrained(request["model"], local_files_only=True)
model = own_code.get_architecture(Path(request["model"]), config).from_pretrained(
    request["model"], config=config, dtype=torch.float32, local_files_only=True).eval()
reading = import_module(request["package"] + ".hone.objectives.shared.reading")
reader = reading.Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
answers = reader.answer(model, request["rows"], request["targets"], request["max_length"])
print(json.dumps(answers, default=float))
"""


def check_source(source: Source) -> None:
    """Check a source: its options, and that fingerprint and rows are the same each time, also after pickling.

    Reads all rows twice: give it a small sample.
    """
    _check_options(source)
    fingerprint, rows = source.fingerprint(file_digest), list(source.rows())
    assert rows, f"{_name(source)} gives no rows"
    assert isinstance(fingerprint, str) and fingerprint, "fingerprint is not a text"
    again = pickle.loads(pickle.dumps(source))
    assert again.fingerprint(file_digest) == fingerprint, "fingerprint differs the second time"
    assert list(again.rows()) == rows, "the rows, or their order, differ the second time"
    for row in rows:
        assert row.where, f"a row does not say where it stands: {row}"
        assert isinstance(row.values, dict), f"{row.where}: values is not a dictionary"


def check_step(step: Step, rows: pa.Table, objective: Fields) -> None:
    """Check a curation step on rows of an objective: options, one verdict for each row in order, the same each time.

    Of a step that is part of the served model also whether it rewrites what is sent as it rewrites the rows.
    """
    _check_options(step)
    verdict = step.apply(rows, objective, ignore)
    again = pickle.loads(pickle.dumps(step)).apply(rows, objective, ignore)
    assert again.rows.equals(verdict.rows) and again.reasons == verdict.reasons, "the verdict differs the second time"
    assert verdict.rows.num_rows == rows.num_rows, f"{rows.num_rows} rows in, {verdict.rows.num_rows} out"
    assert verdict.rows.column_names == rows.column_names, "columns were added, removed or moved"
    for name in rows.column_names:
        if name not in objective.text:
            assert verdict.rows[name].equals(rows[name]), f"column {name} was changed, which holds no text"
    assert len(verdict.reasons) == rows.num_rows, f"{len(verdict.reasons)} reasons for {rows.num_rows} rows"
    assert all(isinstance(reason, str) for reason in verdict.reasons), "a reason is not a text ('' keeps the row)"
    for name in ("details", "repeated"):
        count = len(getattr(verdict, name))
        assert count in (0, rows.num_rows), f"{count} {name} for {rows.num_rows} rows"
    empty = step.apply(rows.slice(0, 0), objective, ignore)
    assert empty.rows.num_rows == 0 and not empty.reasons, "a table without rows has a verdict"
    if isinstance(step, Rewriter):
        _check_rewriter(step, rows, verdict.rows, objective)


def _check_rewriter(step: Rewriter, rows: pa.Table, rewritten: pa.Table, objective: Fields) -> None:
    for name in objective.text:
        for before, after in zip(rows[name].to_pylist(), rewritten[name].to_pylist(), strict=True):
            texts, expected = objective.extract_texts(name, before or ""), objective.extract_texts(name, after or "")
            words = step.rewrite_words(texts) if name in objective.word_lists else None
            actual = [step.rewrite(text).text for text in texts] if words is None else words
            assert actual == expected, f"a served model reads {actual}, and the rows have {expected}"


def check_objective(objective: Objective, rows: pa.Table, base: Path, work: Path, max_length: int = 32) -> None:
    """Check an objective on labelled rows (column `id`, and its `columns`) and a tiny base model.

    Options; training that goes on after an interruption with the same bytes as without one; metrics that are defined;
    answers, equal to those here, from a process that cannot import hone; and `check_prompting`. `work` is an empty
    directory.
    """
    import numpy as np
    import torch

    from hone.evaluation.judging import predict
    from hone.objectives.shared.reading import Reader
    from hone.objectives.shared.tokenizer import load_tokenizer
    from hone.tokenization.tokenize import read_tokens

    _check_options(objective)
    kind = kind_of(OBJECTIVES, objective)
    tokens = _tokenize(objective, rows, base, work, max_length)
    out = _check_resumes((kind, asdict(objective)), ("full", {}), tokens, base, work)

    last = json.loads((out / layout.HISTORY).read_text("utf8").splitlines()[-1])
    missing = [name for name in objective.training_metrics if f"valid_{name}" not in last]
    assert not missing, f"training_metrics: no value of {', '.join(missing)} was computed in training"
    targets = json.loads((tokens / layout.TARGETS).read_text("utf8"))
    tokenizer = load_tokenizer(out / "model")
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    model = predict.load_trained(out / "model", targets, reader.device)
    test = read_tokens(tokens / layout.tokens_file(TEST))
    predictions, _ = reader.predict(model, test)
    outcome = objective.compute_outcome(test, predictions, targets, rows if objective.needs_rows else None)
    metrics = objective.compute_metrics(outcome.statistics.sum(0)[:, None], targets)
    assert set(metrics) == set(objective.metrics), f"{sorted(metrics)} are not the metrics {sorted(objective.metrics)}"
    assert np.isfinite(metrics[objective.main_metric]).all(), f"{objective.main_metric} is not defined on these rows"
    inputs = objective.inference_inputs(rows.slice(0, 3))
    answers = reader.answer(model, inputs, targets, max_length)
    assert all(set(objective.outputs) <= set(answer) for answer in answers), "an answer lacks one of the outputs"
    served = _serve(objective, out / "model", inputs, targets, max_length, work)
    assert _close(served, answers), f"without hone it answers {served}, with it {answers}"
    check_prompting(objective, rows, test, targets)


def check_prompting(objective: Objective, rows: pa.Table, tokens: pa.Table, targets: Mapping[str, Any]) -> None:
    """Check how an objective puts rows in words, if it does (`Objective.prompting`).

    One question, query and answer for each row; an instruction that names all choices; right answers that are judged
    valid, and empty ones that are judged invalid and wrong. `tokens` are the encoded `rows`, in the same order, without
    labels that `targets` lack.
    """
    import numpy as np

    prompting = objective.prompting
    if prompting is None:
        return
    name, metric = _name(prompting), prompting.metric
    assert metric in objective.metrics, f"{name}.metric: {metric} is none of the metrics {sorted(objective.metrics)}"
    task, choices = prompting.describe_task(targets), prompting.list_choices(targets)
    unnamed = [choice for choice in choices if choice not in task]
    assert task.strip() and not unnamed, f"{name}.describe_task does not name {unnamed}: {task}"
    right = prompting.build_answers(rows, targets)
    for build in (prompting.build_questions, prompting.build_queries, prompting.build_open_questions):
        assert len(build(rows)) == rows.num_rows, f"{name}.{build.__name__}: not one text for each row"
    assert len(right) == rows.num_rows and all(answer.strip() for answer in right), f"{name}.build_answers: {right}"
    assert not choices or set(right) <= set(choices), f"{name}.build_answers: not among {choices}: {right}"
    selected = prompting.select_rows(tokens)
    assert selected is None or selected.shape == (rows.num_rows,), f"{name}.select_rows: not one value for each row"

    judged, empty = (prompting.judge(answers, tokens, targets, rows) for answers in (right, [""] * rows.num_rows))
    assert not judged.invalid.any(), f"{name}.judge: right answers are invalid: {right}"
    assert empty.invalid.all() and (empty.outcome.errors > 0).all(), f"{name}.judge: an empty answer is not wrong"
    assert (judged.outcome.errors <= empty.outcome.errors).all(), f"{name}.judge: a right answer is worse than none"
    values = [
        float(objective.compute_metrics(judgement.outcome.statistics.sum(0)[:, None], targets)[metric][0])
        for judgement in (judged, empty)
    ]
    difference = (values[1] - values[0]) if objective.metrics[metric].lower else (values[0] - values[1])
    assert np.isfinite(values).all() and difference >= 0, f"{name}.judge: {metric} is {values[0]}, empty {values[1]}"


def check_method(method: Method, base: Path, work: Path) -> None:
    """Check a method by training a text classifier from a tiny base model.

    Options; some weights that move; training that goes on after an interruption with the same bytes as without one;
    and, of an adapter that can be merged, a merged model with the scores of the adapter on its base. `work` is an
    empty directory.
    """
    import torch

    from hone.evaluation.judging import predict
    from hone.objectives.shared.reading import Reader
    from hone.objectives.shared.tokenizer import load_tokenizer
    from hone.tokenization.tokenize import read_tokens

    _check_options(method)
    objective = TextClassification()
    tokens = _tokenize(objective, _sentences(), base, work, 32)
    options: Any = method
    out = _check_resumes(("text-classification", {}), (kind_of(METHODS, method), asdict(options)), tokens, base, work)
    facts = json.loads((out / "training.json").read_text("utf8"))
    assert facts["trainable"] > 0, "no weight moves"
    if not (isinstance(method, AdapterMethod) and method.can_merge):
        return
    targets, tokenizer = json.loads((tokens / layout.TARGETS).read_text("utf8")), load_tokenizer(out / "model")
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    test = read_tokens(tokens / layout.tokens_file(TEST))
    merged, _ = reader.predict(predict.load_trained(out / "model", targets, reader.device), test)
    adapted = predict.load_adapted(out / "adapter", base, targets, reader, method.load_on_base)
    predict.check_merged(merged, reader.predict(adapted, test)[0], out)


def _check_options(part: object) -> None:
    name = _name(part)
    assert is_dataclass(part), f"{name} is not a dataclass"
    options = fields(part)
    for option in options:
        assert option.metadata.get("description"), f"{name}.{option.name} has no description: use parts.options.option"
    assert pickle.loads(pickle.dumps(part)) == part, f"{name} is another after pickling"
    try:
        setattr(part, options[0].name if options else "anything", None)
    except FrozenInstanceError:
        return
    raise AssertionError(f"{name} is not frozen: @dataclass(frozen=True)")


def _name(part: object) -> str:
    return type(part).__name__


def _sentences() -> pa.Table:
    import pyarrow as pa

    colours = ("red", "green", "blue")
    texts = [f"the {'small ' * (i % 4)}card is {colours[i % 3]}" for i in range(24)]
    labels = [colours[i % 3] for i in range(24)]
    return pa.table({"id": [f"rows:{i}" for i in range(24)], "text": texts, "label": labels})


def _tokenize(objective: Objective, rows: pa.Table, base: Path, work: Path, max_length: int) -> Path:
    """The rows as all three splits, tokenized as the tokenize stage does it."""
    import pyarrow.parquet as pq

    from hone.tokenization.tokenize import tokenize

    splits, tokens = work / "splits", work / "tokens"
    for folder in (splits, tokens):
        folder.mkdir(parents=True)
    for split in SPLITS:
        pq.write_table(rows, splits / layout.rows_file(split))
    tokenize(splits, tokens, base=base, objective=objective, max_length=max_length, max_truncated=1.0, max_dropped=0.0)
    return tokens


class _StopTraining(Exception):
    """Raised in the middle of a training, as a kill would end it."""


def _check_resumes(
    objective: tuple[str, dict[str, Any]], method: tuple[str, dict[str, Any]], tokens: Path, base: Path, work: Path
) -> Path:
    """Train without and with an interruption; the directory of the first training, whose bytes the second one has."""
    from hone.training import loop

    def train(name: str, stop_at: int = 0) -> Path:
        out = work / name
        out.mkdir(exist_ok=True)
        settings = {**SETTINGS, "checkpoint_seconds": 0}
        spec = {"tokens": str(tokens), "out": str(out), "base": str(base), "settings": settings}

        def send(event: dict[str, Any]) -> None:
            if stop_at and event["type"] == "step" and event["step"] == stop_at:
                raise _StopTraining

        loop.run(spec | {"objective": objective, "method": method}, send)
        return out

    straight = train("straight")
    try:
        train("resumed", stop_at=STEPS - 1)
    except _StopTraining:
        resumed = train("resumed")
    else:
        raise AssertionError(f"the training ended before step {STEPS - 1}: give it more rows")
    facts = json.loads((resumed / "training.json").read_text("utf8"))
    assert facts["resumed_from"], "the interrupted training began anew, and not at its last checkpoint"
    files = [file for folder in ("model", "adapter") for file in sorted(straight.glob(f"{folder}/*.safetensors"))]
    assert files, "the training saved no weights"
    for file in files:
        twin = resumed / file.relative_to(straight)
        assert twin.read_bytes() == file.read_bytes(), f"{file.name} differs after an interrupted training"
    return straight


def _serve(
    objective: Objective,
    model: Path,
    rows: Sequence[Mapping[str, str]],
    targets: Mapping[str, Any],
    max_length: int,
    work: Path,
) -> list[Any]:
    """The answers of the code that a registered model carries, in a process without hone."""
    from hone.registry.package import copy_code, serving_code

    code = serving_code(objective, adapter=False)
    package = copy_code(code, work / "served")
    request = {
        "package": package.name,
        "options": asdict(objective),
        "model": str(model),
        "rows": list(rows),
        "targets": targets,
        "max_length": max_length,
    }
    (work / "request.json").write_text(json.dumps(request, default=str), "utf8")
    command = [sys.executable, "-c", SERVE, str(package.parent), str(work / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"the code that a registered model carries fails without hone:\n{done.stderr}"
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _close(left: Any, right: Any) -> bool:
    """Whether two trees of plain values are equal, numbers to 1e-4."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_close(left[name], right[name]) for name in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_close, left, right))
    if isinstance(left, (int, float)) and not isinstance(left, bool):
        return abs(float(left) - float(right)) <= 1e-4
    return bool(left == right)
