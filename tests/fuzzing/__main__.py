"""The command: `python -m tests.fuzzing --cases 20000 --seed 1`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzzing import Result, run_case, run_cases
from tests.fuzzing.targets import CHECKS


def main() -> int:
    """Run the cases that the options describe, and print how they ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description="Damage inputs at random.")
    parser.add_argument("--cases", type=int, default=2_000, help="over all targets (default: 2000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--only", default="", metavar="TARGET:SEED:NUMBER", help="this case alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hone-fuzzing-") as place:
        if options.only:
            target, seed, number = options.only.split(":")
            print(run_case(target, CHECKS[target], int(seed), int(number), Path(place) / number))  # noqa: T201
            return 0
        each = options.cases // len(options.targets)
        results = {name: _run(name, options.seed, each, Path(place)) for name in options.targets}
    return int(any(result.wrong for result in results.values()))


def _run(target: str, seed: int, cases: int, place: Path) -> Result:
    start = time.monotonic()
    result = run_cases(target, CHECKS[target], seed, range(cases), place / target)
    outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in result.outcomes.most_common())
    print(f"{target:<15} {cases:>7,} cases {time.monotonic() - start:6.1f} s  {outcomes}", flush=True)  # noqa: T201
    for name, text in result.wrong.items():
        print(f"\n{name}\n{text}", flush=True)  # noqa: T201
    return result


if __name__ == "__main__":
    sys.exit(main())
