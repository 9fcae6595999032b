"""Every shipped configuration goes the whole line, on a few rows of real data and a tiny base, in this process.

All else of it is as it is shipped. Every third text is one that curation would rewrite: what the registered versions
answer to such test rows, asked of a process that has no hone, is what evaluation stored for them.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from installed_docs.source import InstalledDocs
from pydantic import TypeAdapter

from hone.config.file import load_config
from hone.config.parts import SourcePart
from hone.config.sections import Monitoring, RunConfig
from hone.drift import monitor
from hone.environment import Home
from hone.evaluation.judging import predict
from hone.objectives import OBJECTIVES
from hone.objectives.base import Objective
from hone.promotion import smoke
from hone.promotion.promote import decide, load_ready, open_journal
from hone.store.artifact import Artifact
from hone.tracking.client import default_tracking_uri
from hone.tracking.reader import get_version
from tests import preloaded, served_answers
from tests.derived_rows import list_ratings, list_slot_kinds, pair_answers, read_commands
from tests.in_process import Line, begin
from tests.tiny_bases import tiny, tiny_t5

CONF = Path(__file__).parents[2] / "conf"
SHIPPED = sorted(CONF.rglob("*.yaml"))
DOCS = ("joblib", "cycler")  # installed with scikit-learn and matplotlib; 0.5 s to read, where numpy alone takes 1.6 s
OWN_DOCS = "package_with_markup"
# What comes after a text in <b>: spaces, an entity, names of special tokens, an address, an invalid character.
SIGNS = "  &lt; [SEP] </s> <end> a@b.org \x07 "
WORDS_OF_SIGNS = ("<b>so</b>", "&lt;", "[SEP]", "</s>", "a@b.org")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Small:
    """What makes a configuration small: environment variables and overrides."""

    variables: Mapping[str, object] = field(default_factory=dict)
    overrides: Iterable[str] = ()


def words(texts: Iterable[str], most: int = 1500) -> list[str]:
    """The most frequent words and signs of the texts."""
    counts = Counter(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower()))
    return [word for word, _ in counts.most_common(most)]


def encoder(folder: Path, texts: Iterable[str], vocabulary: int = 1500) -> str:
    """The override that names a tiny BERT in `folder`, which knows the words of the texts."""
    return f"model.base={tiny('bert', folder / 'base', words=words(texts, vocabulary), positions=512)}"


def head(file: Path, copy: Path, lines: int) -> str:
    """Copy the first lines of a file; they are given too."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with file.open(encoding="utf8") as stream:
        text = "".join(islice(stream, lines))
    copy.write_text(text, "utf8")
    return text


def awkward(text: str) -> str:
    """The text with signs that curation would rewrite in a training row, as far as the model does not write it."""
    return f"<b>{text}</b>{SIGNS}"


def spoil(texts: Iterable[str], change: Callable[[str], str] = awkward) -> list[str]:
    """The texts, every third of them changed."""
    return [text if index % 3 else change(text) for index, text in enumerate(texts)]


def documented(folder: Path) -> tuple[str, list[str]]:
    """The override that has few libraries read, and their passages. One library, in `folder`, has awkward texts."""
    passages = [str(row.values["text"]) for row in InstalledDocs([*DOCS]).rows() if not row.refused]
    # Read backwards they repeat none.
    texts = [" ".join(reversed(text.split())) for text in passages if 80 < len(text) < 200]
    docs = [f"Do it.\n\nParameters\n----------\nvalue : object\n    {awkward(text)}\n" for text in texts[:60]]
    functions = [f"def function_{index}(value):\n    {text!r}\n" for index, text in enumerate(docs)]
    (folder / OWN_DOCS).mkdir()
    (folder / OWN_DOCS / "__init__.py").write_text("\n\n".join(functions), "utf8")
    return f"ingest.source.packages={json.dumps([*DOCS, OWN_DOCS])}", [*passages, *map(awkward, texts[:60])]


