"""The device that a training would get, found out without importing torch on machines that have no GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

# The device files of NVIDIA's driver, of AMD's, and of a GPU in the Windows Subsystem for Linux.
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def resolve_device(setting: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The device that `setting` selects on this machine, as part of a training's key."""
    if setting != "auto":
        return setting
    if sys.platform == "linux" and not any(Path(file).exists() for file in _GPUS):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
