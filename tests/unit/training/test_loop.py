from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hone.errors import ConfigError, NonFiniteLoss, TrainingError
from hone.objectives.text_classification import TextClassification
from hone.training import choices, hardware, loop
from tests.tiny_bases import tiny_bert, tiny_llama
from tests.tiny_training import machine_precisions, specification, write_tokens

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def train(spec: dict[str, Any]) -> list[Event]:
    events: list[Event] = []
    loop.run(spec, events.append)
    return events


def history(out: Path) -> list[Event]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text("utf8").splitlines()]


def account(out: Path) -> Event:
    facts: Event = json.loads((out / "training.json").read_text("utf8"))
    return facts


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def test_golden_losses(base: Path, tokens: Path, tmp_path: Path) -> None:
    """The losses of the first steps and of the validation, as they were when this was written."""
    train(specification(tokens, tmp_path / "out", base, max_steps=6, evaluations=1))
    entries = history(tmp_path / "out")
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses == pytest.approx(GOLDEN, abs=2e-4)
    assert entries[-1]["valid_loss"] == pytest.approx(GOLDEN_VALID, abs=2e-4)


GOLDEN = [2.09093, 1.21279, 1.63011, 0.99547, 1.98395, 2.43948]
GOLDEN_VALID = 1.34031


