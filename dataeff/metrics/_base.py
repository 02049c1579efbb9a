"""What a metric is: partial statistics that merge, then one value a sample."""

import abc
import dataclasses
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dataeff import corpus, registry
from dataeff._numbers import numbers
from dataeff._repr import qualified
from dataeff.corpus import Shard

_PYTHON = "{}.{}".format(*sys.version_info)


class Metric(abc.ABC):
    """A difficulty of every sample, computed shard by shard.

    `score` gives the values of a shard's samples. A metric that must first see the whole corpus gives `fit`
    (what a shard contributes, as one array) and `merge` (of two contributions); `score` is then called with
    the merged array, and with None otherwise. Tokens are read-only. Shards may be cut anywhere, merged in
    order, so the values must not depend on where.

    Attributes:
        shard_tokens: about how many tokens are scored at once, and so lost at most when a build is killed; a
            slow metric takes fewer.

    Examples:
        >>> @attrs.frozen
        ... class Largest(Metric):
        ...     def score(self, shard, fitted):
        ...         return [max(sample) for sample in shard]
        >>> Largest()([[3, 1], [2]]).tolist()
        [3, 2]
    """

    shard_tokens: ClassVar[int] = 2**23

    def fit(self, shard: Shard) -> NDArray[Any] | None:
        """What `shard` contributes to the statistics of the corpus; None for a metric without any."""
        return None

    def merge(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """The contribution of both."""
        raise NotImplementedError(f"{type(self).__name__} has fit() but no merge()")

    @abc.abstractmethod
    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """One number a sample of `shard`: bool, int or float, (len(shard),)."""

    def __call__(self, samples: Any) -> NDArray[Any]:
        """The difficulty of every sample of a corpus (or of a list of token arrays), in memory."""
        opened = corpus.open(samples)
        with read_only(opened.shard(0, len(opened)), self) as shard:
            return checked(self.score(shard, self.fit(shard)), shard, self)


@attrs.frozen
class per_sample(Metric):
    """Any function of one sample's tokens, as a metric.

    Examples:
        >>> per_sample(len)([[7, 7], [7]]).tolist()
        [2, 1]
    """

    function: Callable[[NDArray[Any]], float] = attrs.field(repr=qualified)

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """The function's value for each sample."""
        return [self.function(sample) for sample in shard]


@attrs.frozen
class batched(Metric):
    """Any function of a shard that gives one number a sample, as a metric.

    Examples:
        >>> batched(lambda shard: np.diff(shard.offsets))([[7, 7], [7]]).tolist()
        [2, 1]
    """

    function: Callable[[Shard], ArrayLike] = attrs.field(repr=qualified)

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """What the function gives for the shard."""
        return self.function(shard)


@contextmanager
def read_only(shard: Shard, metric: object) -> Iterator[Shard]:
    """The same tokens for a metric that must not write into them: other metrics and the corpus share them.

    Examples:
        >>> with read_only(Shard(np.array([3, 1]), np.array([0, 2])), "mine") as shard:
        ...     shard.tokens.sort()
        Traceback (most recent call last):
        ...
        ValueError: mine writes into the tokens (...read-only); copy them first: tokens.copy()
    """
    tokens = shard.tokens.view()
    tokens.flags.writeable = False
    try:
        yield Shard(tokens, shard.offsets)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise ValueError(
            f"{metric} writes into the tokens ({error}); copy them first: tokens.copy()"
        ) from error


def resolve(metric: Any) -> tuple[str, Metric]:
    """A metric and its name, from a registered name, a metric, or a function of one sample's tokens.

    Examples:
        >>> resolve("length")
        ('length', length())
        >>> resolve(max)
        ('max', per_sample(function=builtins.max))
    """
    if isinstance(metric, str):
        return metric, resolve(registry.get("metrics", metric))[1]
    if isinstance(metric, type) and issubclass(metric, Metric):
        metric = metric()
    if isinstance(metric, Metric):
        return type(metric).__name__, metric
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), per_sample(metric)
    raise ValueError(f"metric is {metric!r}; expected a registered name, a metric or a function of tokens")


def identity(metric: Metric) -> str:
    """What made the values: the code that makes the metric, and a hash of the code of functions in it.

    The methods of a class are functions in it, unless it is one of this library. Arrays stand for all that
    they hold, and sets for their items in order. What Python compiles code to differs from version to
    version, so that is named beside the hash.

    Raises ValueError for a metric that prints with its address, and so differently in every process.

    Examples:
        >>> identity(per_sample(max))
        'per_sample(function=builtins.max)'
        >>> identity(per_sample(lambda tokens: 1)) == identity(per_sample(lambda tokens: 2))
        False
    """
    made = _said(metric)
    if " at 0x" in made:
        raise ValueError(
            f"{made} prints with an address, so an index cannot tell what made its values; "
            "make the class @attrs.frozen, or use a function at the top of a module"
        )
    codes = [_function(value) for _, value in _fields(metric) if hasattr(value, "__code__")]
    if methods := _methods(type(metric)):
        codes.append(_hash("\0".join(f"{name} {_function(own)}" for name, own in methods).encode()))
    return f"{made} of code {', '.join(codes)} in Python {_PYTHON}" if codes else made


def _methods(made: type) -> list[tuple[str, Any]]:
    """Names and functions of a class and of what it derives from, but for those of this library."""
    own = [vars(base) for base in made.__mro__ if base.__module__.partition(".")[0] != "dataeff"]
    named = [(name, _undecorated(held)) for fields in own for name, held in sorted(fields.items())]
    return [(name, held) for name, held in named if hasattr(held, "__code__") and not _generated(name)]


