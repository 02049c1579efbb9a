"""Primitives from tables of plain numbers and strings, as TOML and JSON hold them, and back.

A primitive is said by its `name`, as the registry knows it, and its parameters; where one takes another, a
table stands inside a table.
"""

import inspect
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from dataeff import _files, registry


def read(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The tables in a TOML or JSON file, by its suffix, or a mapping. Whole floats, as 3e11 is one, are ints.

    Raises ValueError for a file that is neither, or does not parse, FileNotFoundError for none.

    Examples:
        >>> read({"batch_size": 8, "tokens": 3e11})
        {'batch_size': 8, 'tokens': 300000000000}
        >>> read("run.yaml")
        Traceback (most recent call last):
        ...
        ValueError: run.yaml: expected a .toml or .json file
    """
    if isinstance(config, Mapping):
        return {key: _plain(value) for key, value in config.items()}
    path = Path(config)
    parsers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in parsers:
        raise ValueError(f"{path}: expected a .toml or .json file")
    try:
        tables = parsers[path.suffix](path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not parse: {error}") from None
    if not isinstance(tables, dict):
        raise ValueError(f"{path} holds a {type(tables).__name__}; expected tables")
    return read(tables)


def _plain(told: Any) -> Any:
    if isinstance(told, Mapping):
        return read(told)
    if isinstance(told, list):
        return [_plain(value) for value in told]
    return int(told) if isinstance(told, float) and told.is_integer() else told


def write(tables: Mapping[str, Any], path: str | Path) -> None:
    """Write tables to a TOML or JSON file, by its suffix, whole or not at all. Tables and lists may nest.

    Raises ValueError for what TOML has no words for, as None, by its key.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write({"seed": 1, "sampler": {"batch_size": 8}}, f"{folder}/run.toml")
        ...     read(f"{folder}/run.toml")
        {'seed': 1, 'sampler': {'batch_size': 8}}
    """
    path = Path(path)
    if path.suffix == ".json":
        _files.write_json(path, tables)
    elif path.suffix == ".toml":
        content = toml(tables).encode()
        _files.write(path, lambda file: _files.put(file, content))
    else:
        raise ValueError(f"{path}: expected a .toml or .json file")


def toml(tables: Mapping[str, Any]) -> str:
    """Tables as TOML: two levels of headings, what is deeper inline. ValueError for what it has no words for.

    Examples:
        >>> print(toml({"curriculum": {"length": {"pace": {"name": "linear", "start": 1}, "by": "value"}}}))
        [curriculum.length]
        pace = { name = "linear", start = 1 }
        by = "value"
    """
    return "\n\n".join(_blocks(tables, ())) + "\n"


def _blocks(table: Mapping[str, Any], above: tuple[str, ...]) -> list[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping) and len(above) < 2}
    lines = [_pair(key, value, above) for key, value in table.items() if key not in inner]
    if above and (lines or not inner):
        lines.insert(0, f"[{'.'.join(map(_key, above))}]")
    blocks = ["\n".join(lines)] if lines else []
    return blocks + [block for key, value in inner.items() for block in _blocks(value, (*above, key))]


def _pair(key: str, value: Any, above: tuple[str, ...]) -> str:
    return f"{_key(key)} = {_value(value, (*above, key))}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key, re.ASCII) else _text(key)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any, at: tuple[str, ...]) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_pair(key, inner, at) for key, inner in value.items()) + " }"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(entry, at) for entry in value)}]"
    if not isinstance(value, bool | int | float):
        raise ValueError(
            f"{'.'.join(at)} has {value!r}, and TOML no word for it; expected numbers, strings, true or "
            "false, or tables or lists of these: leave out what is none"
        )
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # inf and nan are TOML's own words for them
    return json.dumps(value)


def made(kind: str, said: Any) -> Any:
    """The primitive of a registry kind that a table says; anything but a table with a `name` stays as it is.

    Raises ValueError for an unknown name, and for parameters that it does not take or refuses.

    Examples:
        >>> ramp = {"name": "linear", "start": 2, "end": 4, "steps": 9}
        >>> made("pacings", {"name": "scale", "pace": ramp, "by": 2})
        scale(pace=linear(start=2, end=4, steps=9, multiple=None, on='steps'), by=2)
        >>> made("pacings", {"name": "linear", "begin": 1})
        Traceback (most recent call last):
        ...
        ValueError: linear, of pacings: missing a required argument: 'start'; it takes (start: float, ...
    """
    if isinstance(said, list | tuple):
        return [made(kind, part) for part in said]
    if not isinstance(said, Mapping):
        return said
    if not isinstance(said.get("name"), str):
        raise ValueError(f"{dict(said)!r} has no name of {kind}; known: {', '.join(registry.names(kind))}")
    named = registry.get(kind, said["name"])
    options = {key: made(kind, value) for key, value in said.items() if key != "name"}
    try:
        inspect.signature(named).bind(**options)
    except TypeError as error:
        raise ValueError(f"{said['name']}, of {kind}: {error}; it takes {inspect.signature(named)}") from None
    try:
        return named(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{said['name']}, of {kind}: {error}") from error


def said(kind: str, primitive: Any) -> Any:
    """The table that `made` makes a frozen attrs primitive from; numbers and strings stay as they are.

    Fields at their defaults are left out. Raises ValueError for what the registry has no name for.

    Examples:
        >>> from dataeff import pacing
        >>> said("pacings", pacing.linear(80, 2048, steps=100))
        {'name': 'linear', 'start': 80, 'end': 2048, 'steps': 100}
    """
    if isinstance(primitive, list | tuple):
        return [said(kind, part) for part in primitive]
    if primitive is None or isinstance(primitive, bool | int | float | str):
        return primitive
    name = _name(kind, primitive)
    fields = [field for field in attrs.fields(type(primitive)) if field.init]
    told = {field.alias: getattr(primitive, field.name) for field in fields}
    defaults = {field.alias: field.default for field in fields}
    return {"name": name} | {
        key: said(kind, value) for key, value in told.items() if value is not None and value != defaults[key]
    }


def _name(kind: str, primitive: Any) -> str:
    if attrs.has(type(primitive)):
        for name in registry.names(kind):
            try:
                if registry.get(kind, name) is type(primitive):
                    return name
            except (ImportError, ValueError):
                continue  # of another's package, which is broken
    raise ValueError(
        f"{primitive!r} cannot be written down: {kind} has no name for it; register its class "
        "(dataeff.registry)"
    )
