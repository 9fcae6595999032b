"""Rows of different lengths as one batch."""

from __future__ import annotations

import numpy as np
import pytest

from hone.objectives.shared.padding import pad_prompts


@pytest.mark.parametrize("build", [list, np.array])
def test_prompts_end_at_the_last_position_and_an_empty_one_is_padding(build: type) -> None:
    batch = pad_prompts([build(ids) for ids in ([5, 6, 7], [8], [])], 9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8], [9, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 0]]


def test_empty_prompts_alone_are_one_padding_token_each() -> None:
    batch = pad_prompts([[], []], 9)
    assert (batch["input_ids"].tolist(), batch["attention_mask"].tolist()) == ([[9], [9]], [[0], [0]])
