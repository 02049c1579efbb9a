"""Keyed randomness: every random number is a pure function of a key and a counter.

There is no generator object and no state, so a number is the same on any machine, in any process, after
any resume. A key is a 64-bit integer folded from everything the randomness depends on (never `seed + index`,
which lets seed 0, index 1 collide with seed 1, index 0).

Sources: the mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); the stream
is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011), checked against its published test vectors; the
permutation is an alternating, unbalanced Feistel network, one half modular, with cycle walking (Black and
Rogaway, CT-RSA 2002).
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
_LARGEST = 2**62
_ROUNDS = 4  # of the permutation, each both ways
_STEP = np.uint32(0x9E3779B9)
_FEWEST = np.uint64(3)  # bits in a half: on 2 and 2 a Feistel network only reaches even permutations


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
def _hash(x: np.uint32) -> np.uint32:
    """The high bits of what comes depend on every bit of x: all that a round of the permutation needs."""
    x = np.uint32(x * np.uint32(0x7FEB352D))
    return np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))


@kernel
def _network(x: Words, low: Words, most: Words, keys: Words) -> None:
    """Send each x to another in [0, most * 2**low), in place. Round by round: the loops are vectorised.

    The left half counts to `most` and is added to modulo that, the right half has `low` bits; both fit 32.
    """
    left, right = np.empty(x.size, np.uint32), np.empty(x.size, np.uint32)
    first, second = keys.astype(np.uint32), np.empty(x.size, np.uint32)
    wide, shift = most.astype(np.uint32), np.empty(x.size, np.uint32)
    for i in range(x.size):
        left[i], right[i] = x[i] >> low[i], x[i] & ((_ONE << low[i]) - _ONE)
        second[i], shift[i] = keys[i] >> _32, _32 - low[i]
    add = np.uint32(0)
    for _ in range(_ROUNDS):
        add = np.uint32(add + _STEP)
        for i in range(x.size):
            hashed = np.uint64(_hash(np.uint32(right[i] ^ np.uint32(first[i] + add))))
            moved = np.uint32(left[i] + np.uint32((hashed * np.uint64(wide[i])) >> _32))
            left[i] = min(moved, np.uint32(moved - wide[i]))  # below 0 is large
        for i in range(x.size):
            right[i] ^= _hash(np.uint32(left[i] ^ np.uint32(second[i] + add))) >> shift[i]
    for i in range(x.size):
        x[i] = (np.uint64(left[i]) << low[i]) | np.uint64(right[i])


@kernel
def _outside(x: Words, sizes: Words) -> Ints:
    """Where x is not in [0, size)."""
    places, count = np.empty(x.size, np.int64), 0
    for i in range(x.size):  # without a branch, which costs more
        places[count] = i
        count += x[i] >= sizes[i]
    return places[:count]


@kernel
def _send(x: Words, sizes: Words, keys: Words) -> None:
    """Where the permutation of [0, size) under each key sends x, in place."""
    low, most = np.empty_like(x), np.empty_like(x)
    exponents = sizes.astype(np.float64).view(np.uint64)
    for i in range(x.size):  # the network's range is hardly larger than [0, size)
        low[i] = max(((exponents[i] >> np.uint64(52)) - np.uint64(1022)) >> _ONE, _FEWEST)
        most[i] = max((sizes[i] + (_ONE << low[i]) - _ONE) >> low[i], _ONE << _FEWEST)
    _network(x, low, most, keys)
    outside = _outside(x, sizes)
    while outside.size:  # walk the cycle until it comes back into [0, size)
        again = x[outside]
        _network(again, low[outside], most[outside], keys[outside])
        x[outside] = again
        outside = outside[_outside(again, sizes[outside])]


@kernel
def _shuffle(size: int, key: np.uint64, part: np.uint64, start: int, out: Words) -> None:
    """`_send` of consecutive numbers under one key: half the time of what any sizes and keys take."""
    key = folded = _mix((key ^ _mix(part + _GOLDEN)) + _GOLDEN)
    low = _FEWEST
    while _ONE << (low + low + _ONE) <= np.uint64(size):
        low += _ONE
    most = max((np.uint64(size) + (_ONE << low) - _ONE) >> low, _ONE << _FEWEST)
    left, right = np.empty(out.size, np.uint32), np.empty(out.size, np.uint32)
    for i in range(out.size):
        x = np.uint64(start + i)
        left[i], right[i] = x >> low, x & ((_ONE << low) - _ONE)
    shift, wide = np.uint32(_32 - low), np.uint32(most)
    first, second = np.uint32(key), np.uint32(key >> _32)
    for _ in range(_ROUNDS):
        first, second = np.uint32(first + _STEP), np.uint32(second + _STEP)
        for i in range(out.size):
            hashed = np.uint64(_hash(np.uint32(right[i] ^ first)))
            moved = np.uint32(left[i] + np.uint32((hashed * most) >> _32))
            left[i] = min(moved, np.uint32(moved - wide))
        for i in range(out.size):
            right[i] ^= np.uint32(_hash(np.uint32(left[i] ^ second))) >> shift
    for i in range(out.size):
        out[i] = (np.uint64(left[i]) << low) | np.uint64(right[i])
    outside = _outside(out, np.full(out.size, np.uint64(size)))
    if outside.size:
        again = out[outside]
        _send(again, np.full(again.size, np.uint64(size)), np.full(again.size, folded))
        out[outside] = again


@kernel
def _permute(index: Ints, size: Ints, keys: Words, out: Words) -> bool:
    for i in range(out.size):
        if not 0 <= index[i] < size[i] < _LARGEST:
            return False
        out[i] = np.uint64(index[i])
    _send(out, size.view(np.uint64), keys)
    return True


@kernel
def _draw(number: Ints, size: Ints, keys: Words, out: Words) -> bool:
    folded = np.empty_like(keys)
    for i in range(out.size):
        if number[i] < 0 or not 0 < size[i] < _LARGEST:
            return False
        epoch = np.uint64(number[i]) // np.uint64(size[i])  # unsigned division is the faster
        folded[i] = _mix((keys[i] ^ _mix(epoch + _GOLDEN)) + _GOLDEN)
        out[i] = np.uint64(number[i]) - epoch * np.uint64(size[i])
    _send(out, size.view(np.uint64), folded)
    return True


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
        folded = _plain_mix((folded ^ _plain_mix(word(part) + golden)) + golden)
    return folded


def word(part: int | str) -> int:
    """The 64 bits that a part of a key counts as: of a string, a hash.

    Examples:
        >>> key("tokens", 7) == key(word("tokens"), 7)
        True
    """
    if isinstance(part, str):
        return int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
    return whole("a part of a key", part, low=0, high=2**64 - 1)


def _plain_mix(x: int) -> int:
    """What `_mix` means; for a few numbers, faster than a call into compiled code."""
    x &= _LOW64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _LOW64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _LOW64
    return x ^ (x >> 31)


def fold(keys: ArrayLike, parts: ArrayLike) -> NDArray[np.uint64]:
    """Each of `keys` folded with the matching one of `parts` (broadcast). uint64. ValueError for fractions.

    Examples:
        >>> fold(key(1234), [0, 1, 2]).tolist() == [key(1234, 0), key(1234, 1), key(1234, 2)]
        True
    """
    keys, parts = _wholes("keys", keys, np.uint64), _wholes("parts", parts, np.uint64)
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
    [0, size), or what is no whole number.

    Examples:
        >>> sorted(permute([0, 1, 2, 3, 4], 5, key(1234)).tolist())
        [0, 1, 2, 3, 4]
        >>> bool(permute(10**12, 10**15, key(1234)) < 10**15)
        True
    """
    index, size = _wholes("index", index, np.int64), _wholes("size", size, np.int64)
    keys = _wholes("keys", keys, np.uint64)
    out = np.empty(np.broadcast_shapes(index.shape, size.shape, keys.shape), np.int64)
    if not _permute(_flat(index, out), _flat(size, out), _flat(keys, out), out.reshape(-1).view(np.uint64)):
        raise ValueError("an index to permute is outside [0, size), or size is 2**62 or more")
    return out


