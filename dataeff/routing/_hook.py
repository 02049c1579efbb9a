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

    def __call__(self, module: Any, *given: Any) -> Any:
        """Call the method."""
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

    Inside it, each layer and number of tokens would be compiled anew.

    Examples:
        >>> layer = nn.Identity()
        >>> ride = Ride(layer, before=lambda module, args, kwargs: ((args[0] + 1,), kwargs))
        >>> ride.attach()
        >>> layer(1)
        2
        >>> ride.remove()
        >>> layer(1)
        1
    """

    module: nn.Module
    before: Any
    after: Any = None
    _handles: list[Any] = attrs.field(factory=list, init=False)
    _compiled: Any = attrs.field(default=None, init=False)

    def attach(self) -> None:
        """Register the hooks."""
        self._handles.append(self.module.register_forward_pre_hook(self.before, with_kwargs=True))
        if self.after is not None:
            self._handles.append(self.module.register_forward_hook(self.after))

    def keep_out_of_the_graph(self) -> None:
        """Move the hooks around the module's compiled code, if it has some since it was last looked at."""
        compiled = self.module._compiled_call_impl
        if compiled is not None and compiled != self._around:
            self._drop()
            self._compiled = compiled
            self.module._compiled_call_impl = self._around

    def remove(self) -> None:
        """Take the hooks off."""
        self._drop()
        if self._compiled is not None and self.module._compiled_call_impl == self._around:
            self.module._compiled_call_impl = self._compiled

    def _drop(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _around(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self.before(self.module, args, kwargs) or (args, kwargs)
        output = self._compiled(*args, **kwargs)
        changed = None if self.after is None else self.after(self.module, args, output)
        return output if changed is None else changed
