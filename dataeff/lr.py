"""Learning rates that read the clock: warm up and decay on what was consumed, not on steps.

Schedules are shares of a group's own learning rate, which is the peak, as functions of a count on one axis of
the clock. `by_clock` puts one on an optimizer, as a scheduler of torch.

Source: token-based decay of DeepSpeed Data Efficiency (arXiv 2212.03597), layer-token schedules of random-LTD
(arXiv 2211.11586), which are `by_clock(..., on="layer_tokens")`, and warmup-stable-decay (arXiv 2404.06395).
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dataeff._check import is_whole, real
from dataeff.clock import AXES, Clock


@attrs.frozen
class _Schedule(abc.ABC):
    """Linearly up over `warmup`, then down a curve that a final class gives, never below `floor`."""

    warmup: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))
    floor: float = attrs.field(default=0.0, kw_only=True)

    @floor.validator
    def _check_floor(self, _: object, value: float) -> None:
        if not 0 <= real("floor", value) <= 1:
            raise ValueError(f"floor is {value!r}; expected a share of the peak, from 0 to 1")

    @abc.abstractmethod
    def _after(self, count: int) -> float:
        """The share, in [0, 1] of the way from floor to peak, at a count beyond the warmup."""

    def __call__(self, count: int) -> float:
        """The share of the peak, after `count`."""
        if count < self.warmup:
            return max(count / self.warmup, self.floor)
        return self.floor + (1 - self.floor) * self._after(count)


@attrs.frozen
class _Decay(_Schedule):
    """One that has reached the floor at `total`."""

    total: int = attrs.field(kw_only=True, validator=is_whole(1))

    def __attrs_post_init__(self) -> None:
        if self.warmup >= self.total:
            raise ValueError(f"warmup is {self.warmup} and total {self.total}; expected less than total")

    def _share(self, count: int) -> float:
        return min((count - self.warmup) / (self.total - self.warmup), 1.0)


@attrs.frozen
class cosine(_Decay):
    """Linear warmup over `warmup`, half a cosine from there to `total`, then `floor`: shares of the peak.

    Examples:
        >>> schedule = cosine(warmup=100, total=1100, floor=0.1)
        >>> [round(schedule(count), 3) for count in (0, 50, 100, 600, 1100, 5000)]
        [0.1, 0.5, 1.0, 0.55, 0.1, 0.1]
    """

    def _after(self, count: int) -> float:
        return (1 + math.cos(math.pi * self._share(count))) / 2


@attrs.frozen
class linear(_Decay):
    """Linear warmup over `warmup`, a straight line from there to `total`, then `floor`: shares of the peak.

    Examples:
        >>> schedule = linear(warmup=100, total=1100)
        >>> [schedule(count) for count in (50, 100, 600, 1100)]
        [0.5, 1.0, 0.5, 0.0]
    """

    def _after(self, count: int) -> float:
        return 1 - self._share(count)


@attrs.frozen
class wsd(_Decay):
    """Linear warmup, then the peak, then a straight line to `floor` over the last `decay` before `total`.

    Examples:
        >>> schedule = wsd(warmup=100, decay=200, total=1000)
        >>> [schedule(count) for count in (50, 100, 800, 900, 1000)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    decay: int = attrs.field(kw_only=True, validator=is_whole(1))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.warmup + self.decay > self.total:
            raise ValueError(
                f"warmup {self.warmup} and decay {self.decay} are longer than total, {self.total}"
            )

    def _after(self, count: int) -> float:
        return min(max(self.total - count, 0) / self.decay, 1.0)


@attrs.frozen
class inverse_sqrt(_Schedule):
    """Linear warmup, then sqrt(warmup / count), never below `floor`: shares of the peak.

    Examples:
        >>> schedule = inverse_sqrt(warmup=100)
        >>> [schedule(count) for count in (50, 100, 400, 10_000)]
        [0.5, 1.0, 0.5, 0.1]
    """

    warmup: int = attrs.field(kw_only=True, validator=is_whole(1))

    def __call__(self, count: int) -> float:
        """The share of the peak, after `count`."""
        return max(self._after(count), self.floor)

    def _after(self, count: int) -> float:
        return min(count / self.warmup, math.sqrt(self.warmup / max(count, 1)))


@attrs.frozen
class constant(_Schedule):
    """Linear warmup over `warmup`, then the peak.

    Examples:
        >>> constant(warmup=100)(50), constant()(0)
        (0.5, 1.0)
    """

    def _after(self, count: int) -> float:
        return 1.0


class by_clock(LRScheduler):
    """A scheduler of torch whose learning rates follow a clock.

    After each step of training, tick the clock and then call `step`: it reads the clock and sets every group
    to its own rate times the schedule. Making one reads the clock, too: on several ranks all of them must
    make it and call `step`.

    A batch that asks for a scale of its own, as those of `samplers.token_budget` do, gets it by `scale`,
    before the optimizer's step. It holds for that step alone and is applied once, however often it is called.

    Args:
        optimizer: the rate of each of its groups is the peak. A rate that is a tensor stays that tensor.
        schedule: count -> share of the peak, one of this module or any function.
        clock: what is read.
        on: an axis of the clock: "steps", "samples", "tokens", "loss_tokens", "layer_tokens" or "flops".

    Raises ValueError for groups that are added after it is made, for a state of another number of them, and
    from `scale` where another scheduler sets the rates.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        >>> clock = Clock()
        >>> scheduler = by_clock(optimizer, linear(total=4096), clock, on="tokens")
        >>> optimizer.step(); clock.tick(samples=4, tokens=1024); scheduler.step()
        >>> scheduler.get_last_lr()
        [0.375]
        >>> scheduler.scale(0.5); scheduler.scale(0.5); optimizer.param_groups[0]["lr"]
        0.1875
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Callable[[int], float], clock: Clock, *, on: str = "tokens"
    ) -> None:
        if on not in AXES:
            raise ValueError(f"on is {on!r}; expected one of {', '.join(AXES)}")
        if not callable(schedule) or isinstance(schedule, type):
            raise ValueError(f"schedule is {schedule!r}; expected one, as lr.cosine(total=10**9)")
        if not isinstance(clock, Clock):
            raise ValueError(f"clock is {clock!r}; expected the one that training ticks, a dataeff.Clock()")
        self.schedule, self.clock, self.on = schedule, clock, on
        super().__init__(optimizer)
        self._scaled = self.get_last_lr()
        self.base_lrs = [float(peak) for peak in self.base_lrs]

    def get_lr(self) -> list[float | Any]:
        """The rate of each group now."""
        share = self.schedule(self.clock.at(self.on))
        return [float(peak) * share for peak in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Read the clock and set the rates. Every rank must call it."""
        self._check_groups()
        self.clock.read()
        super().step(epoch)
        self._last_lr = self.get_lr()  # plain numbers also of rates that are tensors, so as a state has them

    def scale(self, by: float) -> None:
        """Set the rates to `by` times what they are without it, until the next `step`.

        ValueError where another scheduler sets the rates, as in a `SequentialLR`.
        """
        self._check_groups()
        factor = real("by", by, low=0)
        for group, *known in zip(self.optimizer.param_groups, self.get_last_lr(), self._scaled, strict=True):
            _check_own(float(group["lr"]), *map(float, known))
        self._set(factor)

    def _set(self, factor: float) -> None:
        """Set the rates to `factor` times the last ones."""
        self._scaled = [float(rate) * factor for rate in self.get_last_lr()]
        for group, rate in zip(self.optimizer.param_groups, self._scaled, strict=True):
            _set(group, rate)

    def state_dict(self) -> dict[str, Any]:
        """The peaks, the rates and the number of calls, in plain numbers; the clock has its own state."""
        return {
            "base_lrs": [float(peak) for peak in self.base_lrs],
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": [float(rate) for rate in self.get_last_lr()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state: load the clock's first."""
        if set(state_dict) != set(self.state_dict()):
            raise ValueError(
                f"the scheduler's state has the keys {sorted(self.state_dict())}; got {sorted(state_dict)}"
            )
        self._check_groups()
        there, here = len(state_dict["base_lrs"]), len(self.base_lrs)
        if there != here:
            raise ValueError(
                f"the state is of {there} parameter groups and the optimizer has {here}; expected as many: "
                "make the optimizer as the one that was saved"
            )
        super().load_state_dict(state_dict)
        self._set(1)

    def _check_groups(self) -> None:
        there, here = len(self.optimizer.param_groups), len(self.base_lrs)
        if there != here:
            raise ValueError(
                f"the optimizer has {there} parameter groups and its scheduler was made with {here}; "
                "add groups before lr.by_clock, or make a new one"
            )


def _check_own(rate: float, last: float, scaled: float) -> None:
    """Raise ValueError unless a group's rate is the last one of its scheduler, or that one scaled.

    Examples:
        >>> _check_own(0.05, 0.5, 0.25)
        Traceback (most recent call last):
        ...
        ValueError: a rate is 0.05, and that of lr.by_clock 0.5: another scheduler sets the rates now; ...
    """
    if not any(math.isclose(rate, own, rel_tol=1e-6) for own in (last, scaled)):
        raise ValueError(
            f"a rate is {rate:.6g}, and that of lr.by_clock {last:.6g}: another scheduler sets the rates "
            "now; call scale only while by_clock does, or warm up by its schedule, as lr.cosine(warmup=...)"
        )


def _set(group: dict[str, Any], rate: Any) -> None:
    """Set a group's rate; one that is a tensor stays that tensor, which a compiled step may hold."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def scale_peak(lr: float, data_fraction: float) -> float:
    """The peak for training on a share of the data: lr / share, as in the recipes of arXiv 2212.03597.

    Raises ValueError unless the share is in (0, 1].

    Examples:
        >>> scale_peak(2e-4, 0.5)
        0.0004
    """
    if not 0 < real("data_fraction", data_fraction) <= 1:
        raise ValueError(f"data_fraction is {data_fraction!r}; expected a share above 0 and up to 1")
    return real("lr", lr, low=0) / data_fraction
