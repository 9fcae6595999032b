"""Special tokens in text are text: `</s>` or `<|im_end|>` in a row must not end it, nor teach a model to stop.

A tokenizer replaces the names of its special tokens anywhere in a text by control tokens. A copy of it does so for
other names, which occur in no text, with the same ids and the same lengths: it encodes the rows that have a special
token's name in them. A chat template writes control tokens around the row's own text: `hide` protects the names in
that text while it is rendered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

# Characters for private use (Unicode's plane 15), of which a hidden name consists.
_PRIVATE, _FILL = 0xF0000, "\U000ffffd"


def list_special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The names of a tokenizer's special tokens: those it was given a use for, and others marked as special."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return {*added, *tokenizer.all_special_tokens}


class SpecialTokens:
    """The names of a tokenizer's special tokens, without those in `control`, which act as tokens in texts too."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Collection[str] = ()) -> None:
        names = sorted(list_special_tokens(tokenizer) - {*control, ""})
        self._hidden = {name: chr(_PRIVATE + i) + _FILL * (len(name) - 1) for i, name in enumerate(names)}
        self._shown = {hidden: name for name, hidden in self._hidden.items()}
        self._first_characters = sorted({name[0] for name in names})
        self._names = _compile(names)
        self._both = _compile([*names, *self._shown])
        self._backend = tokenizer.backend_tokenizer
        self._copy: Tokenizer | None = None
        self._lock = Lock()

    def occur_in(self, text: str) -> bool:
        """Whether a special token's name is in the text."""
        # Most texts have no < or [: a scan for these takes a hundredth of the time of the pattern.
        return any(character in text for character in self._first_characters) and bool(self._names.search(text))

    def hide(self, text: str) -> str:
        """The text with other characters, as many, for each name of a special token."""
        return self._names.sub(lambda match: self._hidden[match[0]], text)

    def swap(self, text: str) -> str:
        """A template's text for `replace_encodings`: names are hidden, what was hidden in its texts is shown again."""
        return self._both.sub(lambda match: self._hidden.get(match[0]) or self._shown[match[0]], text)

    def is_hidden_in(self, text: str) -> bool:
        """Whether the text contains a hidden name."""
        return not text.isascii() and any(hidden in text for hidden in self._shown)

    def replace_encodings(
        self,
        encodings: list[Encoding],
        texts: Mapping[int, Any],
        prepare: Callable[[Tokenizer], None],
        encode: Callable[[Tokenizer, list[Any]], list[Encoding]],
    ) -> None:
        """Replace the encodings of these rows by those of the tokenizer that has hidden names for its special tokens.

        `prepare` sets that tokenizer's truncation: for one thread at a time, while no other has the tokenizer.
        """
        if not texts:
            return
        with self._lock:
            if self._copy is None:
                self._copy = _rename_tokens(self._backend, self._hidden)
            prepare(self._copy)
            replaced = encode(self._copy, list(texts.values()))
        for row, encoding in zip(texts, replaced, strict=True):
            encodings[row] = encoding


@lru_cache(maxsize=8)
def _special_tokens(tokenizer: PreTrainedTokenizerBase, control: frozenset[str], _size: int) -> SpecialTokens:
    return SpecialTokens(tokenizer, control)


def get_special_tokens(tokenizer: PreTrainedTokenizerBase, control: Collection[str] = ()) -> SpecialTokens:
    """The tokenizer's special tokens, made once for each tokenizer and `control`."""
    return _special_tokens(tokenizer, frozenset(control), len(tokenizer))


def encode_as_text(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Any],
    control: Collection[str],
    prepare: Callable[[Tokenizer], None],
    encode: Callable[[Tokenizer, list[Any]], list[Encoding]],
) -> list[Encoding]:
    """The encodings of texts, or pairs of texts, in which special tokens' names are text.

    `encode` is called with a tokenizer that `prepare` was called with, which sets its truncation.
    """
    special = get_special_tokens(tokenizer, control)
    prepare(tokenizer.backend_tokenizer)
    encodings = encode(tokenizer.backend_tokenizer, list(texts))
    joined = (text if isinstance(text, str) else "\n".join(text) for text in texts)
    rows = {row: texts[row] for row, text in enumerate(joined) if special.occur_in(text)}
    special.replace_encodings(encodings, rows, prepare, encode)
    return encodings


def _compile(names: Sequence[str]) -> re.Pattern[str]:
    """A pattern for any of the names, longer ones first; one that never matches if there are none."""
    return re.compile("|".join(map(re.escape, sorted(names, key=lambda name: (-len(name), name)))) or r"(?!)")


def _rename_tokens(backend: Tokenizer, hidden: dict[str, str]) -> Tokenizer:
    """A copy of a tokenizer in which the tokens have other names and the same ids."""
    tree = json.loads(backend.to_str())
    for token in tree["added_tokens"]:
        token["content"] = hidden.get(token["content"], token["content"])
    model = tree["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        # In the model's own vocabulary too: Unigram and WordLevel would find a token's name as one piece of text.
        model["vocab"] = {hidden.get(name, name): token_id for name, token_id in vocabulary.items()}
    else:
        model["vocab"] = [[hidden.get(name, name), score] for name, score in vocabulary]
    if model.get("unk_token") in hidden:
        model["unk_token"] = hidden[model["unk_token"]]
    renamed: Tokenizer = type(backend).from_str(json.dumps(tree))
    return renamed
