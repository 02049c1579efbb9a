"""Ask a router which tokens enter a layer."""

from typing import Any

from torch import Tensor

from dataeff.routers import Chosen
from dataeff.routing._adapters import padding
from dataeff.routing._given import Given
from dataeff.routing._passes import Pass
from dataeff.routing._route import Route


def choose(route: Route, given: Given, own: Pass, *, place: int, tokens: Tensor | None) -> Chosen:
    """What the router of a route chooses of a layer's tokens; it is told what it asks for by name.

    Args:
        route: of the router.
        given: what the layer is called with.
        own: what this forward pass asks of the layer.
        place: the number of this call among those of all layers, in the key of its draws.
        tokens: the vocabulary ids that the model was called with, if they could be told. (B, S).

    Raises:
        ValueError: the router needs vocabulary ids, and there are none of this layer's tokens.

    Examples:
        >>> import torch
        >>> from dataeff.routing import attach
        >>> from dataeff.routing._given import given_to
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(4)])
        >>> route = attach(model, keep=2, seed=1234)
        >>> given = given_to("1", model[1], ["input"], (torch.zeros(1, 8, 4),), {}, batch_first=True)
        >>> choose(route, given, Pass(torch.tensor([0, 0]), 2), place=0, tokens=None).ids.shape
        torch.Size([1, 2])
    """
    batch, seq = given.x.shape[:2]
    wants = route._wants
    asked: dict[str, Any] = {}
    if "key" in wants:
        asked["key"] = route.seed, own.moment, place
    if "first_row" in wants:
        asked["first_row"] = route.rank * batch
    if "device" in wants:
        asked["device"] = given.x.device
    if "hidden" in wants:
        asked["hidden"] = given.x
    if "valid" in wants:
        asked["valid"] = padding(given.values, batch, seq)
    if "tokens" in wants:
        asked["tokens"] = _of_layer(tokens, route, batch, seq)
    if "gate" in wants:
        asked["gate"] = getattr(given.layer, type(route.router).__name__)
    if "state" in wants:
        asked["state"] = route._state
    chosen = route.router(batch, seq, own.keep, **asked)
    return chosen if isinstance(chosen, Chosen) else Chosen(chosen)


def _of_layer(tokens: Tensor | None, route: Route, batch: int, seq: int) -> Tensor:
    if tokens is None or tuple(tokens.shape) != (batch, seq):
        got = "none that can be told" if tokens is None else f"{tuple(tokens.shape)}"
        raise ValueError(
            f"{route.router!r} needs the vocabulary ids of ({batch}, {seq}) tokens; the model was "
            f"called with {got}: give them as input_ids=, or as its first argument"
        )
    return tokens
