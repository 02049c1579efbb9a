import os
import signal
import threading
import time
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures import wait as wait_for

import attrs
import dataeff as de
import numpy as np
import pytest
import ray

from dataeff_ray import ray as ray_executor

TEXTS = [f"{'ab' * (i % 7)}{i}" for i in range(50)]


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def build(out, metrics, **options):
    return de.index.build(TEXTS, metrics, out=out, progress=False, **options)


# These two come before the cluster that the others share.


def test_by_name_it_starts_a_cluster_and_stops_it(tmp_path):
    assert not ray.is_initialized()
    build(tmp_path / "ray", ["length"], executor="ray", address="local", num_cpus=1)
    assert not ray.is_initialized()
    build(tmp_path / "serial", ["length"], executor="serial")
    assert tree(tmp_path / "ray") == tree(tmp_path / "serial")


def test_the_registry_lists_it():
    assert de.registry.get("executors", "ray") is ray_executor
    [plugin] = [plugin for plugin in de.registry.plugins("executors") if plugin.name == "ray"]
    assert plugin.distribution == "dataeff-ray"


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def executor(cluster):
    with ray_executor() as made:
        yield made
    assert ray.is_initialized()


def metric_of(function, name="own"):
    """A metric of small shards. Made in a function, so that workers get it by value."""

    @attrs.frozen
    class own(de.metrics.Metric):
        shard_tokens = 40

        def score(self, shard, fitted):
            return [function(sample) for sample in shard]

    return {name: own()}


def test_it_gives_futures(executor):
    future = executor.submit(divmod, 7, 2)
    assert isinstance(future, Future)
    assert future.result() == (3, 1)
    assert list(executor.map(pow, [2, 3], [5, 2])) == [32, 9]
    assert executor.submit(int, "ff", base=16).result() == 255


def test_an_index_has_the_same_bytes_as_a_serial_one(executor, tmp_path, monkeypatch):
    monkeypatch.setattr(de.metrics.Metric, "shard_tokens", 40)
    metrics = ["length", "vocab_rarity"]
    build(tmp_path / "ray", metrics, executor=executor)
    build(tmp_path / "serial", metrics, executor="serial")
    assert tree(tmp_path / "ray") == tree(tmp_path / "serial")


def test_a_killed_worker_is_replaced_and_the_bytes_are_the_same(executor, tmp_path):
    mark, driver = tmp_path / "killed", os.getpid()

    def digits(tokens):
        if len(tokens) == 10 and not mark.exists() and os.getpid() != driver:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (tokens < 58).sum()

    build(tmp_path / "ray", metric_of(digits), executor=executor)
    assert mark.exists()
    build(tmp_path / "serial", metric_of(digits), executor="serial")
    assert tree(tmp_path / "ray") == tree(tmp_path / "serial")


def test_without_retries_a_killed_worker_is_an_error_and_the_build_goes_on_later(cluster, tmp_path):
    mark = tmp_path / "killed"

    def digits(tokens):
        if len(tokens) == 10 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return (tokens < 58).sum()

    with ray_executor(task={"max_retries": 0}) as executor:
        with pytest.raises(ChildProcessError, match="worker process was killed.* run the same again"):
            build(tmp_path / "ray", metric_of(digits), executor=executor)
        build(tmp_path / "ray", metric_of(digits), executor=executor)
    build(tmp_path / "serial", metric_of(digits), executor="serial")
    assert tree(tmp_path / "ray") == tree(tmp_path / "serial")


def test_a_worker_that_keeps_dying_breaks_the_executor(cluster):
    with ray_executor(task={"max_retries": 1}) as executor, pytest.raises(BrokenExecutor, match="died"):
        executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL)).result()


def test_an_error_comes_as_it_was_raised(executor, tmp_path):
    def wrong(tokens):
        if bytes(tokens).endswith(b"33"):
            raise ValueError("sample 33 is odd")
        return 1

    with pytest.raises(ValueError, match="sample 33 is odd") as caught:
        build(tmp_path / "idx", metric_of(wrong), executor=executor)
    assert type(caught.value) is ValueError
    assert "in wrong" in str(caught.value.__cause__)  # the worker's traceback


def test_a_value_that_is_not_finite_names_the_sample(executor, tmp_path):
    def infinite(tokens):
        return float("inf") if bytes(tokens).endswith(b"33") else 1.0

    with pytest.raises(ValueError, match="gives inf for sample 33; expected a finite number"):
        build(tmp_path / "idx", metric_of(infinite), executor=executor)


def test_a_metric_that_cannot_be_sent_is_named_so(executor, tmp_path):
    @attrs.frozen
    class Locked(de.metrics.Metric):
        lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

        def score(self, shard, fitted):
            return np.zeros(len(shard))

    with pytest.raises(ValueError, match="cannot be sent to other processes: .*cannot pickle"):
        build(tmp_path / "idx", {"locked": Locked()}, executor=executor)


def test_a_cancelled_future_cancels_its_task(executor, tmp_path):
    def slow(number):
        time.sleep(0.5)
        (tmp_path / str(number)).touch()

    futures = [executor.submit(slow, number) for number in range(6)]
    assert all(future.cancel() for future in futures[2:])
    wait_for(futures[:2])
    assert futures[0].exception() is None
    with pytest.raises(CancelledError):
        futures[5].result()
    assert executor.submit(max, 1, 2).result() == 2  # the cluster is free again
    assert not {"3", "4", "5"} & {path.name for path in tmp_path.iterdir()}


def test_shutdown_waits_for_tasks_and_takes_no_more(cluster):
    executor = ray_executor()
    future = executor.submit(time.sleep, 0.2)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown; make a new executor"):
        executor.submit(max, 1, 2)


def test_options_for_a_cluster_that_is_there_already_are_refused(cluster):
    with pytest.raises(ValueError, match=r"options are address, num_cpus, but .* ray.shutdown\(\) first"):
        ray_executor("local", num_cpus=1)


def test_a_task_takes_the_options_of_ray(cluster):
    with ray_executor(task={"num_cpus": 2}) as executor:
        assert executor.submit(lambda: ray.get_runtime_context().get_assigned_resources()).result() == {
            "CPU": 2
        }
