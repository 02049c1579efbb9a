"""Keyed randomness: every random number is a pure function of a key and a counter.

There is no generator object and no state, so a number is the same on any machine, in any process, after
any resume. A key is a 64-bit integer folded from everything the randomness depends on (never `seed + index`,
which lets seed 0, index 1 collide with seed 1, index 0).

Sources: the mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); the stream
is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011), checked against its published test vectors; the
permutation is a balanced Feistel network with cycle walking (Black and Rogaway, CT-RSA 2002).
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._check import whole
from dataeff._kernel import kernel

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: what SplitMix64 steps by
_LOW64 = 2**64 - 1
_LOW32 = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_32 = np.uint64(32)
_ROUNDS = 8  # of the permutation; with 4 the orders of a handful of items are visibly uneven
_HALF = np.uint64(
    3
)  # bits in half a block at least: on 4 bits a Feistel network only reaches even permutations


@kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def _fold(keys: Words, parts: Words, out: Words) -> None:
    for i in range(out.size):
        out[i] = _mix((keys[i] ^ _mix(parts[i] + _GOLDEN)) + _GOLDEN)


@kernel
def _philox(key: np.uint64, first_row: int, out: NDArray[np.uint32]) -> None:
    rows, columns = out.shape
    for row in range(rows):
        for block in range((columns + 3) // 4):
            c0, c1 = np.uint64(block), np.uint64(first_row + row)
            c2, c3 = np.uint64(0), np.uint64(0)
            k0, k1 = key & _LOW32, key >> _32
            for _ in range(10):
                p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
                c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW32, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW32
                k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW32, (k1 + np.uint64(0xBB67AE85)) & _LOW32
            words = (c0, c1, c2, c3)
            for lane in range(min(4, columns - 4 * block)):
                out[row, 4 * block + lane] = words[lane]


@kernel
def _permute(index: Ints, size: Ints, keys: Words, out: Ints) -> None:
    for i in range(out.size):
        n = np.uint64(size[i])
        half = _HALF  # the network permutes [0, 4**half): at most four times the size, or 64
        while half < np.uint64(31) and (_ONE << (half + half)) < n:
            half += _ONE
        mask = (_ONE << half) - _ONE
        x = np.uint64(index[i])
        while True:  # walk the cycle until it comes back into [0, size)
            left, right = x >> half, x & mask
            key = keys[i]
            for _ in range(_ROUNDS):
                key += _GOLDEN
                left, right = right, left ^ (_mix(right ^ key) & mask)
            x = (left << half) | right
            if x < n:
                break
        out[i] = np.int64(x)


def key(*parts: int | str) -> int:
    """A 64-bit key folded from `parts`, in order: ints in [0, 2**64) and strings.

    Folding is associative to the left: `key(a, b)` is `fold(key(a), b)`.

    Examples:
        >>> key(1234, "tokens", 7) == key(1234, "tokens", 7)
        True
        >>> key(0, 1) == key(1, 0)
        False
    """
    golden = folded = int(_GOLDEN)
    for part in parts:
        if isinstance(part, str):
            word = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
        else:
            word = whole("a part of a key", part, low=0, high=2**64 - 1)
        folded = _plain_mix((folded ^ _plain_mix(word + golden)) + golden)
    return folded


def _plain_mix(x: int) -> int:
    """What `_mix` means; for a few numbers, faster than a call into compiled code."""
    x &= _LOW64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _LOW64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _LOW64
    return x ^ (x >> 31)


def fold(keys: ArrayLike, parts: ArrayLike) -> NDArray[np.uint64]:
    """Each of `keys` folded with the matching one of `parts` (broadcast). uint64.

    Examples:
        >>> fold(key(1234), [0, 1, 2]).tolist() == [key(1234, 0), key(1234, 1), key(1234, 2)]
        True
    """
    keys, parts = np.asarray(keys, np.uint64), np.asarray(parts, np.uint64)
    out = np.empty(np.broadcast_shapes(keys.shape, parts.shape), np.uint64)
    _fold(_flat(keys, out), _flat(parts, out), out.reshape(-1))
    return out


def bits(key: int, rows: int, columns: int, *, first_row: int = 0) -> NDArray[np.uint32]:
    """Random 32-bit words, the stream of `key`. (rows, columns) uint32.

    Word `i` of row `r` depends on (key, r, i) alone, so rows `first_row` onward can be made apart from
    those before them. Philox4x32-10 with counter (i // 4, r, 0, 0), output word i % 4.

    Examples:
        >>> stream = bits(key(1234), 4, 10)
        >>> bool((bits(key(1234), 2, 10, first_row=2) == stream[2:]).all())
        True
    """
    out = np.empty((rows, columns), np.uint32)
    _philox(np.uint64(key), first_row, out)
    return out


def permute(index: ArrayLike, size: ArrayLike, keys: ArrayLike) -> NDArray[np.int64]:
    """Where the keyed permutation of [0, size) sends each `index` (all three broadcast). int64.

    Takes no memory beyond its output at any size below 2**62. Raises ValueError for an index outside
    [0, size).

    Examples:
        >>> sorted(permute([0, 1, 2, 3, 4], 5, key(1234)).tolist())
        [0, 1, 2, 3, 4]
        >>> bool(permute(10**12, 10**15, key(1234)) < 10**15)
        True
    """
    index, size, keys = np.asarray(index, np.int64), np.asarray(size, np.int64), np.asarray(keys, np.uint64)
    out = np.empty(np.broadcast_shapes(index.shape, size.shape, keys.shape), np.int64)
    if out.size and not (index.min() >= 0 and (index < size).all() and size.max() < 2**62):
        raise ValueError("an index to permute is outside [0, size), or size is 2**62 or more")
    _permute(_flat(index, out), _flat(size, out), _flat(keys, out), out.reshape(-1))
    return out


def _flat(array: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """`array` broadcast to the shape of another, as a copy: kernels are compiled for one layout only."""
    copy = np.empty(like.shape, array.dtype)
    copy[...] = array
    return copy.reshape(-1)
