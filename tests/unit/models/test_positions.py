"""The number of tokens that a model takes, and not one more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config, RobertaConfig, RobertaModel, XLNetConfig

from hone.models.positions import COUNTED_FROM_PADDING, NO_LIMIT, get_max_tokens

# Models of speech and images, decoders, and encoder-decoders with positions that are computed: not base models of text.
OTHERS = {
    "evolla",
    "kosmos2",
    "kosmos2_5",
    "m2m_100",
    "nllb_moe",
    "pp_doclayout_v2",
    "seamless_m4t",
    "seamless_m4t_v2",
    "speech_to_text",
    "speecht5",
    "trocr",
}


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_a_roberta_takes_its_limit_and_fails_above_it(pad: int) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=20, max_position_embeddings=66, pad_token_id=pad, **sizes)
    model, limit = RobertaModel(config).eval(), get_max_tokens(config)
    assert limit == 65 - pad
    model(input_ids=torch.full((1, limit), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 7))


def test_other_models_count_from_zero_or_have_no_limit() -> None:
    assert get_max_tokens(RobertaConfig(max_position_embeddings=514)) == 512
    assert get_max_tokens(BertConfig(max_position_embeddings=512)) == 512
    assert get_max_tokens(GPT2Config(n_positions=64)) == 64
    assert get_max_tokens(XLNetConfig()) == NO_LIMIT


def test_the_models_that_transformers_counts_from_the_padding_are_known() -> None:
    for file in (Path(transformers.__file__).parent / "models").glob("*/modeling_*.py"):
        if "def create_position_ids_from_input_ids" in file.read_text("utf8") and file.parent.name not in OTHERS:
            configurations = "".join(path.read_text("utf8") for path in file.parent.glob("configuration_*.py"))
            kinds = set(re.findall(r'model_type = "(.*)"', configurations))
            assert kinds & COUNTED_FROM_PADDING, file
