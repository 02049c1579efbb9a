"""The benchmarks that need a device can at least be tried without one."""

import time

import pytest

from tests.benchmarks import ops_gpu, tables, train_step_gpu


def timed(run):
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def test_the_figures_of_a_device_can_be_made_and_shown(tmp_path):
    figures = ops_gpu.figures("cpu", timed, small=True)
    (own,) = figures["moves"]
    assert own["shape"] == (2, 16, 8, 4)
    assert {"ours", "gather", "advanced indexing", "of_the_limit"} <= set(own["gather"])
    assert own["gather"]["of_the_limit"] > 0
    assert figures["sampling"][0]["ratio"] > 0
    header, row = ops_gpu.table(figures)
    assert len(header) == len(row)
    ops_gpu.plot(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_so_can_those_of_a_training_step():
    figures = train_step_gpu.figures("cpu", timed, small=True)
    own = figures["models"]["small"]
    assert 0 < own["of_flops"] < 1
    assert set(own["ms"]) == {"plain", "routed"}
    assert "time to FLOPs" in tables.train_step_gpu(figures)
