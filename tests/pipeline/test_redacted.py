"""A model that was trained with `redact` redacts what is sent to it: what is tested is what is served, everywhere."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import TypeAdapter

from hone.batch import answers as batch_answers
from hone.batch.request import Request, resolve_request
from hone.batch.rows import list_shards, read_rows
from hone.config.file import load_config
from hone.config.parts import SourcePart
from hone.config.sections import Monitoring, Promotion
from hone.drift import monitor
from hone.objectives import OBJECTIVES
from hone.promotion import smoke
from hone.promotion.contender import load_contender
from hone.promotion.match import build_match
from hone.promotion.promote import load_ready, open_journal
from hone.promotion.rows import load_golden_set
from hone.registry import reference
from hone.store.artifact import Artifact
from hone.tracking.aliases import CANDIDATE
from hone.tracking.client import default_tracking_uri
from hone.tracking.links import fetch_run_file
from hone.tracking.reader import get_version, model_directory
from tests import served_answers
from tests.in_process import Line, begin
from tests.tiny_bases import tiny_bert, tiny_llama, tiny_t5, tiny_talker

pytestmark = pytest.mark.slow

COLOURS = ["red", "green", "blue"]
FILLING = "please say tell me the word twice now and then one two three my card is lost again today".split()
# What the tag of an e-mail address is read as; an address itself is unknown to the base models.
KNOWN = [*COLOURS, *FILLING, "which", "mail", "<", ">", "EMAIL", "email", "assistant", "user", ":"]
ROWS = 90
TEMPLATE = (
    "{% for m in messages %}{{ m.role + ' : ' + m.content + ' ' + eos_token + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant :' }}{% endif %}"
)


@dataclass(frozen=True)
class Note:
    """A text with an address, among words, and a colour."""

    words: list[str]
    address: str
    colour: str

    @property
    def text(self) -> str:
        return " ".join(self.words)


def write_notes() -> list[Note]:
    draw, notes = random.Random(5), {}
    while len(notes) < ROWS:
        address, colour = f"someone.with.a.long.name{len(notes)}@example{len(notes)}.org", draw.choice(COLOURS)
        words = [*draw.choices(FILLING, k=6), colour]
        draw.shuffle(words)
        words.insert(draw.randrange(2, 6), address)
        notes.setdefault(" ".join(words), Note(words, address, colour))
    return list(notes.values())


def tag(note: Note) -> dict[str, Any]:
    tags = {note.address: "B-contact", note.colour: "B-colour"}
    return {"tokens": note.words, "tags": [tags.get(word, "O") for word in note.words]}


def ask(note: Note) -> dict[str, Any]:
    answer = {"text": [note.address], "answer_start": [note.text.index(note.address)]}
    return {"question": "which mail", "context": note.text, "answers": answer}


def talk(note: Note) -> dict[str, Any]:
    follower = note.words[note.words.index(note.address) + 1]
    turns = [("user", note.text), ("assistant", f"{follower} {note.address}")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@dataclass(frozen=True)
class Kind:
    """An objective, its rows, and the base model that it is trained on."""

    row: Callable[[Note], dict[str, Any]]
    base: Callable[[Path], Path]
    objective: Mapping[str, Any]


def bert(folder: Path) -> Path:
    return tiny_bert(folder, words=KNOWN)


KINDS = {
    "text-classification": Kind(lambda note: {"text": note.text, "label": note.colour}, bert, {}),
    "token-classification": Kind(tag, bert, {"words": "spaces"}),
    "question-answering": Kind(ask, bert, {"stride": 6}),
    "embedding": Kind(
        lambda note: {"anchor": note.text, "positive": f"{note.colour} mail {note.address} {note.words[0]}"}, bert, {}
    ),
    "chat": Kind(
        talk,
        lambda folder: tiny_talker(folder, words=KNOWN, template=TEMPLATE),
        {"generate": ROWS, "max_new_tokens": 4},
    ),
    "seq2seq": Kind(
        lambda note: {"text": note.text, "target": f"{note.colour} {note.address}"},
        lambda folder: tiny_t5(folder, words=KNOWN),
        {"max_target_length": 8},
    ),
    "preference": Kind(
        lambda note: {"prompt": note.text, "chosen": f" {note.colour}", "rejected": f" {note.address}"},
        tiny_llama,
        {"answer_tokens": 4},
    ),
}


EXTRACTING = ["question-answering", "token-classification"]
EPOCHS = {"question-answering": 40, "token-classification": 40, "chat": 20}  # where answers are to depend on the tag


@dataclass(frozen=True)
class Made:
    """A configuration, what its stages made, and the test rows as they were read and as they are tested."""

    kind: str
    conf: Path
    artifacts: Mapping[str, Artifact]
    line: Line

    @property
    def raw(self) -> list[dict[str, Any]]:
        rows = {row["id"]: row for row in pq.read_table(self.artifacts["ingest"].path / "rows.parquet").to_pylist()}
        return [rows[row["id"]] for row in self.tested]

    @property
    def tested(self) -> list[dict[str, Any]]:
        return pq.read_table(self.artifacts["validate"].path / "test.parquet").to_pylist()

    def list_cases(self) -> list[tuple[dict[str, Any], served_answers.Case]]:
        """Each raw test row with what a caller sends for it, and what was evaluated, with its own address."""
        trained = served_answers.Trained(load_config(self.conf), self.artifacts)
        evaluated = pq.read_table(self.artifacts["evaluate"].path / "predictions.parquet").to_pylist()
        by_id = {row["id"]: row for row in evaluated}
        pairs = [(row, tested) for row, tested in zip(self.raw, self.tested, strict=True) if row["id"] in by_id]
        return [(row, trained.build_case(row, tested, by_id[row["id"]])) for row, tested in pairs]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One data folder for all."""
    with pytest.MonkeyPatch.context() as patch:
        yield begin(tmp_path_factory.mktemp("hone"), patch)


