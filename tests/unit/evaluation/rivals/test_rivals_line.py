"""Rivals in a run of a tiny classifier: what is asked, what is kept, and what the evaluation says of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hone.config.file import parse_config
from hone.config.sections import RunConfig
from hone.environment import Home
from hone.errors import ConfigError, HoneError
from hone.evaluation.report.report_rivals import describe_rivals
from hone.pipeline.plan import plan_run
from hone.pipeline.run import run_stage
from hone.pipeline.stage import Job
from hone.pipeline.stages import STAGES, list_stages
from hone.splits import TEST
from hone.store import layout
from hone.store.artifact import Artifact
from tests.in_process import begin
from tests.polling import until
from tests.small_line import topic_base, topic_rows
from tests.unit.evaluation.rivals.scripted_server import Reply, Request, ScriptedServer, chat, serve_script

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("rivals")
    return topic_base(root / "base", positions=64), topic_rows(root / "rows.csv", 240, label="label")


def make_config(places: tuple[Path, Path], *rivals: dict[str, Any], **evaluation: Any) -> RunConfig:
    base, rows = places
    return parse_config(
        {
            "name": "topics",
            "ingest": {"source": {"kind": "files", "paths": [str(rows)]}},
            "curation": {"steps": [], "split": {"valid": 0.2, "test": 0.3}},
            "model": {"base": str(base)},
            "tokenization": {"max_length": 32},
            "training": {"epochs": 1},
            "evaluation": {"resamples": 100, "slices": [], "rivals": list(rivals)} | evaluation,
        }
    )


def api(server: ScriptedServer, **fields: Any) -> dict[str, Any]:
    return {"name": "api", "api": "openai", "url": server.url, "model": "small", "shots": 2} | fields


def run_line(config: RunConfig, home: Home) -> dict[str, Artifact]:
    made: dict[str, Artifact] = {}
    for stage in list_stages(config)[:-1]:  # all but register
        made[stage] = run_stage(stage, Job(config, made, home))
    return made


def labels_by_text(made: dict[str, Artifact]) -> dict[str, str]:
    rows = pq.read_table(made["validate"].path / layout.rows_file(TEST))
    return dict(zip(rows["text"].to_pylist(), rows["label"].to_pylist(), strict=True))


def question(request: Request) -> str:
    """The question at the end of the default prompt."""
    return request.prompt.rpartition("\nInput: ")[2].removesuffix("\nOutput:")


@dataclass
class Teacher:
    """Answers with the rows' own labels but for every fourth question, which gets words that are no label."""

    labels: dict[str, str]

    def __call__(self, request: Request) -> Reply:
        return chat(self.answer(question(request)), usage=(100, 10))

    def answer(self, text: str) -> str:
        return "I cannot tell" if sorted(self.labels).index(text) % 4 == 0 else self.labels[text]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return begin(tmp_path / "hone", monkeypatch).home


@contextmanager
def teaching(places: tuple[Path, Path], home: Home) -> Iterator[tuple[ScriptedServer, Teacher]]:
    """A server that knows the labels of the test rows."""
    made = run_line(make_config(places), home)
    teacher = Teacher(labels_by_text(made))
    with serve_script(answer=teacher) as server:
        yield server, teacher


