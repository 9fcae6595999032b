"""A run with nothing to do, from command to prompt, against `dvc repro` on seven stages that are up to date.

python benchmarks/nothing_to_do.py [CONF]   runs CONF once first, if its results are not there
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPEATS = 7
STAGES = 7


def seconds(command: Sequence[str], folder: Path) -> float:
    """The median wall time of the whole process."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def dvc_pipeline(folder: Path, dvc: str) -> None:
    """A chain of seven stages in `folder`, each done."""
    (folder / "stage0").write_text("rows\n" * 10_000)
    run = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([dvc, "init", "--no-scm", "--quiet"], **run)
    for i in range(1, STAGES + 1):
        names = ["-n", f"s{i}", "-d", f"stage{i - 1}", "-o", f"stage{i}"]
        subprocess.run([dvc, "stage", "add", "--quiet", *names, f"cp stage{i - 1} stage{i}"], **run)
    subprocess.run([dvc, "repro", "--quiet"], **run)


def main(conf: str) -> None:
    """Print both times and the ratio."""
    hone = [str(Path(sys.executable).with_name("hone")), "run", conf]
    dvc = shutil.which("dvc", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if dvc is None:
        sys.exit("dvc, the peer, is not installed: pip install dvc")
    os.environ["DVC_NO_ANALYTICS"] = "1"
    subprocess.run(hone, check=True)
    with tempfile.TemporaryDirectory() as name:
        dvc_pipeline(Path(name), dvc)
        peer = seconds([dvc, "repro"], Path(name))
    ours = seconds(hone, Path.cwd())
    print(f"hone run {ours:.2f} s   dvc repro {peer:.2f} s   ratio ours/peer {ours / peer:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "conf/demo.yaml")
