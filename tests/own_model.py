"""A base model that brings code of its own, as hub models do that transformers has no class for."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tiny_bases import tiny_bert

CONFIGURATION = """
from transformers import BertConfig


class OwnConfig(BertConfig):
    model_type = "own-bert"
"""
MODELING = """
from transformers import BertForSequenceClassification, BertModel

from .configuration_own import OwnConfig


class OwnModel(BertModel):
    config_class = OwnConfig


class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        said = super().forward(*args, **kwargs)
        said.logits = said.logits * self.config.sharpness
        return said
"""
AUTO_MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModel": "modeling_own.OwnModel",
    "AutoModelForSequenceClassification": "modeling_own.OwnForSequenceClassification",
}


def own_bert(folder: Path, words: list[str]) -> Path:
    """A tiny BERT under a name that transformers does not know, whose code triples what its head says."""
    base = tiny_bert(folder, words=words, hidden=32, positions=64, seed=1, initializer_range=0.02)
    config = json.loads((base / "config.json").read_text("utf8"))
    config |= {"model_type": "own-bert", "architectures": ["OwnModel"], "auto_map": AUTO_MAP, "sharpness": 3.0}
    (base / "config.json").write_text(json.dumps(config), "utf8")
    (base / "configuration_own.py").write_text(CONFIGURATION, "utf8")
    (base / "modeling_own.py").write_text(MODELING, "utf8")
    return base
