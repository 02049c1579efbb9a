"""Which tokens are kept: keyed random sampling without replacement, the same on any device."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataeff import rng
from dataeff._check import whole
from dataeff._kernel import kernel
from dataeff.ops import _checks

Words = NDArray[np.uint64]

_ROWS = 2**32  # of a stream of words


def sample_tokens(
    batch: int,
    seq: int,
    keep: int,
    *,
    key: Sequence[int | str | torch.Tensor],
    layers: int | None = None,
    first_row: int = 0,
    always: int | torch.Tensor = 0,
    valid: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Ids of `keep` tokens of each row at random without replacement, sorted. (batch, keep) int32.

    Row r depends on (key, first_row + r) alone, so the ids are the same however rows are spread over ranks,
    and on any device: position i of a row holds word i of its Philox stream (`rng.bits`), and the `keep`
    smallest words win, ties by position. With `weights` a token's chance is in proportion to its weight, draw
    by draw (Gumbel-top-k).

    Args:
        batch: rows.
        seq: tokens in a row.
        keep: of them, from 0 to `seq`.
        key: all that the choice depends on, as (seed, step, layer): integers of at least 0, or strings. One
            entry may be a tensor of int64, which counts as its entries do and may have one more entry after
            it: under torch.compile a step that is a tensor changes without another compilation.
        layers: how many layers to draw for at once: (layers, batch, keep), the ids of layer l being those of
            the key (*key, l).
        first_row: of this rank in the global batch.
        always: tokens that are kept whatever comes: the first so many of each row, or a mask, (seq,) or
            (batch, seq) bool. At most `keep` a row.
        valid: which tokens are no padding, (seq,) or (batch, seq) bool; padding is kept only when there is
            nothing else.
        weights: of at least 0 and finite, (seq,) or (batch, seq); tokens of weight 0 only come after all
            others that are valid.
        device: of the result; by default that of the masks or weights, else the CPU.

    Raises:
        ValueError: `keep` above `seq`, a negative number, a mask of another shape, a key that is empty, no
            tuple or list, or goes on after a tensor, more that are always kept than `keep`, or a weight below
            0 or not finite (for a CUDA tensor the last two only with DATAEFF_CHECK=1, since looking would
            wait for the device).

    Examples:
        >>> ids = sample_tokens(2, 16, 4, key=(1234, 0, 1))
        >>> ids.shape, bool((ids.diff(dim=1) > 0).all())
        (torch.Size([2, 4]), True)
        >>> bool((sample_tokens(1, 16, 4, key=(1234, 0, 1), first_row=1) == ids[1:]).all())
        True
        >>> bool((sample_tokens(2, 16, 4, key=(1234, 0), layers=12)[1] == ids).all())
        True
        >>> bool((sample_tokens(2, 16, 4, key=(1234, torch.tensor([0, 1]))) == ids).all())
        True
        >>> sample_tokens(1, 16, 4, key=(1234,), always=2, valid=torch.arange(16) < 4).tolist()
        [[0, 1, 2, 3]]
    """
    whole("batch", batch, low=0)
    whole("seq", seq, low=0)
    if whole("keep", keep, low=0) > seq:
        raise ValueError(f"keep is {keep}; expected at most seq, the {seq} tokens that a row has")
    whole("first_row", first_row, low=0, high=_ROWS - batch)
    prefix = 0 if isinstance(always, torch.Tensor) else whole("always", always, low=0, high=keep)
    masks = {
        "always": always if isinstance(always, torch.Tensor) else None,
        "valid": valid,
        "weights": weights,
    }
    given = [mask for mask in masks.values() if mask is not None]
    place = torch.device(device) if device is not None else given[0].device if given else torch.device("cpu")
    for name, mask in masks.items():
        if mask is not None:
            _checks.mask(name, mask, batch, seq, place)
    ids: torch.Tensor = torch.ops.dataeff.sample_tokens(
        batch,
        seq,
        keep,
        *_parts(key),
        None if layers is None else whole("layers", layers, low=0),
        first_row,
        prefix,
        *masks.values(),
        place,
    )
    return ids[0] if layers is None else ids


def _parts(key: Sequence[int | str | torch.Tensor]) -> tuple[list[int], torch.Tensor | None, int | None]:
    """The entries before a tensor, the tensor, and what comes after it."""
    if not isinstance(key, tuple | list) or not key:
        raise ValueError(
            f"key is {key!r}; expected a tuple of all that the choice depends on, as (seed, step, layer)"
        )
    words = [part if isinstance(part, torch.Tensor) else _number(part) for part in key]
    tensors = [i for i, part in enumerate(words) if isinstance(part, torch.Tensor)]
    if not tensors:
        return words, None, None  # type: ignore[return-value]
    moment, after = words[tensors[0]], words[tensors[0] + 1 :]
    if len(tensors) > 1 or len(after) > 1 or moment.dtype != torch.int64:  # type: ignore[union-attr]
        kinds = [str(part.dtype) if isinstance(part, torch.Tensor) else "int" for part in words]
        raise ValueError(
            f"key is made of {kinds}; expected at most one tensor, of int64, and at most one entry after it"
        )
    return words[: tensors[0]], moment, after[0] if after else None  # type: ignore[return-value]


