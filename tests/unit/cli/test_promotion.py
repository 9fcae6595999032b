"""What `hone promote` prints of a decision."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace

from rich.console import Console

from hone.promotion.gates import Gate
from hone_app.cli.promotion import print_gates

GATES = [
    Gate("accuracy: better", True, "p ≤ 0.05", 0.05, 0.01, 0.09, 0.01, "test"),
    Gate("class [/late]", False, "≥ -0.1", -0.2, rows="golden set", note="3 of 12 rows"),
]


def printed(champion: str, gates: Sequence[Gate] = GATES, terminal: bool = False) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=80, markup=False, force_terminal=terminal, color_system=None)
    print_gates(console, SimpleNamespace(model="demo", version="2", champion=champion, gates=gates))
    return output.getvalue().splitlines()


def test_each_gate_has_a_line_under_the_versions_names() -> None:
    assert printed("1") == [
        "demo version 2 against the champion, version 1",
        "gate              rows        measured                      required  passed",
        "accuracy: better  test        0.05 [0.01, 0.09], p = 0.010  p ≤ 0.05  yes",
        "class [/late]     golden set  −0.2                          ≥ -0.1    no",
        "(3 of 12 rows)",
    ]
    assert printed("")[0] == "demo version 2 against the baselines: there is no champion"


def test_no_figure_is_broken_at_80_columns() -> None:
    name, note = "accuracy: better than neighbours", "there is no champion yet"
    gates = [Gate(name, True, "p ≤ 0.05", 0.2091, 0.1454, 0.2789, 0.0001, "test", note=note)]
    lines = printed("", gates, terminal=True)
    assert max(map(len, lines)) <= 80
    assert "0.2091 [0.1454, 0.2789], p < 0.001" in lines[2]
