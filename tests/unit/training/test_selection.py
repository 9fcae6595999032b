"""Which evaluation is the best one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.errors import ConfigError, TrainingError
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.text_classification import TextClassification
from hone.training import hardware, loop
from hone.training.selection import choose_selection
from tests.families import CASES, DECODERS, REFUSED, Case, make, plain, preferred
from tests.tiny_training import specification


def test_the_main_metric_decides_another_that_is_named_or_the_loss() -> None:
    chosen = choose_selection(TextClassification(), "")
    assert (chosen.metric, chosen.title, chosen.lower) == ("accuracy", "Accuracy", False)
    assert choose_selection(TextClassification(), "macro_f1").metric == "macro_f1"
    assert choose_selection(MaskedLM(), "pseudo_perplexity").lower
    assert choose_selection(TextClassification(), "loss").lower
    # Answers are compared with the rows' texts, which a training does not read.
    assert choose_selection(QuestionAnswering(), "").metric == "loss"
    with pytest.raises(ConfigError, match="f1 is not a metric of the validation rows while") as raised:
        choose_selection(QuestionAnswering(), "f1")
    assert raised.value.fix == "Name one of loss."


@pytest.mark.parametrize(
    ("metric", "value", "loss", "better"),
    [
        ("", 0.8, 1.0, True),
        ("", 0.7, 0.4, True),
        ("", 0.7, 0.6, False),
        ("", 0.6, 0.1, False),
        ("loss", 0.6, 0.6, True),
    ],
)
def test_of_two_equal_evaluations_the_lower_loss_is_better(
    metric: str, value: float, loss: float, better: bool
) -> None:
    assert choose_selection(TextClassification(), metric).improves(value, loss, 0.7, 0.5) is better


def test_a_metric_that_the_objective_has_not_is_a_fault_of_the_configuration() -> None:
    tree: dict[str, Any] = {"name": "a", "ingest": {"source": {"kind": "files", "paths": ["a.csv"]}}}
    tree |= {"model": {"base": "b"}, "training": {"metric": "rouge"}}
    with pytest.raises(ConfigError, match=r"training\.metric: rouge is not .* Name one of accuracy, macro_f1, loss\."):
        parse_config(tree)


VARIANTS = (
    *CASES,
    Case("causal-lm", DECODERS, plain, {"old_domain": ("rows*",)}),
    Case("preference", DECODERS, preferred, {"loss_type": "orpo"}),
    Case("preference", DECODERS, preferred, {"loss_type": "kto"}),
)


def train_once(case: Case, folder: Path, **settings: Any) -> dict[str, Any]:
    """The line of the evaluation after the only step of a training."""
    family = next(family for family in case.families if (case.objective, family) not in REFUSED)
    base, tokens = make(case, family, folder)
    spec = specification(tokens, folder / "out", base, max_steps=1, evaluations=1, **settings)
    events: list[dict[str, Any]] = []
    loop.run(spec | {"objective": (case.objective, dict(case.options))}, events.append)
    [entry] = [event for event in events if event["type"] == "valid"]
    return entry


@pytest.mark.parametrize(
    "case", VARIANTS, ids=lambda case: "-".join((case.objective, *map(str, case.options.values())))
)
def test_every_metric_that_is_accepted_has_a_value_in_training(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "peak_flops", lambda *_: 1e12)  # measured, it takes longer than the training
    objective = case.build()
    with pytest.raises(ConfigError) as refusal:
        choose_selection(objective, "nothing")
    accepted = refusal.value.fix.removeprefix("Name one of ").rstrip(".").split(", ")
    entry = train_once(case, tmp_path)
    assert [name for name in accepted if f"valid_{name}" not in entry] == []
    # And the others are refused.
    for name in set(objective.metrics) - set(accepted):
        assert f"valid_{name}" not in entry
        with pytest.raises(ConfigError, match=f"{name} is not a metric of the validation rows while training"):
            choose_selection(objective, name)


def test_a_metric_without_a_value_on_the_validation_rows_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No evaluation would be the best one, and the last weights would be kept without a word."""
    monkeypatch.setattr(hardware, "peak_flops", lambda *_: 1e12)
    case = Case("causal-lm", DECODERS, plain, {"old_domain": ("elsewhere*",)})
    with pytest.raises(TrainingError, match="old_perplexity is not defined on the validation rows"):
        train_once(case, tmp_path, metric="old_perplexity")