@pytest.mark.parametrize("precision", machine_precisions())
def test_it_learns_and_leaves_a_model_that_transformers_loads(
    precision: str, steady: Path, more: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    events = train(specification(more, tmp_path / "out", steady, precision=precision, epochs=14))
    facts = account(tmp_path / "out")
    assert events[0]["type"] == "started"
    assert events[-1]["type"] == "done"
    assert history(tmp_path / "out")[-1]["valid_accuracy"] > 0.9
    assert facts["stopped"] == "done"
    assert (facts["steps"], facts["rows"], facts["epochs"]) == (336, 192, 14)
    assert facts["trainable"] == facts["parameters"]
    classify = pipeline("text-classification", str(tmp_path / "out" / "model"))
    assert [answer["label"] for answer in classify(["my card is red", "where is the blue card"])] == ["red", "blue"]


def test_the_history_has_a_line_for_each_step_and_each_evaluation(base: Path, tokens: Path, tmp_path: Path) -> None:
    events = train(specification(tokens, tmp_path / "out", base))
    entries = history(tmp_path / "out")
    assert [entry["step"] for entry in entries if "loss" in entry] == list(range(1, 25))
    assert [entry["step"] for entry in entries if "valid_loss" in entry] == [12, 24]
    first = entries[0]
    assert first.keys() == {
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "samples_per_second",
        "mfu",
        "memory_bytes",
        "seconds",
    }
    assert all(value > 0 for value in first.values())
    told = [{k: v for k, v in event.items() if k != "type"} for event in events if event["type"] in ("step", "valid")]
    assert told == entries


def test_more_flops_than_the_device_has_are_not_recorded(
    base: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peak that was measured on a busy machine is lower than what the training reaches."""
    for peak, stored in ((1.0, False), (1e15, True)):
        monkeypatch.setattr(hardware, "peak_flops", lambda *_, peak=peak: peak)
        out = tmp_path / f"{peak}"
        train(specification(tokens, out, base, max_steps=2))
        shares = [entry["mfu"] for entry in history(out) if "mfu" in entry] + [account(out)["mfu"]]
        assert len(shares) == 3 and all((share is not None) == stored for share in shares)


def test_the_update_is_that_of_the_whole_batch_however_it_is_split(steady: Path, more: Path, tmp_path: Path) -> None:
    steps = []
    for micro in (0, 3, 1):
        out = tmp_path / f"micro-{micro}"
        train(specification(more, out, steady, micro_batch_size=micro, max_steps=8, learning_rate=1e-3))
        steps.append([figure for e in history(out) if "loss" in e for figure in (e["loss"], e["grad_norm"])])
    assert steps[1] == pytest.approx(steps[0], rel=1e-3)
    assert steps[2] == pytest.approx(steps[0], rel=1e-3)
    assert account(tmp_path / "micro-3")["accumulation"] == 3


class StoppedError(Exception):
    """An interruption at a chosen event."""


def _stop_at(step: int) -> Any:
    def send(event: Event) -> None:
        if event["type"] == "step" and event["step"] == step:
            raise StoppedError

    return send


@pytest.mark.parametrize("precision", machine_precisions())
@pytest.mark.parametrize("method", [("full", {}), ("lora", {"rank": 4})])
def test_resuming_gives_the_same_bytes_and_the_same_history(
    base: Path, tokens: Path, tmp_path: Path, method: tuple[str, dict[str, Any]], precision: str
) -> None:
    settings = {"method": method, "precision": precision, "patience": 5, "checkpoint_seconds": 0}
    train(specification(tokens, tmp_path / "straight", base, **settings))
    again = specification(tokens, tmp_path / "stopped", base, **settings)
    for step in (5, 6, 14):
        with pytest.raises(StoppedError):
            loop.run(again, _stop_at(step))
    train(again)

    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert (straight / "model/model.safetensors").read_bytes() == (stopped / "model/model.safetensors").read_bytes()
    kept = ("step", "loss", "learning_rate", "grad_norm", "valid_loss", "valid_accuracy")
    assert [[e.get(k) for k in kept] for e in history(stopped)] == [[e.get(k) for k in kept] for e in history(straight)]
    assert account(stopped)["resumed_from"] == [4, 5, 13]
    seconds = [entry["seconds"] for entry in history(stopped) if "seconds" in entry]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("damage", ["a byte", "its end", "the end of a line", "a line and its end"])
def test_a_damaged_history_ends_no_training(damage: str, base: Path, tokens: Path, tmp_path: Path) -> None:
    """What can be read of it stays, the rest is counted; the model is the same."""
    train(specification(tokens, tmp_path / "whole", base, checkpoint_seconds=0))

    def stop(event: dict[str, Any]) -> None:
        if event["type"] == "checkpoint" and event["step"] == 5:
            raise KeyboardInterrupt

    out = tmp_path / "damaged"
    with pytest.raises(KeyboardInterrupt):
        loop.run(specification(tokens, out, base, checkpoint_seconds=0), stop)
    file = out / "history.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(
        {
            "a byte": b"".join([lines[0], b"\xff" + lines[1][1:], *lines[2:]]),
            "its end": b"".join(lines[:3]),
            "the end of a line": b"".join(lines[:3]) + lines[3][:9],
            "a line and its end": b"".join([lines[0], bytes(len(lines[1])), *lines[2:]]),
        }[damage]
    )
    train(specification(tokens, out, base, checkpoint_seconds=0))
    steps = [entry["step"] for entry in history(out) if "loss" in entry]
    lost = sorted({*range(1, account(out)["steps"] + 1)} - {*steps})
    assert lost == {"a byte": [2], "a line and its end": [2, 3]}.get(damage, [4, 5])
    assert account(out)["lost_steps"] == len(lost) and sorted(set(steps)) == steps
    assert (out / "model" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model" / "model.safetensors"
    ).read_bytes()


def test_the_model_is_on_disk_before_the_mark_that_it_is_finished(
    base: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    sync = os.fsync

    def record(handle: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink().relative_to(tmp_path)))
        sync(handle)

    monkeypatch.setattr(os, "fsync", record)
    spec = specification(tokens, tmp_path / "out", base, method=("lora", {"rank": 2}), max_steps=1)
    train(spec)
    mark = flushed.index("out/training.json")
    written = [file for folder in ("model", "adapter") for file in (tmp_path / "out" / folder).rglob("*")]
    expected = {str(path.relative_to(tmp_path)) for path in written} | {"out", "out/model", "out/adapter"}
    assert expected <= set(flushed[:mark]) and len(expected) > 6


def test_early_stopping_keeps_the_best_weights(base: Path, tokens: Path, tmp_path: Path) -> None:
    """At this learning rate the loss goes up again; what is kept is what did best, not what came last."""
    out = tmp_path / "out"
    settings = {"epochs": 30, "evaluations": 60, "patience": 4, "learning_rate": 0.08, "metric": "loss"}
    train(specification(tokens, out, base, **settings))
    facts, losses = account(out), {e["step"]: e["valid_loss"] for e in history(out) if "valid_loss" in e}
    best = min(losses, key=lambda step: losses[step])
    assert facts["stopped"] == "early"
    assert facts["best_step"] == best < facts["steps"] == max(losses)
    assert facts["valid_loss"] == losses[best]
    assert [step for step in losses if step > best] == sorted(losses)[-4:]
    assert _valid_loss(out, tokens) == pytest.approx(losses[best], abs=1e-5)


def test_early_stopping_by_a_metric_counts_from_its_best_evaluation(base: Path, tokens: Path, tmp_path: Path) -> None:
    """By the macro-F1, while the loss goes on falling or rises."""
    out = tmp_path / "out"
    settings = {"epochs": 30, "evaluations": 60, "patience": 4, "learning_rate": 0.08, "metric": "macro_f1"}
    train(specification(tokens, out, base, **settings))
    facts, entries = account(out), [entry for entry in history(out) if "valid_loss" in entry]
    best = max(entries, key=lambda entry: (entry["valid_macro_f1"], -entry["valid_loss"]))
    assert facts["stopped"] == "early"
    assert facts["selected_by"]["metric"] == "macro_f1" and facts["selected_by"]["value"] == best["valid_macro_f1"]
    assert facts["best_step"] == best["step"] < min(entries, key=lambda entry: entry["valid_loss"])["step"]
    assert [entry["step"] for entry in entries if entry["step"] > best["step"]] == [e["step"] for e in entries[-4:]]
    assert facts["valid"]["macro_f1"] == best["valid_macro_f1"]


def test_the_best_evaluation_by_the_main_metric_is_kept_or_the_last_one(
    base: Path, tokens: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 6, "evaluations": 24, "learning_rate": 0.08}
    train(specification(tokens, tmp_path / "best", base, **settings))
    train(specification(tokens, tmp_path / "last", base, select="last", **settings))
    entries = [entry for entry in history(tmp_path / "best") if "valid_loss" in entry]
    best = max(entries, key=lambda entry: (entry["valid_accuracy"], -entry["valid_loss"]))
    facts, last = account(tmp_path / "best"), account(tmp_path / "last")
    assert facts["best_step"] == best["step"] < facts["steps"] == last["steps"] == last["best_step"]
    assert facts["selected_by"] == {
        "metric": "accuracy",
        "title": "Accuracy",
        "lower": False,
        "share": True,
        "value": best["valid_accuracy"],
    }
    assert (last["selected_by"], last["valid_loss"]) == (None, entries[-1]["valid_loss"])
    assert _valid_loss(tmp_path / "best", tokens) == pytest.approx(best["valid_loss"], abs=1e-5)
    assert _valid_loss(tmp_path / "last", tokens) == pytest.approx(entries[-1]["valid_loss"], abs=1e-5)


def _valid_loss(out: Path, tokens: Path) -> float:
    from transformers import AutoModelForSequenceClassification

    from hone.training.tokens import TokenFile

    model = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    rows = TokenFile(tokens / "valid.arrow")
    objective = TextClassification()
    with torch.no_grad():
        loss, count = objective.compute_loss(
            model, objective.collate(rows.rows(range(len(rows))), model.config.pad_token_id)
        )
    return loss.item() / count


def test_words_that_no_row_has_keep_their_vectors(base: Path, tokens: Path, tmp_path: Path) -> None:
    wide = tiny_bert(tmp_path / "wide", words=[*"the a is was where red green blue".split(), *map(str, range(90))])
    tokens = write_tokens(tmp_path / "tokens", wide)
    before = load_file(wide / "model.safetensors")["embeddings.word_embeddings.weight"]
    train(specification(tokens, tmp_path / "out", wide, weight_decay=0.5))
    after = weights(tmp_path / "out")["bert.embeddings.word_embeddings.weight"]
    moved = (before != after).any(1)
    assert after.shape == before.shape
    assert moved[1:12].all()
    assert not moved[12:].any()


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_advice(tokens: Path, base: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(base, tmp_path / "base")
    tensors = load_file(broken / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] = float("nan")
    from safetensors.torch import save_file

    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(NonFiniteLoss) as fault:
        train(specification(tokens, tmp_path / "out", broken, warmup=0))
    assert "the loss is nan at step 1 of 24, at learning rate 0.005" in str(fault.value)
    assert "training.learning_rate=5.0e-04" in str(fault.value)


def test_masked_labels_stop_with_the_rows(
    base: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TextClassification, "compute_loss", lambda self, model, batch: (model(**batch).logits.sum() * 0, 0)
    )
    with pytest.raises(TrainingError, match=r"rows train:\d+, .*: no row of step 1 has a target: all labels"):
        train(specification(tokens, tmp_path / "out", base))


def test_early_stopping_without_validation_rows_is_refused(base: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", base, valid=0)
    with pytest.raises(ConfigError, match="needs validation rows"):
        train(specification(tokens, tmp_path / "out", base, patience=1))


def test_without_validation_rows_nothing_is_evaluated(base: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", base, valid=0)
    events = train(specification(tokens, tmp_path / "out", base, max_steps=2))
    assert [event["type"] for event in events] == ["started", "step", "step", "done"]
    assert account(tmp_path / "out")["valid_loss"] is None


def test_a_device_that_is_not_there_is_refused(base: Path, tokens: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ConfigError, match="there is no CUDA device"):
        train(specification(tokens, tmp_path / "out", base, device="cuda"))


def test_a_decoder_trains_too(tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base")
    tokens = write_tokens(tmp_path / "tokens", base, train=192)
    train(specification(tokens, tmp_path / "out", base, epochs=7, learning_rate=1e-2))
    assert history(tmp_path / "out")[-1]["valid_accuracy"] > 0.7


def test_auto_takes_a_precision_that_the_machine_has(base: Path, tokens: Path, tmp_path: Path) -> None:
    train(specification(tokens, tmp_path / "out", base, precision="auto", max_steps=1))
    assert account(tmp_path / "out")["precision"] in machine_precisions()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_keeps_the_precision_of_an_earlier_attempt(
    precision: str, base: Path, tokens: Path, tmp_path: Path
) -> None:
    spec = specification(tokens, tmp_path / "out", base, precision="auto", max_steps=1)
    choices.save_choices(tmp_path / "out", choices.Choices(precision=precision))
    train(spec)
    assert account(tmp_path / "out")["precision"] == precision


def test_auto_takes_no_bf16_where_torch_may_not_use_it() -> None:
    """As on a processor without AVX-512, which oneDNN's variable pretends."""
    ask = "from hone.training.hardware import cpu_has_bf16; print(cpu_has_bf16())"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout == "False\n"


def test_bfloat16_stays_near_float32(steady: Path, more: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        train(specification(more, out, steady, precision=precision, max_steps=8, learning_rate=1e-3))
    losses = [[e["loss"] for e in history(tmp_path / p) if "loss" in e] for p in ("fp32", "bf16")]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    assert losses[0] != losses[1]
    assert weights(tmp_path / "bf16")["classifier.weight"].dtype == torch.float32


def test_lora_trains_and_saves_the_head_and_merges_to_the_same_scores(steady: Path, more: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    from hone.training.tokens import TokenFile

    out, objective, rows = tmp_path / "out", TextClassification(), TokenFile(more / "test.arrow")
    method = ("lora", {"rank": 4, "target_modules": ["query", "value", "dense"]})
    train(specification(more, out, steady, method=method, epochs=8, learning_rate=1e-2))
    assert history(out)[-1]["valid_accuracy"] > 0.7
    batch = objective.collate(rows.rows(range(len(rows))), 0)
    torch.manual_seed(99)  # another random head than training began with
    plain = objective.load_model(steady, {"labels": ["blue", "green", "red"]})
    unmerged = objective.predict_batch(PeftModel.from_pretrained(plain, out / "adapter").eval(), batch)["scores"]
    merged = objective.predict_batch(AutoModelForSequenceClassification.from_pretrained(out / "model").eval(), batch)[
        "scores"
    ]
    assert unmerged == pytest.approx(merged, abs=1e-5)
    assert (merged.argmax(1) == batch["labels"].numpy()).mean() > 0.6
    facts = account(out)
    assert facts["trainable"] < facts["parameters"]


def test_an_adapter_of_the_same_training_has_the_same_bytes(base: Path, tokens: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(specification(tokens, tmp_path / name, base, method=("lora", {}), max_steps=2))
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one/adapter").iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    for file in (*files, Path("model/config.json"), Path("model/model.safetensors")):
        content = (tmp_path / "one" / file).read_bytes()
        assert content == (tmp_path / "two" / file).read_bytes()
        assert str(base).encode() not in content


def test_gradients_are_divided_by_the_targets_and_not_by_the_rows(
    steady: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An objective that counts two targets in each row has half the loss and half the gradient."""
    train(specification(more, tmp_path / "one", steady, max_steps=1, micro_batch_size=3))
    plain = TextClassification.compute_loss

    def doubled(self: TextClassification, model: Any, batch: Any) -> tuple[torch.Tensor, int]:
        loss, count = plain(self, model, batch)
        return loss, 2 * count

    monkeypatch.setattr(TextClassification, "compute_loss", doubled)
    train(specification(more, tmp_path / "two", steady, max_steps=1, micro_batch_size=3))
    one, two = history(tmp_path / "one")[0], history(tmp_path / "two")[0]
    assert two["loss"] == pytest.approx(one["loss"] / 2, rel=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"] / 2, rel=1e-5)
