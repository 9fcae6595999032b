"""MinHash signatures of many texts at once, in numpy: word hashes, shingles, signatures, and buckets of similar ones.

Broder, On the resemblance and containment of documents (1997); banding as in Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3. No Python object is made per word, shingle or permutation. Words and shingles
are compared by 64-bit hashes: among a billion distinct ones about 0.03 pairs collide.
"""

from __future__ import annotations

import hashlib
import string
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from hone.curation.dedup.folding import ENDINGS, LONGEST, QUOTES, SYMBOLS, fold, spread
from hone.curation.parallel import cores

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    U32 = npt.NDArray[np.uint32]
    U64 = npt.NDArray[np.uint64]
    I64 = npt.NDArray[np.int64]

CHUNK_BYTES = 1 << 20  # text hashed at once: about 50 MB of working arrays
CHUNK_WORDS = 1 << 19  # words digested, or shingled, at once: about the same
CHUNKS = 8  # such chunks in work at once, if there are as many cores
BLOCK = 1 << 15  # shingles signed at once: small enough to stay in the CPU cache for all permutations
COUNTED_BITS = 24  # of a shingle's hash, by which occurrences are first counted: 128 MB of counters
MISSED = 1e-4  # at most this share of the pairs just at the threshold may share no bucket
_BASE, _SEED = 0x9E3779B97F4A7C15, 0x48F3
_BETWEEN = 255  # separates texts in a buffer; never occurs in UTF-8
_SPACES = string.whitespace + "\x1c\x1d\x1e\x1f" + QUOTES
_FOLDED = bytes.maketrans(
    (string.ascii_uppercase + _SPACES).encode(), string.ascii_lowercase.encode() + b" " * len(_SPACES)
)
# The kind of each byte: a separator, part of a word, or a symbol, which is a word of its own.
_SEPARATOR, _WORD, _SYMBOL = 0, 1, 2
_KINDS = bytes(_SEPARATOR if i in (32, _BETWEEN) else _SYMBOL if chr(i) in SYMBOLS else _WORD for i in range(256))
Part = TypeVar("Part")
Result = TypeVar("Result")


def hash_words(texts: Iterable[str]) -> tuple[U64, I64]:
    """64-bit hashes of the words of each text as `fold_to_tokens` gives them, text after text, and n + 1 offsets."""
    import numpy as np

    counts = [np.zeros(1, np.int64)]

    def hash_chunks() -> Iterator[U64]:
        for words, word_counts in _in_threads(_hash_chunk, _chunks(texts), min(CHUNKS, cores())):
            counts.append(word_counts)
            yield words

    return _join(hash_chunks()), np.cumsum(np.concatenate(counts))


def digest_texts(words: U64, offsets: I64) -> U64:
    """A 64-bit hash of the words of each text in their order."""
    import numpy as np

    def digest(cut: tuple[int, int]) -> U64:
        first, last = cut
        starts, counts = offsets[first:last] - offsets[first], np.diff(offsets[first : last + 1])
        block = words[offsets[first] : offsets[last]]
        places = (np.arange(len(block)) - np.repeat(starts, counts)).astype(np.uint64)
        return _mix(np.add.reduceat(_mix(block + places * np.uint64(_BASE)), starts))

    return np.concatenate([words[:0], *_in_threads(digest, row_ranges(offsets, CHUNK_WORDS), min(CHUNKS, cores()))])


def hash_shingles(words: U64, offsets: I64, rows: I64, size: int) -> tuple[U64, I64]:
    """Hashes of the runs of `size` words in each of the texts `rows`, and n + 1 offsets; a shorter text is one run."""
    import numpy as np

    counts = np.diff(offsets)[rows]
    starts = np.concatenate([[0], np.cumsum(counts)])

    def shingle(cut: tuple[int, int]) -> U64:
        first, last = cut
        positions, _ = item_positions(offsets, rows[first:last])
        return _shingle_block(words[positions], counts[first:last], size)

    hashes = _join(_in_threads(shingle, row_ranges(starts, CHUNK_WORDS), min(CHUNKS, cores())))
    return hashes, np.concatenate([[0], np.cumsum(np.maximum(counts - size + 1, 1))])


def drop_common(hashes: U64, offsets: I64, limit: float) -> tuple[U64, I64]:
    """The hashes without those that more than `limit` rows have, and offsets; a row that has no others keeps all."""
    import numpy as np

    frequent = _find_frequent(hashes, limit)  # repetitions within a row are counted too: a superset
    common = frequent[_count_rows(frequent, hashes, offsets) > limit]
    if not len(common):
        return hashes, offsets
    remaining_counts = np.diff(offsets)

    def drop(first: int, last: int) -> U64:
        block, counts = hashes[offsets[first] : offsets[last]], np.diff(offsets[first : last + 1])
        is_other = ~_search(common, block)[1]
        other_counts = np.add.reduceat(is_other, offsets[first:last] - offsets[first], dtype=np.int64)
        remaining_counts[first:last] = np.where(other_counts, other_counts, counts)
        remaining: U64 = block[is_other | np.repeat(other_counts == 0, counts)]
        return remaining

    joined = _join(drop(*cut) for cut in row_ranges(offsets, CHUNK_WORDS))
    return joined, np.concatenate([[0], np.cumsum(remaining_counts)])


