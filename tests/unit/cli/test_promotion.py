"""What `hone promote` prints of a decision."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
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
        "  class [/late]: 3 of 12 rows",
    ]
    assert printed("")[0] == "demo version 2 against the baselines: there is no champion"


def test_a_gate_that_too_few_rows_leave_open_says_so() -> None:
    note = "beyond it, perhaps by chance: late; sees 0.73 or more in each"
    unclear = Gate("F1 by class", True, "fall ≤ 0.1", 0.368, p=0.6, rows="test", note=note, inconclusive=True)
    lines = printed("1", [GATES[0], unclear], terminal=True)
    assert max(map(len, lines)) <= 80
    assert lines[3].split() == ["F1", "by", "class", "test", "0.368,", "p", "=", "0.60", "fall", "≤", "0.1", "unclear"]
    assert " ".join(line.strip() for line in lines[4:]) == f"F1 by class: {note}"
    assert printed("1", [replace(unclear, passed=False)])[2].endswith("  no")


def test_no_figure_is_broken_at_80_columns() -> None:
    name, note = "accuracy: better than neighbours", "there is no champion yet"
    gates = [Gate(name, True, "p ≤ 0.05", 0.2091, 0.1454, 0.2789, 0.0001, "test", note=note)]
    lines = printed("", gates, terminal=True)
    assert max(map(len, lines)) <= 80
    assert "0.2091 [0.1454, 0.2789], p < 0.001" in lines[2]
    assert lines[-1].rstrip() == "  there is no champion yet"


def test_a_note_of_several_gates_is_printed_once() -> None:
    gates = [Gate(f"accuracy: better than {name}", True, "p ≤ 0.05", 0.1, note="few rows") for name in ("a", "b")]
    assert printed("1", [*gates, GATES[0]])[-1] == "  accuracy: better than a, accuracy: better than b: few rows"
    assert printed("1", gates)[-1] == "  few rows"
