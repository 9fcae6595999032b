"""The conformance checks, on Hone's own parts, and on parts that break each rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hone.curation import STEPS
from hone.curation.normalize import Normalize
from hone.curation.redact import Redact
from hone.curation.step import Verdict
from hone.methods.full import Full
from hone.methods.lora import Lora
from hone.objectives.regression import Regression
from hone.objectives.text_classification import TextClassification
from hone.parts.options import option
from hone.rewriting import Rewritten
from hone.sources.files import Files
from hone.sources.source import RawRow
from hone.testing import check_method, check_objective, check_source, check_step
from tests.tiny_bases import tiny_bert

OBJECTIVE = TextClassification()


def rows(label: Any = lambda i: ("red", "green")[i % 2]) -> pa.Table:
    texts = [f"the {'small ' * (i % 4)}word is {('red', 'green')[i % 2]}" for i in range(24)]
    return pa.table({"id": [f"rows:{i}" for i in range(24)], "text": texts, "label": [label(i) for i in range(24)]})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("kind", sorted(STEPS))
def test_our_steps_conform(kind: str) -> None:
    check_step(STEPS[kind](), rows(), OBJECTIVE)


def test_our_sources_conform(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nfine rain,weather\nfine bread,food\n")
    check_source(Files([str(tmp_path / "rows.csv")]))


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        (TextClassification(label_smoothing=0.1), lambda i: ("red", "green")[i % 2]),
        (Regression(), lambda i: f"{i % 5}.5"),
    ],
    ids=["text-classification", "regression"],
)
def test_our_objectives_conform(objective: Any, label: Any, base: Path, tmp_path: Path) -> None:
    check_objective(objective, rows(label), base, tmp_path)


@pytest.mark.parametrize("method", [Full(), Lora(rank=2)], ids=["full", "lora"])
def test_our_methods_conform(method: Any, base: Path, tmp_path: Path) -> None:
    check_method(method, base, tmp_path)


@dataclass(frozen=True)
class Broken(Normalize):
    """A step with one fault."""

    fault: str = option("", "Which rule is broken.")

    def apply(self, rows: pa.Table, fields: Any, on_progress: Any) -> Verdict:
        verdict = super().apply(rows, fields, on_progress)
        if self.fault == "drops":
            return replace(verdict, rows=verdict.rows.slice(1))
        if self.fault == "renames":
            return replace(verdict, rows=verdict.rows.rename_columns(["id", "text", "class"]))
        if self.fault == "relabels" and rows.num_rows:
            labels = pa.array(["blue"] * rows.num_rows)
            return replace(verdict, rows=verdict.rows.set_column(2, "label", labels))
        return replace(verdict, reasons=verdict.reasons[1:])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("drops", "24 rows in, 23 out"),
        ("renames", "columns were added, removed or moved"),
        ("relabels", "column label was changed"),
        ("reasons", "23 reasons for 24 rows"),
    ],
)
def test_a_step_that_breaks_a_rule_fails_with_the_rule(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_step(Broken(fault=fault), rows(), OBJECTIVE)


@dataclass(frozen=True)
class Forgetful(Redact):
    """A step of which a served model would rewrite less than it rewrites in rows."""

    def rewrite(self, text: str) -> Rewritten:
        return Rewritten(text)


def test_a_step_that_rewrites_rows_in_another_way_than_what_is_sent_fails() -> None:
    texts = pa.array([f"mail ann{number}@example.org" for number in range(24)])
    mails = rows().set_column(1, "text", texts)
    check_step(Redact(), mails, OBJECTIVE)
    with pytest.raises(AssertionError, match="a served model reads"):
        check_step(Forgetful(), mails, OBJECTIVE)


@dataclass
class Thawed(Normalize.__base__ or object):  # type: ignore[misc]
    """A part that can be changed."""

    size: int = option(1, "A number.")


@dataclass(frozen=True)
class Restless:
    """A source whose rows differ each time."""

    paths: str = option("", "Unused.")
    undescribed: int = 3

    def fingerprint(self, digest: Any) -> str:
        return "same"

    def rows(self) -> Iterator[RawRow]:
        yield RawRow("row 1", "memory", {"text": object()})


def test_a_part_that_is_not_frozen_fails() -> None:
    with pytest.raises(AssertionError, match="not frozen"):
        check_step(Thawed(), rows(), OBJECTIVE)  # type: ignore[arg-type]


def test_an_option_without_a_description_fails() -> None:
    with pytest.raises(AssertionError, match="undescribed has no description"):
        check_source(Restless())


@dataclass(frozen=True)
class Described(Restless):
    """The same with all options described."""

    undescribed: int = option(3, "Now described.")


def test_a_source_whose_rows_differ_fails() -> None:
    with pytest.raises(AssertionError, match="differ the second time"):
        check_source(Described())