def _number(part: int | str) -> int:
    return _word(part) if isinstance(part, str) else _signed(part)


def _signed(part: int) -> int:
    """The same 64 bits as int64, which is what an operator takes."""
    part = whole("a part of key", part, low=0, high=2**64 - 1)
    return part - 2**64 if part >= 2**63 else part


def _word(part: str) -> int:
    return _signed(rng.word(part))


_word._dynamo_marked_constant = True  # type: ignore[attr-defined]  # hashing is done while tracing


def on_cpu(
    keep: int,
    keys: Sequence[int],
    first_row: int,
    shape: tuple[int, int],
    prefix: int,
    always: torch.Tensor | None,
    valid: torch.Tensor | None,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Ids for each of `keys`, of `shape` (batch, seq). (keys, batch, keep) int32."""
    out = np.empty((len(keys), shape[0], keep), np.int32)
    masks = (_rows(always, shape, np.bool_), _rows(valid, shape, np.bool_), _rows(weights, shape, np.float64))
    for key, ids in zip(keys, out, strict=True):
        _choose(rng.bits(key, *shape, first_row=first_row), prefix, *masks, ids)
    return torch.from_numpy(out)


def _rows(mask: torch.Tensor | None, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    if mask is None:
        return np.empty((0, 0), dtype)
    return np.ascontiguousarray(
        mask.detach().cpu().expand(shape).to(torch.float64 if dtype is np.float64 else torch.bool)
    )


@kernel
def _exponential(word: np.uint32) -> float:
    """`reference.exponential`: the same operations in the same order."""
    mantissa, exponent = math.frexp(1.0 - (np.float64(word) + 0.5) * 2.0**-32)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = mantissa * 2.0, exponent - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = 1.0 / 21.0
    for odd in range(19, 0, -2):
        series = series * square + 1.0 / odd
    return 0.0 - (2.0 * s * series + exponent * 0.6931471805599453)


@kernel
def _weigh(words: NDArray[np.uint32], weights: NDArray[np.float64], scores: Words) -> None:
    """Scores of words by weight: positive floats are in order as their bits are."""
    floats = scores.view(np.float64)
    for i in range(words.size):
        floats[i] = _exponential(words[i])
        if weights[i] > 0:
            floats[i] /= weights[i]
    for i in range(words.size):
        scores[i] = (scores[i] >> np.uint64(1)) | (np.uint64(1 if weights[i] > 0 else 2) << np.uint64(62))


@kernel
def _threshold(scores: Words, keep: int, width: int) -> tuple[np.uint64, int]:
    """The score of the last that is kept, and how many of just that score are. `width` bits decide."""
    found, known = np.uint64(0), np.uint64(0)
    for shift in range(width - 8, -1, -8):
        by = np.uint64(shift)
        counts = np.zeros(256, np.int64)
        for i in range(scores.size):
            counts[(scores[i] >> by) & np.uint64(255)] += (scores[i] & known) == found
        digit = 0
        while counts[digit] < keep:
            keep -= counts[digit]
            digit += 1
        found |= np.uint64(digit) << by
        known |= np.uint64(255) << by
    return found, keep


@kernel
def _choose(
    words: NDArray[np.uint32],
    prefix: int,
    always: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    weights: NDArray[np.float64],
    ids: NDArray[np.int32],
) -> None:
    batch, seq = words.shape
    keep = ids.shape[1]
    scores, chosen = np.empty(seq, np.uint64), np.empty(seq + 1, np.int32)
    plain = not (prefix or always.size or valid.size or weights.size)
    if not keep:
        return
    for row in range(batch):
        if weights.size:
            _weigh(words[row], weights[row], scores)
        else:
            for i in range(seq):
                scores[i] = np.uint64(words[row, i])
        if not plain:
            for i in range(seq):
                if i < prefix or (always.size and always[row, i]):
                    scores[i] &= ~(np.uint64(3) << np.uint64(62))
                elif valid.size and not valid[row, i]:
                    scores[i] |= np.uint64(3) << np.uint64(62)
                elif not weights.size:
                    scores[i] |= np.uint64(1) << np.uint64(62)
        last, ties = _threshold(scores, keep, 32 if plain else 64)
        count = 0
        for i in range(seq):  # without a branch, which costs more
            equal = scores[i] == last and ties > 0
            ties -= equal
            chosen[count] = i
            count += scores[i] < last or equal
        ids[row] = chosen[:keep]