def compute_signatures(hashes: U64, offsets: I64, num_perm: int) -> U32:
    """The MinHash signatures, [n, num_perm] uint32, of n sets of shingle hashes.

    The probability that two sets agree in an entry equals their Jaccard similarity.
    """
    import numpy as np

    odd = np.random.default_rng(_SEED).integers(0, 1 << 32, num_perm, dtype=np.uint32) | np.uint32(1)
    signed = np.empty((len(offsets) - 1, num_perm), np.uint32)

    def sign(cut: tuple[int, int]) -> None:
        first, last = cut
        block = (hashes[offsets[first] : offsets[last]] >> np.uint64(32)).astype(np.uint32)
        starts = offsets[first:last] - offsets[first]
        permuted = np.empty_like(block)
        minima = np.empty((num_perm, last - first), np.uint32)
        for i, factor in enumerate(odd):
            np.multiply(block, factor, out=permuted)
            np.minimum.reduceat(permuted, starts, out=minima[i])
        signed[first:last] = minima.T

    for _ in _in_threads(sign, row_ranges(offsets, BLOCK), cores()):
        pass
    return signed


def find_buckets(signed: U32, threshold: float) -> Iterator[tuple[I64, I64]]:
    """Yield for each band of the signatures the rows that share a bucket with another row, and the bucket of each.

    Rows of a bucket are adjacent and ascending. Bands are as narrow as the threshold requires.
    """
    import numpy as np

    count, num_perm = signed.shape
    width = rows_per_band(threshold, num_perm)
    row_bits = np.uint64(max(1, count).bit_length())
    rows = np.arange(count, dtype=np.uint64)

    def bucket(band: int) -> tuple[I64, I64]:
        keys = np.zeros(count, np.uint64)
        for entry in range(band * width, (band + 1) * width):
            keys = keys * np.uint64(_BASE) + signed[:, entry]
        # Hash bits and row packed into one number: sorting it is faster than an argsort and keeps rows in order.
        ranked = np.sort((_mix(keys) >> row_bits << row_bits) | rows)
        same = (ranked[1:] >> row_bits) == (ranked[:-1] >> row_bits)
        shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        number = np.cumsum(~np.concatenate([[False], same]))[shared]
        return (ranked[shared] & ((np.uint64(1) << row_bits) - np.uint64(1))).astype(np.int64), number

    yield from _in_threads(bucket, range(num_perm // width) if count > 1 else (), cores())


@lru_cache(maxsize=64)
def rows_per_band(threshold: float, num_perm: int) -> int:
    """The widest band that misses a pair of similarity `threshold` with a probability of MISSED or less."""
    fit = [r for r in range(1, num_perm + 1) if miss_probability(threshold, r, num_perm // r) <= MISSED]
    return max(fit, default=1)


def miss_probability(similarity: float, width: int, bands: int) -> float:
    """The probability that a pair of this Jaccard similarity shares none of `bands` buckets of `width` entries."""
    return float((1 - similarity**width) ** bands)


def row_ranges(offsets: I64, size: int) -> list[tuple[int, int]]:
    """Ranges (first, last) of rows with about `size` items in total; a larger row is a range of its own."""
    import numpy as np

    marks = np.arange(0, offsets[-1] + size, size)
    bounds = np.unique(np.searchsorted(offsets, marks).clip(max=len(offsets) - 1)).tolist()
    return list(pairwise(bounds))


def item_positions(offsets: I64, rows: I64) -> tuple[I64, I64]:
    """The indices of the items of `rows`, row by row, and the offsets of the rows among them."""
    import numpy as np

    counts = offsets[rows + 1] - offsets[rows]
    starts = np.concatenate([[0], np.cumsum(counts)])
    return np.arange(starts[-1]) + np.repeat(offsets[rows] - starts[:-1], counts), starts


def _in_threads(work: Callable[[Part], Result], parts: Iterable[Part], count: int) -> Iterator[Result]:
    """Yield `work(part)` for each part, in order, in `count` threads: numpy releases the GIL.

    At most twice as many parts, and their results, are held at once.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(count) as threads:
        ahead: deque[Future[Result]] = deque()
        for part in parts:
            ahead.append(threads.submit(work, part))
            if len(ahead) > 2 * count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _join(parts: Iterable[U64]) -> U64:
    """The parts as one array, which grows in place: a list of them and their concatenation take twice the memory."""
    import numpy as np

    joined, size = np.empty(0, np.uint64), 0
    for part in parts:
        if size + len(part) > len(joined):
            joined.resize(size + len(part) + size // 8, refcheck=False)
        joined[size : size + len(part)] = part
        size += len(part)
    joined.resize(size, refcheck=False)
    return joined


def _find_frequent(hashes: U64, limit: float) -> U64:
    """The hashes that occur more than `limit` times, sorted.

    Only those are sorted of which, with others that start with the same bits, there are that many.
    """
    import numpy as np

    bits = min(COUNTED_BITS, max(1, len(hashes).bit_length()))
    blocks = [hashes[start : start + (1 << COUNTED_BITS)] for start in range(0, len(hashes), 1 << COUNTED_BITS)]
    counts = np.zeros(1 << bits, np.int64)
    for block in blocks:
        counts += np.bincount((block >> np.uint64(64 - bits)).astype(np.int64), minlength=1 << bits)
    candidates = [block[counts[block >> np.uint64(64 - bits)] > limit] for block in blocks]
    distinct, occurrences = np.unique(np.concatenate([hashes[:0], *candidates]), return_counts=True)
    return distinct[occurrences > limit]


def _count_rows(values: U64, hashes: U64, offsets: I64) -> I64:
    """The number of rows that have each of the hashes `values`, which are sorted."""
    import numpy as np

    row_counts = np.zeros(len(values), np.int64)
    for first, last in row_ranges(offsets, CHUNK_WORDS) if len(values) else ():
        places, is_value = _search(values, hashes[offsets[first] : offsets[last]])
        rows = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        pairs = np.unique(rows[is_value] * len(values) + places[is_value])
        np.add.at(row_counts, pairs % len(values), 1)
    return row_counts


def _search(values: U64, hashes: U64) -> tuple[I64, npt.NDArray[np.bool_]]:
    """For each hash its position in `values`, which are sorted, and whether it is there."""
    import numpy as np

    places = np.searchsorted(values, hashes).clip(max=len(values) - 1)
    return places, values[places] == hashes


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    length = 0
    for text in texts:
        chunk.append(text)
        length += len(text) + 1
        if length >= CHUNK_BYTES:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk


def _hash_chunk(texts: list[str]) -> tuple[U64, I64]:
    """The word hashes of a few texts, and the number of each text: at least one.

    A word's hash is a polynomial of its bytes modulo 2**64, taken as a difference of prefix sums.
    """
    import numpy as np

    texts = [text if len(text) <= LONGEST else text[:LONGEST] for text in texts]
    encoded = [text.encode() if text.isascii() else spread(text).encode("utf8", "surrogatepass") for text in texts]
    data = np.frombuffer(bytes([_BETWEEN]).join([*encoded, b""]).translate(_FOLDED), np.uint8)
    powers, inverses, values = _powers(max(CHUNK_BYTES * 2, 1 << len(data).bit_length()))
    prefix = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(values[data] * powers[: len(data)], out=prefix[1:])
    starts, ends = _find_words(data)
    words = _mix((prefix[ends] - prefix[starts]) * inverses[starts])
    last = np.searchsorted(starts, np.flatnonzero(data == _BETWEEN))
    counts = np.diff(last, prepend=0)
    if wordless := np.flatnonzero(counts == 0).tolist():
        words = np.insert(words, last[wordless], [_hash_text(fold(texts[row])) for row in wordless])
        counts[wordless] = 1
    return words, counts


def _find_words(data: npt.NDArray[np.uint8]) -> tuple[I64, I64]:
    """The first byte of each word of a buffer, and the byte after its last one."""
    import numpy as np

    kinds = np.frombuffer(data.tobytes().translate(_KINDS), np.uint8).copy()
    after_word = np.concatenate([[False], kinds[:-1] == _WORD])
    before_gap = np.concatenate([kinds[1:] == _SEPARATOR, [True]])
    kinds[np.isin(data, list(ENDINGS.encode())) & after_word & before_gap] = _SEPARATOR
    is_word, is_symbol = kinds == _WORD, kinds == _SYMBOL
    starts = np.flatnonzero(is_symbol | is_word & ~np.concatenate([[False], is_word[:-1]]))
    ends = np.flatnonzero(is_symbol | is_word & ~np.concatenate([is_word[1:], [False]])) + 1
    return starts, ends


def _hash_text(text: str) -> np.uint64:
    import numpy as np

    digest = hashlib.blake2b(text.encode("utf8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _shingle_block(words: U64, counts: I64, size: int) -> U64:
    """The shingle hashes of texts with `counts` words each."""
    import numpy as np

    last = np.cumsum(counts) - 1
    first = last - counts + 1
    row_last, word_index = np.repeat(last, counts), np.arange(len(words))
    total = np.zeros(len(words), np.uint64)
    padded = np.concatenate([words, np.zeros(size, np.uint64)])
    for offset in range(size):
        inside = word_index + offset <= row_last
        total = _mix(total + np.where(inside, padded[offset : offset + len(words)], np.uint64(offset + 1)))
    whole = word_index + size - 1 <= row_last
    whole[first[counts < size]] = True
    return total[whole]


@lru_cache(maxsize=1)
def _powers(length: int) -> tuple[U64, U64, U64]:
    """Powers of an odd base and of its inverse modulo 2**64, and a random value for each byte."""
    import numpy as np

    def powers(base: int) -> U64:
        factors = np.full(length, base, np.uint64)
        factors[0] = 1
        return np.multiply.accumulate(factors)

    values = np.random.default_rng(_SEED).integers(1, 1 << 63, 256, dtype=np.uint64)
    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64)), values


def _mix(x: U64) -> U64:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): every bit of `x` moves every bit of the result."""
    import numpy as np

    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
