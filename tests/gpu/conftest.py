"""Where these tests run: on CUDA, or, to try the tests themselves, where HONE_GPU_TESTS says (cpu)."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    """CUDA's name; the test is skipped where there is none."""
    named = os.environ.get("HONE_GPU_TESTS", "cuda")
    if named == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device (torch.cuda.is_available())")
    return named
