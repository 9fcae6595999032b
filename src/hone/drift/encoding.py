"""Embeddings of texts by a frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def compute_embeddings(model: Path, texts: Sequence[str], max_length: int) -> np.ndarray:
    """Unit-length embeddings, float32 [texts, dimensions], by the model in the directory `model`, without its head.

    The mean of the last hidden state over a text's first `max_length` tokens (Reimers and Gurevych, Sentence-BERT,
    2019). Raises ModelError if it cannot be loaded.
    """
    import pyarrow as pa

    from hone.evaluation.judging.predict import best_device, embed_batch, load_base
    from hone.objectives.shared.reading import Reader
    from hone.objectives.shared.tokenizer import encode_texts, load_tokenizer
    from hone.objectives.text_classification import TextClassification

    device, tokenizer = best_device(), load_tokenizer(model)
    encoder = load_base(model, device)
    max_positions = getattr(encoder.config, "max_position_embeddings", None) or max_length
    # A text without words becomes a padding token, so that it has at least one token.
    pad = tokenizer.convert_ids_to_tokens(tokenizer.pad_token_id)
    ids, _ = encode_texts(tokenizer, [text if text.strip() else pad for text in texts], min(max_length, max_positions))
    tokens = pa.table({"id": [str(index) for index in range(len(texts))], "input_ids": ids})
    embeddings: np.ndarray | None = None
    for positions, batch in Reader(TextClassification(), tokenizer.pad_token_id, device).batches(tokens):
        vectors = embed_batch(encoder, batch)
        embeddings = np.empty((len(texts), vectors.shape[1]), np.float32) if embeddings is None else embeddings
        embeddings[positions] = vectors
    return np.empty((0, 0), np.float32) if embeddings is None else embeddings
