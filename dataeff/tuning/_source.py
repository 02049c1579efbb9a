"""What a probe is made of: a log is of one source, since a changed probe would give other losses."""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataeff._repr import qualified


def source(probe: Callable[..., Any]) -> dict[str, str]:
    """A probe's name, the file it is in, and a hash of that file's bytes.

    What the file imports is not looked at. Without a file, as in a notebook, the qualified name stands for
    both.

    Examples:
        >>> told = source(source)
        >>> told["probe"], Path(told["script"]).name, told["source"][:7]
        ('source', '_source.py', 'sha256:')
        >>> source(len)
        {'probe': 'len', 'script': 'builtins.len', 'source': 'builtins.len'}
    """
    named = _named(probe)
    path = getattr(sys.modules.get(named.__module__), "__file__", None)
    if path is None or not Path(path).is_file():
        return {"probe": named.__qualname__, "script": qualified(named), "source": qualified(named)}
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {"probe": named.__qualname__, "script": _from_here(Path(path)), "source": f"sha256:{digest}"}


def _named(probe: Callable[..., Any]) -> Any:
    """The function itself, or the class of an object that is called."""
    while isinstance(probe, functools.partial):
        probe = probe.func
    bare = inspect.unwrap(getattr(probe, "__func__", probe))
    return bare if hasattr(bare, "__qualname__") else type(bare)


def _from_here(path: Path) -> str:
    """As it is given to a command: from the folder one is in, where it is in it."""
    whole = path.resolve()
    here = Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)
