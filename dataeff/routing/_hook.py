"""Hooks on a module that leave its compiled code alone, and its copies."""

import copy
from typing import Any

import attrs
from torch import nn


def no_hook(*_: Any, **__: Any) -> None:
    """What a copy of a routed model has in a hook's place.

    Examples:
        >>> no_hook("module", (), {}) is None
        True
    """


def _plain() -> Any:
    return no_hook


@attrs.define(eq=False)
class Hook:
    """A method of a flow as a hook on the layer `name`.

    A copy or a pickle of the model gets `no_hook` in its place, but for a route that evaluates: without it
    the model would not be the same, so its copy has a copy of it.

    Examples:
        >>> from types import SimpleNamespace
        >>> hook = Hook(SimpleNamespace(evaluates=False, enter=print), "enter", "layers.1")
        >>> hook("module", "args")
        layers.1 module args
        >>> copy.deepcopy(hook) is no_hook
        True
    """

    flow: Any
    method: str
    name: str
    runs_around: bool = attrs.field(default=False, init=False)
    """Whether it is called around the code of a compiled module just now, so not within."""

    def __call__(self, module: Any, *given: Any) -> Any:
        """Call the method."""
        return None if self.runs_around else self.around(module, *given)

    def around(self, module: Any, *given: Any) -> Any:
        """Call the method, from wherever."""
        return getattr(self.flow, self.method)(self.name, module, *given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if not self.flow.evaluates:
            return no_hook
        return Hook(copy.deepcopy(self.flow, memo), self.method, self.name)

    def __reduce__(self) -> Any:
        if not self.flow.evaluates:
            return _plain, ()
        return Hook, (self.flow, self.method, self.name)


@attrs.define(eq=False)
class Ride:
    """The hooks of one module. On one that is compiled by itself, they run around the compiled code.

    Inside it, each layer and number of tokens would be compiled anew. They stay registered, too, for a whole
    model that is compiled: it knows nothing of the code of its modules.

    Examples:
        >>> from types import SimpleNamespace
        >>> layer, flow = nn.Identity(), SimpleNamespace(enter=lambda name, module, args, kwargs: ((2,), {}))
        >>> ride = Ride(layer, before=Hook(flow, "enter", ""))
        >>> ride.attach()
        >>> layer(1)
        2
        >>> ride.remove()
        >>> layer(1)
        1
    """

    module: nn.Module
    before: Hook
    after: Hook | None = None
    _handles: list[Any] = attrs.field(factory=list, init=False)

    def attach(self) -> None:
        """Register the hooks."""
        self._handles.append(self.module.register_forward_pre_hook(self.before, with_kwargs=True))
        if self.after is not None:
            self._handles.append(self.module.register_forward_hook(self.after, prepend=True))

    def keep_out_of_the_graph(self) -> None:
        """Have the hooks run around the module's compiled code, if it has some by now, and not within."""
        compiled = self.module._compiled_call_impl
        if compiled is None:
            return
        if not isinstance(compiled, _Around):
            self.module._compiled_call_impl = compiled = _Around(compiled)
        if self not in compiled.rides:
            compiled.rides.append(self)

    def remove(self) -> None:
        """Take the hooks off."""
        while self._handles:
            self._handles.pop().remove()
        around = self.module._compiled_call_impl
        if isinstance(around, _Around) and self in around.rides:
            around.rides.remove(self)
            if not around.rides:
                self.module._compiled_call_impl = around.compiled


@attrs.define(eq=False)
class _Around:
    """The compiled code of a module with the hooks of rides around it, run in the order that torch has."""

    compiled: Any
    rides: list[Ride] = attrs.field(factory=list, init=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for ride in self.rides:
            args, kwargs = ride.before.around(ride.module, args, kwargs) or (args, kwargs)
        hooks = [hook for ride in self.rides for hook in (ride.before, ride.after) if hook is not None]
        try:
            for hook in hooks:
                hook.runs_around = True
            output = self.compiled(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.runs_around = False
        for ride in self.rides:
            changed = None if ride.after is None else ride.after.around(ride.module, args, output)
            output = output if changed is None else changed
        return output
