"""Seeds, saves and restores every random generator that a model or its libraries may draw from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def seed_generators(value: int) -> None:
    """Seed Python's, numpy's, torch's and CUDA's generators."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def get_generator_states() -> dict[str, torch.Tensor]:
    """The states of all generators, as tensors."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([numpy["state"]["pos"], numpy["has_gauss"], *numpy["state"]["key"].tolist()]),
        "numpy_gauss": torch.tensor([numpy["gauss"]], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(states: Mapping[str, torch.Tensor]) -> None:
    """Set all generators to `states`, from `get_generator_states`."""
    torch.set_rng_state(states["torch"].cpu())
    version, *words = states["python"].tolist()
    gauss = states["python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    position, has_gauss, *keys = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, states["numpy_gauss"].item()))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
