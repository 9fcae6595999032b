"""A judge of answers: both orders, ties, agreement with people, and the whole line of a tiny chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.config.file import parse_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import ConfigError, DataError
from hone.evaluation.report.report_judge import describe_judge
from hone.evaluation.rivals.pairwise import Judged, Pair, measure_agreement, read_verdict, settle, summarize
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.registry.run_record import list_test_metrics
from hone.store import layout
from hone.store.artifact import Artifact
from tests.in_process import begin
from tests.tiny_bases import tiny_talker
from tests.unit.evaluation.rivals.scripted_server import Reply, Request, ScriptedServer, chat, serve_script

TEMPLATE = (
    "{% for m in messages %}{{ m.role + ' : ' + m.content + ' ' + eos_token + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant :' }}{% endif %}"
)
COLOURS = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        *(("A", "a"), ("b.", "b"), ("tie", "tie"), (" **B**", "b"), ("Verdict: A", "a"), ("Answer B is better", "b")),
        *(("'TIE'", "tie"), ("", ""), ("Both are good", ""), ("An answer", ""), ("apple", ""), ("(A)", "a")),
    ],
)
def test_a_reply_is_read(text: str, verdict: str) -> None:
    assert read_verdict(text) == verdict


def test_a_side_wins_only_in_both_orders() -> None:
    assert settle("a", "a") == "a" and settle("b", "b") == "b"
    assert {settle("a", "b"), settle("a", "tie"), settle("tie", "tie"), settle("", "a"), settle("", "")} == {"tie"}


def test_figures_of_a_judge() -> None:
    verdicts = [("a", "a"), ("a", "a"), ("b", "b"), ("a", "b"), ("tie", "tie"), ("", "a"), None]
    pairs = [Pair(str(n), "q", "x", "y") for n in range(len(verdicts))]
    result = summarize(pairs, Judged(verdicts), 0.95, 1)
    assert (result["rows"], result["of"], result["wins"], result["ties"], result["losses"]) == (6, 7, 2, 3, 1)
    assert result["score"]["value"] == pytest.approx((2 + 1.5) / 6)
    assert result["score"]["low"] < 3.5 / 6 < result["score"]["high"]
    assert result["consistent"] == pytest.approx(4 / 6) and result["invalid"] == 1
    # First came: a in the first order, b in the second. Of 9 verdicts for an answer those of a, a, b, (a, b) are 5.
    assert result["first"] == pytest.approx(5 / 9)


def test_agreement_is_cohens_kappa() -> None:
    from sklearn.metrics import cohen_kappa_score

    results = ["a", "a", "b", "tie", "b", "a"]
    people = ["a", "b", "b", "tie", "tie", "A"]
    measured = measure_agreement(people, Judged([(value, value) for value in results]))
    assert (measured["rows"], measured["agreed"]) == (6, 4)
    assert measured["kappa"] == pytest.approx(cohen_kappa_score([name.lower() for name in people], results))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return begin(tmp_path / "hone", monkeypatch).home


def make_config(folder: Path, server: ScriptedServer, **judge: Any) -> RunConfig:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {colour} {number}"},
                {"role": "assistant", "content": f"{colour} {number}"},
            ]
        }
        for colour in COLOURS
        for number in ("one", "two", "three", "one two", "two three", "one three", "three one", "three two", "two one")
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return parse_config(
        {
            "name": "talk",
            "objective": {"kind": "chat", "generate": 8, "max_new_tokens": 4},
            "ingest": {"source": {"kind": "files", "paths": [str(path)]}},
            "curation": {"steps": [], "split": {"valid": 0.2, "test": 0.4, "near_duplicate": 1.0}},
            "validation": {"min_rows": 2, "min_rows_held_out": 1},
            "model": {"base": str(tiny_talker(folder / "base", template=TEMPLATE))},
            "tokenization": {"max_length": 48},
            "training": {"epochs": 1},
            "evaluation": {
                "resamples": 100,
                "slices": [],
                "judge": {"api": "openai", "url": server.url, "model": "referee", "against": ["untuned", "reference"]}
                | judge,
            },
        }
    )


def run_line(config: RunConfig, home: Home) -> dict[str, Artifact]:
    made: dict[str, Artifact] = {}
    for stage in list_stages(config)[:-1]:
        made[stage] = run_stage(stage, Job(config, made, home))
    return made


def longer(request: Request) -> Reply:
    """A judge that prefers the longer answer, whatever the order."""
    _, _, answers = request.prompt.partition("\nAnswer A:\n")
    first, _, second = answers.removesuffix("\n\nWrite A, B or tie, and nothing else.").partition("\n\nAnswer B:\n")
    return chat("A" if len(first) > len(second) else "B" if len(second) > len(first) else "tie", usage=(50, 1))


def test_the_models_answers_are_judged_against_both_opponents(tmp_path: Path, home: Home) -> None:
    labelled = tmp_path / "pairs.jsonl"
    pairs = [("long answer", "no", "a"), ("no", "long answer", "b"), ("no", "long answer", "a"), ("x", "y", "tie")]
    labelled.write_text(
        "".join(
            json.dumps({"conversation": f"user: {n}", "answer_a": a, "answer_b": b, "winner": winner}) + "\n"
            for n, (a, b, winner) in enumerate(pairs)
        )
    )
    with serve_script(answer=longer) as server:
        config = make_config(tmp_path, server, labelled=str(labelled), price={"input": 1, "output": 1})
        made = run_line(config, home)
        asked = len(server.requests)
        assert run_line(config, home)["judge"] == made["judge"] and len(server.requests) == asked
    result = made["judge"].read_json(layout.JUDGE)
    predictions = pq.read_table(made["evaluate"].path / layout.PREDICTIONS).to_pylist()
    rows = [row for row in predictions if row["untuned"] is not None]
    assert 0 < len(rows) <= 8 < len(predictions)
    for opponent in ("untuned", "reference"):
        lengths = [(len(row["prediction"].strip()), len(row[opponent].strip())) for row in rows]
        counts = [sum(a > b for a, b in lengths), sum(a == b for a, b in lengths), sum(a < b for a, b in lengths)]
        entry = result["opponents"][opponent]
        assert [entry[name] for name in ("wins", "ties", "losses")] == counts
        assert entry["consistent"] == 1
    assert result["agreement"]["rows"] == 4 and result["agreement"]["agreed"] == 3
    assert result["tokens"]["input"] == 50 * result["verdicts"] and result["cost"] > 0
    assert "won" in STAGES["judge"].describe(made["judge"])
    sentences = describe_judge(result)
    assert sentences[0].startswith("referee preferred the model's answers to the base model's answers in ")
    assert "people agree with it on 75.0% of 4 labelled pairs" in sentences[-1]
    metrics = made["evaluate"].read_json(layout.METRICS) | {"judge": result}
    score = result["opponents"]["untuned"]["score"]["value"]
    assert list_test_metrics(metrics)["judge_untuned/score"] == score


def test_what_cannot_be_judged_is_refused(tmp_path: Path, home: Home) -> None:
    with serve_script() as server:
        config = make_config(tmp_path, server).model_dump(mode="json")
        with pytest.raises(ConfigError, match=r"evaluation\.judge: compares generated answers"):
            parse_config(config | {"objective": {"kind": "chat", "generate": 0}})
        with pytest.raises(ConfigError, match="name each opponent once"):
            make_config(tmp_path, server, against=["untuned", "untuned"])
        with pytest.raises(ConfigError, match="set send_rows: true"):
            make_config(tmp_path, server, url="https://far.example/v1")
        labelled = tmp_path / "pairs.jsonl"
        labelled.write_text('{"conversation": "x", "answer_a": "y", "answer_b": "z", "winner": "both"}\n')
        with pytest.raises(DataError, match="labelled, row 0: is no pair with"):
            run_line(make_config(tmp_path, server, labelled=str(labelled)), home)
    assert not server.requests
