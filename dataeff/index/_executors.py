"""Where shards are computed: anything with the interface of `concurrent.futures.Executor`."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import connection
from typing import Any, TypeVar

from dataeff import _check

T = TypeVar("T")


class serial(Executor):
    """Run each task at once, in the caller's own thread.

    Examples:
        >>> with serial() as executor:
        ...     executor.submit(sum, [1, 2, 3]).result()
        6
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """The result of `fn(*args, **kwargs)`, or its error, as a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # the caller sees it when it asks for the result
            future.set_exception(error)
        return future


def threads(workers: int | None = None) -> ThreadPoolExecutor:
    """Threads of this process, one a core by default: the kernels release the GIL.

    Examples:
        >>> with threads(2) as executor:
        ...     executor.submit(sum, [1, 2, 3]).result()
        6
    """
    return ThreadPoolExecutor(_many(workers))


def processes(workers: int | None = None) -> ProcessPoolExecutor:
    """Processes of this machine, one a core by default: for metrics in Python, which hold the GIL.

    They are started afresh (spawned), so a script must guard its main code with `if __name__ == "__main__":`.

    Examples:
        >>> processes(2)._max_workers
        2
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(_many(workers), mp_context=spawn, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Have this worker end when its parent is killed; else it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end, args=(parent.sentinel,), daemon=True).start()


def _wait_for_end(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _many(workers: int | None) -> int:
    """So many, by default one a core."""
    return _cores() if workers is None else _check.whole("workers", workers, low=1)


def _cores() -> int:
    """Those that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
