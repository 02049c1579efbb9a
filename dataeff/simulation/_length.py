"""How samples are cut in a dry run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs.converters import optional

from dataeff import config as configs
from dataeff.pacing import Pace, as_pace, by_steps

_KEYS = ("pace", "transform", "metric")


def _as_pace(pace: Any) -> Pace:
    return by_steps(as_pace(pace), "the length")


@attrs.frozen
class Length:
    """How samples are cut to a length: by `transform`, "truncate" or "reshape", to `pace(step)` tokens.

    `metric` is the metric of the index that holds the tokens of each sample.

    Examples:
        >>> from dataeff import pacing
        >>> Length(pacing.linear(80, 2048, steps=1000, multiple=8)).transform
        'truncate'
    """

    pace: Pace | None = attrs.field(default=None, converter=optional(_as_pace))
    transform: str = attrs.field(default="truncate", kw_only=True)
    metric: str = attrs.field(default="length", kw_only=True)

    @transform.validator
    def _check_transform(self, _: object, value: str) -> None:
        if value not in ("truncate", "reshape"):
            raise ValueError(f"transform is {value!r}; expected 'truncate' or 'reshape'")

    @metric.validator
    def _check_metric(self, _: object, value: Any) -> None:
        if not isinstance(value, str):
            raise ValueError(f"metric is {value!r}; expected the name of one of the index, as 'length'")

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any]) -> "Length":
        """What the table `length` of a TOML or JSON file says, or of a mapping like one.

        `pace`, `transform` and `metric`, each if it is not the default. Raises ValueError for what is none.

        Examples:
            >>> Length.from_config({"length": {"pace": 512}}).pace
            constant(value=512)
        """
        told = configs.read(config).get("length", {})
        if not isinstance(told, Mapping):
            raise ValueError(f"length is {told!r}; expected a table, as [length] with pace = ...")
        if strange := [key for key in told if key not in _KEYS]:
            raise ValueError(f"length has {strange[0]!r}; expected {', '.join(_KEYS)}")
        return cls(**{**told, "pace": configs.made("pacings", told.get("pace"))})
