"""Encoding of text by a base model's own tokenizer, on which every objective's `encode` is built."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import DataError, ModelError
from hone.models.own_code import may_run
from hone.objectives.base import Targets
from hone.objectives.shared.special_tokens import encode_as_text, get_special_tokens

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

CONTROL = "special_tokens"  # the key of the control tokens in the targets


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer in the directory `base`; it always has a padding token, if need be its end-of-text token.

    Raises ModelError if there is no tokenizer or it is not a fast one (Rust's `tokenizers`).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=may_run(base))
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
        raise ModelError(
            "its tokenizer has no padding, end or unknown token",
            where=str(base),
            fix="Set pad_token in tokenizer_config.json.",
        )
    return tokenizer


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | tuple[str, str]],
    max_length: int,
    control: Collection[str] = (),
) -> tuple[pa.ListArray, np.ndarray]:
    """Token ids of `texts` (list<int32>, with special tokens) and, for each, the number of tokens cut off (int32).

    A pair of texts is encoded in the tokenizer's form for pairs. Rows are cut to `max_length` ids on the tokenizer's
    own side; of a pair the longer text is cut. The names of special tokens in a text are text, except those in
    `control`. Runs in Rust on all cores; several threads may call it at once only with the same `max_length`.
    """
    import numpy as np

    def set_truncation(backend: Tokenizer) -> None:
        _set_truncation(backend, max_length, tokenizer.truncation_side)

    # The fast variant leaves out offsets, which are not used here.
    encoded = encode_as_text(
        tokenizer, texts, control, set_truncation, lambda backend, rows: backend.encode_batch_fast(rows)
    )
    ids = [encoding.ids for encoding in encoded]
    special = tokenizer.backend_tokenizer.num_special_tokens_to_add(is_pair=False)
    full = [row for row, row_ids in enumerate(ids) if len(row_ids) == max_length]
    lost = np.zeros(len(ids), np.int32)
    if full and not isinstance(texts[0], str):
        # The overflow of a pair repeats parts of both texts: count the tokens again instead.
        lost[full] = count_tokens(_copy_tokenizer(tokenizer), [texts[row] for row in full], control) - max_length
    else:
        lost[full] = [sum(len(piece) - special for piece in encoded[row].overflowing) for row in full]
    return to_list_array(ids), lost


def encode_rows(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, targets: Targets, **columns: Any
) -> pa.Table:
    """The rows with their `text` encoded: `id`, `input_ids` (list<int32>), the given `columns`, `lost` (int32).

    Raises DataError for a null text.
    """
    import pyarrow as pa

    input_ids, lost = encode_texts(tokenizer, get_texts(rows), max_length, list_control_tokens(targets))
    return pa.table({"id": rows["id"].cast(pa.string()), "input_ids": input_ids, **columns, "lost": pa.array(lost)})


@lru_cache(maxsize=4)
def _copy_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy with settings of its own: threads may count with it without truncation while others encode."""
    return deepcopy(tokenizer)


def encode_with_offsets(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int = 0,
    special: bool = True,
    control: Collection[str] = (),
) -> list[Encoding]:
    """The texts' encodings with offsets (in characters) and word ids, cut on the right to `max_length` ids; 0: not cut.

    What was cut off is in `overflowing`. The names of special tokens in a text are text, except those in `control`.
    Several threads may call it at once only with the same `max_length`.
    """
    return encode_as_text(
        tokenizer,
        texts,
        control,
        lambda backend: _set_truncation(backend, max_length, "right"),
        lambda backend, rows: backend.encode_batch(rows, add_special_tokens=special),
    )


def encode_rendered(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], control: Collection[str] = ()
) -> list[Encoding]:
    """The encodings with offsets of texts that a chat template wrote, with its special tokens, not truncated.

    Names of special tokens in the row's own texts were hidden before (`SpecialTokens.hide`) and are text.
    """
    special = get_special_tokens(tokenizer, control)

    def prepare(backend: Tokenizer) -> None:
        _set_truncation(backend, 0, "right")

    def encode(backend: Tokenizer, rows: list[str]) -> list[Encoding]:
        return list(backend.encode_batch(rows, add_special_tokens=False))

    prepare(tokenizer.backend_tokenizer)
    encodings = encode(tokenizer.backend_tokenizer, list(texts))
    rows = {row: special.swap(text) for row, text in enumerate(texts) if special.is_hidden_in(text)}
    special.replace_encodings(encodings, rows, prepare, encode)
    return encodings


def list_control_tokens(targets: Targets) -> Sequence[str]:
    """The special tokens that act as such in texts (`tokenization.special_tokens`); a model's targets contain them."""
    names: Sequence[str] = targets.get(CONTROL, ())
    return names


def _set_truncation(backend: Tokenizer, max_length: int, direction: str) -> None:
    """Set truncation to `max_length` ids, or none if it is 0, and no padding."""
    truncation: dict[str, Any] = {
        "max_length": max_length,
        "stride": 0,
        "strategy": "longest_first",
        "direction": direction,
    }
    if backend.padding is None and backend.truncation == (truncation if max_length else None):
        return  # nothing is set while another thread may be encoding
    backend.no_padding()
    if max_length:
        backend.enable_truncation(**truncation)
    else:
        backend.no_truncation()


def to_list_array(rows: Sequence[Sequence[int]]) -> pa.ListArray:
    """Rows of ids as list<int32>."""
    import numpy as np
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = np.fromiter(chain.from_iterable(rows), np.int32, count=int(ends[-1]))
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values))


def get_texts(rows: pa.Table) -> list[str]:
    """The column `text`; raises DataError for a null text."""
    if rows["text"].null_count:
        first = rows["id"].filter(rows["text"].is_null())[0].as_py()
        raise DataError("a row has no text", where=f"row {first}", fix="Drop such rows.")
    texts: list[str] = rows["text"].to_pylist()
    return texts


def list_truncated(tokens: pa.Table) -> list[bool]:
    """Whether tokens were cut off, for each encoded row."""
    return [lost > 0 for lost in tokens["lost"].to_pylist()]


def count_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str | tuple[str, str]], control: Collection[str] = ()
) -> np.ndarray:
    """The length of each text in tokens, special tokens included, without truncation (int32)."""
    import numpy as np

    encoded = encode_as_text(
        tokenizer,
        texts,
        control,
        lambda backend: _set_truncation(backend, 0, "right"),
        lambda backend, rows: backend.encode_batch_fast(rows),
    )
    return np.array([len(encoding) for encoding in encoded], np.int32)
