"""Tokens/s, model FLOPs utilization and peak memory of a Llama of one billion random parameters, full and LoRA.

    python benchmarks/gpu.py                       a CUDA device with 40 GB or more
    python benchmarks/gpu.py --tiny --device cpu   the same code on a model of thousands of parameters

Ours beside a plain transformers Trainer, each in a process of its own, on the same rows of random tokens, all of one
length, with bf16 where the device has it: neither padding nor the order of rows makes a difference here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

WARM_UP = 3
# The shape of Llama 3.2 1B: 1.24 billion parameters.
LLAMA = {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "vocab_size": 128256}
LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 512}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def main() -> None:
    """Print a line for each training and the ratio of tokens/s for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a model of thousands of parameters")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=20, help=f"timed optimizer steps, after {WARM_UP} that are not")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step, all at once")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--compile", action="store_true", help="torch.compile, on both sides")
    given = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        base, tokens = _alone(prepare, Path(folder), given)
        for method in ("full", "lora"):
            speeds = []
            for name, train in (("hone", ours), ("transformers.Trainer", peer)):
                figures = _alone(train, base, tokens, Path(folder) / f"{method}-{train.__name__}", method, given)
                speeds.append(figures["tokens_per_second"])
                print(
                    f"{method:5} {name:22} {figures['tokens_per_second']:10.0f} tokens/s"
                    f"  MFU {figures['mfu']:6.1%}  peak memory {figures['memory_bytes'] / 2**30:6.2f} GiB",
                    flush=True,
                )
            print(f"{method:5} {'ratio':22} {speeds[0] / speeds[1]:10.2f}", flush=True)


def prepare(folder: Path, given: dict[str, Any]) -> tuple[Path, Path]:
    """A random base model and rows of random tokens."""
    import numpy as np
    import pyarrow as pa
    import torch
    from transformers import LlamaConfig, LlamaModel

    shape = TINY if given["tiny"] else LLAMA
    base, tokens = folder / "base", folder / "tokens"
    tokens.mkdir()
    torch.manual_seed(0)
    LlamaModel(LlamaConfig(**shape, max_position_embeddings=given["length"], pad_token_id=0)).save_pretrained(base)
    (tokens / "targets.json").write_text(json.dumps({"labels": ["even", "odd"]}), "utf8")
    rows = given["batch"] * 8
    ids = np.random.default_rng(0).integers(1, shape["vocab_size"], rows * given["length"], dtype=np.int32)
    for split, count in (("train", rows), ("valid", 0)):
        ends = np.arange(count + 1, dtype=np.int32) * given["length"]
        columns = {"id": pa.array([f"{i}" for i in range(count)], pa.string())}
        columns["input_ids"] = pa.ListArray.from_arrays(pa.array(ends), pa.array(ids[: int(ends[-1])]))
        columns["label"] = pa.array(np.arange(count) % 2, pa.int64())
        table = pa.table(columns)
        with pa.ipc.new_file(tokens / f"{split}.arrow", table.schema) as file:
            file.write_table(table)
    return base, tokens


def ours(base: Path, tokens: Path, out: Path, method: str, given: dict[str, Any]) -> dict[str, float]:
    """Figures of our loop's optimizer steps."""
    from hone.training import hardware, loop, session

    out.mkdir()
    settings = {"epochs": 1000, "batch_size": given["batch"], "device": given["device"], "compile": given["compile"]}
    spec = {"tokens": str(tokens), "out": str(out), "base": str(base), "settings": settings}
    training = session.build(spec | {"objective": ("text-classification", {}), "method": (method, {})})
    for _ in range(WARM_UP):
        loop.step(training)
    start = time.perf_counter()
    for _ in range(given["steps"]):
        loop.step(training)  # reads the loss: the device is done
    seconds = time.perf_counter() - start
    work = training.flops.of(training.train.lengths[: given["batch"]], given["batch"]) * given["steps"]
    return _figures(given, seconds, work, training.peak_flops, hardware.peak_memory(training.device))


def peer(base: Path, tokens: Path, out: Path, method: str, given: dict[str, Any]) -> dict[str, float]:
    """Figures of a plain Trainer's optimizer steps."""
    import numpy as np
    import pyarrow as pa
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    from hone.methods import METHODS
    from hone.objectives.text_classification import TextClassification
    from hone.training import flops, hardware
    from hone.training.tokens import TokenFile

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (WARM_UP, WARM_UP + given["steps"]):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter())

    device = hardware.choose_device(given["device"])
    precision = hardware.choose_precision("auto", device)
    peak = hardware.peak_flops(device, precision)
    model = METHODS[method]().prepare(AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32))
    table = pa.ipc.open_file(pa.memory_map(str(tokens / "train.arrow"))).read_all()
    rows = Dataset.from_dict({"input_ids": table["input_ids"].to_pylist(), "label": table["label"].to_pylist()})
    arguments = TrainingArguments(
        str(out),
        per_device_train_batch_size=given["batch"],
        max_steps=WARM_UP + given["steps"],
        bf16=precision == "bf16",
        use_cpu=device.type == "cpu",
        torch_compile=given["compile"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    counted = flops.measure_flops(TextClassification(), model.to(device), TokenFile(tokens / "train.arrow"), 0, device)
    work = counted.of(np.full(given["batch"], given["length"]), given["batch"]) * given["steps"]
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Clock()]).train()
    return _figures(given, times[1] - times[0], work, peak, hardware.peak_memory(device))


def _figures(given: dict[str, Any], seconds: float, work: float, peak: float, memory: int) -> dict[str, float]:
    tokens = given["steps"] * given["batch"] * given["length"]
    return {"tokens_per_second": tokens / seconds, "mfu": work / seconds / peak, "memory_bytes": float(memory)}


def _alone(work: Any, *arguments: Any) -> Any:
    """Run `work` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


if __name__ == "__main__":
    main()
