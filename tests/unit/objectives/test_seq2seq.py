from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import MBartTokenizer, NllbTokenizer

from hone.errors import ConfigError, DataError, ModelError
from hone.objectives.seq2seq import Seq2Seq, parse_references
from hone.objectives.shared.overlap import bleu_counts, bleu_from_counts, rouge_scores
from hone.objectives.shared.reading import Reader
from hone.objectives.shared.tokenizer import load_tokenizer
from hone.tokenization.tokenize import tokenize
from tests.tiny_bases import TALK, tiny_bart, tiny_bert, tiny_t5

WORDS = "the cat sat on a mat and it ran away from us all running cats".split()
SAID = ["the cat sat on a mat", "", "it ran", "the cats are running", "the cat", "one two three four"]
WANTED = [
    ["the cat sat on the mat"],
    ["nothing was said", "nothing"],
    ["we ran away", "it ran away from us", "it ran"],
    ["a cat runs", "the cat sat on a mat"],
    ["!", "..."],
    ["one two and more", "four three two one"],  # the second has more of its words, and fewer in their order
]


def rows(*pairs: tuple[str | None, Any]) -> pa.Table:
    sources, targets = zip(*pairs, strict=True) if pairs else ((), ())
    written = [one if one is None or isinstance(one, str) else json.dumps(one) for one in targets]
    ids = [f"a.json:{n}" for n in range(len(pairs))]
    columns = {"id": ids, "text": sources, "target": written}
    return pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()})


@pytest.fixture(params=[tiny_t5, tiny_bart], ids=["T5", "BART"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    build: Callable[..., Path] = request.param
    return build(tmp_path / "base", words=TALK)


def test_rouge_is_rouge_scores_against_the_reference_with_the_best_rouge_1() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = rouge_scores(SAID, WANTED)
    for row, (said, several) in enumerate(zip(SAID, WANTED, strict=True)):
        best = max((scorer.score(one, said) for one in several), key=lambda scores: scores["rouge1"].fmeasure)
        assert found[row].tolist() == [best[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]
    assert found[:3].round(3).tolist() == [[0.833, 0.6, 0.833], [0, 0, 0], [1, 1, 1]]
    assert found[3, 0] == pytest.approx(4 / 7)  # "a cat runs": cat and run, once stemmed


def test_bleu_of_summed_counts_is_sacrebleus_of_the_corpus() -> None:
    from sacrebleu import corpus_bleu

    chance = random.Random(1)

    def text(least: int, most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(least, most)))

    corpora = [(SAID, WANTED), ([""], [["a"]]), (["a"], [["a"]])]
    corpora += [
        ([text(0, 9) for _ in range(n)], [[text(1, 8) for _ in range(chance.randint(1, 3))] for _ in range(n)])
        for n in (1, 2, 5, 30)
        for _ in range(10)
    ]
    for said, wanted in corpora:
        streams = [[several[k] if k < len(several) else None for several in wanted] for k in range(3)]
        expected = corpus_bleu(said, [stream for stream in streams if any(stream)]).score  # type: ignore[arg-type]
        counts = bleu_counts(said, wanted)
        both = np.stack([counts.sum(0), np.zeros(10)], axis=1)
        assert bleu_from_counts(both).tolist() == [pytest.approx(expected, abs=1e-9), 0]


def test_the_figures_are_means_of_rouge_and_bleu_of_all() -> None:
    given = rows(*zip(["x"] * 6, WANTED, strict=True))
    outcome = Seq2Seq().compute_outcome(given, {"text": SAID}, {}, given)
    figures = Seq2Seq().compute_metrics(outcome.statistics.sum(0)[:, None], {})
    assert list(figures) == list(Seq2Seq.metrics)
    assert figures["rouge2"].tolist() == [pytest.approx(rouge_scores(SAID, WANTED)[:, 1].mean())]
    assert figures["bleu"] == bleu_from_counts(bleu_counts(SAID, WANTED).sum(0)[:, None])
    assert outcome.errors.tolist() == (1 - rouge_scores(SAID, WANTED)[:, 2]).tolist()
    assert outcome.references[1] == "nothing was said\nnothing"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "a", "target": "b"}, ("a", "b")),
        ({"source": ["One. ", "Two."], "target": ["b"]}, ("One. Two.", "b")),
        ({"source": "a", "target": ["b", "c"]}, ("a", ["b", "c"])),
        ({"text": "a", "target": '["b", "c"]'}, ("a", ["b", "c"])),
        ({"text": "a", "target": "[1] is a citation"}, ("a", "[1] is a citation")),
        ({"text": "a", "target": "[1, 2]"}, ("a", "[1, 2]")),
    ],
)
def test_sources_and_references_come_in_several_forms(row: dict[str, Any], expected: tuple[str, Any]) -> None:
    shaped = Seq2Seq().normalize_row(row)
    assert (shaped["text"], shaped["target"]) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": " ", "target": "b"}, "empty text: text"),
        ({"source": [], "target": "b"}, "empty text: source"),
        ({"source": ["a", 3], "target": "b"}, r"not text: source\[1\] is a int"),
        ({"text": "a", "target": ""}, r"empty text: target\[0\]"),
        ({"text": "a", "target": ["b", " "]}, r"empty text: target\[1\]"),
        ({"text": "a", "target": []}, "no reference: target"),
        ({"text": "a", "target": [None]}, r"not text: target\[0\]"),
    ],
)
def test_what_has_no_source_or_reference_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Seq2Seq().normalize_row(row)


