"""What a run of the line does once for each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.pipeline import run
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.store.digests import digest_of
from tests.in_process import begin


def test_a_run_builds_each_stages_recipe_and_key_once(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes: Counter[str] = Counter()
    keys: Counter[str] = Counter()

    def counted(calls: Counter[str], function: Callable[..., Any], stage_of: Callable[[Any], str]) -> Any:
        def call(*arguments: Any) -> Any:
            calls[stage_of(arguments[0])] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(run, "build_recipe", counted(recipes, run.build_recipe, str))
    monkeypatch.setattr("hone.store.recipe.digest_of", counted(keys, digest_of, lambda recipe: recipe["stage"]))
    model = {"scratch": {"architecture": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "vocabulary": 300}}
    training = small["training"] | {"epochs": 0.1}
    sections = {"model": model, "tokenization": {"max_length": 64}, "training": training}
    config = parse_config(small | sections | {"evaluation": {"resamples": 100}})
    line = begin(tmp_path / "hone", monkeypatch)
    made = line.go(config)
    stages = list_stages(config)
    assert list(made) == stages
    assert recipes == dict.fromkeys(stages, 1)
    assert keys == dict.fromkeys(stages, 1)
    # So it is where every artifact is there.
    assert line.go(config) == made
    assert (recipes, keys) == (dict.fromkeys(stages, 2), dict.fromkeys(stages, 2))


def test_the_words_of_a_lexicon_decide_the_key_of_evaluate_and_where_it_is_does_not(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.pipeline.stages.evaluate.compute_base_digest", lambda job: {"base model": "b"})
    config = parse_config(small)

    def decide(flips: str) -> tuple[Any, Any]:
        evaluation = config.evaluation.model_copy(update={"flips": flips})
        changed = config.model_copy(update={"evaluation": evaluation})
        definition = STAGES["evaluate"]
        return definition.config(changed), definition.external_digests(Job(changed, {}, None))  # type: ignore[arg-type]

    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("pairs: [[he, she]]")
    second.write_text("pairs: [[he, she]]")
    assert decide(str(first)) == decide(str(second)) != decide("")
    before = decide(str(first))
    first.write_text("pairs: [[man, woman]]")
    assert decide(str(first)) != before
    assert set(decide("gender-en")[1]) == {"base model", "lexicon"}
