"""The hardware that training runs on: device, precision, peak FLOP/s and memory."""

from __future__ import annotations

import fcntl
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from hone.errors import ConfigError

Precision = Literal["fp32", "bf16"]

# Dense bf16 FLOP/s by a part of the device's name, from NVIDIA's data sheets; the first match is used.
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


def choose_device(setting: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """CUDA if it is available and `setting` allows it, else the CPU; raises ConfigError for `cuda` without CUDA."""
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise ConfigError(
            "there is no CUDA device, or torch was built without CUDA",
            where="training.device cuda",
            fix="Set it to auto, or install a torch for this machine's driver.",
        )
    return torch.device("cuda" if available and setting != "cpu" else "cpu")


def choose_precision(
    setting: Literal["auto", "fp32", "bf16"], device: torch.device, machine: Path | None = None
) -> Precision:
    """bf16 if the device supports it and is faster with it.

    On a CPU that is measured (0.2 s), once for a processor, number of threads and version of torch: the file `machine`
    keeps the result, so that the same configuration is trained alike there.
    """
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if not cpu_has_bf16():
        return "fp32"
    return _recall_precision(machine) if machine else _measure_precision()


def _measure_precision() -> Precision:
    return "bf16" if _measure_seconds(torch.bfloat16) < 0.8 * _measure_seconds(torch.float32) else "fp32"


def _recall_precision(machine: Path) -> Precision:
    """The measured precision that the file `machine` has for this machine, which is measured if it has none."""
    name = f"{_processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    machine.parent.mkdir(parents=True, exist_ok=True)
    with machine.open("a+", encoding="utf8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        try:
            measured = {
                str(key): value for key, value in json.load(file)["precision"].items() if value in get_args(Precision)
            }
        except (ValueError, KeyError, TypeError, AttributeError):  # new, or cut off by a crash
            measured = {}
        if name not in measured:
            measured[name] = _measure_precision()
            file.truncate(0)
            json.dump({"precision": measured}, file, indent=1)
    precision: Precision = measured[name]
    return precision


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 products and torch uses them: ONEDNN_MAX_CPU_ISA can forbid it."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text("utf8").split() if cpuinfo.is_file() else []
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        return False
    usable: Any = torch.backends.mkldnn.is_available  # untyped
    return bool(usable() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def device_name(device: torch.device) -> str:
    """The device's name for people: `NVIDIA H200`, or `cpu, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def set_up_device(device: torch.device) -> None:
    """Enable TF32 for float32 products on CUDA; flush denormal numbers, which are slow, to 0 on a CPU."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_flush_denormal(True)


def peak_flops(device: torch.device, precision: str) -> float:
    """The device's peak dense FLOP/s: from the data sheet if it is known, else measured (0.3 s).

    For float32 on CUDA it is TF32's, half of bf16's.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in _PEAKS.items():
            if part in name:
                return peak if precision == "bf16" else peak / 2
    return _measure_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def compute_used_share(flops: float, peak: float) -> float | None:
    """The share of the device's peak that `flops`, FLOP/s, are; None above 1: then the peak was measured too low."""
    share = flops / peak
    return share if share <= 1 else None


def peak_memory(device: torch.device) -> int:
    """The peak memory so far, in bytes: allocated on a CUDA device, else this process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def _measure_seconds(dtype: torch.dtype) -> float:
    """Seconds of an MLP layer's forward and backward pass under autocast to `dtype`: the best of five."""
    layer = torch.nn.Sequential(torch.nn.Linear(768, 3072), torch.nn.GELU(), torch.nn.Linear(3072, 768))
    rows = torch.randn(256, 768)

    def run_layer() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            layer(rows).float().square().sum().backward()

    return min(_time(run_layer) for _ in range(5))


def _measure_flops(device: torch.device, dtype: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.matmul(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    end = time.perf_counter() + 0.3
    best = _time(multiply)
    while time.perf_counter() < end:
        best = min(best, _time(multiply))
    return 2.0 * side**3 / best


def _time(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error means that the device or the machine ran out of memory."""
    if isinstance(fault, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in _NO_MEMORY)
