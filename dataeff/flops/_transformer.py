"""What a transformer costs, by formula."""

from dataeff._check import whole
from dataeff.flops._cost import ANY, Cost


def transformer(
    *,
    width: int,
    feedforward: int | None = None,
    vocabulary: int = 0,
    heads: int | None = None,
    key_value_heads: int | None = None,
    head_width: int | None = None,
    gated: bool = False,
) -> Cost:
    """The cost of a transformer of like blocks by formula, without a model.

    Args:
        width: of hidden states.
        feedforward: of the inner layer, 4 * width by default.
        vocabulary: entries that each token's next one is predicted among; 0 for no such head.
        heads: of queries; with `head_width` by default width in all.
        key_value_heads: as many as `heads` by default; fewer with grouped queries.
        head_width: width / heads by default.
        gated: whether the feed-forward has a third matrix, as in SwiGLU.

    Examples:
        >>> from dataeff.clock import Processed
        >>> cost = transformer(width=2048, vocabulary=50_257)  # GPT-3 1.3B has 24 blocks
        >>> seen = {f"h.{i}": (2048, 2048**2) for i in range(24)}
        >>> f"{cost(Processed(rows=1, tokens=2048, layers=seen)):.2e}"
        '1.86e+13'
    """
    width = whole("width", width, low=1)
    inner = _given("feedforward", feedforward, 4 * width)
    heads = _given("heads", heads, 1)
    if head_width is None and width % heads:
        raise ValueError(f"heads is {heads} and width {width}; expected a divisor, or head_width")
    head = _given("head_width", head_width, width // heads)
    queries = heads * head
    keys = _given("key_value_heads", key_value_heads, heads) * head
    weights = 2 * width * queries + 2 * width * keys + (3 if gated else 2) * width * inner
    return Cost({ANY: (6 * weights, 12 * queries)}, token=6 * width * whole("vocabulary", vocabulary, low=0))


def _given(name: str, number: int | None, default: int) -> int:
    return default if number is None else whole(name, number, low=1)
