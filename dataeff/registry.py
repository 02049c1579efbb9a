"""Kind and name to strategy: the built-ins, your own, and those of any installed package.

A strategy is declared by one entry point in the group `dataeff.<kind>`. The built-ins are declared the same
way, so a plugin takes the same path as they do. Only what is asked for is imported.
"""

import configparser
import difflib
import functools
import sys
import traceback
from pathlib import Path
from typing import Any

import attrs
import entrypoints

KINDS = ("metrics", "pacings", "samplers", "routers", "corpora", "executors")

_registered: dict[tuple[str, str], object] = {}


@attrs.frozen
class Plugin:
    """One declared strategy: its kind and name, and the distribution that declares it.

    Examples:
        >>> [plugin.name for plugin in plugins("samplers") if plugin.distribution == "dataeff"]
        ['curriculum', 'importance', 'mixture', 'shuffled', 'token_budget']
    """

    kind: str
    name: str
    distribution: str
    version: str
    target: str
    _load: Any = attrs.field(repr=False, eq=False)

    def load(self) -> Any:
        """The strategy itself. Raises ImportError, naming the distribution, if it cannot be imported."""
        try:
            return self._load()
        except (Exception, SystemExit) as error:
            reason = " ".join(traceback.format_exception_only(error)[-1].split())
            raise ImportError(
                f"{self} did not load from {self.target!r}: {reason}; mend or uninstall {self.distribution}"
            ) from error

    def __str__(self) -> str:
        return f"{self.name!r} ({self.kind}) of {self.distribution} {self.version}"


def plugins(kind: str) -> list[Plugin]:
    """Every strategy of `kind` that an installed distribution or `register` declares, by name.

    Nothing is imported. Two that claim one name are both listed.

    Examples:
        >>> "random_ltd" in [plugin.name for plugin in plugins("routers")]
        True
    """
    _check_kind(kind)
    _declared.cache_clear()  # packages may have been installed since
    return _known(kind)


def _known(kind: str) -> list[Plugin]:
    declared = _declared(kind, tuple(sys.path))
    own = [
        Plugin(kind, name, "register()", "-", repr(obj), lambda obj=obj: obj)
        for (of, name), obj in _registered.items()
        if of == kind
    ]
    return sorted([*declared, *own], key=lambda plugin: (plugin.name, plugin.distribution))


@functools.lru_cache
def _declared(kind: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    """Reading what is installed takes tens of milliseconds, so `get` does it again only for an unknown
    name.
    """
    entries, damaged = _entries(f"dataeff.{kind}", path)
    return tuple(
        Plugin(
            kind=kind,
            name=entry.name,
            distribution=entry.distro.name.replace("_", "-"),
            version=entry.distro.version or "?",
            target=f"{entry.module_name}:{entry.object_name}",
            load=entry.load,
        )
        for entry in entries
    ) + tuple(_damaged(kind, error) for error in damaged)


def _entries(group: str, path: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
    """The entry points of a group, and of each file that mentions it and cannot be read, the error."""
    damaged: dict[str, Any] = {}
    while True:
        try:  # an egg in front hides what is installed later under its name, though it is not there
            found = entrypoints.get_group_all(group, path=[*(f"{name}.egg" for name in damaged), *path])
        except configparser.Error as error:
            file = Path(getattr(error, "source", ""))
            if not file.is_file() or file.parent.stem in damaged:
                raise
            damaged[file.parent.stem] = error
        else:
            named = [e for e in damaged.values() if f"[{group}]" in Path(e.source).read_text(errors="ignore")]
            return found, named


def _damaged(kind: str, error: Any) -> Plugin:
    """What stands for the strategies in a file that cannot be read."""
    of = entrypoints.Distribution.from_name_version(Path(error.source).parent.stem)
    name, version = of.name.replace("_", "-"), of.version or "?"
    return Plugin(kind, name, name, version, error.source, functools.partial(_raise, error))


def _raise(error: Exception) -> None:
    """Raise it."""
    raise error


def names(kind: str) -> list[str]:
    """The known names of a kind, sorted.

    Examples:
        >>> names("samplers")
        ['curriculum', 'importance', 'mixture', 'shuffled', 'token_budget']
    """
    return sorted({plugin.name for plugin in plugins(kind)})


def get(kind: str, name: str) -> Any:
    """The strategy of `kind` called `name`; only it is imported.

    Raises ValueError for an unknown kind or name (with the known ones and the nearest) and for a name that
    two distributions claim, ImportError for a strategy that does not import.

    Examples:
        >>> get("pacings", "linear")(80, 2048, steps=100)(50)
        1064.0
        >>> get("pacings", "liner")
        Traceback (most recent call last):
        ...
        ValueError: unknown name 'liner' in pacings; did you mean 'linear'? Known: 'clip', 'constant', ...
    """
    _check_kind(kind)
    found = [plugin for plugin in _known(kind) if plugin.name == name]
    found = found or [plugin for plugin in plugins(kind) if plugin.name == name]
    if len(found) > 1:
        claims = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin in found)
        raise ValueError(f"the name {name!r} in {kind} is claimed by {claims}; uninstall or rename one")
    if not found:
        raise ValueError(unknown(name, names(kind), of=kind))
    return found[0].load()


def register(kind: str, name: str, obj: object) -> None:
    """Make `obj` known as `name` in this process, as an entry point would in every process.

    Raises ValueError if another strategy already has the name.

    Examples:
        >>> def digits(tokens):
        ...     return sum(48 <= token <= 57 for token in tokens)
        >>> register("metrics", "digits", digits)
        >>> get("metrics", "digits") is digits
        True
        >>> unregister("metrics", "digits")
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name is {name!r}; expected a non-empty string")
    taken = [plugin for plugin in plugins(kind) if plugin.name == name]
    if taken and _registered.get((kind, name)) is not obj:
        raise ValueError(f"{taken[0]} already has that name; choose another")
    _registered[kind, name] = obj


def unregister(kind: str, name: str) -> None:
    """Forget what `register` made known. Raises ValueError if there is no such name.

    Examples:
        >>> register("metrics", "one", lambda tokens: 1)
        >>> unregister("metrics", "one")
        >>> "one" in names("metrics")
        False
    """
    _check_kind(kind)
    if (kind, name) not in _registered:
        raise ValueError(unknown(name, [known for of, known in _registered if of == kind], of=kind))
    del _registered[kind, name]


def unknown(name: object, known: list[str], *, of: str) -> str:
    """What to tell somebody who asked for `name`: the nearest known name, then all of them.

    Examples:
        >>> unknown("lenght", ["length", "vocab_rarity"], of="metrics")
        "unknown name 'lenght' in metrics; did you mean 'length'? Known: 'length', 'vocab_rarity'"
    """
    nearest = difflib.get_close_matches(str(name), known, n=1)
    guess = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown name {name!r} in {of}{guess} Known: {', '.join(map(repr, sorted(known))) or 'none'}"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(unknown(kind, list(KINDS), of="kinds"))