def test_curation_reads_and_rewrites_each_reference() -> None:
    objective, given = Seq2Seq(), rows(("a", ["b", "c"]))
    assert objective.row_texts(given) == ["a\nb\nc"]
    assert objective.extract_texts("target", '["b", "c"]') == ["b", "c"]
    assert parse_references(objective.replace_texts("target", '["b", "c"]', ["B", "C"])) == ["B", "C"]
    assert objective.replace_texts("text", "a", ["A"]) == "A"
    assert objective.realign_annotations(given, rows(("a", ["b", ""]), ("a", "b")))[1] == ["an emptied reference", ""]


def test_the_first_reference_is_learned_and_both_sides_keep_to_their_lengths(base: Path) -> None:
    objective, tokenizer = Seq2Seq(prefix="tell me ", max_target_length=4), load_tokenizer(base)
    given = rows(("say red", ["red", "blue"]), ("red " * 20, "blue " * 20), ("red " * 3, "blue " * 5))
    encoded = objective.encode(given, tokenizer, 8, {})
    plain = tokenizer("tell me say red")["input_ids"]
    assert encoded["input_ids"][0].as_py() == plain
    assert encoded["labels"][0].as_py() == tokenizer("red")["input_ids"]
    for name, limit in (("input_ids", 8), ("labels", 4)):
        cut = encoded[name][1].as_py()
        assert len(cut) == limit
        assert cut[-1] == tokenizer.eos_token_id
    special = len(tokenizer("")["input_ids"])
    assert encoded["lost"].to_pylist() == [0, 22 + special - 8, 0]
    assert encoded["target_lost"].to_pylist() == [0, 20 + special - 4, 5 + special - 4]
    asked = objective.encode(given.drop_columns(["target"]), tokenizer, 8, {}, labelled=False)
    assert asked["input_ids"] == encoded["input_ids"]
    longer = Seq2Seq(max_target_length=12).encode(rows(("red " * 20, "blue " * 10)), tokenizer, 8, {})
    assert (len(longer["input_ids"][0]), len(longer["labels"][0])) == (8, 10 + special)
    with pytest.raises(DataError, match=r"row a\.json:1: a row has no target"):
        objective.encode(rows(("a", "b"), ("a", None)), tokenizer, 8, {})


