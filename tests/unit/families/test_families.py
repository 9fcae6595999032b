"""Every family through training, saving, loading as served and scoring, and the whole line; docs/families.md says how.

With every objective that its kind serves, and, for text-classification, with every method. A run tries some of them
(`families.short_cells`), `pytest -m ""` all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hone.config.file import parse_config
from hone.errors import ModelError
from hone.evaluation.judging import predict
from hone.methods import METHODS as CLASSES
from hone.methods.method import AdapterMethod
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.tokenization.tokenize import read_tokens
from hone.training import hardware, loop
from hone.training.result import save_result
from hone.training.session import Session
from tests.families import (
    ALL,
    CASES,
    CELLS,
    LINE,
    LINES,
    METHODS,
    REFUSED,
    Case,
    base_of,
    configuration,
    list_refusals,
    make,
    short_cells,
    short_lines,
    table,
)
from tests.in_process import begin

PAGE = Path(__file__).parents[3] / "docs" / "families.md"
RESULTS: dict[tuple[str, str, str], str] = {}

pytestmark = pytest.mark.slow


def tried(combinations: Sequence[tuple[Case, *tuple[str, ...]]], short: Collection[tuple[str, ...]]) -> list[Any]:
    """A test for each combination; those that are not among the `short` ones are long."""
    found = []
    for case, *words in combinations:
        key = (case.objective, *words)
        marks = [] if key in short else [pytest.mark.long]
        found.append(pytest.param(case, *words, id="-".join(key), marks=marks))
    return found


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """Trainings that were saved."""
    found: list[Session] = []

    def keep(session: Session, stopped: str) -> None:
        save_result(session, stopped)
        found.append(session)

    torch.set_num_threads(1)
    monkeypatch.setattr(hardware, "peak_flops", lambda *_: 1e12)  # measured, it takes longer than the training
    monkeypatch.setattr(loop, "save_result", keep)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case, str], tuple[Path, Path]]:
    """The base model and the tokens of a case's family, made once."""
    known: dict[tuple[str, str], tuple[Path, Path]] = {}

    def get(case: Case, family: str) -> tuple[Path, Path]:
        key = (case.objective, family)
        if key not in known:
            known[key] = make(case, family, tmp_path_factory.mktemp(family))
        return known[key]

    return get


def advance(_: int, __: str) -> None:
    """Nobody watches."""


@pytest.mark.parametrize(("case", "family", "method"), tried(CELLS, short_cells()))
def test_family(
    case: Case,
    family: str,
    method: str,
    made: Callable[[Case, str], tuple[Path, Path]],
    trained: list[Session],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    objective, way = case.build(), CLASSES[method](**METHODS[method])
    try:
        base, tokens = made(case, family)
        spec = {"tokens": str(tokens), "out": str(tmp_path), "base": str(base)}
        settings = {"epochs": 1, "batch_size": 6, "learning_rate": 1e-2, "device": "cpu", "precision": "fp32"}
        parts = {"objective": (case.objective, dict(case.options)), "method": (method, METHODS[method])}
        events: list[dict[str, Any]] = []
        loop.run(spec | parts | {"settings": settings}, events.append)
    except ModelError as fault:
        refused = list_refusals(PAGE.read_text("utf8"))
        written = method in refused and not request.config.getoption("--write-families")
        assert not written or family in refused[method] or (case.objective, family) in REFUSED, fault
        RESULTS[case.objective, family, method] = f"no: {fault.what}"
        return
    assert all(np.isfinite(event["loss"]) for event in events if "loss" in event)

    tokenizer = load_tokenizer(tmp_path / "model")
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    targets, test = json.loads((tokens / "targets.json").read_text("utf8")), read_tokens(tokens / "test.arrow")
    adapter = isinstance(way, AdapterMethod)
    if adapter and not way.can_merge:  # type: ignore[attr-defined]
        model = predict.load_adapted(tmp_path / "adapter", base, targets, reader)
        word = "on its base"
    else:
        model = predict.load_trained(tmp_path / "model", targets, reader.device)
        word = "merged" if adapter else "yes"
    raw, _ = predict.read(model, test, reader, advance, "")
    if adapter and way.can_merge:  # type: ignore[attr-defined]
        unmerged = predict.load_adapted(tmp_path / "adapter", base, targets, reader, way.load_on_base)  # type: ignore[attr-defined]
        predict.check_merged(raw, predict.read(unmerged, test, reader, advance, "")[0], tmp_path)
    if not adapter:
        before, _ = predict.read(trained[0].model.eval(), test, reader, advance, "")
        same(before["scores"], raw["scores"], 1e-6)
    alone, _ = predict.read(model, test, replace(reader, max_rows=1), advance, "")
    same(alone["scores"], raw["scores"], 1e-4)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    RESULTS[case.objective, family, method] = word


@pytest.mark.parametrize(("case", "family"), tried(LINES, short_lines()))
def test_whole_line(case: Case, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "WARM_UP", 1)
    monkeypatch.setattr(predict, "REQUESTS", 1)
    line = begin(tmp_path / "hone", monkeypatch)
    config = parse_config(configuration(case, base_of(family, tmp_path / "base"), tmp_path))
    try:
        found = line.go(config)
    except ModelError as fault:
        assert (case.objective, family) in REFUSED, fault
        RESULTS[case.objective, family, LINE] = f"no: {fault.what}"
        return
    objective = case.build()
    asked = objective.inference_inputs(pq.read_table(found["validate"].path / "test.parquet").slice(0, 2))
    answers = line.served(case.objective).predict(pd.DataFrame(asked))
    assert (len(answers), list(answers)) == (2, list(objective.outputs))
    RESULTS[case.objective, family, LINE] = "yes"


def same(ours: Any, theirs: Any, tolerance: float) -> None:
    """Whether both have the same scores for each row."""
    for one, other in zip(ours, theirs, strict=True):
        assert np.ravel(one) == pytest.approx(np.ravel(other), rel=tolerance, abs=tolerance)


def test_every_run_tries_each_family_with_each_method_and_two_families_with_each_objective() -> None:
    cells, lines = short_cells(), short_lines()
    assert {(family, method) for _, family, method in cells} >= {
        (family, method) for family in ALL for method in METHODS
    }
    for case in CASES:
        mine = [(family, method) for objective, family, method in cells if objective == case.objective]
        assert {method for _, method in mine} == set(case.methods)
        assert len({family for family, _ in mine}) >= 2
    assert {objective for objective, _ in lines - REFUSED} == {case.objective for case in CASES}
    assert {family for _, family in lines - REFUSED} == set(ALL)


@pytest.mark.long
def test_the_page_is_of_this_run(request: pytest.FixtureRequest) -> None:
    cells = {(case.objective, family, method) for case, family, method in CELLS}
    if set(RESULTS) != cells | {(case.objective, family, LINE) for case, family in LINES}:
        pytest.skip("not every family was tried in this run")
    if request.config.getoption("--write-families"):
        PAGE.write_text(table(RESULTS), "utf8")
    assert PAGE.read_text("utf8") == table(RESULTS)
