"""The table `lr` of a plan."""

from collections.abc import Mapping
from typing import Any

import attrs

from dataeff import lr, registry
from dataeff._check import real, whole
from dataeff.clock import AXES

_SCHEDULES = ("constant", "cosine", "inverse_sqrt", "linear", "wsd")
_COUNTS = ("warmup", "total", "decay")


def rate(told: Mapping[str, Any]) -> dict[str, Any]:
    """Schedule, axis and peak as arguments of `Plan`; `floor` is a learning rate, not a share of the peak.

    Examples:
        >>> rate({"peak": 2e-4, "floor": 5e-5, "total": 10**9})["schedule"]
        cosine(warmup=0, floor=0.25, total=1000000000)
    """
    name, on = told.get("schedule", "cosine"), told.get("on", "tokens")
    if name not in _SCHEDULES:
        raise ValueError(registry.unknown(name, list(_SCHEDULES), of="lr.schedule"))
    if on not in AXES:
        raise ValueError(f"lr.on is {on!r}; expected one of {', '.join(AXES)}")
    peak = _peak(told)
    floor = _floor(told, peak)
    counts = {key: whole(f"lr.{key}", told[key], low=0) for key in _COUNTS if key in told}
    return {"schedule": _made(name, counts | ({"floor": floor} if floor else {})), "on": on, "peak": peak}


def _peak(told: Mapping[str, Any]) -> float | None:
    peak = told.get("peak")
    if peak is not None and real("lr.peak", peak) <= 0:
        raise ValueError(f"lr.peak is {peak!r}; expected a learning rate above 0, as 2e-4")
    return peak


def _floor(told: Mapping[str, Any], peak: float | None) -> float:
    """As a share of the peak."""
    floor = real("lr.floor", told.get("floor", 0.0), low=0)
    if not floor:
        return 0.0
    if peak is None:
        raise ValueError(
            f"lr.floor is {floor!r}, a learning rate here (lr.cosine(floor=...) takes a share of the peak), "
            "and lr.peak is missing; give the peak"
        )
    if peak <= floor:
        raise ValueError(
            f"lr.floor is {floor!r} and lr.peak {peak!r}; expected a learning rate below the peak (not a "
            "share of it, as in lr.cosine(floor=...))"
        )
    return floor / peak


def _made(name: str, options: dict[str, Any]) -> Any:
    make = getattr(lr, name)
    fields = {field.name: field.default is attrs.NOTHING for field in attrs.fields(make)}
    if strange := [key for key in options if key not in fields]:
        raise ValueError(f"lr.{strange[0]} is not of {name!r}, which takes {', '.join(fields)}; leave it out")
    if missing := [key for key, needed in fields.items() if needed and key not in options]:
        raise ValueError(
            f"lr: {missing[0]} is missing; {name!r} needs it, on the axis of on, as {missing[0]} = 10_000"
        )
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"lr: {error}") from None
