"""The table of row accounts in docs/reading.md: what becomes of the rows of real data sets.

    HONE_SHARED=FOLDER python tests/row_accounts.py      reads and curates all of them and writes the table

tests/unit/cli/test_row_accounts.py compares the page with it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
from hone.config.file import load_config, parse_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.splits import SPLITS, TEST, VALID
from hone_app.cli.rows import make_account
from tests.derived_rows import list_ratings, list_slot_kinds, pair_answers, read_commands
from tests.pages import fill_page
from tests.reading_page import PAGE

ROOT = Path(__file__).parents[1]
SCRIPT = "tests/row_accounts.py"
UNKNOWN = ("–", "–")  # data sets that version 0.1.0 was not measured on

# What the table calls the drops of a step, or of a filter's reason; other reasons keep their name.
DROPS = {
    "duplicates": "duplicates",
    "label-conflicts": "conflicts",
    "decontaminate": "contamination",
    "balance": "class limit",
    "shorter": "length",
    "longer": "length",
    "mostly symbols": "symbols",
}


@dataclass(frozen=True)
class Account:
    """A line of the table: a data set and the configuration that reads it.

    `conf` is the name of a shipped configuration, or the sections of one without `curation`. `variables` are the
    environment variables that its paths use, each a path in the folder of data sets, or in the one where `derive`
    writes a file of rows made from them. `before` has the cells of version 0.1.0: sizes of the splits, and drops.
    """

    name: str
    conf: str | Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=lambda: {"DATA": ""})
    overrides: Sequence[str] = ()
    before: tuple[str, str] = UNKNOWN
    derive: Callable[[Path], tuple[str, str]] | None = None


def _without_curation(kind: str, path: str, options: Mapping[str, Any] | None = None, **ingest: Any) -> dict[str, Any]:
    """A configuration for the data of ${DATA}/path with the default steps."""
    source = {"kind": "files", "paths": [f"${{DATA}}/{path}"], **(options or {})}
    return {
        "name": "rows",
        "objective": {"kind": kind},
        "ingest": {"source": source, **ingest},
        "model": {"base": "not read"},
    }


def _derive_pairs(datasets: Path) -> tuple[str, str]:
    rows = json.loads((datasets / "rasbt_instruct" / "instruction-data.json").read_text("utf8"))
    return "pairs.jsonl", "\n".join(map(json.dumps, pair_answers(rows)))


def _derive_slot_kinds(datasets: Path) -> tuple[str, str]:
    return "rows.jsonl", "\n".join(map(json.dumps, list_slot_kinds(read_commands(datasets))))


def _derive_ratings(datasets: Path) -> tuple[str, str]:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("text", "score"), *list_ratings(read_commands(datasets))])
    return "rows.csv", file.getvalue()


ACCOUNTS: Sequence[Account] = (
    Account(
        "banking77, given test split of 3,080",
        "banking77",
        {"BANKING77": "banking77"},
        before=("8,840, 982, 3,067", "repeated phrases 1, duplicates 118, contamination 75"),
    ),
    Account(
        "ncbi-disease, given splits of 5,424, 923 and 940",
        "ncbi-disease",
        {"NCBI_DISEASE": "ncbi_disease"},
        before=("5,391, 922, 937", "duplicates 27, contamination 10"),
    ),
    Account(
        "snips, given splits of 13,084, 700 and 700",
        "snips-slots",
        {"SNIPS": "snips"},
        before=("12,813, 694, 699", "duplicates 231, contamination 47"),
    ),
    Account("snips, the four most frequent kinds of slots", "multi-label", derive=_derive_slot_kinds),
    Account("snips, points that books are given", "regression", derive=_derive_ratings),
    Account(
        "scitldr, given splits of 1,992, 619 and 618",
        "seq2seq",
        {"SCITLDR": "scitldr_a"},
        before=("1,988, 619, 618", "duplicates 2, contamination 2"),
    ),
    Account(
        "tweet_eval emotion, given splits of 3,257, 374 and 1,421",
        _without_curation(
            "text-classification",
            "tweet_eval_emotion",
            {
                "column_files": {"text": "*_text.txt", "label": "*_labels.txt"},
                "splits": {"train": "train_*", "valid": "val_*", "test": "test_*"},
            },
        ),
        before=("3,056, 374, 1,418", "repeated phrases 11, symbols 1, duplicates 191, contamination 1"),
    ),
    Account(
        "sms_spam",
        _without_curation("text-classification", "sms_spam/sms.tsv", {"column_names": ["label", "text"]}),
        before=("4,053, 506, 506", "symbols 13, repeated phrases 2, duplicates 494"),
    ),
    Account(
        "presidio_pii",
        _without_curation(
            "token-classification",
            "presidio_pii/generated_small.json",
            columns={"text": "full_text"},
            max_refused=0.01,
        ),
    ),
    Account(
        "xquad, where three questions are asked twice",
        "xquad",
        {"XQUAD": "xquad"},
        before=("831, 117, 237", "duplicates 5 (its configuration turned near-duplicates off)"),
    ),
    Account(
        "alpaca_en_demo",
        _without_curation("chat", "llamafactory_demo/alpaca_en_demo.json"),
        before=("738, 92, 92", "repeated phrases 62, repeated lines 1, duplicates 14"),
    ),
    Account(
        "glaive_toolcall_en_demo",
        _without_curation("chat", "llamafactory_demo/glaive_toolcall_en_demo.json"),
        before=("155, 19, 19", "repeated phrases 63, repeated lines 10, duplicates 34"),
    ),
    Account("rasbt_instruct", "chat", {"CHAT": "rasbt_instruct/instruction-data.json"}),
    Account("self_instruct, both files", "chat", {"CHAT": "self_instruct/*.jsonl"}),
    Account("rasbt_instruct", "preference", {"PREFERENCES": "rasbt_instruct/instruction-data-with-preference.json"}),
    Account(
        "dpo_en_demo",
        "preference",
        {"PREFERENCES": "llamafactory_demo/dpo_en_demo.json"},
        before=("213, 27, 27", "repeated phrases 21, repeated lines 8, duplicates 4"),
    ),
    Account(
        "kto_en_demo",
        "preference",
        {"PREFERENCES": "llamafactory_demo/kto_en_demo.json"},
        overrides=["objective.loss_type=kto"],
        before=("205, 26, 26", "repeated phrases 32, repeated lines 11"),
    ),
    Account("rasbt_instruct, instructions with answers", "embedding", {"PAIRS": "pairs.jsonl"}, derive=_derive_pairs),
    Account(
        "plagiarism_near_dup, five planted pairs",
        _without_curation("causal-lm", "plagiarism_near_dup/articles_100.train", {"format": "labelled"}),
    ),
    Account(
        "tinyshakespeare",
        "causal-lm",
        {"TINYSHAKESPEARE": "tinyshakespeare"},
        before=("5,908, 348, 695", "too short 260, repeated phrases 1, duplicates 10"),
    ),
    Account(
        "docstrings of installed libraries",
        "demo",
        before=(
            "882, 108, 330",
            "length 3,071, repetition and symbols 518, duplicates 13,548, conflicts 285, class limit 30,428",
        ),
    ),
    Account(
        "the same",
        "masked-lm",
        before=("24,444, 526, 1,314", "length 11,678, repetition and symbols 490, duplicates 10,718"),
    ),
    Account(
        "the same",
        "span-corruption",
        before=("13,345, 287, 717", "length 28,208, repetition and symbols 382, duplicates 6,231"),
    ),
)

HEADER = (
    "| rows | configuration | read | before: train, valid, test | before: dropped "
    "| now: train, valid, test | now: dropped |\n| --- | --- | ---: | --- | --- | --- | --- |"
)


def build_line(account: Account, datasets: Path, folder: Path) -> str:
    """The account's line of the table; `folder` is where the artifacts and derived rows go."""
    root = datasets
    if account.derive:
        root = folder / "derived" / account.conf
        root.mkdir(parents=True, exist_ok=True)
        name, content = account.derive(datasets)
        (root / name).write_text(content, "utf8", newline="")
    config, described = _load_configuration(account)
    variables = {name: str(root / path) for name, path in account.variables.items()}
    with patch.dict(os.environ, variables):
        ingest, curate = make_account(config, Home(folder / "home"))
    sizes = ", ".join(f"{curate['splits'][split]:,}" for split in SPLITS)
    before_sizes, before_drops = account.before
    cells = (account.name, described, f"{ingest['read']:,}", before_sizes, before_drops, sizes)
    return f"| {' | '.join(cells)} | {_describe_drops(ingest, curate)} |"