def banking77(data: Path, folder: Path) -> Small:
    """Four of the intents."""
    texts = []
    for name, most in (("train.csv", 30), ("test.csv", 8)):
        with (data / "banking77" / name).open(encoding="utf8", newline="") as file:
            rows = list(csv.reader(file))
        kinds = list(dict.fromkeys(kind for _, kind in rows[1:]))
        kept = [row for kind in sorted(kinds)[:4] for row in [row for row in rows if row[1] == kind][:most]]
        kept = [[text, kind] for text, (_, kind) in zip(spoil(text for text, _ in kept), kept, strict=True)]
        with (folder / name).open("w", encoding="utf8", newline="") as file:
            csv.writer(file).writerows([rows[0], *kept])
        texts += [text for text, _ in kept]
    return Small({"BANKING77": folder}, [encoder(folder, texts)])


def causal_lm(data: Path, folder: Path) -> Small:
    """The real base: it has 260,000 weights."""
    speeches = head(data / "tinyshakespeare" / "input.txt", folder / "input.txt", 1200).split("\n\n")
    (folder / "input.txt").write_text("\n\n".join(spoil(speeches)), "utf8")
    base = data.parent / "models" / "stories260K"
    return Small({"BASE": base, "TINYSHAKESPEARE": folder}, ["training.epochs=0.25", "objective.max_new_tokens=4"])


TURNS = "{% for m in messages %}{{ m.role + ' : ' + m.content + ' ' + eos_token + ' ' }}{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}{{ 'assistant :' }}{% endif %}"


def instructions(data: Path, name: str, count: int) -> list[dict[str, str]]:
    """The first instructions of a file, each with its input in front of its answer."""
    rows: list[dict[str, str]] = json.loads((data / "rasbt_instruct" / name).read_text("utf8"))[:count]
    return [row | {"instruction": text} for row, text in zip(rows, spoil(r["instruction"] for r in rows), strict=True)]


def chat(data: Path, folder: Path) -> Small:
    rows = instructions(data, "instruction-data.json", 160)
    (folder / "rows.json").write_text(json.dumps(rows), "utf8")
    known = ["assistant", "user", ":", *words(text for row in rows for text in row.values())]
    base = tiny("llama", folder / "base", words=known, template=TEMPLATE, positions=512)
    short = ["objective.generate=16", "objective.max_new_tokens=4"]  # the whole test split
    return Small({"CHAT": folder / "rows.json"}, [f"model.base={base}", *short])


def demo(data: Path, folder: Path) -> Small:
    packages, passages = documented(folder)
    return Small({}, [packages, encoder(folder, passages), "curation.steps.balance.min_rows=10"])


def embedding(data: Path, folder: Path) -> Small:
    rows = instructions(data, "instruction-data.json", 160)
    answers = spoil(row["output"] for row in rows)
    pairs = pair_answers(row | {"output": answer} for row, answer in zip(rows, answers, strict=True))
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), "utf8")
    return Small({"PAIRS": folder / "pairs.jsonl"}, [encoder(folder, [text for row in pairs for text in row.values()])])


def masked_lm(data: Path, folder: Path) -> Small:
    """A base with few words: the served model can give the probabilities of all of them."""
    packages, passages = documented(folder)
    base = encoder(folder, passages, vocabulary=90)
    split = ["curation.split.valid=0.1", "curation.split.test=0.1"]
    return Small({}, [packages, base, *split, "objective.top=100"])


