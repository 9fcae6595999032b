"""Errors show the names of environment variables, not their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hone.errors import HoneError
from hone.models.locate import locate_base_model
from hone.objectives.text_classification import TextClassification
from hone.parts.variables import hide_values
from hone.promotion.rows import load_golden_set
from hone.sources.files import Files
from hone.sources.hub import Hub
from hone.sources.sql import Sql
from hone.store.digests import file_digest

FAILING: dict[str, Callable[[], object]] = {
    "files": lambda: Files(paths=["${GEHEIM}/none.csv"]).fingerprint(file_digest),
    "a file that is found": lambda: list(Files(paths=["${FOLDER}/geheim-value/rows.odd"]).rows()),
    "a URL": lambda: Files(paths=["nosuchprotocol://${GEHEIM}/none.csv"]).fingerprint(file_digest),
    "a directory of the hub": lambda: Hub(dataset="${GEHEIM}/none/of/these").fingerprint(file_digest),
    "SQLite": lambda: Sql(url="sqlite:///${GEHEIM}.sqlite", query="select 1").fingerprint(file_digest),
    "a base model": lambda: locate_base_model("package:${GEHEIM}/model"),
    "a base model's directory": lambda: locate_base_model("${FOLDER}"),
    "a golden set": lambda: load_golden_set("${GEHEIM}/golden.csv", TextClassification()),
}


@pytest.mark.parametrize("case", FAILING)
def test_no_error_shows_the_value_of_a_variable(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "geheim-value"
    folder.mkdir()
    (folder / "rows.odd").write_text("text,label\n")
    monkeypatch.setenv("GEHEIM", "geheim-value")
    monkeypatch.setenv("FOLDER", str(folder.parent if case == "a file that is found" else folder))
    with pytest.raises(HoneError, match=r"\$\{(GEHEIM|FOLDER)\}") as fault:
        FAILING[case]()
    assert "geheim-value" not in str(fault.value).replace("${FOLDER}/geheim-value", "")


def test_short_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLIT", "a")
    assert hide_values("no such file data/a.csv", "data/${SPLIT}.csv") == "no such file data/a.csv"
