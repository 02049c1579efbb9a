"""Ray as an executor: an index of dataeff is built on a cluster."""

import concurrent.futures
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, TypeVar

import ray as _ray
from ray.exceptions import RayError, RayTaskError

T = TypeVar("T")

_QUIET = {"log_to_driver": False, "include_dashboard": False, "logging_level": logging.ERROR}


class ray(Executor):
    """Run each task on a Ray cluster.

    Where this process is connected to one already, that one is used and left as it is. Else it connects as
    `ray.init` does, and `shutdown` disconnects: by default to the cluster that `RAY_ADDRESS` names, else to
    one that runs on this machine, else to one that it starts here and stops again.

    A task whose worker dies is run again, three times by default. An error that a task raises comes back as
    it was raised, from Ray's own with the traceback; it is not tried again. A worker that keeps dying is a
    `BrokenExecutor`. A future that is cancelled cancels its task.

    Args:
        address: of the cluster; None as told above, "local" to start one.
        task: Ray's options of every task, such as `{"num_gpus": 1}` or `{"max_retries": 10}`.
        **options: other arguments of `ray.init`, such as `num_cpus=4`. Worker output and the dashboard are
            off unless these ask for them.

    Raises:
        ValueError: an address or options, while this process is connected already.

    Examples:
        >>> with ray("local", num_cpus=1) as executor:
        ...     executor.submit(sum, [1, 2, 3]).result()
        6
    """

    def __init__(
        self, address: str | None = None, *, task: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        self._connected = not _ray.is_initialized()
        if self._connected:
            _ray.init(address, **{**_QUIET, **options})
        elif given := ([] if address is None else ["address"]) + list(options):
            raise ValueError(
                f"options are {', '.join(given)}, but this process is connected to a Ray cluster already; "
                "leave them out, or call ray.shutdown() first"
            )
        self._run = _run.options(**{"max_retries": 3, **(task or {})})
        self._open: set[Future[Any]] = set()
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """A future of `fn(*args, **kwargs)`, which some worker computes."""
        if self._closed:
            raise RuntimeError("cannot submit after shutdown; make a new executor")
        future: Future[T] = Future()
        try:
            ref = self._run.remote(fn, args, kwargs)
        except TypeError as error:  # does not pickle: seen when the result is asked for, as with processes
            future.set_exception(error.__cause__ or error)  # the cause is one line, Ray's own a page
            return future
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        future.add_done_callback(functools.partial(_cancel, ref))
        ref.future().add_done_callback(functools.partial(_settle, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; wait for those that are there, and disconnect if this executor connected.

        With `wait=False` the connection stays until the process ends.
        """
        self._closed = True
        if cancel_futures:
            for future in tuple(self._open):
                future.cancel()
        if wait:
            concurrent.futures.wait(tuple(self._open))
            if self._connected:
                _ray.shutdown()
                self._connected = False


@_ray.remote
def _run(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _cancel(ref: Any, future: "Future[Any]") -> None:
    if future.cancelled() and _ray.is_initialized():
        _ray.cancel(ref)


def _settle(future: "Future[Any]", done: "Future[Any]") -> None:
    """Give `future` what Ray has `done`, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(_original(error))


def _original(error: BaseException) -> BaseException:
    """What the task raised; BrokenExecutor where Ray itself failed."""
    if isinstance(error, RayTaskError):
        original: BaseException = error.cause if isinstance(error.cause, BaseException) else error
    elif isinstance(error, RayError):
        original = BrokenExecutor(str(error))
    else:
        return error
    if original is not error:
        original.__cause__ = error  # with the traceback of the worker
    return original
