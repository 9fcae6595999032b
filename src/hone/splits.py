"""The names of the splits: in tables, file names, configurations and metrics."""

from __future__ import annotations

from typing import Final, Literal

TRAIN: Final = "train"
VALID: Final = "valid"
TEST: Final = "test"
SPLITS = (TRAIN, VALID, TEST)

Split = Literal["train", "valid", "test"]
