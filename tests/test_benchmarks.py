"""The benchmarks that need a device can at least be tried without one."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dataeff import ops
from tests.benchmarks import architectures, gpu, ops_gpu, tables, train_step_gpu
from tests.benchmarks.record import RESULTS

TESTS = Path(__file__).parent


def timed(run):
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


ON_CPU = {"device": "cpu", "timer": timed}
SHAPE = (2, 16, 8, 4)


def shown(moves, **others):
    measured = {"device": "none", "dtype": "bfloat16", "deepspeed": "compiled", "moves": moves}
    return tables.ops_gpu({**measured, "sampling": [], "fused": [], **others})


def test_bars_that_are_missed_are_told_of():
    fine = {"ms": {"ours": 1.0, "gather": 1.2}, "of_the_limit": 0.93}
    slow = {"ms": {"ours": 1.5, "gather": 1.2}, "of_the_limit": 0.62}
    moves = [
        {"shape": [1, 2, 3, 4], "gather": fine, "scatter in place": slow},
        {"shape": [5, 6, 7, 8], "failed": "OutOfMemoryError"},
    ]
    sampling = [{"shape": [1, 2, 3], "ratio": 4.0}, {"shape": [1, 2, 4], "ratio": 6.0}]
    assert ops_gpu.missed({"moves": moves, "sampling": sampling}) == [
        "scatter in place at (1, 2, 3, 4): 62% of the limit",
        "scatter in place at (1, 2, 3, 4): 1.25 times as long as gather",
        "sampling at (1, 2, 3): 4.0 times faster",
    ]
    models = {"124M": {"time_to_flops": 0.95, "memory": 0.7}, "350M": {"time_to_flops": 0.8, "memory": 0.6}}
    assert train_step_gpu.missed({"models": models}) == ["350M: 0.8 of the FLOPs saved, 0.6 of the memory"]


@pytest.fixture
def kernels():
    """DeepSpeed's, as far as they can be had here."""
    return SimpleNamespace(
        token_gather=lambda x, ids, batch_first: ops.gather_tokens(x, ids, batch_first=batch_first),
        token_scatter_=lambda x, y, ids, batch_first: ops.scatter_tokens_(x, y, ids, batch_first=batch_first),
        token_sort_=lambda ids, seq: ids.copy_(ids.sort(-1).values),
    )


