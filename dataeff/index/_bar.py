"""Progress of a build, over samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(title: str, total: int, *, done: int = 0, show: bool) -> Iterator[Callable[[int], object]]:
    """Yields what to call with a number of samples that are done.

    Where no bar is to be shown none is made: the lock of tqdm's bars, hidden ones too, is shared by forks,
    and one that is killed while it holds the lock would stop the others.

    Examples:
        >>> with bar("length", 100, show=False) as update:
        ...     update(100)
    """
    if not show:
        yield lambda samples: None
        return
    with tqdm(desc=f"index: {title}", total=total, initial=done, unit=" samples", unit_scale=True) as shown:
        yield shown.update