def build_table(datasets: Path) -> str:
    """The whole table, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        return "\n".join([HEADER, *(build_line(account, datasets, Path(folder)) for account in ACCOUNTS)])


def _load_configuration(account: Account) -> tuple[RunConfig, str]:
    """The configuration, and how the table names it."""
    if not isinstance(account.conf, str):
        return parse_config(account.conf), f"default steps, {account.conf['objective']['kind']}"
    config = load_config(ROOT / "conf" / f"{account.conf}.yaml", account.overrides)
    return config, ", ".join(f"`{text}`" for text in (account.conf, *account.overrides))


def _describe_drops(ingest: Mapping[str, Any], curate: Mapping[str, Any]) -> str:
    """The numbers of rows that were refused, left out and dropped, and of those that were flagged and stay."""
    drops = Counter({"refused": ingest["refused"], "left out": sum(ingest.get("skipped", {}).values())})
    for step in curate["funnel"]:
        for reason, count in step["dropped"].items():
            drops[DROPS.get(step["step"]) or DROPS.get(reason.partition(" than ")[0], reason)] += count
    flags = {split: curate["flawed"].get(split, 0) for split in (VALID, TEST)}
    return (_list_counts(drops) or "none") + (f"; flagged: {_list_counts(flags)}" if any(flags.values()) else "")


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


if __name__ == "__main__":
    from tests.conftest import SHARED

    table = build_table(SHARED / "datasets")
    PAGE.write_text(fill_page(PAGE.read_text("utf8"), SCRIPT, {"accounts": table}), "utf8")
