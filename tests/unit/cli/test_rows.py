"""`hone rows`: the account of a configuration's rows, without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone_app.cli.main import main


def test_the_account_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "home"))
    lines = ["text,label,split"]
    lines += [f"text number {i} {i * 7919},{'ab'[i % 2]},{'test' if i % 5 == 0 else 'train'}" for i in range(50)]
    lines += ["text number 1 7919,b,train", "text number 5 39595,b,train", "x,a,test", ",a,train"]
    lines += ["a row without a label,,test", "a row,with too many fields,a,test"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    config = tmp_path / "moods.yaml"
    config.write_text(
        "name: moods\nobjective: {kind: text-classification}\nmodel: {base: none}\n"
        f"ingest: {{source: {{kind: files, paths: [{tmp_path}/rows.csv]}}, max_refused: 0.1}}\n"
        "curation: {steps: [{kind: filters, min_chars: 5}, {kind: duplicates}]}\n"
    )
    assert main(["rows", str(config)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "moods: 56 rows read, 2 refused (label is empty 1, 4 fields where there are 3 columns 1)"
    assert "  test: refused 1" in printed
    assert "  filters: 54 -> 53 (empty text 1)" in printed
    assert "  filters: in validation and test rows, which stay: shorter than 5 characters 1" in printed
    assert "  duplicates: 53 -> 52 (duplicate 1)" in printed
    assert any(line.startswith("  decontaminate: 52 -> ") and "also in test 1" in line for line in printed)
    assert printed[-1].endswith("test 11 of 12 given")


def test_what_a_step_is_to_be_checked_for_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HONE_HOME", str(tmp_path / "home"))
    lines = ["text,label", *[f"the same text,{'ab'[i % 2]}" for i in range(40)]]
    lines += [f"text number {i} {i * 7919},{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    config = tmp_path / "moods.yaml"
    config.write_text(
        "name: moods\nobjective: {kind: text-classification}\nmodel: {base: none}\n"
        f"ingest: {{source: {{kind: files, paths: [{tmp_path}/rows.csv]}}}}\n"
        "curation: {steps: [{kind: duplicates}]}\n"
    )
    assert main(["rows", str(config)]) == 0
    printed = capsys.readouterr().out.splitlines()
    position = printed.index("  duplicates: 100 -> 62 (duplicate 38)")
    assert printed[position + 1] == "  duplicates: the largest cluster has 20 rows"
    assert printed[position + 2].startswith(
        "  duplicates: duplicates drops 38 of 100 rows (38%; curation.max_dropped is"
    )
    assert printed[-2] == "  split: the largest group of similar rows has 2 of 62 rows"