def shuffle(size: int, key: int, part: int, *, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
    """Entries `start` up to `stop` of [0, size) in the random order of `fold(key, part)`. int64.

    `permute(range(start, stop), size, fold(key, part))`, faster. Raises ValueError unless 0 <= start <= stop
    <= size < 2**53.

    Examples:
        >>> whole = shuffle(5, key(1234), 7)
        >>> sorted(whole.tolist()), shuffle(5, key(1234), 7, start=3).tolist() == whole[3:].tolist()
        ([0, 1, 2, 3, 4], True)
    """
    stop = size if stop is None else stop
    if not 0 <= start <= stop <= size < 2**53:
        raise ValueError(f"start, stop and size are {start}, {stop}, {size}; expected them in rising order")
    out = np.empty(stop - start, np.int64)
    _shuffle(size, np.uint64(key), np.uint64(part), start, out.view(np.uint64))
    return out


def draw(number: ArrayLike, size: ArrayLike, keys: ArrayLike) -> NDArray[np.int64]:
    """What the `number`-th draw from [0, size) gives: without replacement until all are drawn, then anew.

    `permute(number % size, size, fold(keys, number // size))`, all broadcast. int64. Raises ValueError for a
    number below 0, a size outside [1, 2**62), or what is no whole number.

    Examples:
        >>> draws = draw(np.arange(6), 3, key(1234))
        >>> sorted(draws[:3].tolist()), sorted(draws[3:].tolist())
        ([0, 1, 2], [0, 1, 2])
    """
    number, size = _wholes("number", number, np.int64), _wholes("size", size, np.int64)
    keys = _wholes("keys", keys, np.uint64)
    like = np.empty(np.broadcast_shapes(number.shape, size.shape, keys.shape), np.int64)
    return draw_flat(_flat(number, like), _flat(size, like), _flat(keys, like)).reshape(like.shape)


def draw_flat(number: Ints, size: Ints, keys: Words) -> Ints:
    """`draw` of three contiguous arrays of one shape, (n,): without the time that NumPy takes to broadcast.

    Examples:
        >>> draw_flat(np.arange(3), np.full(3, 3), np.full(3, 7, np.uint64)).tolist() == draw(
        ...     np.arange(3), 3, 7
        ... ).tolist()
        True
    """
    out = np.empty(len(number), np.int64)
    if not _draw(number, size, keys, out.view(np.uint64)):
        raise ValueError("the number of a draw is below 0, or size is outside [1, 2**62)")
    return out


def _wholes(name: str, values: ArrayLike, dtype: type[np.int64] | type[np.uint64]) -> NDArray[Any]:
    """`values` as an array, of which nothing is cut off."""
    given = np.asarray(values)
    if given.dtype.kind == "f" and (parts := given % 1 != 0).any():
        raise ValueError(f"{name} has {given[parts][0]}; expected whole numbers")
    return np.asarray(values, dtype)


def _flat(array: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """`array` broadcast to the shape of another and contiguous: kernels are compiled for one layout only."""
    if array.shape == like.shape and array.flags.carray:
        return array.reshape(-1)
    copy = np.empty(like.shape, array.dtype)
    copy[...] = array
    return copy.reshape(-1)
