"""docs/training.md has every method. One more method is one more line: no page and no test has a list of its own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from hone.methods import METHODS
from tests import preloaded
from tests.methods_page import PAGE, SCRIPT, build_tables
from tests.pages import fill_page

ROOT = Path(__file__).parents[3]

ALTERNATE = '''
"""A method that is only in this test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hone.errors import ModelError
from hone.parts.options import option


@dataclass(frozen=True)
class Alternate:
    """Train every `period`-th weight. Others stay frozen."""

    adapter: ClassVar[bool] = False

    period: int = option(2, "Distance of two weights that are trained.", ge=1)

    def prepare(self, model: Any) -> Any:
        if model.config.model_type == "roberta":
            raise ModelError("is not for this test", where="roberta")
        for number, parameter in enumerate(model.parameters()):
            parameter.requires_grad_(number % self.period == 0)
        return model

    def merge(self, model: Any) -> Any:
        return model
'''
# The line in the table, and then the pages and the tests.
ADD = """
import sys
from alternate import Alternate
from hone.methods import METHODS
METHODS.built_in["alternate"] = Alternate
from tests import families, methods_page
from tests.pages import fill_page
page = methods_page.PAGE.read_text("utf8")
tables = methods_page.build_tables(METHODS.built_in)
print(fill_page(page, methods_page.SCRIPT, tables))
lines = [(case.objective, family, families.LINE) for case, family in families.LINES]
print(families.table(dict.fromkeys([(case.objective, *cell) for case, *cell in families.CELLS] + lines, "yes")))
sys.stdout.flush()
import pytest
sys.exit(pytest.main(["-v", "-n0", "-pno:cacheprovider", *sys.argv[1:]]))
"""


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf8")
    assert fill_page(page, SCRIPT, build_tables(METHODS.built_in)) == page, f"run: python {SCRIPT}"


def test_one_more_method_is_on_the_pages_and_breaks_no_test(tmp_path: Path) -> None:
    (tmp_path / "alternate.py").write_text(ALTERNATE, "utf8")
    code = f"import sys\nsys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{ADD}"
    families = ROOT / "tests/unit/families/test_families.py"
    tests = [
        ROOT / "tests/unit/methods/test_methods.py",
        ROOT / "tests/unit/methods/test_adapters.py",
        f"{families}::test_every_run_tries_each_family_with_each_method_and_two_families_with_each_objective",
        *(f"{families}::test_family[text-classification-{family}-alternate]" for family in ("bert", "roberta")),
    ]
    command = [preloaded.python(), "-c", code, "-k", "alternate or every_run", *map(str, tests)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| `alternate` | Train every `period`-th weight | `period` | the model |" in done.stdout
    assert "| family | full | freeze | lora | qlora | ia3 | prompt | prefix | alternate |" in done.stdout
    passed = re.findall(r"::(\w+)\[?\S*\]? PASSED", done.stdout)
    assert sorted(passed) == sorted(
        [
            "test_a_method_needs_no_options_and_describes_those_it_has",
            "test_a_method_that_adds_weights_declares_it",
            "test_every_run_tries_each_family_with_each_method_and_two_families_with_each_objective",
            "test_family",
            "test_family",
        ]
    )
