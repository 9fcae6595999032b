"""The process that runs lm-evaluation-harness: its command line, ended with the process that started it.

python -P -m hone.evaluation.benchmarks.child run --model hf ...    the arguments of `lm_eval`
"""

from __future__ import annotations

import runpy

from hone.training.wire import end_with_parent


def main() -> None:
    """Run `lm_eval` with this process's arguments; standard input is a pipe that the parent holds open."""
    end_with_parent()
    runpy.run_module("lm_eval", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
