"""Tokens chosen by how hard their kind is to predict."""

from typing import ClassVar

import attrs
import torch
from torch import distributed

from dataeff import ops
from dataeff._check import whole

_UNSEEN = torch.finfo(torch.float32).max


@attrs.frozen
class token_bypass:
    """Token dropping by importance: tokens of vocabulary ids that have a low loss bypass the middle layers.

    m[v] <- momentum * m[v] + (1 - momentum) * loss for the tokens of vocabulary id v, batch by batch (the
    mean of their losses in it). J are the `keep` tokens of the largest m, ties at random; special tokens are
    always among them. One subset for all routed layers, as `span` has it.

    Feed it with `route.observe(tokens, losses)` after each forward pass, on every process of
    torch.distributed: the losses are those of all of them, so each has the same table m. It is in the route's
    state dict. Losses that are not finite, and tokens below 0, are passed over; vocabulary ids that were
    never seen come before all others.

    Source: Token Dropping for Efficient BERT Pretraining, arXiv 2203.13240.

    Args:
        vocabulary: how many vocabulary ids there are.
        special: those of the tokens that are always kept, as [CLS], [SEP], [MASK].
        momentum: in [0, 1).

    Examples:
        >>> router = token_bypass(vocabulary=10, special=(0,))
        >>> table = router.update(router.start(), torch.tensor([[4, 5]]), torch.tensor([[0.1, 3.0]]))
        >>> router(1, 3, 2, key=(1234, 0, 0, 0), tokens=torch.tensor([[0, 4, 5]]), state=table).tolist()
        [[0, 2]]
    """

    scope: ClassVar[str] = "span"

    vocabulary: int = attrs.field(kw_only=True)
    special: tuple[int, ...] = attrs.field(default=(), kw_only=True, converter=tuple)
    momentum: float = attrs.field(default=0.99, kw_only=True)

    @vocabulary.validator
    def _check_vocabulary(self, _: object, vocabulary: int) -> None:
        whole("vocabulary", vocabulary, low=1)

    @special.validator
    def _check_special(self, _: object, special: tuple[int, ...]) -> None:
        for token in special:
            whole("an entry of special", token, low=0, high=self.vocabulary - 1)

    @momentum.validator
    def _check_momentum(self, _: object, momentum: float) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; expected a number in [0, 1)")

    def start(self) -> torch.Tensor:
        """The table of running losses before the first batch. (vocabulary,) float32."""
        return torch.full((self.vocabulary,), _UNSEEN)

    def update(self, state: torch.Tensor, tokens: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """The table after a batch; see `running_loss`."""
        return running_loss(state, tokens, losses, momentum=self.momentum)

    def __call__(
        self,
        batch: int,
        seq: int,
        keep: int,
        *,
        key: tuple[int | torch.Tensor, ...],
        tokens: torch.Tensor,
        state: torch.Tensor,
        first_row: int = 0,
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Ids of the tokens that enter, sorted. (batch, keep) int32."""
        scores = importance(state, tokens, special=self.special)
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
        last = scores.topk(keep, dim=1).values[:, -1:]  # above it all are kept, and of its equals some
        return ops.sample_tokens(
            batch,
            seq,
            keep,
            key=("token_bypass", *key),
            first_row=first_row,
            always=scores > last,
            valid=scores >= last,
        )


def importance(state: torch.Tensor, tokens: torch.Tensor, *, special: tuple[int, ...] = ()) -> torch.Tensor:
    """The running loss of each token's vocabulary id, infinite for special ones. (B, S) -> (B, S) float32.

    Examples:
        >>> importance(torch.tensor([0.5, 2.0, 1.0]), torch.tensor([[2, 0, 1]]), special=(0,)).tolist()
        [[1.0, inf, 2.0]]
    """
    state = state.to(tokens.device, copy=True)
    state[list(special)] = torch.inf
    try:
        return state[tokens]
    except IndexError as error:
        raise _beyond(tokens, len(state)) from error


def running_loss(
    state: torch.Tensor, tokens: torch.Tensor, losses: torch.Tensor, *, momentum: float
) -> torch.Tensor:
    """m[v] <- momentum * m[v] + (1 - momentum) * mean loss of the tokens v; the mean where there was no m[v].

    `tokens` and `losses` are of one shape: all tokens, or those that have a loss. (vocabulary,) float32.
    Losses that are not finite are passed over, and so are tokens below 0, as labels without a loss. Means are
    over all processes of torch.distributed, each of which must call it: one without losses gives none, of
    shape (0,).

    Examples:
        >>> state = token_bypass(vocabulary=3).start()
        >>> tokens, losses = torch.tensor([1, 1, 2]), torch.tensor([1.0, 3.0, 5.0])
        >>> state = running_loss(state, tokens, losses, momentum=0.5)
        >>> running_loss(state, torch.tensor([1]), torch.tensor([4.0]), momentum=0.5)[1:].tolist()
        [3.0, 5.0]
    """
    if tokens.shape != losses.shape:
        raise ValueError(
            f"tokens has shape {tuple(tokens.shape)}, losses {tuple(losses.shape)}; expected a loss a token, "
            "as cross_entropy(..., reduction='none') gives them"
        )
    tokens, losses = tokens.detach().flatten().to(state.device), losses.detach().flatten().to(state.device)
    counted = losses.isfinite() & (tokens >= 0)
    weighed = torch.stack([counted, losses.where(counted, 0)]).double()  # (2, tokens)
    try:
        own = weighed.new_zeros(2, len(state)).index_add(1, tokens.clamp(min=0), weighed)
    except (IndexError, RuntimeError) as error:
        raise _beyond(tokens, len(state)) from error
    counts, sums = _of_all_ranks(own)
    means = (sums / counts).to(state)
    mixed = torch.where(state == _UNSEEN, means, momentum * state + (1 - momentum) * means)
    return torch.where(counts > 0, mixed, state)


def _beyond(tokens: torch.Tensor, vocabulary: int) -> ValueError:
    return ValueError(
        f"vocabulary ids go up to {tokens.max().item()}; expected less than the {vocabulary} of "
        f"token_bypass(vocabulary={vocabulary})"
    )


def _of_all_ranks(table: torch.Tensor) -> torch.Tensor:
    if not (distributed.is_available() and distributed.is_initialized()):
        return table
    total = table.to("cuda" if "nccl" in distributed.get_backend() else "cpu")
    distributed.all_reduce(total)
    return total.to(table.device)
