"""A plan as tables of plain numbers and strings."""

from collections.abc import Callable, Mapping
from typing import Any

from dataeff import config as configs
from dataeff import flops, lr, registry
from dataeff._check import real, whole
from dataeff.clock import AXES
from dataeff.curriculum import metrics_of

_ENDS = tuple(axis for axis in AXES if axis != "loss_tokens")
_KEYS = {
    "run": ("batch_size", "sequence_length", "layers", "seed", "packed", *_ENDS),
    "model": ("width", "feedforward", "vocabulary", "heads", "key_value_heads", "head_width", "gated"),
    "length": ("pace", "transform", "metric"),
    "routing": ("router", "keep", "layers", "skip"),
    "lr": ("schedule", "on", "peak", "floor", "warmup", "total", "decay"),
}
_SCHEDULES = ("constant", "cosine", "inverse_sqrt", "linear", "wsd")


def arguments(config: Any) -> dict[str, Any]:
    """What a TOML or JSON file, or a mapping like one, says of a plan, as arguments of `Plan`.

    Examples:
        >>> run = {"batch_size": 8, "sequence_length": 512, "layers": 12, "tokens": 10**9}
        >>> told = arguments({"run": run, "routing": {"keep": 128}})
        >>> told["keep"], told["routed"][0], told["routed"][-1]
        (128, 1, 10)
    """
    tables = configs.read(config)
    run, model, length, routing, rate = (_table(tables, name) for name in _KEYS)
    if missing := [key for key in ("batch_size", "sequence_length") if key not in run]:
        raise ValueError(f"run has no {missing[0]}; expected one, as [run] with {missing[0]} = 512")
    layers = whole("run.layers", run.get("layers", 1), low=1)
    until = {axis: run[axis] for axis in _ENDS if axis in run}
    if not until:
        raise ValueError(f"run does not say where it ends; expected one of {', '.join(_ENDS)}")
    return {
        "batch_size": run["batch_size"],
        "length": run["sequence_length"],
        "until": until,
        "packed": run.get("packed", False),
        "seqlen": _made("length.pace", length.get("pace")),
        "transform": length.get("transform", "truncate"),
        "blocks": layers,
        "routed": _routed(routing, layers),
        "keep": _made("routing.keep", routing.get("keep")),
        "metrics": metrics_of(tables) if "curriculum" in tables else {},
        "cost": _named("model", flops.transformer, model) if model else None,
        **(_rate(rate) if rate else {}),
    }


def _table(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} is {table!r}; expected a table, as [{name}]")
    if strange := [key for key in table if key not in _KEYS[name]]:
        raise ValueError(registry.unknown(strange[0], list(_KEYS[name]), of=name))
    return dict(table)


def _made(path: str, told: Any) -> Any:
    try:
        return configs.made("pacings", told)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _routed(routing: Mapping[str, Any], layers: int) -> list[int]:
    if not routing:
        return []
    if "layers" in routing and "skip" in routing:
        raise ValueError("routing has layers and skip; give one of the two")
    if "layers" in routing:
        return [whole("an entry of routing.layers", i, low=0, high=layers - 1) for i in routing["layers"]]
    first, last = (whole("an entry of routing.skip", n, low=0) for n in routing.get("skip", (1, 1)))
    return list(range(first, layers - last))


def _rate(told: dict[str, Any]) -> dict[str, Any]:
    """The schedule, whose floor is a share of the peak; in tables it is a learning rate."""
    name = told.get("schedule", "cosine")
    if name not in _SCHEDULES:
        raise ValueError(registry.unknown(name, list(_SCHEDULES), of="lr.schedule"))
    peak, floor = told.get("peak"), told.get("floor", 0.0)
    if peak is not None and real("lr.peak", peak) <= real("lr.floor", floor, low=0):
        raise ValueError(f"lr.floor is {floor!r} and lr.peak {peak!r}; expected a floor below the peak")
    options = {key: told[key] for key in ("warmup", "total", "decay") if key in told}
    shares = {"floor": floor / peak} if peak is not None else {}
    schedule = _named("lr", getattr(lr, name), options | shares)
    return {"schedule": schedule, "on": told.get("on", "tokens"), "peak": peak}


def _named(path: str, make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
