"""MinHash signatures of many texts at once, in numpy: shingles, signatures and the buckets that like ones share.

Broder, On the resemblance and containment of documents (1997); banding as in Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, chapter 3. No Python object is made per shingle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from hone.curation.parallel import cores

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    U32 = npt.NDArray[np.uint32]
    U64 = npt.NDArray[np.uint64]
    I64 = npt.NDArray[np.int64]

CHUNK_BYTES = 1 << 20  # of text hashed at once: some 50 MB of working arrays
BLOCK = 1 << 16  # shingles signed at once: they stay in the processor's cache through all permutations
MISSED = 1e-5  # at most this share of the pairs just at the threshold may share no bucket
_BASE, _SEED = 0x9E3779B97F4A7C15, 0x48F3


def shingles(texts: Sequence[str], size: int) -> tuple[U64, I64]:
    """64-bit hashes of the runs of `size` words in each text, one text after the other, and n + 1 offsets.

    Words are parted by single spaces (`fold_to_words`). A text with fewer words has one shingle of all of them.
    """
    import numpy as np

    parts = [_hash_chunk(chunk, size) for chunk in _chunks(texts)]
    counts = np.concatenate([np.zeros(1, np.int64), *(counts for _, counts in parts)])
    return np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in parts)]), np.cumsum(counts)


def signatures(hashes: U64, offsets: I64, num_perm: int) -> U32:
    """The MinHash signatures [n, num_perm] of n sets of shingle hashes.

    Two sets agree in each entry with a probability that is their Jaccard similarity.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    small = (hashes >> np.uint64(32)).astype(np.uint32)
    odd = np.random.default_rng(_SEED).integers(0, 1 << 32, num_perm, dtype=np.uint32) | np.uint32(1)
    signed = np.empty((len(offsets) - 1, num_perm), np.uint32)
    cuts = np.unique(np.searchsorted(offsets, np.arange(0, len(hashes) + BLOCK, BLOCK)).clip(max=len(offsets) - 1))

    def sign(first: int, last: int) -> None:
        block = small[offsets[first] : offsets[last]]
        starts = offsets[first:last] - offsets[first]
        permuted = np.empty_like(block)
        least = np.empty((num_perm, last - first), np.uint32)
        for i, factor in enumerate(odd):
            np.multiply(block, factor, out=permuted)
            np.minimum.reduceat(permuted, starts, out=least[i])
        signed[first:last] = least.T

    with ThreadPoolExecutor(cores()) as threads:
        list(threads.map(sign, cuts[:-1].tolist(), cuts[1:].tolist()))
    return signed


def buckets(signed: U32, threshold: float) -> Iterator[tuple[I64, I64]]:
    """For each band of the signatures: the rows that share a bucket with another, and the bucket of each.

    Rows of one bucket follow each other in ascending order. Bands are as narrow as the threshold needs.
    """
    import numpy as np

    count, num_perm = signed.shape
    width = rows_per_band(threshold, num_perm)
    for band in range(num_perm // width if count else 0):
        keys = np.zeros(count, np.uint64)
        for entry in range(band * width, (band + 1) * width):
            keys = _mix(keys + signed[:, entry])
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        bucket = np.concatenate([[0], np.cumsum(ranked[1:] != ranked[:-1])])
        shared = np.bincount(bucket)[bucket] > 1
        yield order[shared], bucket[shared]


@lru_cache(maxsize=64)
def rows_per_band(threshold: float, num_perm: int) -> int:
    """The widest band with which a pair of similarity `threshold` is missed with a probability of MISSED or less."""
    fit = [r for r in range(1, num_perm + 1) if miss_probability(threshold, r, num_perm // r) <= MISSED]
    return max(fit, default=1)


def miss_probability(similarity: float, width: int, bands: int) -> float:
    """How likely a pair of this Jaccard similarity shares none of `bands` buckets of `width` entries."""
    return float((1 - similarity**width) ** bands)


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
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


def _hash_chunk(texts: list[str], size: int) -> tuple[U64, I64]:
    """The shingle hashes of a few texts in one array, and how many each has."""
    import numpy as np

    words, last = _hash_words(texts)
    first = np.concatenate([[0], last[:-1] + 1])
    counts = last - first + 1
    row_last = np.repeat(last, counts)
    at = np.arange(len(words))
    total = np.zeros(len(words), np.uint64)
    padded = np.concatenate([words, np.zeros(size, np.uint64)])
    for offset in range(size):
        inside = at + offset <= row_last
        total = _mix(total + np.where(inside, padded[offset : offset + len(words)], np.uint64(offset + 1)))
    whole = at + size - 1 <= row_last
    short = np.repeat(counts < size, counts) & (at == np.repeat(first, counts))
    return total[whole | short], np.maximum(counts - size + 1, 1)


def _hash_words(texts: list[str]) -> tuple[U64, I64]:
    """The hash of every word of `texts`, and the index of the last word of each text.

    A word's hash is a polynomial of its bytes modulo 2**64, taken as a difference of prefix sums.
    """
    import numpy as np

    data = np.frombuffer(("\n".join(texts) + "\n").encode("utf8", "surrogatepass"), np.uint8)
    powers, inverses, values = _powers(max(CHUNK_BYTES * 2, 1 << len(data).bit_length()))
    prefix = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(values[data] * powers[: len(data)], out=prefix[1:])
    ends = np.flatnonzero((data == 32) | (data == 10))
    starts = np.concatenate([[0], ends[:-1] + 1])
    words = _mix((prefix[ends] - prefix[starts]) * inverses[starts])
    return words, np.flatnonzero(data[ends] == 10)


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
