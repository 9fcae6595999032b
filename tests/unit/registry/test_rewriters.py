"""Records of what rewrites a model's inputs."""

from __future__ import annotations

import json
import sys

import pytest

from hone.curation.redact import Redact
from hone.errors import ModelError
from hone.objectives.text_classification import TextClassification
from hone.registry import package
from hone.registry.rewriters import build_rewriters, describe_rewriters
from hone.store.recipe import list_imports


def test_a_rewriter_of_a_record_redacts_as_the_recorded_one() -> None:
    step = Redact(kinds=("email",), label_words=("refund", "C++"))
    [again] = build_rewriters(json.loads(json.dumps(describe_rewriters([step]))), "tiny")
    text = "refund a@b.org for C++, call 555-123-4567"
    assert again.rewrite(text) == step.rewrite(text) != Redact().rewrite(text)
    assert again.rewrite_words(text.split()) == step.rewrite_words(text.split())


def test_what_is_served_with_redact_imports_only_what_a_version_requires() -> None:
    code = package.serving_code(TextClassification(), False, [Redact(), Redact(kinds=("email",))])
    assert "hone/curation/redact.py" in code
    modules = [name.removesuffix(".py").replace("/", ".") for name in code if name != package.ENTRY]
    imported = {name.partition(".")[0] for name in list_imports(modules)} - sys.stdlib_module_names
    assert imported - {"hone"} <= set(package.REQUIREMENTS)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "shuffle", "options": {}}, "curation step shuffle, which is not installed"),
        ({"kind": "redact", "options": {"names": True}}, "redact has options that are not known here: .*names"),
    ],
)
def test_a_record_that_cannot_be_read_names_the_version(record: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message) as fault:
        build_rewriters([record], "models:/tiny/1")
    assert fault.value.where == "models:/tiny/1"
