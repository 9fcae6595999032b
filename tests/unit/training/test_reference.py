"""Learning by how far a model leaves its base: the base is asked once, and an interrupted training asks no more."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from hone.training import loop, session
from tests.tiny_bases import WORDS, tiny_llama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Prompts whose chosen completions are of colours and whose rejected ones are not."""
    import pyarrow as pa

    from hone.objectives.preference.objective import Preference
    from hone.objectives.shared.tokenizer import load_tokenizer

    folder, chance = tmp_path_factory.mktemp("tokens"), random.Random(3)
    (folder / "targets.json").write_text("{}")
    for split, rows in (("train", 24), ("valid", 8)):
        prompts = [" ".join(chance.choices(WORDS, k=chance.randint(2, 6))) for _ in range(rows)]
        chosen = [" " + " ".join(chance.choices(("red", "green", "blue"), k=chance.randint(1, 4))) for _ in prompts]
        rejected = [" " + " ".join(chance.choices(("card", "money"), k=chance.randint(1, 4))) for _ in prompts]
        ids = [f"{split}:{i}" for i in range(rows)]
        table = pa.table({"id": ids, "prompt": prompts, "chosen": chosen, "rejected": rejected})
        encoded = Preference().encode(table, load_tokenizer(base), 16, {})
        with pa.ipc.new_file(folder / f"{split}.arrow", encoded.schema) as file:
            file.write_table(encoded, max_chunksize=10)
    return folder


def specification(
    tokens: Path, out: Path, base: Path, loss: str, method: tuple[str, dict[str, Any]] = ("full", {}), **settings: Any
) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    chosen = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "device": "cpu", "precision": "fp32"}
    return {
        "tokens": str(tokens),
        "out": str(out),
        "base": str(base),
        "objective": ("preference", {"loss_type": loss}),
        "method": method,
        "settings": {**chosen, **settings},
    }


def ignore(_: Any) -> None:
    """Nobody listens."""


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text("utf8").splitlines()]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("dropout", [False, True])
def test_before_the_first_step_a_model_without_dropout_is_its_reference(
    tokens: Path, base: Path, tmp_path: Path, dropout: bool
) -> None:
    shutil.copytree(base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text("utf8")) | {"attention_dropout": 0.5}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config), "utf8")
    spec = specification(tokens, tmp_path / "out", tmp_path / "base", "dpo", ("lora", {"dropout": 0.5}), max_steps=1)
    spec["objective"][1]["dropout"] = dropout
    loop.run(spec, ignore)
    loss = next(entry["loss"] for entry in history(tmp_path / "out") if "loss" in entry)
    assert (loss == pytest.approx(math.log(2), abs=1e-6)) is not dropout


@pytest.mark.parametrize("loss", ["dpo", "orpo", "kto"])
@pytest.mark.parametrize("method", [("full", {}), ("lora", {"rank": 4}), ("freeze", {"layers": 1})])
def test_every_loss_learns_by_every_method(
    loss: str, method: tuple[str, dict[str, Any]], tokens: Path, base: Path, tmp_path: Path
) -> None:
    rate = 3e-2 if method[0] == "lora" else 1e-2
    loop.run(specification(tokens, tmp_path, base, loss, method, learning_rate=rate, epochs=6), ignore)
    steps = [entry for entry in history(tmp_path) if "loss" in entry]
    valid = [entry for entry in history(tmp_path) if "valid_loss" in entry]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert valid[-1]["valid_reward_accuracy"] > 0.8
    assert valid[-1]["valid_margin"] > 0
    assert ("valid_kl" in valid[-1]) == (loss != "orpo")
    # Only what an objective needs is asked of the base, and no second model is counted.
    assert (tmp_path / "reference").is_dir() == (loss != "orpo")
    account = json.loads((tmp_path / "training.json").read_text("utf8"))
    plain = sum(parameter.numel() for parameter in session.OBJECTIVES["preference"]().load_model(base, {}).parameters())  # type: ignore[attr-defined]
    assert account["parameters"] - plain == (account["trainable"] if method[0] == "lora" else 0)


