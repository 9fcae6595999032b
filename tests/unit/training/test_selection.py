"""Which evaluation is the best one."""

from __future__ import annotations

from typing import Any

import pytest

from hone.config.file import parse_config
from hone.errors import ConfigError
from hone.objectives.masked_lm import MaskedLM
from hone.objectives.question_answering import QuestionAnswering
from hone.objectives.text_classification import TextClassification
from hone.training.selection import choose_selection


def test_the_main_metric_decides_another_that_is_named_or_the_loss() -> None:
    chosen = choose_selection(TextClassification(), "")
    assert (chosen.metric, chosen.title, chosen.lower) == ("accuracy", "Accuracy", False)
    assert choose_selection(TextClassification(), "macro_f1").metric == "macro_f1"
    assert choose_selection(MaskedLM(), "pseudo_perplexity").lower
    assert choose_selection(TextClassification(), "loss").lower
    # Answers are compared with the rows' texts, which a training does not read.
    assert choose_selection(QuestionAnswering(), "").metric == "loss"
    with pytest.raises(ConfigError, match="f1 is not a metric of the validation rows") as raised:
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