@pytest.fixture(scope="module")
def build_once(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The version of a kind, trained with `redact` when it is first asked for."""
    return cache(lambda kind: build(kind, line, tmp_path_factory.mktemp(kind)))


@pytest.fixture(params=sorted(KINDS))
def made(request: pytest.FixtureRequest, build_once: Callable[[str], Made]) -> Made:
    return build_once(request.param)


@pytest.fixture
def classifier(build_once: Callable[[str], Made]) -> Made:
    return build_once("text-classification")


def build(
    name: str, line: Line, folder: Path, steps: tuple[str, ...] = ("normalize", "redact"), model: str = ""
) -> Made:
    kind = KINDS[name]
    rows = [kind.row(note) for note in write_notes()]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = {
        "name": model or name,
        "objective": {"kind": name, **kind.objective},
        "ingest": {"source": {"kind": "files", "paths": [str(folder / "rows.jsonl")]}},
        "curation": {"steps": [{"kind": step} for step in steps], "split": {"near_duplicate": 1.0, "test": 0.2}},
        "validation": {"on_failure": "warn"},
        "model": {"base": str(kind.base(folder / "base"))},
        "tokenization": {"max_length": 32},
        "training": {
            "epochs": EPOCHS.get(name, 6),
            "batch_size": 16,
            "learning_rate": 1.0e-2,
            "precision": "fp32",
        },
        "evaluation": {"resamples": 100},
    }
    conf = folder / "notes.yaml"
    conf.write_text(yaml.safe_dump(tree))
    return Made(name, conf, line(conf), line)


def address_of(row: Mapping[str, Any]) -> str:
    [address] = {word for word in json.dumps(row).replace('"', " ").replace("\\", " ").split() if "@example" in word}
    return address


def test_answers_to_raw_test_rows_are_those_that_were_evaluated(made: Made) -> None:
    model = made.line.served(made.kind)
    cases = made.list_cases()
    assert len(cases) >= 10
    for row, case in cases:
        answers = model.predict(pd.DataFrame(case.inputs), params={"all_scores": True}).to_dict("records")
        # An answer that is a part of what was sent is that part, and not the tag (or a piece of it) that was read.
        stored = dict(case.stored)
        if made.kind in EXTRACTING:
            stored["prediction"] = re.sub("<?EMAIL>?|<|>", address_of(row), stored["prediction"])
        served_answers.check_answers(made.kind, answers, stored)
    assert "@example" not in json.dumps(made.tested)
    assert "@example" in json.dumps(made.raw)


@pytest.mark.parametrize("made", EXTRACTING, indirect=True)
def test_offsets_refer_to_the_text_that_was_sent(made: Made) -> None:
    model = made.line.served(made.kind)
    redacted_parts = 0
    for row in made.raw:
        if made.kind == "question-answering":
            text = row["context"]
            spans = model.predict(pd.DataFrame([{"question": "which mail", "context": text}])).to_dict("records")
            spans = [{**span, "text": span["answer"]} for span in spans]
        else:
            text = " ".join(json.loads(row["tokens"]))
            [[as_text], [as_list]] = (model.predict([value])["entities"].tolist() for value in (text, row["tokens"]))
            spans = json.loads(as_text)
            assert json.loads(as_list) == spans
        assert all(text[span["start"] : span["end"]] == span["text"] for span in spans)
        redacted_parts += sum(span["text"] == address_of(row) for span in spans)
    assert redacted_parts >= len(made.raw) / 2


def test_golden_rows_are_read_as_they_are_served(made: Made) -> None:
    uri = made.line.home.tracking_uri
    names = OBJECTIVES[made.kind].columns
    golden = made.conf.parent / "golden.jsonl"
    golden.write_text("\n".join(json.dumps({name: row[name] for name in names}) for row in made.raw))
    version = get_version(uri, f"models:/{made.kind}@candidate")
    contender = load_contender(uri, version, made.line.home.downloads)
    rows = load_golden_set(str(golden), contender.objective)
    match = build_match(rows, {CANDIDATE: contender}, Promotion(resamples=100))
    metric = contender.objective.main_metric
    expected = made.artifacts["evaluate"].facts()["metrics"][metric]
    assert match.compute_intervals(CANDIDATE, 0.9)[metric]["value"] == pytest.approx(expected, rel=1e-4, abs=1e-6)

    inputs = contender.objective.inference_inputs(pa.Table.from_pylist(made.raw))
    served = made.line.served(made.kind).predict(pd.DataFrame(inputs)).to_dict("records")
    for answer, other in zip(served, contender.answer(inputs), strict=True):
        assert smoke.is_same_value(plain(answer), {name: plain(other[name]) for name in answer})


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def test_a_version_passes_the_serving_test(classifier: Made) -> None:
    home = classifier.line.home
    with smoke.start_server(home.tracking_uri) as server:
        load_ready(open_journal(home.tracking_uri, classifier.kind), "1", home.downloads, server)


def test_a_batch_prediction_of_raw_rows_has_the_evaluated_answers(classifier: Made, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_text("\n".join(json.dumps({"text": row["text"]}) for row in classifier.raw))
    source: Any = {"kind": "files", "paths": [str(tmp_path / "raw.jsonl")]}
    request = Request(model=classifier.kind, version="candidate", source=source, output=str(tmp_path / "out.csv"))
    home = classifier.line.home
    with default_tracking_uri(home.tracking_uri):
        batch = resolve_request(request, home)
        [shard] = list_shards(read_rows(batch, home))
        artifact, _ = batch_answers.answer_shard(batch, shard, home)
    answers = pq.read_table(artifact.path / batch_answers.ANSWERS).to_pylist()
    evaluated = pq.read_table(classifier.artifacts["evaluate"].path / "predictions.parquet").to_pylist()
    assert [answer["label"] for answer in answers] == [row["prediction"] for row in evaluated]
    assert [answer["score"] for answer in answers] == pytest.approx([row["confidence"] for row in evaluated], abs=1e-4)


def test_raw_recent_rows_do_not_drift_from_the_redacted_reference(classifier: Made, tmp_path: Path) -> None:
    home = classifier.line.home
    version = get_version(home.tracking_uri, f"models:/{classifier.kind}@candidate")
    folder = fetch_run_file(home.tracking_uri, version, reference.FOLDER, tmp_path)
    texts = pq.read_table(folder / reference.REFERENCE)["text"].to_pylist()
    assert all("<EMAIL>" in text and "@" not in text for text in texts)
    monitoring = Monitoring.model_validate({"min_rows": 20, "permutations": 199})
    config = load_config(classifier.conf).model_copy(update={"monitoring": monitoring})
    source = {"kind": "files", "paths": [str(classifier.conf.parent / "rows.jsonl")]}
    inputs: Any = TypeAdapter(SourcePart).validate_python(source)
    verdict = monitor.check_version(version, config, inputs, home)
    assert verdict.findings
    assert (verdict.decision, verdict.drifted) == ("no drift", [])


def test_without_redact_a_version_and_its_keys_are_as_before(line: Line, tmp_path: Path) -> None:
    made = build("text-classification", line, tmp_path, steps=("normalize",), model="plain")
    version = get_version(line.home.tracking_uri, "models:/plain@candidate")
    about = model_directory(line.home.tracking_uri, version, line.home.downloads) / "objective.json"
    assert "rewriters" not in json.loads(about.read_text())
    assert not [*about.parents[2].rglob("redact.py")]
    assert "curation" not in made.artifacts["register"].manifest()["recipe"]["config"]
