"""The one way a Numba kernel is declared here."""

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` without fast-math, free of the GIL, and keep the machine code on disk.

    Numba watches only the file a kernel stands in, so a kernel calls kernels of its own file alone:
    code kept from before a change elsewhere would otherwise still run. A test holds that.

    Examples:
        >>> @kernel
        ... def twice(x):
        ...     return 2 * x
        >>> twice(21)
        42
    """
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # nowhere to keep code (a read-only install, a prompt): compile in each process
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled
