"""Where training runs: device, precision, the peak arithmetic of the device, and its memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from hone.errors import ConfigError

Precision = Literal["fp32", "bf16"]

# Dense bf16 FLOP/s by a part of the device's name, from NVIDIA's data sheets; the first that fits counts.
_PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
}

_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """CUDA where it is there and not declined; raises ConfigError where it is asked for and not there."""
    there = torch.cuda.is_available()
    if wish == "cuda" and not there:
        raise ConfigError(
            "there is no CUDA device, or torch was built without CUDA",
            where="training.device cuda",
            fix="Set it to auto, or install a torch for this machine's driver.",
        )
    return torch.device("cuda" if there and wish != "cpu" else "cpu")


def choose_precision(wish: Literal["auto", "fp32", "bf16"], device: torch.device) -> Precision:
    """bf16 where the device has it and is faster with it: known of CUDA devices, measured on a CPU (0.2 s)."""
    if wish != "auto":
        return wish
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_has_bf16() and _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 products and torch uses them: ONEDNN_MAX_CPU_ISA can forbid it."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text("utf8").split() if cpuinfo.is_file() else []
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        return False
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def device_name(device: torch.device) -> str:
    """The device as a person knows it: `NVIDIA H200`, or `cpu, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def set_up(device: torch.device) -> None:
    """Let float32 products use TF32 on CUDA, and keep a CPU from slowing down on denormal numbers."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_flush_denormal(True)


def peak_flops(device: torch.device, precision: str) -> float:
    """The device's dense matrix FLOP/s: of the data sheet where it is known, else measured here (0.3 s).

    A data sheet's float32 figure is TF32's, which is half of bf16's.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in _PEAKS.items():
            if part in name:
                return peak if precision == "bf16" else peak / 2
    return _measured_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def peak_memory(device: torch.device) -> int:
    """The most bytes in use so far: allocated on a CUDA device, or resident of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _seconds(dtype: torch.dtype) -> float:
    """The time of a layer's forward and backward pass under autocast to `dtype`, the best of five, in seconds."""
    layer = torch.nn.Sequential(torch.nn.Linear(768, 3072), torch.nn.GELU(), torch.nn.Linear(3072, 768))
    rows = torch.randn(256, 768)

    def once() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            layer(rows).float().square().sum().backward()

    return min(_time(once) for _ in range(5))


def _measured_flops(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def once() -> None:
        torch.matmul(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    end = time.perf_counter() + 0.3
    best = _time(once)
    while time.perf_counter() < end:
        best = min(best, _time(once))
    return 2.0 * side**3 / best


def _time(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that the memory of a device or of the machine did not suffice."""
    if isinstance(fault, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in _NO_MEMORY)
