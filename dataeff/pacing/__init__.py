"""Pacing: how much (difficulty, length, kept tokens) at which step.

A pace is a callable `step -> amount` that knows in `steps` when it reaches its end and stays there. All are
frozen: they compare, pickle, and print as the code that makes them. Ramps give floats; with `multiple=` whole
numbers, rounded down to that multiple, never outside the range from start to end, and exactly start and
end at either end. A pace may fall; a curriculum takes only those that do not.

Source: the schedules of DeepSpeed Data Efficiency (arXiv 2212.03597), d(t) = floor((t/T)^(1/r) * (max - min)
+ min). Theirs falls below its minimum where that is no multiple, reaches its maximum late where that is none,
and knows whole numbers only; these do not.
"""

from dataeff.pacing._change import next_change
from dataeff.pacing._combine import clip, join, multiple, scale
from dataeff.pacing._given import custom, discrete
from dataeff.pacing._in_steps import in_steps
from dataeff.pacing._levels import levels
from dataeff.pacing._pace import Pace, amounts, as_pace, axis, by_steps, constant, table
from dataeff.pacing._ramps import cosine, exponential, linear, root

__all__ = [
    "Pace",
    "amounts",
    "as_pace",
    "axis",
    "by_steps",
    "clip",
    "constant",
    "cosine",
    "custom",
    "discrete",
    "exponential",
    "in_steps",
    "join",
    "levels",
    "linear",
    "multiple",
    "next_change",
    "root",
    "scale",
    "table",
]
