"""How the parts of a primitive print, so that the whole prints as the code that makes it."""

from collections.abc import Callable
from pathlib import Path


def qualified(function: Callable[..., object]) -> str:
    """A function by its module and name, the same in every process (the default has its address).

    Examples:
        >>> import math
        >>> qualified(math.sqrt)
        'math.sqrt'
    """
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else repr(function)


def quoted(path: Path) -> str:
    """A path as a string in quotes.

    Examples:
        >>> quoted(Path("out") / "index")
        "'out/index'"
    """
    return repr(str(path))
