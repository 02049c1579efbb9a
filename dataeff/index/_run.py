"""Tasks on an executor: which, what it is given and when, and what became of it."""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import attrs

from dataeff import registry
from dataeff.index import _tasks
from dataeff.index._bar import bar

_PENDING = 1024  # tasks given to an executor at once: enough for a cluster, and no whole corpus on its way


def refuse_half_started(executor: str | Executor) -> None:
    """RuntimeError in a worker that imports a script without a guard: it would wait for its own parent.

    Examples:
        >>> refuse_half_started("threads")
    """
    if executor == "processes" and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            'build(executor="processes") was called while a worker imported the script; put the call below '
            'if __name__ == "__main__":'
        )


def running(executor: str | Executor, options: dict[str, Any]) -> AbstractContextManager[Executor]:
    """The executor of that name, which ends with the context; or the one that is given, which does not.

    Examples:
        >>> with running("serial", {}) as pool:
        ...     pool.submit(len, "to be").result()
        5
    """
    if isinstance(executor, str):
        try:
            made: Executor = registry.get("executors", executor)(**options)
        except TypeError as error:
            if not options:
                raise
            raise ValueError(f"executor {executor!r} does not take these options: {error}") from None
        return made
    if isinstance(executor, type) or not hasattr(executor, "submit"):
        raise ValueError(f"executor is {executor!r}; expected a name, or an executor such as threads(4)")
    if options:
        raise ValueError(f"options are {', '.join(options)}; an executor that is made already takes none")
    return nullcontext(executor)


@attrs.frozen
class Run:
    """One corpus on one executor. How many samples it has is asked when the run begins, and at its end.

    Examples:
        >>> from dataeff import corpus, index
        >>> source = _tasks.Source(corpus.open(["to be", "or not"]))
        >>> run = Run(source, 2, Path("parts"), index.serial(), False)
        >>> spans = run.spans(5, 0)
        >>> spans, dict(run.map("read", _tasks.digest, spans, lambda _: ())).keys()
        ([(0, 1), (1, 2)], dict_keys([0, 1]))
    """

    source: _tasks.Source
    samples: int
    parts: Path
    pool: Executor
    progress: bool

    def spans(self, tokens: int, *bounds: int) -> list[tuple[int, int]]:
        """Spans of about `tokens` tokens that end at each of `bounds` and at the last sample."""
        spans = []
        for low, high in pairwise((*bounds, self.samples)):
            for start, stop in self.source.corpus.spans(tokens, low):
                if start >= high:
                    break
                spans.append((start, min(stop, high)))
        return spans

    def check_samples(self) -> None:
        """ValueError where the corpus has another number of samples by now."""
        if (found := len(self.source.corpus)) != self.samples:
            raise ValueError(
                f"the corpus had {self.samples} samples when the build began and has {found} by now; it was "
                "changed while it is indexed: open it again and build once more"
            )

    def map(
        self, title: str, task: Callable[..., Any], spans: list[tuple[int, int]], args: Callable[[int], Any]
    ) -> Iterator[tuple[int, Any]]:
        """(number of the span, result) as they finish; None from `args` means that there is nothing to do."""
        given = {number: args(number) for number in range(len(spans))}
        todo = [number for number, own in given.items() if own is not None]
        sizes = [stop - start for start, stop in spans]
        finished = sum(sizes) - sum(sizes[number] for number in todo)
        futures: dict[Any, int] = {}
        numbers = iter(todo)
        with bar(title, sum(sizes), done=finished, show=self.progress) as update:
            try:
                while True:
                    for number in islice(numbers, _PENDING - len(futures)):
                        future = _submitted(
                            self.pool, task, self.source.piece(*spans[number]), *given[number]
                        )
                        futures[future] = number
                        if future.done():  # at once, so that a serial build keeps what it has finished
                            break
                    if not futures:
                        break
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        number = futures.pop(future)  # with it goes its result
                        yield number, _result(future)
                        update(sizes[number])
            finally:
                for future in futures:  # after an error, what has not begun need not begin
                    future.cancel()


def _submitted(pool: Executor, task: Callable[..., Any], *args: Any) -> Any:
    with _whole_pool():
        return pool.submit(task, *args)


@contextmanager
def _whole_pool() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise ChildProcessError(
            f"a worker process was killed, ran out of memory, or could not start: {error} Finished pieces "
            'are kept; run the same again. In a script, the call must be below if __name__ == "__main__":'
        ) from error


def _result(future: Any) -> Any:
    try:
        with _whole_pool():
            return future.result()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error) and "serialize" not in str(error):
            raise
        raise ValueError(
            f"a metric or the corpus cannot be sent to other processes: {error}; define functions at the "
            'top of a module, or use executor="threads"'
        ) from error
