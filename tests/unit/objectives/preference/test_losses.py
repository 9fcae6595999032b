"""Our losses are those of trl's trainers, on the same tokens, model and reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.objectives.preference.objective import Preference
from hone.objectives.preference.tokens import token_log_probs
from hone.objectives.shared.tokenizer import load_tokenizer
from tests.tiny_bases import tiny_llama

PAIRS = [
    {"prompt": "where is my card", "chosen": " the card is lost please", "rejected": " red green blue"},
    {"prompt": "please help my money", "chosen": " refund", "rejected": " the money was stolen my word is broken"},
    {"prompt": "is the card late", "chosen": " the card was late", "rejected": " a word"},
]
SETTINGS = {"use_cpu": True, "bf16": False, "report_to": "none", "beta": 0.3, "max_length": 64, "seed": 1}


def trainer_of(name: str, base: Path, rows: list[dict[str, Any]], out: Path) -> Any:
    """trl's trainer of a tiny model that was moved away from its reference."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    if name == "orpo":
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer
    elif name == "kto":
        from trl import KTOConfig as Config
        from trl import KTOTrainer as Trainer
    else:
        from trl import DPOConfig as Config
        from trl import DPOTrainer as Trainer
    tokenizer = load_tokenizer(base)
    config = Config(output_dir=str(out), per_device_train_batch_size=len(rows), **SETTINGS)
    model = AutoModelForCausalLM.from_pretrained(base)
    trainer = Trainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return trainer


def reference(base: Path, ids: Any, mask: Any, labels: Any) -> Any:
    """The base model's log-probability of each sequence's labelled tokens."""
    import torch

    model = Preference().load_model(base, {}).eval()
    with torch.no_grad():
        return token_log_probs(model(input_ids=ids, attention_mask=mask).logits, labels).sum(1)


def encoded(rows: list[dict[str, str]], base: Path) -> Any:
    import pyarrow as pa

    columns = {name: pa.array([row[name] for row in rows]) for name in ("prompt", "chosen", "rejected")}
    table = pa.table({"id": pa.array([str(i) for i in range(len(rows))]), **columns})
    return Preference().encode(table, load_tokenizer(base), 64, {})


@pytest.mark.slow
def test_dpo_is_trl_s_from_the_text_to_the_loss(tmp_path: Path) -> None:
    import torch

    base = tiny_llama(tmp_path / "base")
    trainer = trainer_of("dpo", base, PAIRS, tmp_path / "out")
    theirs = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        wanted = trainer.compute_loss(trainer.model.eval(), dict(theirs)).item()

    objective = Preference(loss_type="dpo", beta=0.3)
    batch = objective.collate(encoded(PAIRS, base).to_pydict(), pad_id=1)
    sequence = lambda tensors: sorted(  # noqa: E731
        row[there.bool()].tolist() for row, there in zip(tensors["input_ids"], tensors["attention_mask"], strict=True)
    )
    assert sequence(batch) == sequence(theirs)

    batch["reference"] = reference(base, batch["input_ids"], batch["attention_mask"], batch["labels"])
    loss, count = objective.compute_loss(trainer.model, batch)
    assert count == 3
    assert loss.item() / count == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted - 0.6931) > 0.01


@pytest.mark.slow
def test_kto_is_trl_s_on_its_own_batch(tmp_path: Path) -> None:
    import torch

    base = tiny_llama(tmp_path / "base")
    rows = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in PAIRS]
    rows += [{"prompt": row["prompt"], "completion": row["rejected"], "label": False} for row in PAIRS]
    trainer = trainer_of("kto", base, rows, tmp_path / "out")
    theirs = next(iter(trainer.get_train_dataloader()))
    model = trainer.model.eval()

    def ours(prefix: str) -> dict[str, Any]:
        ids, mask = theirs[f"{prefix}input_ids"], theirs[f"{prefix}attention_mask"]
        labels = ids.masked_fill(theirs[f"{prefix}completion_mask"] == 0, -100)
        known = reference(base, ids, mask, labels)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "reference": known}

    others = ours("KL_")
    batch = ours("") | {f"other_{name}": tensor for name, tensor in others.items()}
    batch["side"] = 1 - theirs["label"].long()
    objective = Preference(loss_type="kto", beta=0.3)
    for nearer in (False, True):  # the divergence is held to 0 at first; then the model learns the other completions
        if nearer:
            learn(model, others)
        with torch.no_grad():
            wanted = trainer.compute_loss(model, dict(theirs)).item()
            assert (objective._kl(model, batch).item() > 1) is nearer
        loss, count = objective.compute_loss(model, batch)
        assert count == 6
        assert loss.item() / count == pytest.approx(wanted, abs=1e-5)


def learn(model: Any, batch: dict[str, Any]) -> None:
    """Some steps towards a batch's labels."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(10):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        (-token_log_probs(logits, batch["labels"]).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.slow
def test_the_odds_of_orpo_are_trl_s(tmp_path: Path) -> None:
    import torch

    from hone.objectives.preference.losses import orpo_loss

    base = tiny_llama(tmp_path / "base")
    trainer = trainer_of("orpo", base, PAIRS, tmp_path / "out")
    chosen, rejected = torch.tensor([-2.0, -0.3, -1e-4, -9.0]), torch.tensor([-1.0, -0.8, -5.0, -1e-3])
    wanted, *_ = trainer.odds_ratio_loss(chosen, rejected)
    assert torch.allclose(orpo_loss(chosen, rejected, 0.3), -chosen - wanted, atol=1e-5)

    # A probability of 1 has odds without bound: its loss and its gradient stay finite.
    sure = torch.zeros(1, requires_grad=True)
    orpo_loss(sure, torch.tensor([-1.0]), 0.3).backward()
    assert torch.isfinite(sure.grad).all()

    # With a prompt of one token trl's first term, too, is over the completion alone.
    rows = [{"prompt": "card", "chosen": " was lost", "rejected": " red green blue"}]
    trainer = trainer_of("orpo", base, rows, tmp_path / "one")
    theirs = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        wanted, _ = trainer.get_batch_loss_metrics(trainer.model.eval(), theirs)
    objective = Preference(loss_type="orpo", beta=0.3)
    batch = objective.collate(encoded(rows, base).to_pydict(), pad_id=1)
    loss, count = objective.compute_loss(trainer.model, batch)
    assert count == 1
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
