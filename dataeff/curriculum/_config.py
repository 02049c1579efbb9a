"""A curriculum's metrics as tables, and back."""

from collections.abc import Mapping
from typing import Any

from dataeff import config, registry
from dataeff.curriculum._paced import paced, window

_KEYS = ("pace", "low", "high", "by")


def metrics_of(tables: Mapping[str, Any]) -> dict[str, paced | window]:
    """Metric name to what the table `curriculum` says of it, as of a Curriculum. ValueError for what is none.

    Examples:
        >>> metrics_of({"curriculum": {"length": {"low": 10}}})
        {'length': window(low=constant(value=10), high=None, by='value')}
    """
    metrics = tables.get("curriculum")
    if not isinstance(metrics, Mapping) or not all(isinstance(told, Mapping) for told in metrics.values()):
        raise ValueError(
            f"curriculum is {metrics!r}; expected a table for each metric, as [curriculum.length] with "
            "pace = ..."
        )
    return {name: _one(name, told) for name, told in metrics.items()}


def _one(name: str, told: Mapping[str, Any]) -> paced | window:
    if strange := [key for key in told if key not in _KEYS]:
        raise ValueError(registry.unknown(strange[0], list(_KEYS), of=f"curriculum.{name}"))
    if ("pace" in told) == ("low" in told or "high" in told):
        raise ValueError(
            f"curriculum.{name} has {', '.join(told) or 'nothing'}; expected pace, or low and high of a "
            "window"
        )
    by = {"by": told["by"]} if "by" in told else {}
    try:
        paces = {key: config.made("pacings", value) for key, value in told.items() if key != "by"}
        return paced(**paces, **by) if "pace" in told else window(**paces, **by)
    except ValueError as error:
        raise ValueError(f"curriculum.{name}: {error}") from error


def said(how: paced | window) -> dict[str, Any]:
    """The table of one metric.

    Examples:
        >>> said(window(low=10, by="percentile"))
        {'low': 10, 'by': 'percentile'}
    """
    paces = {"pace": how.pace} if isinstance(how, paced) else {"low": how.low, "high": how.high}
    told = {key: config.said("pacings", pace) for key, pace in paces.items() if pace is not None}
    constants = {key: table["value"] if table["name"] == "constant" else table for key, table in told.items()}
    return constants | {"by": how.by}
