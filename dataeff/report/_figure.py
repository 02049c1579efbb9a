"""A figure of matplotlib, which is imported when there is something to draw."""

from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty figure of that many inches. ImportError, with the cure, where matplotlib is missing.

    Examples:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; install it with: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")
