"""Numbers as an array, whatever they come in."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def numbers(values: ArrayLike, source: str) -> NDArray[Any]:
    """`values` as an array. Whole numbers are exact: of uint64 where int64 is too small.

    Tensors may be on any device and require grad; bfloat16, which NumPy lacks, becomes float32. Raises
    ValueError, naming `source`, for lists of several lengths, or whole numbers that no dtype holds.

    Examples:
        >>> numbers([2**63 + 1, 7], "hash").tolist()
        [9223372036854775809, 7]
        >>> numbers(torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True), "loss").dtype
        dtype('float32')
        >>> numbers([2**63, -1], "hash")
        Traceback (most recent call last):
        ...
        ValueError: hash gives -1 and 9223372036854775808; expected whole numbers that int64 or uint64 holds
    """
    plain: Any = [_plain(value) for value in values] if isinstance(values, list | tuple) else _plain(values)
    try:
        array = np.asarray(plain)
    except ValueError:
        uneven = next((value for value in plain if np.iterable(value)), plain)
        raise ValueError(f"{source} gives {reprlib.repr(uneven)}; expected one number a sample") from None
    if array.dtype.kind in "fO" and isinstance(plain, list) and plain and all(map(_is_whole, plain)):
        return _exact(plain, source)
    return array


def native(array: NDArray[Any]) -> NDArray[Any]:
    """The same in this machine's byte order, the one that kernels know; itself where it has that.

    Examples:
        >>> native(np.array([1, 2], ">i4")).dtype
        dtype('int32')
    """
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _plain(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def _exact(values: Sequence[Any], source: str) -> NDArray[Any]:
    """Whole numbers of which NumPy makes floats or objects: those from 2**63 on, beside smaller ones."""
    whole = [int(value) for value in values]
    low, high = min(whole), max(whole)
    if low < 0 or high >= 2**64:
        raise ValueError(
            f"{source} gives {low} and {high}; expected whole numbers that int64 or uint64 holds"
        )
    return np.array(whole, np.uint64)