def test_the_figures_of_a_device_can_be_made_and_shown(tmp_path):
    kept = []
    figures = ops_gpu.figures("cpu", timed, timed, small=True, put=lambda own: kept.append(json.dumps(own)))
    (own,) = figures["moves"]
    assert own["shape"] == SHAPE
    assert {"ours", "gather", "advanced indexing"} <= set(own["gather"]["ms"])
    assert own["gather"]["of_the_limit"] == own["copy_ms"] / own["gather"]["ms"]["ours"]
    of_graph = own["copy_graph_ms"] / own["gather"]["graph_ms"]["ours"]
    assert own["gather"]["of_the_limit_in_a_graph"] == of_graph
    assert own["gather"]["graph_ms"]["masked_select"] is None
    assert figures["sampling"][0]["ratio"] > 0
    assert not ops_gpu.failed(figures)
    assert [len(json.loads(own)) for own in kept] == [
        4,
        5,
        6,
    ]  # after every shape, with what there was before
    text = tables.ops_gpu(figures)
    assert text.count("2, 16, 8 -> 4") == 3
    assert "not measured:\nDeepSpeed: not tried" in text
    ops_gpu.plot(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_a_figure_says_what_was_best_and_what_deepspeed_takes():
    ms = {"ours": 2.0, "index_select": 4.0, "gather": 3.0, "masked_select": 9.0, "DeepSpeed": 2.5}
    graph = {"ours": 0.5, "index_select": 0.25, "gather": 1.0, "masked_select": None, "DeepSpeed": None}
    own = {"ms": ms, "graph_ms": graph, "left_out": {"x": "OutOfMemoryError: CUDA out of memory"}}
    move = {"shape": SHAPE, "copy_ms": 1.5, "copy_graph_ms": 0.3, "copy_gb_per_s": 9.0}
    move |= {"gather": own, "scatter in place": own}
    _, row = ops_gpu.table({"moves": [move]}, "gather")
    assert row == (
        "2, 16, 8 -> 4",
        "9",
        "2,000.0",
        "75%",
        "0.67",
        "0.80",
        "gather",
        "500.0",
        "60%",
        "2.00",
        "",
    )
    lost = {"shape": (1, 2, 3, 1), "failed": "AssertionError: "}
    text = shown([move, lost], fused=[lost], sampling=[lost])
    assert "moves, 1, 2, 3, 1: AssertionError" in text
    assert "x, 2, 16, 8, 4: OutOfMemoryError: CUDA out of memory" in text


def test_shapes_reach_the_corners_and_fit_a_device():
    shapes = {shape[:3]: set() for shape in ops_gpu.SHAPES}
    for *shape, keep in ops_gpu.SHAPES:
        shapes[tuple(shape)].add(shape[1] // keep)
    assert set(itertools.product((8, 64), (1024, 8192), (768, 8192))) <= set(shapes)
    assert all({2, 8} <= parts for parts in shapes.values())
    assert [shape for shape in shapes if torch.Size(shape).numel() > ops_gpu.OFFSETS] == [(64, 8192, 8192)]
    for batch, seq, width, keep in ops_gpu.SHAPES:
        x, y = 2 * batch * seq * width, 2 * batch * keep * width
        prefix = (1 + 8) * batch * seq * width  # of masked_scatter_: a mask of all numbers, and sums of it
        assert x + 2 * y + max(prefix, 2 * y) < 78 * 2**30


def test_deepspeed_is_compared_where_its_kernels_reach(kernels, monkeypatch):
    settings = {**ON_CPU, "graph": lambda run: None, "theirs": kernels}
    own = ops_gpu.move_figures(*SHAPE, **settings)
    assert "DeepSpeed" in own["gather"]["ms"]
    assert "DeepSpeed" in own["scatter in place"]["ms"]
    assert own["gather"]["of_the_limit_in_a_graph"] is None
    assert re.search(r"2, 16, 8 -> 4 +\d.*\d{2} +(index|gather|adv|mask)", shown([own]))
    monkeypatch.setattr(ops_gpu, "OFFSETS", 255)  # one less than x has
    assert "DeepSpeed" not in ops_gpu.move_figures(*SHAPE, **settings)["gather"]["ms"]
    for seq, by in ((2048, "DeepSpeed"), (2049, "torch")):
        assert ops_gpu.sampling_figures(1, seq, 4, **ON_CPU, theirs=kernels)["sorted_by"] == by


def test_a_way_that_gives_something_else_is_no_figure(kernels):
    kernels.token_scatter_ = lambda x, y, ids, batch_first: x
    with pytest.raises(AssertionError):
        ops_gpu.move_figures(*SHAPE, **ON_CPU, graph=timed, theirs=kernels)


def test_a_way_for_which_memory_is_too_small_is_left_out(monkeypatch):
    def full():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB")

    ways = ops_gpu.torch_ways

    def with_full(*tensors):
        gathers, scatters = ways(*tensors)
        return gathers | {"masked_select": full}, scatters

    monkeypatch.setattr(ops_gpu, "torch_ways", with_full)
    own = ops_gpu.move_figures(*SHAPE, **ON_CPU, graph=timed, theirs=None)
    assert own["gather"]["left_out"] == {"masked_select": "OutOfMemoryError: CUDA out of memory"}
    assert set(own["gather"]["ms"]) == {"ours", "index_select", "gather", "advanced indexing"}


def test_a_shape_that_fails_is_noted_and_what_is_known_is_not_measured_again(monkeypatch, capsys):
    def fails(*shape, **settings):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    known = ops_gpu.figures("cpu", timed, timed, small=True)
    for name in ("move_figures", "sampling_figures", "fused_figures"):
        monkeypatch.setattr(ops_gpu, name, fails)
    again = ops_gpu.figures("cpu", timed, timed, small=True, known=known)
    assert again == known
    known["deepspeed"] = "compiled"  # another comparison
    found = ops_gpu.figures("cpu", timed, timed, small=True, known=known)
    assert found["moves"] == [{"shape": SHAPE, "failed": "RuntimeError: CUDA error"}]
    assert len(found["sampling"]) == len(found["fused"]) == 1
    assert ops_gpu.failed(found)
    assert "an illegal memory access" in capsys.readouterr().err
    assert "fused, 2, 16, 8, 4: RuntimeError" in tables.ops_gpu(found)
    assert ops_gpu.figures("cpu", timed, timed, small=True, known=found)["moves"] == found["moves"]


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A machine that seems to have one; where results are put."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setenv("OUT", str(tmp_path))

    def does(code):
        return [sys.executable, "-c", f"import os, pathlib; out = pathlib.Path(os.environ['OUT']); {code}"]

    monkeypatch.setattr(
        gpu,
        "PARTS",
        {
            "good": does("assert 'ALONE' not in os.environ; (out / 'good.json').write_text('{}')"),
            "killed": does("os.kill(os.getpid(), 9)"),
            "memory": does("(out / 'seen').write_bytes((out / 'gpu.json').read_bytes()); exit(3)"),
            "sanitizer": ["no-such-program"],
            "last": does("pass"),
        },
    )
    monkeypatch.setattr(gpu, "ENVIRONMENT", {"memory": {"ALONE": "1"}})
    return tmp_path


def codes(path):
    parts = json.loads(path.read_text())["figures"]["parts"]
    return {name: own["exit_code"] for name, own in parts.items()}


def test_a_part_that_fails_on_a_device_loses_no_other(device, capsys):
    assert gpu.main([]) == 1
    ended = {"good": 0, "killed": -9, "memory": 3, "sanitizer": "absent", "last": 0}
    assert codes(device / "gpu.json") == ended
    assert codes(device / "seen") == ended | dict.fromkeys(["memory", "sanitizer", "last"], "due")
    assert (device / "good.json").exists()
    assert "no-such-program is not on this machine" in capsys.readouterr().out


def test_parts_may_be_named_and_others_keep_how_they_ended(device, monkeypatch):
    assert gpu.main(["memory", "killed"]) == 1
    assert gpu.main(["last", "good"]) == 0
    ended = {"good": 0, "killed": -9, "memory": 3, "sanitizer": "due", "last": 0}
    assert codes(device / "gpu.json") == ended
    monkeypatch.setattr(gpu, "_code", lambda: "another")
    assert gpu.main(["last"]) == 0
    assert codes(device / "gpu.json") == {**dict.fromkeys(ended, "due"), "last": 0}


def test_figures_of_moves_go_on_where_they_were_left(device, monkeypatch):
    def figures(known, put):
        more = {"shape": (1,), "failed": "RuntimeError: x"}
        found = {"moves": [*known.get("moves", []), more], "sampling": [], "fused": []}
        put(found)
        return found

    monkeypatch.setattr(ops_gpu, "figures", figures)
    assert [gpu.moves(), gpu.moves()] == [1, 1]
    assert len(json.loads((device / "ops_gpu.json").read_text())["figures"]["moves"]) == 2
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "another")
    gpu.moves()
    assert len(json.loads((device / "ops_gpu.json").read_text())["figures"]["moves"]) == 1


def test_what_is_finished_of_a_study_is_put_with_the_other_results(device, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("DATAEFF_STUDY", raising=False)
    assert gpu.study_m() == 1
    assert "DATAEFF_STUDY names no folder" in capsys.readouterr().out
    asked = []

    def main(words):
        asked.append(words)
        for name, files in {"composed-050-1": ["result.json"], "baseline-100-1": ["checkpoint.pt"]}.items():
            (tmp_path / "work" / "gpt_m" / name).mkdir(parents=True)
            for file in files:
                (tmp_path / "work" / "gpt_m" / name / file).write_text("{}")
        return 0

    monkeypatch.setattr("tests.benchmarks.study.__main__.main", main)
    monkeypatch.setenv("DATAEFF_STUDY", str(tmp_path / "work"))
    monkeypatch.setenv("STUDY_MINUTES", "3")
    assert gpu.study_m() == 0
    assert asked == [["run", "gpt", "--size", "m", "--minutes", "3", "--out", str(tmp_path / "work")]]
    kept = device / "study" / "gpt_m"
    assert [path.relative_to(kept).as_posix() for path in kept.rglob("*.json")] == [
        "composed-050-1/result.json"
    ]
    monkeypatch.setattr("tests.benchmarks.study.__main__.main", lambda words: 0)
    monkeypatch.setenv("DATAEFF_STUDY", str(device / "study"))  # where they are kept
    assert gpu.study_m() == 0
    assert [path.parent.name for path in kept.rglob("*.json")] == ["composed-050-1"]


def test_the_command_says_what_there_is_and_does_nothing_without_a_device(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(name in said for name in gpu.PARTS)
    assert max(map(len, said.splitlines())) <= 110
    with pytest.raises(SystemExit):
        gpu.main(["op_gpu"])
    assert "'op_gpu' is no part; expected one of ops_gpu, tests" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 0
    assert "No CUDA device here" in capsys.readouterr().out


def test_every_file_with_tests_for_a_device_is_among_those_that_run_there():
    marked = {path for path in TESTS.rglob("*.py") if re.search(r"mark\.gpu\b", path.read_text())}
    assert marked == {TESTS.parent / name for name in gpu.TESTED}


def test_what_runs_on_a_device_needs_nothing_that_is_not_there(tmp_path):
    for name in ("datasets", "torchdata", "selenium"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not on this machine')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{TESTS.parent}"}

    def done(command):
        return subprocess.run(
            command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False
        )

    command = gpu.PARTS["memory"]
    found = done([*command[command.index(sys.executable) :], "--collect-only"])
    assert found.returncode == 0, found.stdout
    looked_at = [line for line in found.stdout.splitlines() if "::" in line]
    assert 40 < len(looked_at) < 160  # each takes about a second when all accesses to memory are looked at
    assert not [line for line in looked_at if "cuda" not in line]
    for part in (
        "[cuda-shape2-torch.bfloat16]",
        "torch.complex64",
        "one_row_of_ids",
        "any_masks[cuda",
        "row_in_pieces",
        "folds_a_tensor",
    ):
        assert any(part in line for line in looked_at), part
    imports = "from dataeff import demo; from tests.benchmarks import gpu, train_step_gpu; "
    imports += "import tests.benchmarks.study.__main__"
    assert done([sys.executable, "-c", imports]).returncode == 0


def test_kernels_of_deepspeed_that_are_not_there_are_said_not_to_be(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DEEPSPEED_SOURCE", raising=False)
    assert ops_gpu.deepspeed_kernels() == (None, "DEEPSPEED_SOURCE is not set")
    monkeypatch.setenv("DEEPSPEED_SOURCE", str(tmp_path))
    kernels, said = ops_gpu.deepspeed_kernels()
    assert kernels is None
    assert re.match(r"\w+Error: .*\w", said)
    assert str(tmp_path) not in said
    assert "pt_binding.cpp" in capsys.readouterr().err


def test_docs_say_of_fused_forms_what_was_measured_on_a_cpu():
    shapes = json.loads((RESULTS / "ops_cpu.json").read_text())["figures"]["fused"]
    norms, residuals = (
        [own[form]["ratio"] for own in shapes] for form in ("gather + norm", "residual + scatter")
    )
    assert sum(1.2 < ratio < 2.4 for ratio in norms) == len(norms) - 1  # the smallest gains
    assert min(norms) == norms[0] < 0.9
    assert all(0.5 < ratio < 0.9 for ratio in residuals)


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
