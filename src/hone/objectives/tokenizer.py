"""Text to token ids by a base model's own tokenizer: what every objective's `encode` is built on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hone.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer in the directory `base`, which always has a padding token: the end-of-text token if no other.

    Raises ModelError where there is no tokenizer, or where it is not a fast one (Rust's `tokenizers`).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as fault:
        raise ModelError(
            f"its tokenizer cannot be loaded: {fault}",
            where=str(base),
            fix="The base model's directory must hold tokenizer.json and tokenizer_config.json.",
        ) from fault
    if not tokenizer.is_fast:
        raise ModelError(
            f"its tokenizer, a {type(tokenizer).__name__}, is not a fast one",
            where=str(base),
            fix="Choose a base model with a tokenizer.json.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError("its tokenizer has no padding, end or unknown token", where=str(base), fix="Give it one.")
    return tokenizer


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> tuple[pa.ListArray, np.ndarray]:
    """Token ids of `texts` (list<int32>, special tokens in place) and, for each, the tokens that were cut off (int32).

    No text has more than `max_length` ids; the tokenizer's own side is cut. Rust does it on all cores; threads may
    call it at once for one `max_length`.
    """
    import numpy as np
    import pyarrow as pa

    backend = tokenizer.backend_tokenizer
    cut = {"max_length": max_length, "stride": 0, "strategy": "longest_first", "direction": tokenizer.truncation_side}
    if backend.padding is not None or backend.truncation != cut:  # left alone while another thread encodes
        backend.no_padding()
        backend.enable_truncation(**cut)
    # The fast variant leaves out offsets, which nobody reads.
    encodings = backend.encode_batch_fast(list(texts))
    ids = [encoding.ids for encoding in encodings]
    ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    values = np.fromiter(chain.from_iterable(ids), np.int32, count=int(ends[-1]))
    special = backend.num_special_tokens_to_add(is_pair=False)
    full = [place for place, row in enumerate(ids) if len(row) == max_length]
    lost = np.zeros(len(ids), np.int32)
    lost[full] = [sum(len(piece) - special for piece in encodings[place].overflowing) for place in full]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values)), lost


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """The length of each text in tokens, special ones among them, nothing cut off (int32)."""
    import numpy as np

    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return np.array([len(encoding) for encoding in backend.encode_batch_fast(list(texts))], np.int32)
