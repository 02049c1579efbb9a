"""Trying a routed layer, before it first drops tokens, without a trace."""

from collections.abc import Callable
from contextvars import Context
from typing import Any

import attrs
import torch

from dataeff.routing import _probe
from dataeff.routing._adapters import is_packed, padding, travel
from dataeff.routing._given import Given, apart, as_many
from dataeff.routing._outputs import hidden_of
from dataeff.routing._route import Route
from dataeff.routing._rules import Kept
from dataeff.routing._stack import unwrapped

Tensor = torch.Tensor


@attrs.define(eq=False)
class Trials:
    """Refuses layers that would take kept tokens for neighbours, or samples for tokens; see `_probe`.

    Examples:
        >>> from dataeff.routing import attach
        >>> from dataeff.routing._given import given_to
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
        >>> trials = Trials(attach(model, keep=2, seed=1), lambda given, ids, seq: Kept(ids, 1, seq))
        >>> x = torch.randn(1, 5, 4)
        >>> trials.of(given_to("1", model[1], ["input"], (x,), {}, batch_first=True), torch.tensor([[0, 3]]))
    """

    route: Route
    kept: Callable[[Given, Tensor, int], Kept]
    """What travels is told of the kept tokens."""
    _looks: _probe.Looks = attrs.field(factory=_probe.Looks, init=False, repr=False)

    def of(self, given: Given, ids: Tensor) -> None:
        """Try a layer of which the tokens `ids` are to enter."""
        self.route._tried = True
        name, layer, x, values = given.name, unwrapped(given.layer), given.x, given.values
        begins = next((value for key, value in values.items() if is_packed({key: value})), None)
        if begins is not None and len(x) > 1:
            return  # documents go over rows

        def look(run: _probe.Run) -> None:
            valid = padding(values, *x.shape[:2]) if "valid" in self.route._wants else None
            if valid is not None:
                _probe.check_padding(name, layer, x, run, valid=valid)
            _probe.check(
                name,
                layer,
                x,
                run,
                ids=ids,
                router=self.route.router,
                batch_first=self.route.batch_first,
                begins=begins,
            )

        self._look(name, x.shape[1], look, self._run(given, begins))

    def of_layout(self, given: Given) -> None:
        """Try a layer that would never drop tokens if its samples were taken for them."""
        first = self.route.batch_first

        def look(run: _probe.Run) -> None:
            _probe.check_layout(given.name, unwrapped(given.layer), given.x, run, batch_first=first)

        self._look(f"{given.name} as it lies", 1, look, self._run(given, None))

    def _look(self, name: str, seq: int, look: Callable[[_probe.Run], None], run: _probe.Run) -> None:
        # nothing that records layers by a context variable sees it
        self._looks.at(name, seq, lambda: Context().run(look, run))

    def _run(self, given: Given, begins: Any) -> _probe.Run:
        """The layer, called with some of its tokens."""
        seq, layout = given.x.shape[1], given.layout

        def run(x: Tensor, ids: Tensor, forward: Callable[..., Any]) -> Tensor:
            kept = self.kept(given, ids, seq)
            taken = x[torch.arange(len(x), device=ids.device).unsqueeze(1), ids]

            def travels(argument: str, value: Any) -> Any:
                if value is begins and ids.shape[1] == seq:
                    return value  # in another order, but each in its document
                return apart(travel(argument, value, kept, self.route.token_args))

            args, kwargs = given.with_tokens(layout.given(taken), travels)
            out = hidden_of(forward(*args, **kwargs), self.route.hidden_out)
            return taken if out is None else as_many(given.name, layout.rows(out), taken)

        return run
