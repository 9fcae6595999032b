"""How much of a whole run is not the stages' own work: imports, servers, orchestration.

    python benchmarks/overhead.py [CONF]        a fresh data folder, one run; under 15% is the aim

The peer is the same work without Prefect, servers and a live view: the seconds that the stages took, each by its
own manifest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(conf: str) -> None:
    """Run once in a fresh data folder and print where the time went."""
    with tempfile.TemporaryDirectory() as home:
        began = time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).with_name("hone")), "run", conf], env=os.environ | {"HONE_HOME": home}, check=True
        )
        whole = time.perf_counter() - began
        manifests = [json.loads(file.read_text()) for file in Path(home).glob("store/*/*/manifest.json")]
    stages = {manifest["stage"]: manifest["seconds"] for manifest in manifests}
    inside = sum(stages.values())
    print("  ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items()))
    print(f"whole run {whole:.1f} s, stages {inside:.1f} s, outside them {whole - inside:.1f} s")
    print(f"ratio outside/whole {(whole - inside) / whole:.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "conf/demo.yaml")
