"""Text to token ids by a base model's own tokenizer: what every objective's `encode` is built on."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import DataError, ModelError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from tokenizers import Encoding, Tokenizer
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
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str | tuple[str, str]], max_length: int
) -> tuple[pa.ListArray, np.ndarray]:
    """Token ids of `texts` (list<int32>, special tokens in place) and, for each, the tokens that were cut off (int32).

    A pair of texts is encoded as the tokenizer does pairs. No row has more than `max_length` ids: the tokenizer's own
    side is cut, of a pair the longer text's. Rust does it on all cores; threads may call it at once for one
    `max_length`.
    """
    import numpy as np
    import pyarrow as pa

    backend = tokenizer.backend_tokenizer
    _cut_to(backend, max_length, tokenizer.truncation_side)
    # The fast variant leaves out offsets, which nobody reads.
    encodings = backend.encode_batch_fast(list(texts))
    ids = [encoding.ids for encoding in encodings]
    ends = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    values = np.fromiter(chain.from_iterable(ids), np.int32, count=int(ends[-1]))
    special = backend.num_special_tokens_to_add(is_pair=False)
    full = [place for place, row in enumerate(ids) if len(row) == max_length]
    lost = np.zeros(len(ids), np.int32)
    if full and not isinstance(texts[0], str):
        lost[full] = token_counts(_untruncated(tokenizer), [texts[place] for place in full]) - max_length
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(values)), lost
    lost[full] = [sum(len(piece) - special for piece in encodings[place].overflowing) for place in full]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values)), lost


def encode_rows(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, **more: Any) -> pa.Table:
    """The column `text` of the rows encoded: `id`, `input_ids` (list<int32>), the columns `more`, `lost` (int32).

    Raises DataError for a text that is null.
    """
    import pyarrow as pa

    texts = rows["text"].to_pylist()
    if None in texts:
        name = rows["id"][texts.index(None)].as_py()
        raise DataError("a row has no text", where=f"row {name}", fix="Drop such rows.")
    input_ids, lost = encode_texts(tokenizer, texts, max_length)
    return pa.table({"id": rows["id"].cast(pa.string()), "input_ids": input_ids, **more, "lost": pa.array(lost)})


@lru_cache(maxsize=4)
def _untruncated(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy whose settings are its own: threads may count with it while others encode."""
    return deepcopy(tokenizer)


def encode_whole(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Encoding]:
    """The encodings of `texts` with their offsets (in characters), bare of special tokens, nothing cut off.

    Threads may call it at once.
    """
    backend = tokenizer.backend_tokenizer
    if backend.padding is not None or backend.truncation is not None:
        backend.no_padding()
        backend.no_truncation()
    found: list[Encoding] = backend.encode_batch(list(texts), add_special_tokens=False)
    return found


def encode_cut(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[Encoding]:
    """The encodings of `texts` with their offsets (in characters), special tokens in place, cut on the right.

    None has more than `max_length` ids; what was cut off is in `overflowing`. Threads may call it at once for one
    `max_length`.
    """
    backend = tokenizer.backend_tokenizer
    _cut_to(backend, max_length, "right")
    found: list[Encoding] = backend.encode_batch(list(texts))
    return found


def lost_tokens(encoding: Encoding) -> int:
    """How many tokens were cut off a text, special ones not counted."""
    return sum(len(piece) - sum(piece.special_tokens_mask) for piece in encoding.overflowing)


def lists(rows: Sequence[Sequence[int]]) -> pa.ListArray:
    """The rows as list<int32>."""
    import pyarrow as pa

    return pa.array([list(row) for row in rows], pa.list_(pa.int32()))


def _cut_to(backend: Tokenizer, max_length: int, direction: str) -> None:
    cut: dict[str, Any] = {"max_length": max_length, "stride": 0, "strategy": "longest_first", "direction": direction}
    if backend.padding is not None or backend.truncation != cut:  # left alone while another thread encodes
        backend.no_padding()
        backend.enable_truncation(**cut)


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str | tuple[str, str]]) -> np.ndarray:
    """The length of each text in tokens, special ones among them, nothing cut off (int32)."""
    import numpy as np

    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return np.array([len(encoding) for encoding in backend.encode_batch_fast(list(texts))], np.int32)
