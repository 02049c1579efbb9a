"""DeepSpeed's schedules as paces, with what is different about them.

Source: the curriculum scheduler and the random-LTD scheduler of DeepSpeed 0.19. With T steps, a smallest
step d and a degree r, theirs is floor((t/T)^(1/r) * (max - min) + min), down to a multiple of d, at most max.
"""

import itertools
from collections.abc import Mapping

from dataeff import pacing
from dataeff.migration._section import Section
from dataeff.pacing import Pace

TYPES = ("fixed_linear", "fixed_root", "fixed_discrete", "custom")
_OF_TYPE = {
    "fixed_linear": ("total_curriculum_step", "difficulty_step"),
    "fixed_root": ("total_curriculum_step", "difficulty_step", "root_degree"),
    "fixed_discrete": ("difficulty", "max_step"),
    "custom": (),
}
_KEYS = ("total_curriculum_step", "difficulty_step", "root_degree", "difficulty", "max_step")

Told = tuple[Pace, list[str]]


def difficulty(
    metric: Section, name: str, *, custom: Mapping[str, Pace], rises: bool = False, tokens: bool = False
) -> Told:
    """The pace of a metric, and what is different about it.

    Args:
        metric: the table with `min_difficulty`, `max_difficulty`, `schedule_type` and `schedule_config`.
        name: of the metric.
        custom: the paces of metrics whose schedule is a function, by name.
        rises: whether the pace is not to fall, as the pool of a curriculum.
        tokens: whether it is a number of tokens, and so a whole one of at least 1.

    Examples:
        >>> config = {"total_curriculum_step": 100, "difficulty_step": 8}
        >>> metric = {"min_difficulty": 80, "max_difficulty": 2048, "schedule_type": "fixed_linear"}
        >>> metric = Section("m", metric | {"schedule_config": config})
        >>> pace, notes = difficulty(metric, "m", custom={}, rises=True)
        >>> pace == pacing.linear(80, 2048, steps=100, multiple=8), notes
        (True, [])
    """
    kind = metric.one_of("schedule_type", TYPES)
    config = metric.inner("schedule_config", needed=kind != "custom").only(*_KEYS)
    notes = [
        f"{config.at(key)} is not read by a {kind} schedule, there or here"
        for key in config
        if key not in _OF_TYPE[kind]
    ]
    if kind == "custom":
        pace, more = _custom(metric, name, custom, tokens=tokens), list[str]()
    elif kind == "fixed_discrete":
        pace, more = _discrete(metric, config, rises=rises, tokens=tokens)
    else:
        degree = config.number("root_degree") if kind == "fixed_root" else 1.0
        step = _amount(config, "difficulty_step", tokens=tokens)
        for key, value in (("root_degree", degree), ("difficulty_step", step)):
            if value <= 0:
                raise ValueError(f"{config.at(key)} is {value}; expected a number above 0")
        steps = config.whole("total_curriculum_step", low=1)
        pace, more = _ramp(
            metric, "min_difficulty", "max_difficulty", steps=steps, step=step, degree=degree, tokens=tokens
        )
    return pace, notes + more


def kept(schedule: Section) -> Told:
    """The pace of kept tokens that a table `random_ltd_schedule` says, and what is different about it.

    Examples:
        >>> config = {"require_steps": 100, "seq_per_step": 16}
        >>> table = {"min_value": 128, "max_value": 2048, "schedule_type": "fixed_linear"}
        >>> pace, notes = kept(Section("s", table | {"schedule_config": config}))
        >>> pace == pacing.linear(128, 2048, steps=100, multiple=16), notes
        (True, [])
    """
    schedule.only("min_value", "max_value", "schedule_type", "schedule_config")
    schedule.one_of("schedule_type", ("fixed_linear",))
    config = schedule.inner("schedule_config", needed=True).only("require_steps", "seq_per_step")
    steps, step = config.whole("require_steps", low=1), config.whole("seq_per_step", low=1)
    return _ramp(schedule, "min_value", "max_value", steps=steps, step=step, tokens=True, lifted=False)


