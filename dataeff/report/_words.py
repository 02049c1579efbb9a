"""Savings in words, for the page and for the terminal."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataeff._units import amount

if TYPE_CHECKING:
    from dataeff.report._savings import Saving, Savings

TITLES = {
    "steps": "Steps",
    "samples": "Samples",
    "tokens": "Tokens",
    "layer_tokens": "Layer tokens",
    "flops": "FLOPs",
    "seconds": "Time",
}
_MATTERS = ("flops", "layer_tokens", "tokens", "seconds", "samples", "steps")
_NOUNS = {"flops": "compute", "seconds": "time"}
_UNITS = {
    "validation_loss": "validation loss (nats a token)",
    "loss": "training loss (nats a token)",
    "bits_per_byte": "bits per byte",
}


def plain(key: str) -> str:
    """A value's name as people say it.

    Examples:
        >>> plain("validation_loss"), plain("bits_per_byte"), plain("top5_accuracy")
        ('validation loss', 'bits per byte', 'top5 accuracy')
    """
    return with_unit(key).split(" (")[0]


def with_unit(key: str) -> str:
    """A value's name with its unit, where that is known.

    Examples:
        >>> with_unit("loss")
        'training loss (nats a token)'
    """
    return _UNITS.get(key, key.replace("_", " "))


def first_axis(axes: Sequence[str]) -> str:
    """The axis that says most of what training costs.

    Examples:
        >>> first_axis(["steps", "tokens"])
        'tokens'
    """
    return next(axis for axis in _MATTERS if axis in axes)


def times(ratio: float | None) -> str:
    """How many times less, or more, was consumed.

    Examples:
        >>> times(1.428), times(0.8), times(1.001), times(None), times(math.inf)
        ('1.43x less', '1.25x more', 'the same', 'not reached', 'at once')
    """
    if ratio is None:
        return "not reached"
    if ratio in (0, math.inf):
        return "at once" if ratio else "more"
    larger = max(ratio, 1 / ratio)
    said = f"{larger:.2f}" if larger < 10 else f"{larger:,.0f}"
    if said == "1.00":
        return "the same"
    return f"{said}x {'less' if ratio > 1 else 'more'}"


def quality(value: float) -> str:
    """A quality in four digits.

    Examples:
        >>> quality(3.21456), quality(0.87312), quality(2.99), quality(1234.5)
        ('3.215', '0.8731', '2.990', '1,234')
    """
    return _fixed(value, 4)


def better(difference: float) -> str:
    """A difference of quality.

    Examples:
        >>> better(0.0412), better(-0.5), better(0)
        ('0.041 better', '0.50 worse', 'the same')
    """
    if difference == 0:
        return "the same"
    return f"{_fixed(abs(difference), 2)} {'better' if difference > 0 else 'worse'}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def at_end(row: "Saving") -> tuple[str, str]:
    """How good a run was where it is compared with the baseline, and how much better or worse, and where.

    Examples:
        >>> from dataeff.report._savings import Saving
        >>> at_end(Saving("ltd", "steps", 9, 6, 9, 1, 3.125, 0.0125))
        ('3.125', '0.013 better')
        >>> at_end(Saving("ltd", "steps", 9, None, 6, 0.667, 3.5, -0.1))
        ('3.500', '0.10 worse at 67%')
        >>> at_end(Saving("ltd", "flops", 9, None, None, None, None, None))
        ('not logged', '')
        >>> at_end(Saving("ltd", "flops", 9, 12, 20, 1, None, None))
        ('not logged there', '')
    """
    if row.quality is None or row.difference is None or row.share is None:
        return "not logged" if row.share is None else "not logged there", ""
    where = "" if row.share >= 1 else f" at {row.share:.0%}"
    return quality(row.quality), better(row.difference) + where


def saved(row: "Saving", found: "Savings") -> str:
    """What a run saved at equal quality, with its best if it never got there.

    Examples:
        >>> from dataeff.report._savings import Saving, Savings
        >>> usual = Savings("usual", "loss", False, 3.0, {"usual": 3.0, "ltd": 3.5}, ("steps",), ())
        >>> saved(Saving("ltd", "steps", 9, None, 9, 1, 3.5, -0.5), usual)
        'not reached (best 3.500)'
    """
    if row.ended is None:
        return "not logged"
    best = f" (best {quality(found.bests[row.run])})" if row.ratio is None else ""
    return times(row.ratio) + best


def verdict(found: "Savings") -> str:
    """What the runs show, in one sentence: of the run that saved most on the axis that matters most.

    Examples:
        >>> from dataeff.report._savings import savings
        >>> usual = [{"steps": s, "loss": 5 - s} for s in (1, 2, 3)]
        >>> faster = [{"steps": s, "loss": 5 - 2 * s} for s in (1, 2)]
        >>> verdict(savings({"usual": usual, "faster": faster}))
        "'faster' reached the best training loss of 'usual' (2.000) with 2.00x fewer steps."
        >>> verdict(savings({"usual": usual}))
        "'usual' reached a training loss of 2.000; there is no other run to compare it with."
    """
    metric = plain(found.metric)
    others = [name for name in found.bests if name != found.baseline]
    if not others:
        return (
            f"{found.baseline!r} reached a {metric} of {quality(found.best)}; "
            "there is no other run to compare it with."
        )
    axis = first_axis(found.axes)
    ratios = {name: found.of(name, axis).ratio for name in others}
    goal = f"the best {metric} of {found.baseline!r} ({quality(found.best)})"
    name = max(others, key=lambda run: (ratios[run] or 0, found.of(run, axis).difference or float("-inf")))
    row = found.of(name, axis)
    if row.ratio is None:
        return _missed(found, axis, others, goal)
    if row.ratio in (0, math.inf):
        when = "at once" if row.ratio else f"later than {found.baseline!r}, which was at its best at once"
        return f"{name!r} reached {goal} {when}."
    there = row.share == 1 and row.difference
    also = f", and was {better(there)} where {found.baseline!r} ended" if there else ""
    return f"{name!r} reached {goal} with {_with(axis, row.ratio)}{also}."


def _missed(found: "Savings", axis: str, others: list[str], goal: str) -> str:
    nearest = min(others, key=lambda name: abs(found.bests[name] - found.best))
    row = found.of(nearest, axis)
    spent = f" with {row.share:.0%} of the {_noun(axis)}" if row.share is not None and row.share < 1 else ""
    got = f"got to {quality(found.bests[nearest])}{spent}"
    if len(others) == 1:
        return f"{nearest!r} did not reach {goal}; it {got}."
    return f"No other run reached {goal}; the nearest, {nearest!r}, {got}."


def text(found: "Savings") -> str:
    """A block of lines for each run, for a terminal."""
    direction = "higher" if found.higher_is_better else "lower"
    own = found.baseline
    rows = [["", "equal quality", "equal compute"]]
    for name in found.bests:
        rows.append([name, "", ""])
        rows += [[f"  {TITLES[axis]}", *_told(found.of(name, axis), found)] for axis in found.axes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    goal = f"{plain(found.metric)}, {direction} is better; {own!r} got to {quality(found.best)}"
    return "\n".join([goal, "", *map(str.rstrip, lines)])


def _told(row: "Saving", found: "Savings") -> tuple[str, str]:
    """Both cells of a run on an axis."""
    if row.run == found.baseline and row.quality is not None and row.ended is not None:
        end = f"{quality(row.quality)} at {amount(row.axis, row.ended)}"
        return f"{quality(found.best)} at {amount(row.axis, row.baseline)}", end
    spent = "" if row.consumed is None else f" ({amount(row.axis, row.consumed)})"
    return saved(row, found) + spent, ", ".join(filter(None, at_end(row)))


def _with(axis: str, ratio: float) -> str:
    said = times(ratio)
    return f"{said if axis in _NOUNS else said.replace('less', 'fewer')} {_noun(axis)}"


def _noun(axis: str) -> str:
    return _NOUNS.get(axis, TITLES[axis].lower())
