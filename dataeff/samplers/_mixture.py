"""The mixture sampler: several corpora or domains, in shares that follow paces."""

from collections.abc import Mapping, Sized
from typing import Any, ClassVar

import attrs
import numpy as np

from dataeff import rng
from dataeff._check import whole
from dataeff.pacing import Pace, as_pace, by_steps
from dataeff.samplers._cohorts import count_draws
from dataeff.samplers._quotas import Quotas, shares
from dataeff.samplers._steps import Ints, Steps

_fixed = attrs.setters.frozen


def _sizes(domains: Mapping[str, Any]) -> dict[str, int]:
    if not isinstance(domains, Mapping) or not domains:
        raise ValueError(f"domains is {domains!r}; expected one at least, as in {{'web': corpus}}")
    return {
        name: whole(f"the size of {name!r}", len(size) if isinstance(size, Sized) else size, low=1)
        for name, size in domains.items()
    }


def _paces(weights: Any) -> dict[str, Pace]:
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights is {weights!r}; expected a mapping, as {{'web': 3, 'code': pace}}")
    return {name: by_steps(as_pace(weight), f"the weight of {name!r}") for name, weight in weights.items()}


@attrs.define
class mixture(Steps):
    """Batches of sample ids from several corpora or domains, each with its share of every batch.

    Shares follow the weights, which may be paces, and are kept to within about one sample over the whole
    run, not only on average. Inside a domain samples are drawn without replacement until all have been, then
    anew. The ids of a domain follow those of the one before, as `corpus.Joined` or torch's ConcatDataset
    count them; of domains that are mixed up in one dataset, ConcatDataset of a Subset each makes such a one.

    Weights may be changed: with `reweigh` while training, or by making the sampler with others and loading
    the state of before. Either way what was drawn stays drawn.

    Args:
        domains: name to how many samples there are, or to what has a length. In the order of their ids.
        weights: name to a number or a pace, 0 or more: how much of a batch, in proportion to their sum.
        batch_size: samples in the global batch, over all ranks.
        seed: a whole number of at least 0.
        rank: of this process; by default torch.distributed's, else 0.
        world_size: the number of processes; by default torch.distributed's, else 1. Must divide `batch_size`.
        steps: how many batches there are; by default as many as draw as many samples as there are.

    Raises:
        ValueError: a domain without samples or weight, a weight below 0, weights that are all 0 at a step, a
            batch size that the world size does not divide, or a rank outside the world.

    Examples:
        >>> from dataeff import pacing
        >>> weights = {"web": 1, "code": pacing.linear(0, 1, steps=100)}
        >>> sampler = mixture({"web": 1000, "code": 50}, weights=weights, batch_size=10, seed=1, steps=200)
        >>> [sum(i >= 1000 for i in sampler[step]) for step in (0, 40, 150)]
        [0, 3, 5]
        >>> seen = sampler.exposures(0, 200)
        >>> int(seen.sum()), int(seen[1000:].min()), int(seen[1000:].max())
        (2000, 16, 17)
    """

    _in_state: ClassVar[tuple[str, ...]] = ("step", "drawn", "owed")
    domains: Mapping[str, int] = attrs.field(converter=_sizes, on_setattr=_fixed)
    weights: Mapping[str, Pace] = attrs.field(kw_only=True, converter=_paces, on_setattr=_fixed)
    _quotas: Quotas = attrs.field(init=False, repr=False, eq=False)
    _bounds: Ints = attrs.field(init=False, repr=False, eq=False)
    _keys: Any = attrs.field(init=False, repr=False, eq=False)
    _batch_key: int = attrs.field(init=False, repr=False, eq=False)

    def _default_steps(self) -> int:
        return -(-sum(self.domains.values()) // self.batch_size)

    def _source(self) -> str:
        return "mixture of " + " ".join(f"{name}:{size}" for name, size in self.domains.items())

    def _prepare(self) -> None:
        super()._prepare()
        key = rng.key("mixture", self.seed)
        self._bounds = np.cumsum([0, *self.domains.values()])
        self._keys = rng.fold(key, np.arange(len(self.domains)))
        self._batch_key = rng.key(key, "batch")
        self._begin(0, [0] * len(self.domains), [0] * len(self.domains))

    def _begin(self, since: int, drawn: Any, owed: Any) -> None:
        if set(self.weights) != set(self.domains):
            raise ValueError(
                f"weights are of {', '.join(self.weights)}, and domains are {', '.join(self.domains)}; "
                "expected one weight a domain"
            )
        table = shares({name: self.weights[name] for name in self.domains})
        self._quotas = Quotas(table, self.batch_size, self.steps, since, drawn, owed)

    def reweigh(self, weights: Mapping[str, Any], *, step: int | None = None) -> None:
        """Other weights from a step on, by default the next, and go on there.

        It takes effect at once: steps before that one are not drawn any more, nor have they a state, so call
        it when they are through. Weights that change at steps known beforehand are paces.

        With loader workers give the step, one more than the `.step` of the last batch trained on, and make a
        new iterator of the loader: what it has fetched already has the old weights.
        """
        since = whole("step", self.step if step is None else step, low=self._quotas.since, high=len(self))
        before, place = self.weights, self._quotas.at(since)
        try:
            object.__setattr__(self, "weights", _paces(weights))
            self._begin(since, *place)
        except ValueError:
            object.__setattr__(self, "weights", before)
            raise
        self.step = since

    def _has(self, step: int) -> bool:
        return self._quotas.since <= step < len(self)

    def _check_step(self, step: int) -> None:
        self._check_since(step)
        super()._check_step(step)

    def _check_since(self, step: int, error: type[Exception] = IndexError) -> None:
        if 0 <= step < self._quotas.since:
            raise error(
                f"step {step} is before step {self._quotas.since}, where the weights changed; steps before "
                "it are not drawn any more: load a state of then with the weights of then, or begin there"
            )

    def _draw(self, step: int, start: int, stop: int) -> Ints:
        slots = rng.shuffle(self.batch_size, self._batch_key, step, start=start, stop=stop)
        first, last = self._quotas.at(step)[0], self._quotas.at(step + 1)[0]
        ends = np.cumsum(last - first)
        of = np.searchsorted(ends, slots, side="right")
        numbers = last[of] - ends[of] + slots
        sizes = self._bounds[of + 1] - self._bounds[of]
        return np.asarray(self._bounds[of] + rng.draw_flat(numbers, sizes, self._keys[of]))

    def _exposures(self, start: int, stop: int) -> Ints:
        counts = np.zeros(self._bounds[-1], np.int64)
        if start == stop:
            return counts
        self._check_since(start, ValueError)
        bounds = self._quotas.at(start)[0], self._quotas.at(stop)[0]
        for d, (first, last) in enumerate(zip(*bounds, strict=True)):
            some = counts[self._bounds[d] : self._bounds[d + 1]]
            count_draws(int(first), int(last), int(self._keys[d]), some)
        return counts

    def _place(self, step: int) -> dict[str, Any]:
        self._check_since(step, ValueError)
        drawn, owed = self._quotas.at(step)
        return {"step": step, "drawn": drawn.tolist(), "owed": owed.tolist()}

    def _resume(self, state: dict[str, Any]) -> None:
        super()._resume(state)
        known = self.step >= self._quotas.since
        if not known or self._place(self.step) != {name: state[name] for name in self._in_state}:
            self._begin(self.step, state["drawn"], state["owed"])  # of other weights
