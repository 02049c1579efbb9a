"""How the parts of a primitive print, so that the whole prints as the code that makes it."""

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def qualified(function: Callable[..., object]) -> str:
    """A function by its module and name, a method by its object: the same in every process.

    Examples:
        >>> import math
        >>> qualified(math.sqrt)
        'math.sqrt'
    """
    name = getattr(function, "__qualname__", None)
    owner = getattr(function, "__self__", None)
    if name is None or isinstance(function, functools.partial):
        return repr(function)
    if owner is not None and not inspect.ismodule(owner):
        return f"{owner!r}.{function.__name__}"
    return f"{function.__module__}.{name}"


def number(value: Any) -> str:
    """A number as code that needs no import, be it infinite or NumPy's.

    Examples:
        >>> number(2.5), number(float("-inf"))
        ('2.5', "float('-inf')")
    """
    plain = value.item() if hasattr(value, "item") else value
    return repr(plain) if math.isfinite(plain) else f"float('{plain}')"


def quoted(path: Path) -> str:
    """A path as a string in quotes.

    Examples:
        >>> quoted(Path("out") / "index")
        "'out/index'"
    """
    return repr(str(path))
