"""What a run of the line does once for each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.config.file import parse_config
from hone.pipeline import run
from hone.pipeline.stages import list_stages
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