def test_before_the_first_step_a_model_is_its_reference(tokens: Path, base: Path, tmp_path: Path) -> None:
    loop.run(specification(tokens, tmp_path, base, "dpo", ("lora", {"rank": 4, "dropout": 0.0}), epochs=1), ignore)
    assert history(tmp_path)[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_an_interrupted_training_ends_with_the_same_bytes_and_asks_the_base_no_more(
    loss: str, tokens: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.run(specification(tokens, tmp_path / "whole", base, loss, checkpoint_seconds=0), ignore)

    class Killed(BaseException):
        pass

    def kill(event: dict[str, Any]) -> None:
        if event["type"] == "checkpoint" and event["step"] == 4:
            raise Killed

    spec = specification(tokens, tmp_path / "cut", base, loss, checkpoint_seconds=0)
    with pytest.raises(Killed):
        loop.run(spec, kill)
    kept = (tmp_path / "cut" / "reference" / "train.arrow").stat()
    heard: list[dict[str, Any]] = []
    loop.run(spec, heard.append)
    assert {"type": "resumed", "step": 4} in heard
    assert (tmp_path / "cut" / "reference" / "train.arrow").stat().st_mtime_ns == kept.st_mtime_ns
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")

    # Lost or damaged, they are asked of the base again, and not of the model that was trained so far.
    for damage in ("lost", "changed", "without its digest"):
        spec = specification(tokens, tmp_path / damage, base, loss, checkpoint_seconds=0)
        with pytest.raises(Killed):
            loop.run(spec, kill)
        file = tmp_path / damage / "reference" / "train.arrow"
        if damage == "lost":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2 :: 8] = bytes(value ^ 1 for value in content[len(content) // 2 :: 8])
            file.write_bytes(content)
        if damage == "without its digest":
            file.with_name("train.arrow.sha256").unlink()
        loop.run(spec, ignore)
        assert weights(tmp_path / damage) == weights(tmp_path / "whole")


def test_micro_batches_change_nothing_but_rounding(tokens: Path, base: Path, tmp_path: Path) -> None:
    losses = []
    for rows in (8, 3):
        out = tmp_path / str(rows)
        loop.run(specification(tokens, out, base, "dpo", micro_batch_size=rows), ignore)
        losses.append([entry["loss"] for entry in history(out) if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_base_is_asked_in_smaller_batches_where_memory_does_not_suffice(
    tokens: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone.objectives.preference.objective import Preference

    real, sizes = Preference.predict_batch, []

    def narrow(self: Preference, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        sizes.append(int(batch["row"][-1]) + 1)
        if sizes[-1] > 3:
            raise MemoryError
        return real(self, model, batch)

    loop.run(specification(tokens, tmp_path / "much", base, "dpo", epochs=1), ignore)
    monkeypatch.setattr(Preference, "predict_batch", narrow)
    built = session.build(specification(tokens, tmp_path / "little", base, "dpo", epochs=1))
    assert built.micro_batch_size == 8
    assert sizes[:4] == [8, 4, 2, 2]
    much, little = (
        session.TokenFile(tokens / "train.arrow", tmp_path / which / "reference" / "train.arrow")  # type: ignore[attr-defined]
        for which in ("much", "little")
    )
    for row in range(len(much)):
        ours, theirs = (file.rows([row])["reference"][0] for file in (much, little))
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.slow
def test_a_real_model_learns_a_real_data_set_s_tone(shared: Path, tmp_path: Path) -> None:
    """stories260K on answers of which the impolite ones were rejected: rewards follow on rows it has not seen."""
    import pyarrow as pa

    from hone.objectives.preference.objective import Preference
    from hone.objectives.preference.rows import normalize_preference_row
    from hone.objectives.shared.tokenizer import load_tokenizer

    source = shared / "datasets" / "rasbt_instruct" / "instruction-data-with-preference.json"
    rows = [
        normalize_preference_row(row)
        for row in json.loads(source.read_text("utf8"))
        if row["chosen"] != row["rejected"]
    ]
    objective, real = Preference(), shared / "models" / "stories260K"
    (tmp_path / "targets.json").write_text("{}")
    for split, some in (("train", rows[:240]), ("valid", rows[240:300])):
        columns = {name: [str(row[name]) for row in some] for name in objective.columns}
        ids = [f"{split}:{i}" for i in range(len(some))]
        encoded = objective.encode(pa.table({"id": ids, **columns}), load_tokenizer(real), 192, {})
        with pa.ipc.new_file(tmp_path / f"{split}.arrow", encoded.schema) as file:
            file.write_table(encoded)
    method = ("lora", {"rank": 8})
    loop.run(specification(tmp_path, tmp_path, real, "dpo", method, epochs=2, learning_rate=1e-3), ignore)
    valid = [entry for entry in history(tmp_path) if "valid_loss" in entry]
    assert valid[-1]["valid_loss"] < 0.65
    assert valid[-1]["valid_reward_accuracy"] > 0.65
    assert 0 < valid[-1]["valid_kl"] < 1.5  # 0.88 when measured; five times the rate went to 2.4