def test_a_rival_is_compared_on_the_rows_that_it_answered(places: tuple[Path, Path], home: Home) -> None:
    with teaching(places, home) as (server, teacher):
        prices = {"price": {"input": 2.0, "output": 10.0}}
        made = run_line(make_config(places, api(server, **prices), hour_price=3.6), home)
    rows = len(teacher.labels)
    assert len(server.requests) == rows == made["rivals"].rows
    metrics = made["evaluate"].read_json(layout.METRICS)
    [rival] = metrics["rivals"]
    wrong = -(-rows // 4)
    assert rival["theirs"]["accuracy"]["value"] == pytest.approx(1 - wrong / rows)
    assert (rival["invalid"], rival["rows"], rival["refused"]) == (wrong, rows, 0)
    lead = metrics["systems"]["model"]["accuracy"]["value"] - rival["theirs"]["accuracy"]["value"]
    assert rival["ours"]["accuracy"]["value"] == metrics["systems"]["model"]["accuracy"]["value"]
    assert rival["comparison"]["difference"] == pytest.approx(lead)
    assert rival["tokens"] == {"input": 100 * rows, "output": 10 * rows}
    assert rival["cost"]["per_1000"] == pytest.approx(0.3)
    seconds = made["train"].facts()["seconds"]
    request = made["evaluate"].read_json(layout.SPEED)["latency_ms"]["p50"] / 1000
    assert rival["break_even"] == pytest.approx(seconds * 0.001 / (0.0003 - request * 0.001), abs=1)
    [sentence] = describe_rivals(metrics)
    assert sentence.startswith("api (2 random examples): ") and f"{wrong} answers without a readable form" in sentence
    # The examples are training rows with their labels, and the task names every label.
    prompt = server.requests[0].prompt
    assert prompt.count("\nInput: ") == 3 and all(label in prompt for label in set(teacher.labels.values()))


def test_what_was_answered_once_is_not_asked_again(places: tuple[Path, Path], home: Home) -> None:
    with teaching(places, home) as (server, teacher):
        first = run_line(make_config(places, api(server, limit=20)), home)
        assert len(server.requests) == 20 < len(teacher.labels)
        # The same configuration, and one that evaluates otherwise: hits.
        assert run_line(make_config(places, api(server, limit=20), worst=3), home)["rivals"] == first["rivals"]
        # More rows, another price: the new rows alone.
        more = run_line(make_config(places, api(server, limit=30, price={"input": 1, "output": 1})), home)
        assert len(server.requests) == 30
        assert more["rivals"].facts()["rivals"]["api"] == {"answered": 30, "from_book": 20, "stopped": "", "notes": []}
        assert "api 30 rows (20 answered before)" in STAGES["rivals"].describe(more["rivals"])
        # Another name, another stage's key, the same questions.
        run_line(make_config(places, api(server, limit=30, name="renamed")), home)
        assert len(server.requests) == 30
        # Another prompt is another question.
        run_line(make_config(places, api(server, limit=30, shots=0)), home)
        assert len(server.requests) == 60
    [rival] = more["evaluate"].read_json(layout.METRICS)["rivals"]
    assert rival["rows"] == 30


def test_a_maximum_cost_is_not_exceeded(places: tuple[Path, Path], home: Home) -> None:
    limited = {"price": {"input": 0, "output": 1_000_000}, "max_cost": 100.0, "max_tokens": 20, "parallel": 1}
    with teaching(places, home) as (server, _):
        made = run_line(make_config(places, api(server, **limited)), home)
        # 10 tokens an answer, of which 20 are reserved: the tenth answer would be possible only below 80.
        assert len(server.requests) == 9
        assert STAGES["rivals"].list_warnings(made["rivals"]) == ["api: stopped at its maximum cost, after 9 rows"]
        run_line(make_config(places, api(server, **limited), worst=1), home)
        assert len(server.requests) == 9
    [rival] = made["evaluate"].read_json(layout.METRICS)["rivals"]
    assert rival["cost"]["total"] == pytest.approx(90) and rival["stopped"] == "budget"


def test_a_local_model_chooses_among_the_labels(places: tuple[Path, Path], home: Home, tmp_path: Path) -> None:
    decoder = make_decoder(tmp_path / "decoder", places[0])
    local = {"name": "local", "model": str(decoder), "shots": 50, "choose": "bm25", "limit": 12}
    made = run_line(make_config(places, local), home)
    answers = pq.read_table(made["rivals"].path / layout.ANSWERS)
    assert set(answers["answer"].to_pylist()) <= set(labels_by_text(made).values())
    # 50 examples do not fit 256 positions: fewer are shown, and that is said.
    [rival] = made["evaluate"].read_json(layout.METRICS)["rivals"]
    assert rival["left_out"] == 12 and max(answers["shots"].to_pylist()) < 50
    assert "examples left out of 12 prompts" in describe_rivals(made["evaluate"].read_json(layout.METRICS))[0]


def make_decoder(folder: Path, tokenizer: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=256, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_an_encoder_is_no_rival(places: tuple[Path, Path], home: Home) -> None:
    from hone.errors import ModelError

    with pytest.raises(ModelError, match="Name a local decoder"):
        run_line(make_config(places, {"name": "base", "limit": 2}), home)


def test_a_template_of_ones_own_is_read_and_is_part_of_the_key(
    places: tuple[Path, Path], home: Home, tmp_path: Path
) -> None:
    template = tmp_path / "prompt.jinja"
    template.write_text("Choose.\nInput: {{ question }}\nOutput:")
    with teaching(places, home) as (server, _):
        config = make_config(places, api(server, template=str(template), limit=5))
        run_line(config, home)
        assert server.requests[0].prompt.startswith("Choose.\nInput: ")
        template.write_text("Choose one.\nInput: {{ question }}\nOutput:")
        plans = {plan.stage: plan for plan in plan_run(config, home)}
        assert plans["rivals"].reasons == ("input template of api changed",)
        assert plans["evaluate"].reasons == ("waits for rivals",)
    template.write_text("Choose.")
    with pytest.raises(ConfigError, match="leaves the question out"):
        run_line(config, home)
    template.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        run_line(config, home)


def test_an_error_names_the_rival_and_its_field(places: tuple[Path, Path], home: Home) -> None:
    with pytest.raises(HoneError, match=r"evaluation\.rivals local, model: .*/nope") as fault:
        run_line(make_config(places, {"name": "local", "model": "/nope"}), home)
    assert "Correct the rival's model" in str(fault.value) and "model.base" not in fault.value.fix


RUN = """
import json, sys
from pathlib import Path
from hone.config.file import parse_config
from hone.environment import Home
from tests.unit.evaluation.rivals.test_rivals_line import run_line
print("ready", flush=True)
run_line(parse_config(json.loads(sys.argv[1])), Home(Path(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(7))
def test_a_killed_stage_asks_no_question_twice(places: tuple[Path, Path], home: Home, seed: int) -> None:
    """But for those in flight at the kill, whose answers nobody has."""
    draw = random.Random(seed)
    with teaching(places, home) as (server, teacher):
        config = make_config(places, api(server, parallel=2))
        arguments = [json.dumps(config.model_dump(mode="json")), str(home.root)]
        instant = draw.randrange(1, len(teacher.labels))
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        until(lambda: len(server.requests) >= instant or process.poll() is not None, 120)
        process.send_signal(signal.SIGKILL)
        process.wait()
        made = run_line(config, home)
    counts = {prompt: server.prompts.count(prompt) for prompt in server.prompts}
    assert len(counts) == len(teacher.labels) == made["rivals"].rows
    assert sum(counts.values()) - len(counts) <= 2
    table = pq.read_table(made["rivals"].path / layout.ANSWERS)
    rows = pq.read_table(made["validate"].path / layout.rows_file(TEST))
    text_by_id = dict(zip(rows["id"].to_pylist(), rows["text"].to_pylist(), strict=True))
    for row_id, answer in zip(table["id"].to_pylist(), table["answer"].to_pylist(), strict=True):
        assert answer == teacher.answer(text_by_id[row_id])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"api": "openai", "model": "gpt-4o"}, "set send_rows: true to allow it"),
        ({"api": "openai", "model": "m", "url": "http://far.example/v1", "send_rows": True, "key": "KEY"}, "https"),
        ({"api": "openai", "model": "m", "url": "ftp://x", "send_rows": True}, "no http or https address"),
        ({"api": "openai", "url": "http://127.0.0.1:1/v1"}, "write the provider's name"),
        ({"model": "base", "price": {"input": 1, "output": 1}}, "need an api"),
        ({"api": "openai", "model": "m", "url": "http://127.0.0.1:1", "max_cost": 1}, "max_cost needs price"),
        ({"name": "Odd name"}, "name"),
        (
            {"corpus": {"source": {"kind": "files", "paths": ["x.csv"]}}},
            "are in no corpus",
        ),
    ],
)
def test_a_rival_that_cannot_be_asked_is_refused(places: tuple[Path, Path], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_config(places, {"name": "x"} | fields)


def test_an_objective_without_words_has_no_rivals(places: tuple[Path, Path]) -> None:
    config = make_config(places).model_dump(mode="json") | {"objective": {"kind": "masked-lm"}}
    config["evaluation"]["rivals"] = [{"name": "x"}]
    with pytest.raises(ConfigError, match="no prompt can ask for what masked-lm learns"):
        parse_config(config)
