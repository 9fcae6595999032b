"""How many tokens a base model takes, from its configuration."""

from __future__ import annotations

from typing import Any

NO_LIMIT = 10**9
# Text encoders that number positions from the padding token's id + 1, as RoBERTa does: of 514 positions 512 are usable.
COUNTED_FROM_PADDING = frozenset(
    {
        "altclip_text_model",
        "bridgetower_text_model",
        "camembert",
        "clap_text_model",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)


def get_max_tokens(config: Any) -> int:
    """The maximum number of tokens of a model with the transformers configuration `config`; NO_LIMIT if it has none."""
    positions = getattr(config, "max_position_embeddings", None) or -1
    if positions < 0:  # XLNet has -1
        return NO_LIMIT
    counted_from_padding = (
        getattr(config, "model_type", "") in COUNTED_FROM_PADDING
        and getattr(config, "position_embedding_type", "absolute") == "absolute"  # ESM-2's are rotary
    )
    return int(positions - (config.pad_token_id or 0) - 1 if counted_from_padding else positions)