def multi_label(data: Path, folder: Path) -> Small:
    rows = list_slot_kinds(islice(read_commands(data), 300))
    texts = spoil(row["text"] for row in rows)
    rows = [row | {"text": text} for row, text in zip(rows, texts, strict=True)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf8")
    return Small({"DATA": folder}, [encoder(folder, texts)])


def ncbi_disease(data: Path, folder: Path) -> Small:
    names = {"train.tsv": 2400, "devel.tsv": 500, "test.tsv": 500}
    texts = []
    for name, lines in names.items():
        sentences = head(data / "ncbi_disease" / name, folder / name, lines).strip("\n").split("\n\n")
        texts += spoil(sentences, lambda sentence: "\n".join([sentence, *(f"{word}\tO" for word in WORDS_OF_SIGNS)]))
        (folder / name).write_text("\n\n".join(texts[-len(sentences) :]) + "\n", "utf8")
    return Small({"NCBI_DISEASE": folder}, [encoder(folder, texts)])


def preference(data: Path, folder: Path) -> Small:
    rows = instructions(data, "instruction-data-with-preference.json", 160)
    (folder / "rows.json").write_text(json.dumps(rows), "utf8")
    base = tiny("llama", folder / "base", words=words(text for row in rows for text in row.values()), positions=512)
    return Small({"PREFERENCES": folder / "rows.json"}, [f"model.base={base}", "objective.answer_tokens=4"])


def regression(data: Path, folder: Path) -> Small:
    ratings = list_ratings(islice(read_commands(data), 4000))[:160]
    texts = spoil(text for text, _ in ratings)
    scores = (score for _, score in ratings)
    with (folder / "rows.csv").open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([("text", "score"), *zip(texts, scores, strict=True)])
    return Small({"DATA": folder}, [encoder(folder, texts)])


def seq2seq(data: Path, folder: Path) -> Small:
    names = {"train.jsonl": 48, "dev.jsonl": 8, "test.jsonl": 8}
    texts = []
    for name, count in names.items():
        rows = [json.loads(line) for line in head(data / "scitldr_a" / name, folder / name, count).splitlines()]
        first = spoil(row["source"][0] for row in rows)
        rows = [row | {"source": [text, *row["source"][1:]]} for row, text in zip(rows, first, strict=True)]
        (folder / name).write_text("\n".join(map(json.dumps, rows)), "utf8")
        texts += [" ".join([*row["source"], *row["target"]]) for row in rows]
    base = tiny("t5", folder / "base", words=words(texts))
    return Small({"SCITLDR": folder}, [f"model.base={base}"])


def snips_slots(data: Path, folder: Path) -> Small:
    texts = []
    added_words = {"seq.in": WORDS_OF_SIGNS, "seq.out": ["O"] * len(WORDS_OF_SIGNS), "label": []}
    for split, rows in (("train", 160), ("valid", 30), ("test", 30)):
        for name, added in added_words.items():
            file = folder / "snips" / split / name
            lines = head(data / "snips" / split / name, file, rows).splitlines()
            texts.append("\n".join(spoil(lines, partial(add_words, added))))
            file.write_text(texts[-1] + "\n", "utf8")
    return Small({"SNIPS": folder / "snips"}, [encoder(folder, texts[::3])])


def add_words(added: Sequence[str], line: str) -> str:
    """The line with further words, or tags."""
    return " ".join([line.rstrip(), *added])


def span_corruption(data: Path, folder: Path) -> Small:
    """Trained until the model begins what it fills in with a sentinel: all before it is left out."""
    packages, passages = documented(folder)
    split = ["curation.split.valid=0.1", "curation.split.test=0.1", "objective.max_new_tokens=4"]
    longer = ["training.max_steps=12", "training.learning_rate=0.01"]
    base = tiny_t5(folder / "base", words=words(passages))
    return Small({"BASE": base}, [packages, *split, *longer])


def xquad(data: Path, folder: Path) -> Small:
    """The first two paragraphs of a dozen articles."""
    tree = json.loads((data / "xquad" / "xquad.en.json").read_text("utf8"))
    tree["data"] = [{**article, "paragraphs": article["paragraphs"][:2]} for article in tree["data"][:12]]
    for index, paragraph in enumerate(paragraph for article in tree["data"] for paragraph in article["paragraphs"]):
        if index % 2:
            paragraph["context"] += f" {awkward('so')}"  # at the end: the answers stay where they are
        for question, text in zip(paragraph["qas"], spoil(qa["question"] for qa in paragraph["qas"]), strict=True):
            question["question"] = text
    (folder / "xquad.en.json").write_text(json.dumps(tree), "utf8")
    return Small({"XQUAD": folder}, [encoder(folder, [json.dumps(tree, ensure_ascii=False)])])


SMALL: dict[str, Callable[[Path, Path], Small]] = {
    made.__name__.replace("_", "-"): made
    for made in (
        *(banking77, causal_lm, chat, demo, embedding, masked_lm, multi_label, ncbi_disease, preference, regression),
        *(seq2seq, snips_slots, span_corruption, xquad),
    )
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """One data folder for all; a test row is timed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "WARM_UP", 1)
        patch.setattr(predict, "REQUESTS", 1)
        yield begin(tmp_path_factory.mktemp("hone"), patch)


@pytest.fixture(scope="module")
def place(line: Line) -> Home:
    """The data folder."""
    return line.home


@pytest.fixture(scope="module")
def server(place: Home) -> Iterator[smoke.Server]:
    """The process that versions are loaded in before they are promoted."""
    with smoke.start_server(place.tracking_uri) as server:
        yield server


@pytest.fixture(scope="module")
def registered() -> dict[str, dict[str, Any]]:
    """What the tests before have registered, by configuration: the version, its outputs, and what to ask it."""
    return {}


def test_for_each_it_is_known_what_makes_it_small() -> None:
    assert SMALL.keys() == {file.stem for file in SHIPPED}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_configuration_gives_a_registered_version(
    file: Path,
    line: Line,
    place: Home,
    server: smoke.Server,
    registered: dict[str, dict[str, Any]],
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    small = SMALL[file.stem](shared / "datasets", tmp_path)
    for name, value in small.variables.items():
        monkeypatch.setenv(name, str(value))
    shipped = load_config(file)
    short = "training.max_steps=2" if "max_steps" in shipped.training.model_fields_set else "training.epochs=1"
    config = load_config(file, [short, "evaluation.resamples=100", *small.overrides])
    made = line.go(config)

    facts, version = made["evaluate"].facts(), made["register"].facts()
    assert facts["rows"] >= 5
    assert all(isfinite(value) for value in facts["metrics"].values())
    assert (version["model"], version["version"], version["alias"]) == (file.stem, "1", "candidate")
    assert "<html" in (made["register"].path / "report.html").read_text("utf8")[:500]

    objective = OBJECTIVES[config.objective.kind](**config.objective.options())
    test = pq.read_table(made["validate"].path / "test.parquet")
    assert_as_read(test, made["ingest"], objective)
    cases = served_answers.choose_cases(config, made, partial(is_awkward, objective))
    about = {"uri": version["model_uri"], "kind": config.objective.kind, "outputs": list(objective.outputs)}
    registered[file.stem] = about | {"cases": [(case.inputs, case.stored) for case in cases]}
    judged(file.stem, place, server, facts["metrics"])
    watched(file.stem, config, made, place, tmp_path)


def assert_as_read(test: pa.Table, ingest: Artifact, objective: Objective) -> None:
    """The rows that the model is scored on are those that were read: a caller of the served model sends just these."""
    columns = list(objective.columns)
    read = {row["id"]: row for row in pq.read_table(ingest.path / "rows.parquet").to_pylist()}
    for row in test.to_pylist():
        assert {name: row[name] for name in columns} == {name: read[row["id"]][name] for name in columns}


def is_awkward(objective: Objective, row: Mapping[str, str]) -> bool:
    """Whether a row still has, among its texts, all that was added to it."""
    texts = " ".join(text for name in objective.text for text in objective.extract_texts(name, row[name]))
    return SIGNS.strip() in texts or " ".join(WORDS_OF_SIGNS) in texts


def judged(model: str, place: Home, server: smoke.Server, figures: Mapping[str, float]) -> None:
    """The version and its twin as candidate and champion: scored anew, served, and no better than the other."""
    journal = open_journal(place.tracking_uri, model)
    first = journal.client.get_model_version(model, "1")
    with default_tracking_uri(place.tracking_uri):  # MLflow looks for the model's files there
        twin = journal.client.create_model_version(
            model, first.source, first.run_id, first.tags, model_id=first.model_id
        )
    journal.client.set_registered_model_alias(model, "champion", "1")
    decision = decide(journal, twin.version, downloads=place.downloads)
    [anew] = decision.sets
    for told in anew.figures.values():
        assert told[decision.main_metric]["value"] == pytest.approx(figures[decision.main_metric], rel=1e-3, abs=1e-3)
    refused = {gate.name for gate in decision.refused}
    assert any("better" in gate for gate in refused), decision.reason
    load_ready(journal, twin.version, place.downloads, server)


def watched(model: str, config: RunConfig, made: Mapping[str, Artifact], place: Home, folder: Path) -> None:
    """The version's rows, come back as recent inputs: each test of theirs is done, where there are enough."""
    objective = OBJECTIVES[config.objective.kind](**config.objective.options())
    rows = objective.inference_inputs(pq.read_table(made["validate"].path / "train.parquet"))
    (folder / "asked.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf8")
    ingest = config.ingest.model_copy(update={"columns": {}})
    monitoring = Monitoring.model_validate({"min_rows": 20, "permutations": 199})
    inputs: Any = TypeAdapter(SourcePart).validate_python({"kind": "files", "paths": [str(folder / "asked.jsonl")]})
    asked = config.model_copy(update={"ingest": ingest, "monitoring": monitoring})
    version = get_version(place.tracking_uri, f"models:/{model}/1")
    verdict = monitor.check_version(version, asked, inputs, place)
    assert verdict.facts["rows"] == len(rows)
    few = min(verdict.reference, verdict.recent) < 20
    assert verdict.decision in (("too few rows",) if few else ("drift", "no drift"))
    assert bool(verdict.findings) is not few
    assert (verdict.decision == "drift") == bool(verdict.drifted)


ASK = """
import sys
sys.modules["hone"] = None
import json, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
replies = {}
for name, version in json.load(open(sys.argv[2])).items():
    model = mlflow.pyfunc.load_model(version["uri"])
    rows = [row for inputs, _ in version["cases"] for row in inputs]
    plain = model.predict(pandas.DataFrame(rows[:1]))
    full = model.predict(pandas.DataFrame(rows), params={"all_scores": True})
    replies[name] = [list(plain.columns), full.to_dict("records")]
json.dump(replies, open(sys.argv[3], "w"), default=float)
"""


@pytest.fixture(scope="module")
def replies(
    place: Home, registered: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[str], list[dict[str, Any]]]]:
    """What each registered version answers in a process without hone: the columns, and all that it has to each row."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "asked.json").write_text(json.dumps(registered))
    files = [str(folder / name) for name in ("asked.json", "replies.json")]
    command = [preloaded.python(), "-P", "-c", ASK, place.tracking_uri, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answered: dict[str, tuple[list[str], list[dict[str, Any]]]] = json.loads((folder / "replies.json").read_text())
    return answered


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.usefixtures("shared")  # where there is no data, no version was registered
def test_a_version_answers_without_hone_what_was_evaluated(
    name: str,
    registered: dict[str, dict[str, Any]],
    replies: Mapping[str, tuple[list[str], list[dict[str, Any]]]],
) -> None:
    assert name in registered, "run the test that registers it too"
    version, (columns, answers) = registered[name], replies[name]
    assert columns == version["outputs"]
    remaining = iter(answers)
    for inputs, stored in version["cases"]:
        served_answers.check_answers(version["kind"], [*islice(remaining, len(inputs))], stored)
    assert not [*remaining]


def test_for_each_objective_it_is_known_what_its_answers_are_compared_with() -> None:
    assert served_answers.CHECKS.keys() == set(OBJECTIVES)
