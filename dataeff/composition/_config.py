"""A plan as tables of plain numbers and strings."""

from collections.abc import Mapping
from typing import Any

from dataeff import config as configs
from dataeff import flops, registry
from dataeff._check import whole
from dataeff.clock import AXES
from dataeff.composition._rate import rate
from dataeff.curriculum import metrics_of
from dataeff.pacing import as_pace, constant

_ENDS = tuple(axis for axis in AXES if axis != "loss_tokens")
_KEYS = {
    "run": ("batch_size", "sequence_length", "layers", "seed", "packed", *_ENDS),
    "model": ("width", "feedforward", "vocabulary", "heads", "key_value_heads", "head_width", "gated"),
    "length": ("pace", "transform", "metric"),
    "routing": ("router", "keep", "layers", "skip"),
    "lr": ("schedule", "on", "peak", "floor", "warmup", "total", "decay"),
    "token_budget": ("max_tokens", "multiple", "window", "max_samples", "lr_scaling", "ranks"),
}


def arguments(config: Any) -> dict[str, Any]:
    """What a TOML or JSON file, or a mapping like one, says of a plan, as arguments of `Plan`.

    Examples:
        >>> run = {"batch_size": 8, "sequence_length": 512, "layers": 12, "tokens": 1e9}
        >>> told = arguments({"run": run, "routing": {"keep": 128}})
        >>> told["keep"], told["routed"][0], told["routed"][-1], told["until"]
        (constant(value=128), 1, 10, {'tokens': 1000000000})
    """
    tables = configs.read(config)
    known = [*_KEYS, "curriculum"]
    if strange := [name for name in tables if name not in known]:
        raise ValueError(registry.unknown(strange[0], known, of="the config"))
    run, model, length, routing, told, budget = (_table(tables, name) for name in _KEYS)
    schedule = rate(told) if told else {}
    layers = _layers(run, needed=bool(routing or model) or schedule.get("on") == "layer_tokens")
    router = _router(routing)
    return {
        "batch_size": whole("run.batch_size", _needed(run, "batch_size"), low=1),
        "length": whole("run.sequence_length", _needed(run, "sequence_length"), low=1),
        "until": _until(run, model),
        "packed": _flag("run.packed", run.get("packed", False)),
        "seqlen": _made("length.pace", length.get("pace")),
        "transform": _transform(length.get("transform", "truncate")),
        "blocks": layers,
        "routed": _routed(routing, layers, [0, 0] if _drops(router) else [1, 1]),
        "keep": _made("routing.keep", routing.get("keep")),
        "drops": _drops(router),
        "by_tokens": bool(budget),
        "metrics": metrics_of(tables) if "curriculum" in tables else {},
        "cost": _cost(model) if model else None,
        **schedule,
    }


def _table(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"{name} is {table!r}; expected a table, as [{name}]")
    if strange := [key for key in table if key not in _KEYS[name]]:
        raise ValueError(registry.unknown(strange[0], list(_KEYS[name]), of=name))
    return dict(table)


def _needed(run: Mapping[str, Any], key: str) -> Any:
    if key not in run:
        raise ValueError(f"run has no {key}; expected one, as [run] with {key} = 512")
    return run[key]


def _layers(run: Mapping[str, Any], *, needed: bool) -> int:
    if "layers" not in run and (needed or "layer_tokens" in run):
        raise ValueError(
            "run has no layers; expected how many blocks the model has, as [run] with layers = 24: routing, "
            "layer tokens and FLOPs depend on it"
        )
    return whole("run.layers", run.get("layers", 1), low=1, high=10_000)


def _until(run: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, int]:
    until = {axis: whole(f"run.{axis}", run[axis], low=1) for axis in _ENDS if axis in run}
    if not until:
        raise ValueError(f"run does not say where it ends; expected one of {', '.join(_ENDS)}")
    if "flops" in until and not model:
        raise ValueError(
            f"run.flops is {until['flops']}, and nothing says what a step costs; give the table [model], as "
            "width = 2048"
        )
    return until


def _flag(path: str, told: Any) -> bool:
    if not isinstance(told, bool):
        raise ValueError(f"{path} is {told!r}; expected true or false")
    return told


def _transform(told: Any) -> str:
    if told not in ("truncate", "reshape"):
        raise ValueError(f"length.transform is {told!r}; expected 'truncate' or 'reshape'")
    return str(told)


def _made(path: str, told: Any) -> Any:
    if told is None:
        return None
    if isinstance(told, str | bool | list):
        raise ValueError(
            f'{path} is {told!r}; expected a number, or a pace, as {{ name = "linear", start = 64, ... }}'
        )
    if isinstance(told, int | float):
        return constant(whole(path, told, low=1))
    try:
        return as_pace(configs.made("pacings", told))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _router(routing: Mapping[str, Any]) -> Any:
    """What chooses tokens, as the registry has it; None where nothing is said."""
    name, known = routing.get("router"), registry.names("routers")
    if name is None:
        return None
    if name not in known:
        raise ValueError(registry.unknown(name, known, of="routing.router"))
    try:
        return registry.get("routers", name)
    except ImportError as error:
        raise ValueError(f"routing.router: {error}") from error


def _drops(router: Any) -> bool:
    return getattr(router, "scope", "layer") == "input"


def _routed(routing: Mapping[str, Any], layers: int, skip: list[int]) -> list[int]:
    if not routing:
        return []
    if "keep" not in routing:
        raise ValueError("routing has no keep; expected how many tokens enter a block, as keep = 128")
    if "layers" in routing and "skip" in routing:
        raise ValueError("routing has layers and skip; give one of the two")
    if "layers" in routing:
        return _listed(routing["layers"], layers)
    return _between(routing.get("skip", skip), layers)


def _listed(told: Any, layers: int) -> list[int]:
    if not isinstance(told, list | tuple) or not told:
        raise ValueError(f"routing.layers is {told!r}; expected a list of block numbers, as [1, 2, 3]")
    found = [whole("an entry of routing.layers", i, low=0, high=layers - 1) for i in told]
    if twice := [i for i in found if found.count(i) > 1]:
        raise ValueError(f"routing.layers has {twice[0]} more than once; give each block once")
    return found


def _between(told: Any, layers: int) -> list[int]:
    if not isinstance(told, list | tuple) or len(told) != 2:
        raise ValueError(
            f"routing.skip is {told!r}; expected how many blocks to leave whole at either end, as [1, 1]"
        )
    first, last = (whole("an entry of routing.skip", n, low=0) for n in told)
    if first + last >= layers:
        raise ValueError(
            f"routing.skip is {told!r} and run.layers {layers}, so no block is left to route; skip fewer"
        )
    return list(range(first, layers - last))


def _cost(model: Mapping[str, Any]) -> flops.Cost:
    if "width" not in model:
        raise ValueError("model has no width; expected that of its hidden states, as width = 2048")
    _flag("model.gated", model.get("gated", False))
    try:
        return flops.transformer(**model)
    except (TypeError, ValueError) as error:
        raise ValueError(f"model: {error}") from None
