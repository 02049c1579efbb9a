"""The benchmarks that need a device can at least be tried without one."""

import json
import sys
import time

import pytest
import torch

from tests.benchmarks import architectures, gpu, ops_gpu, tables, train_step_gpu


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


def test_a_part_that_fails_on_a_device_loses_no_other(tmp_path, monkeypatch, capsys):
    def exits(code):
        return [sys.executable, "-c", f"raise SystemExit({code})"]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    for name, command in {"TESTS": exits(3), "STUDY": exits(0), "MEMORY": exits(9)}.items():
        monkeypatch.setattr(gpu, name, command)
    monkeypatch.setattr(gpu, "FIGURES", {"bad": lambda: {"x": 1 / 0}, "good": lambda: {"x": 1}})
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu.main() == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"good.json", "gpu.json"}
    codes = json.loads((tmp_path / "gpu.json").read_text())["figures"]["exit_codes"]
    assert codes == {"tests": 3, "bad": 1, "good": 0, "toy_study": 0, sys.executable: 9}


def test_kernels_that_do_not_compile_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEEPSPEED_SOURCE", str(tmp_path))
    assert ops_gpu.deepspeed_kernels() is None
    assert "pt_binding.cpp" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_so_can_those_of_a_training_step():
    figures = train_step_gpu.figures("cpu", timed, small=True)
    own = figures["models"]["small"]
    assert 0 < own["of_flops"] < 1
    assert set(own["ms"]) == {"plain", "routed"}
    assert "time to FLOPs" in tables.train_step_gpu(figures)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("model_type", "how", "why"),
    [
        ("llama", "served", "by "),
        ("vit", "served", "by "),
        ("fnet", "refused", "ValueError: layer 'encoder.layer.1' knows by itself"),
        ("qwen2_5_vl_vision", "served", "by "),
        ("blip_2_qformer", "not tried", "it wants inputs of its own"),
    ],
)
def test_a_model_type_is_tried(model_type, how, why):
    found = architectures.tried(model_type)
    assert found["how"] == how
    assert found["why"].startswith(why)


def test_a_model_type_that_is_not_routed_rightly_shows(monkeypatch):
    monkeypatch.setattr(architectures, "AXES", {})  # rows alone get masks and tables of other tokens
    assert architectures.tried("gpt_neox")["how"] != "served"


def test_model_types_are_told_of_by_how_they_ended():
    types = {
        "gpt": {"how": "served", "why": "by 0 at most"},
        "net": {"how": "refused", "why": "NetModel has no stack of more than 2 like blocks"},
        "odd": {"how": "refused", "why": "it is odd"},
        "big": {"how": "not tried", "why": "it cannot be made small so: it is big"},
    }
    assert tables.architectures({"types": types}).split("\n") == [
        "served: 1 of the 3 model types that were tried",
        "  gpt",
        "",
        "refused: 2 of the 3 model types that were tried",
        "  no stack of like blocks: name them: net",
        "  for another reason: odd",
        "",
        "not tried: 1 of 4 model types",
        "  could not be made small: big",
        "",
    ]