def _undecorated(held: Any) -> Any:
    """The function of a property, a class method or a cache."""
    if hasattr(held, "__code__"):
        return held
    within = (getattr(held, name) for name in ("__wrapped__", "fget", "func") if hasattr(held, name))
    return next(within, held)


def _generated(name: str) -> bool:
    """By attrs or a dataclass, say: other versions of these write other code."""
    return name.startswith("__") and name not in ("__attrs_post_init__", "__post_init__")


def _function(function: Any) -> str:
    """A hash of its code, and of its object, its defaults and the variables that it closes over, if any."""
    function = getattr(function, "py_func", function)  # of one that Numba compiles
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    held += [cell.cell_contents for cell in function.__closure__ or ()]
    held += [function.__self__] if hasattr(function, "__self__") else []
    if not held:
        return _digest(function.__code__)
    values = list(map(_said, held))
    if any(" at 0x" in value for value in values):
        raise ValueError(
            f"{qualified(function)} holds a value that prints with an address, so an index cannot tell what "
            "made its values; make it a class with @attrs.frozen"
        )
    return _hash("\0".join([_digest(function.__code__), *values]).encode())


def _digest(code: CodeType) -> str:
    parts = [code.co_code.hex(), repr(code.co_names), *map(_said, code.co_consts)]
    return _hash("\0".join(parts).encode())


def _said(value: Any) -> str:
    """What it prints, but functions by their code, sets in order and all that an array holds by its hash."""
    if isinstance(value, CodeType):
        return _digest(value)
    if hasattr(value, "__code__"):
        return _function(value)
    if type(value) in (list, tuple):
        return repr(type(value)(_Text(_said(item)) for item in value))
    if type(value) is dict:
        return repr({_Text(_said(key)): _Text(_said(item)) for key, item in value.items()})
    if isinstance(value, set | frozenset):  # its order differs from process to process
        return repr(sorted(map(_said, value)))
    if hasattr(value, "__array__") and not isinstance(value, type | np.generic):
        return f"{type(value).__name__}({_content(value)})"
    return _object_said(value)


class _Text(str):
    """Prints as it is, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _object_said(value: Any) -> str:
    """Of an attrs object or a dataclass, its fields; of others, what they print."""
    printed, said = [], []
    for field, held in _fields(value):
        if field.repr:
            text = field.repr(held) if callable(field.repr) else repr(held)
            own = text if hasattr(held, "__code__") else _said(held)
            printed.append(f"{field.name}={text}")
            said.append(f"{field.name}={text if own == repr(held) else own}")
    if said == printed:
        return repr(value)
    return f"{type(value).__qualname__.rsplit('>.', 1)[-1]}({', '.join(said)})"


def _fields(value: Any) -> list[tuple[Any, Any]]:
    """Each field, and what it holds."""
    made = type(value)
    fields: Any = attrs.fields(made) if attrs.has(made) else ()
    if dataclasses.is_dataclass(made):
        fields = dataclasses.fields(made)
    return [(field, getattr(value, field.name)) for field in fields]


def _content(array: Any) -> str:
    """The dtype, the shape and a hash of the bytes of whatever is an array."""
    if isinstance(array, torch.Tensor):
        dtype, content = str(array.dtype), array.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return f"{dtype}, {tuple(array.shape)}, {_hash(content.numpy().tobytes())}"
    plain = np.asarray(array)
    held = _said(plain.tolist()).encode() if plain.dtype.hasobject else plain.tobytes()
    return f"{plain.dtype}, {plain.shape}, {_hash(held)}"


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def checked(values: ArrayLike, shard: Shard, metric: object, *, first: int = 0) -> NDArray[Any]:
    """`values` as an array of one finite number a sample, or ValueError naming the sample (`first` + i).

    `metric` is what the error calls the metric: the metric itself, or the name that it was given.

    Examples:
        >>> shard = Shard(np.array([1, 2]), np.array([0, 1, 2]))
        >>> checked([0.5, float("nan")], shard, per_sample(max), first=40)
        Traceback (most recent call last):
        ...
        ValueError: per_sample(function=builtins.max) gives nan for sample 41; expected a finite number
    """
    array = numbers(values, str(metric))
    if array.shape != (len(shard),):
        raise ValueError(
            f"{metric} gives values of shape {array.shape} for {len(shard)} samples; "
            "expected one number a sample"
        )
    return finite(array, str(metric), first=first)


def finite(values: NDArray[Any], source: str, *, first: int = 0) -> NDArray[Any]:
    """`values`, if all are finite bools, ints or floats; else ValueError naming `source` and the sample.

    Examples:
        >>> finite(np.array([1.0, float("inf")]), "my_score")
        Traceback (most recent call last):
        ...
        ValueError: my_score gives inf for sample 1; expected a finite number
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{source} gives {values.dtype}; expected bools, ints or floats")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        worst = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(
            f"{source} gives {values[worst]} for sample {first + worst}; expected a finite number"
        )
    return values


def checked_name(name: object) -> str:
    """`name`, if it can be a metric's name and so a folder's: letters, digits and `_`, `-`, `.`.

    Examples:
        >>> checked_name("<lambda>")
        Traceback (most recent call last):
        ...
        ValueError: '<lambda>' cannot name a metric; give it one of letters, digits, _ and -: {"name": metric}
    """
    plain = isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII)
    if not plain or name in ("parts", "orders") or str(name).endswith(".json"):
        raise ValueError(
            f'{name!r} cannot name a metric; give it one of letters, digits, _ and -: {{"name": metric}}'
        )
    return str(name)
