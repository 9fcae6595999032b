"""Damages well-formed inputs at random and looks at what Hone makes of each.

    python -m tests.fuzzing --cases 20000 --seed 1     prints a table; the exit status is 1 if a case was wrong
    python -m tests.fuzzing --only readers:1:17        one case again, with its traceback

A damaged input has to be read right, refused row by row, or end in one of Hone's own errors with what to do. Each kind
of input is a target; the numbers of a case (target, seed, number) decide all of its random choices.
"""

from __future__ import annotations

import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hone.errors import HoneError

LONGEST_ERROR = 6_000  # characters; a person has to read it

# What a target does with one case: `check(draw, place)` returns what came of it, in a word or two, or raises.
Check = Callable[[random.Random, Path], str]


@dataclass
class Result:
    """How the cases of a target ended, and the tracebacks of the wrong ones by their names."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)


def run_case(target: str, check: Check, seed: int, number: int, place: Path) -> str:
    """What came of one case. Raises AssertionError if an error of Hone's does not help, and what else was raised."""
    place.mkdir(parents=True)
    try:
        return check(random.Random(f"{target}:{seed}:{number}"), place)
    except HoneError as fault:
        message = str(fault)
        assert fault.fix, f"an error without advice: {message}"
        assert len(message) <= LONGEST_ERROR, f"an error of {len(message):,} characters: {message[:500]}"
        return f"an error ({type(fault).__name__})"


def run_cases(target: str, check: Check, seed: int, numbers: range, place: Path) -> Result:
    """Run the cases with these numbers, each in a folder of its own below `place`."""
    result = Result()
    for number in numbers:
        try:
            outcome = run_case(target, check, seed, number, place / str(number))
        except Exception:  # noqa: BLE001 - whatever it is, the next case is run
            result.wrong[f"{target}:{seed}:{number}"] = traceback.format_exc()
            outcome = "wrong"
        result.outcomes[outcome] += 1
    return result