def _ramp(
    table: Section,
    low: str,
    high: str,
    *,
    steps: int,
    step: float,
    degree: float = 1.0,
    tokens: bool,
    lifted: bool = True,
) -> Told:
    """A ramp between two numbers of `table`, of which DeepSpeed's is `lifted` to its minimum, or not."""
    start, end = _amount(table, low, tokens=tokens), _amount(table, high, tokens=tokens)
    if start > end:
        raise ValueError(
            f"{table.at(low)} is {start}, above {high}, {end}, where DeepSpeed would stay for ever; expected "
            "at most that"
        )
    if start == end:
        return pacing.constant(start), []
    multiple = int(step) if all(number == int(number) for number in (start, end, step)) else None
    pace: Pace = (
        pacing.linear(start, end, steps=steps, multiple=multiple)
        if degree == 1
        else pacing.root(start, end, steps=steps, degree=degree, multiple=multiple)
    )
    if multiple is None:
        return pace, [
            f"{table.path}: goes from {start} to {end} by {step} in real numbers here; DeepSpeed rounds "
            "every amount down to a whole number"
        ]
    notes = []
    if below := start % multiple:
        above = min(start - below + multiple, end)
        theirs = f"{above}, or {start - below} in older versions" if lifted else f"{start - below}"
        notes.append(
            f"{table.at(low)}: {start} is no multiple of {multiple}; the pace begins with {start} here, and "
            f"in DeepSpeed with {theirs}"
        )
    if end % multiple:
        notes.append(
            f"{table.at(high)}: {end} is no multiple of {multiple}; the pace is there at step {steps} here, "
            "and later in DeepSpeed"
        )
    return pace, notes


def _amount(table: Section, key: str, *, tokens: bool) -> float:
    return table.whole(key, low=1) if tokens else table.number(key)


def _discrete(metric: Section, config: Section, *, rises: bool, tokens: bool) -> Told:
    low, high = metric.number("min_difficulty"), metric.number("max_difficulty")
    values: list[float] = [*(config.wholes("difficulty", low=1) if tokens else config.numbers("difficulty"))]
    until = config.wholes("max_step", low=0)
    if len(values) != len(until) + 1 or sorted(set(until)) != until:
        raise ValueError(
            f"{config.at('max_step')} is {until} beside {len(values)} of difficulty; expected steps in "
            "rising order, one fewer than difficulties"
        )
    notes = []
    if any(value >= high for value in (low, *values[:-1])):
        notes.append(
            f"{config.at('difficulty')}: goes on to its end here; DeepSpeed stays at the first that reaches "
            f"max_difficulty, {high}, min_difficulty among them"
        )
    risen = list(itertools.accumulate(values, max))
    if rises and risen != values:
        notes.append(
            f"{config.at('difficulty')}: falls, which takes no sample out of the pool, there or here; to "
            "have them leave, give a curriculum a window"
        )
    return pacing.discrete(risen if rises else values, until=until), notes


def _custom(metric: Section, name: str, custom: Mapping[str, Pace], *, tokens: bool) -> Pace:
    if name not in custom:
        raise ValueError(
            f"{metric.at('schedule_type')} is 'custom', a function that stands in the training script; "
            f"expected it as from_deepspeed(config, custom={{{name!r}: dataeff.pacing.custom(function, "
            "steps=...)})"
        )
    pace = pacing.as_pace(custom[name])
    for step in (0, pace.steps) if tokens else ():
        if pace(step) < 1 or pace(step) != int(pace(step)):
            raise ValueError(
                f"{metric.path} cuts samples to {pace(step)} tokens at step {step}; expected whole numbers "
                "of at least 1, as pacing.multiple(pace, 8) gives them"
            )
    return pace