@pytest.mark.parametrize("kind", [MBartTokenizer, NllbTokenizer])
def test_a_tokenizer_with_language_codes_is_refused_for_training(kind: Any) -> None:
    """Its targets would be learned with the code of the source's language."""
    tokenizer = kind(src_lang="en_XX") if kind is MBartTokenizer else kind()
    pairs = rows(("my card", "meine Karte"))
    with pytest.raises(ModelError, match=rf"{kind.__name__}\) encodes targets otherwise than sources"):
        Seq2Seq().encode(pairs, tokenizer, 8, {})


@pytest.mark.parametrize(("kind", "model_type"), [("M2M100Tokenizer", "m2m_100"), ("MarianTokenizer", "marian")])
def test_a_tokenizer_with_a_second_vocabulary_or_codes_that_is_not_a_fast_one_is_refused(
    kind: str, model_type: str, tmp_path: Path
) -> None:
    """These two exist with SentencePiece alone: they are refused before a row is encoded."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}), "utf8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), "utf8")
    (tmp_path / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}), "utf8")
    for name in ("sentencepiece.bpe.model", "source.spm", "target.spm"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=rf"{kind} requires the SentencePiece|cannot be loaded|is not a fast one"):
        load_tokenizer(tmp_path)


def test_threads_share_one_tokenizer(base: Path) -> None:
    objective, tokenizer = Seq2Seq(max_target_length=5), load_tokenizer(base)
    tables = [rows(*[("red green " * n, "blue " * n)] * 50) for n in range(1, 12)]
    alone = [objective.encode(table, tokenizer, 9, {}) for table in tables]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda table: objective.encode(table, tokenizer, 9, {}), tables)) == alone


def test_the_loss_is_that_of_transformers_own(base: Path) -> None:
    objective, tokenizer = Seq2Seq(), load_tokenizer(base)
    model = objective.load_model(base, {}).eval()
    encoded = objective.encode(rows(("say red now", "red red"), ("say blue", "blue")), tokenizer, 16, {})
    batch = objective.collate(encoded.drop_columns(["id"]).to_pydict(), tokenizer.pad_token_id)
    total, count = objective.compute_loss(model, batch)
    apart = []
    for ids, labels in zip(encoded["input_ids"].to_pylist(), encoded["labels"].to_pylist(), strict=True):
        apart.append(model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.item())
    lengths = [len(labels) for labels in encoded["labels"].to_pylist()]
    assert count == sum(lengths)
    assert total.item() == pytest.approx(float(np.dot(apart, lengths)), rel=1e-4)
    assert objective.predict_batch(model, batch)["scores"].tolist() == pytest.approx(apart, rel=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_transformers_own_generation(base: Path, beams: int) -> None:
    objective, tokenizer = Seq2Seq(max_target_length=6, num_beams=beams), load_tokenizer(base)
    model = objective.load_model(base, {}).eval()
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    asked = ["say red now", "say blue", "tell me the word twice please"]
    told = reader.answer(model, [{"text": text} for text in asked], {}, 16)
    for source, answer in zip(asked, told, strict=True):
        ids = torch.tensor([tokenizer(source)["input_ids"]])
        plain = model.generate(ids, max_new_tokens=6, num_beams=beams, do_sample=False)
        text = tokenizer.decode(plain[0], skip_special_tokens=True).strip()
        assert answer == {"text": text, "truncated": False}
    assert reader.answer(model, [{"text": "red " * 30}], {}, 16)[0]["truncated"]


def test_a_bases_own_settings_of_generation_do_not_decide(tmp_path: Path) -> None:
    base = tiny_bart(tmp_path / "base")
    kept = json.loads((base / "generation_config.json").read_text())
    file = base / "generation_config.json"
    file.write_text(
        json.dumps(kept | {"min_length": 30, "num_beams": 4, "no_repeat_ngram_size": 2, "temperature": 3.0})
    )
    model = Seq2Seq(max_target_length=5).load_model(base, {})
    model.save_pretrained(tmp_path / "saved")
    found = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert found.get("min_length") is None
    assert (found["num_beams"], found["max_new_tokens"], found["decoder_start_token_id"]) == (1, 5, 2)


def test_simple_systems_lead_and_copy(tmp_path: Path) -> None:
    given = rows(("One is here. Two is there.", "x"), ("No end", "y"))
    rivals = Seq2Seq().baseline_predictions(given, given, {}, given)
    assert rivals["lead"]["text"] == ["One is here.", "No end"]
    assert rivals["copy"]["text"] == ["One is here. Two is there.", "No end"]


def test_a_base_that_is_no_encoder_decoder_or_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="AutoModelForSeq2SeqLM"):
        Seq2Seq().load_model(tiny_bert(tmp_path / "bert"), {})
    with pytest.raises(ConfigError, match=r"objective\.max_target_length: 65 is more than the 64"):
        Seq2Seq(max_target_length=65).load_model(tiny_bart(tmp_path / "bart"), {})


def test_cut_targets_are_counted_and_bounded(base: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    given, out = tmp_path / "splits", tmp_path / "out"
    given.mkdir()
    out.mkdir()
    for split in ("train", "valid", "test"):
        pq.write_table(rows(*[("say red", "red")] * 9, ("say red", "red " * 30)), given / f"{split}.parquet")
    settings: dict[str, Any] = {"base": base, "objective": Seq2Seq(max_target_length=8), "max_length": 16}
    facts = tokenize(given, out, **settings, max_truncated=0.1).facts["splits"]["train"]
    special = len(load_tokenizer(base)("")["input_ids"])
    assert (facts["truncated_rows"], facts["truncated_targets"]) == (0, 1)
    assert facts["lost_target_tokens"] == 30 + special - 8
    with pytest.raises(DataError, match=r"1 of 10 targets \(10.0%\) are truncated.*\n.*objective.max_target_length"):
        tokenize(given, out, **settings, max_truncated=0.05)


def test_scitldr_is_understood_and_its_lead_found(shared: Path) -> None:
    lines = (shared / "datasets/scitldr_a/test.jsonl").read_text("utf8").splitlines()
    data = [json.loads(line) for line in lines]
    shaped = [Seq2Seq().normalize_row(row) for row in data]
    assert len(shaped) == 618
    given = rows(*[(row["text"], row["target"]) for row in shaped])
    assert [len(parse_references(value)) for value in given["target"].to_pylist()] == [
        len(row["target"]) for row in data
    ]
    lead = Seq2Seq().baseline_predictions(given, given, {}, given)["lead"]
    first = [row["source"][0].strip() for row in data]
    same = sum(said == wanted for said, wanted in zip(lead["text"], first, strict=True))
    assert same / len(first) > 0.92  # the others hold a full stop, as in "et al. 2017", or are parted otherwise there
    figures = Seq2Seq().compute_metrics(
        Seq2Seq().compute_outcome(given, lead, {}, given).statistics.sum(0)[:, None], {}
    )
    assert figures["rougeL"][0] == pytest.approx(0.2397, abs=1e-4)
    assert figures["bleu"][0] == pytest.approx(9.4, abs=0.01)


def test_what_decides_a_text_is_said_where_the_models_own_settings_differ(base: Path) -> None:
    # An adapter is served on its base, whose settings of generation are then the model's.
    objective, tokenizer = Seq2Seq(max_target_length=6), load_tokenizer(base)
    model = objective.load_model(base, {}).eval()
    reader = Reader(objective, tokenizer.pad_token_id, torch.device("cpu"), tokenizer)
    asked = [{"text": "say red now"}, {"text": "say blue please"}]
    expected = reader.answer(model, asked, {}, 16)
    model.generation_config.update(min_length=20, num_beams=3, no_repeat_ngram_size=1, do_sample=True, top_k=3)
    assert reader.answer(model, asked, {}, 16) == expected
