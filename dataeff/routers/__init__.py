"""Which tokens enter a layer of a model.

A router is a frozen object, or a function, that gives the ids of the tokens that enter, (B, K), sorted, or a
`Chosen`. `routing.attach` calls it with `batch`, `seq` and `keep`, and with those of these that its signature
names: `key`, `first_row` and `device` (see `ops.sample_tokens`), `hidden` (B, S, C), `valid` (B, S) bool or
None, `tokens` (the vocabulary ids, (B, S)), `gate` (a module that it has put on the layer) and `state`.

Its `scope` says where it chooses: for each routed layer anew ("layer", the default), once for all of them
("span"), or once for good ("input").
"""

from dataeff.routers._chosen import Chosen
from dataeff.routers._mixture_of_depths import mixture_of_depths, top_tokens
from dataeff.routers._patch_dropout import patch_dropout
from dataeff.routers._random_ltd import random_ltd
from dataeff.routers._span import span
from dataeff.routers._token_bypass import importance, running_loss, token_bypass
from dataeff.routers._tome import match_tokens, tome

__all__ = [
    "Chosen",
    "importance",
    "match_tokens",
    "mixture_of_depths",
    "patch_dropout",
    "random_ltd",
    "running_loss",
    "span",
    "token_bypass",
    "tome",
    "top_tokens",
]
