import functools
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import dataeff as de
from dataeff import cli, demo
from dataeff.clock import Clock, read_log
from dataeff.demo import _text, _train

SMALL = demo.Config(length=32, batch_size=4, width=16, heads=2, layers=4)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "Config", lambda: SMALL)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"the {i}th line of {i * 7919 % 1009} words" for i in range(400)))
    return path


def test_the_demo_compares_at_equal_steps_and_equal_compute(tmp_path, text, small, capsys):
    assert cli.main(["demo", "--steps", "23", "--corpus", str(text), "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out/demo.json").read_text())
    baseline, efficient = results["curves"].values()
    assert baseline[-1]["steps"] == 23
    (same_steps,) = [point for point in efficient if point["steps"] == 23]
    assert same_steps["flops"] < baseline[-1]["flops"]
    assert same_steps["layer_tokens"] < baseline[-1]["layer_tokens"] == 23 * 4 * 32 * 4
    step_cost = baseline[-1]["flops"] / 23
    assert 0 <= efficient[-1]["flops"] - baseline[-1]["flops"] < step_cost
    assert baseline[0]["pool"] == 1 > efficient[0]["pool"]
    assert (tmp_path / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    for point in (baseline[-1], same_steps, efficient[-1]):
        assert f"{point['bits_per_byte']:.3f}" in shown
    assert f"Text: {text}" in shown
    assert f"{results['text']['held_out_bytes']:,}" in shown


def test_each_arm_writes_a_log_and_a_page_compares_them(tmp_path, text, small, capsys):
    out = tmp_path / "out"
    options = ["demo", "--corpus", str(text), "--out", str(out), "--steps"]
    assert cli.main([*options, "30"]) == 0
    results = json.loads((out / "demo.json").read_text())
    for name, points in results["curves"].items():
        log = read_log(demo.log_of(out, name).path)
        assert [moment["steps"] for moment in log] == list(range(1, points[-1]["steps"] + 1))
        for point, moment in zip(points, [m for m in log if "bits_per_byte" in m], strict=True):
            assert {key: moment[key] for key in point} == point | {"seconds": moment["seconds"]}
        assert [moment["lr"] for moment in log[:4]] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3])
        exposures = log[-1]["exposures"]
        assert sum(times * count for times, count in enumerate(exposures)) == log[-1]["samples"]
        assert log[-1]["seconds"] == pytest.approx(points[-1]["seconds"], abs=1e-3)
    assert str(out / "report.html") in capsys.readouterr().out.splitlines()[-1]
    page = (out / "report.html").read_text()
    assert all(name in page for name in results["curves"])
    assert not re.search(r"(src|href)=.https?:", page)

    assert cli.main([*options, "2"]) == 0
    assert [moment["steps"] for moment in read_log(out / "baseline/log.jsonl")] == [1, 2]
    runs = [str(out / "baseline"), str(out / "curriculum-random-ltd")]
    assert cli.main(["report", *runs, "--out", str(tmp_path / "again.html")]) == 0


def test_evaluation_takes_no_time_of_training(tmp_path, text, monkeypatch):
    now = itertools.count(0, 10**9)  # a second more whenever it is evaluated, and only then
    moment = [next(now)]

    def evaluated(*_):
        moment[0] = next(now)
        return 1.0

    monkeypatch.setattr(_train, "bits_per_byte", evaluated)
    monkeypatch.setattr(_train.de, "Clock", functools.partial(Clock, timer=lambda: moment[0]))
    options = {"seed": 0, "device": "cpu", "text": text, "index": tmp_path / "index", "config": SMALL}
    results = demo.run(steps=4, **options)
    assert moment[0] > 0
    assert all(points[-1]["seconds"] == 0 for points in results["curves"].values())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["index"]  # no log was asked for


def test_the_same_seed_gives_the_same_figures(tmp_path, text, small):
    def figures(seed, out):
        results = demo.run(steps=6, seed=seed, device="cpu", text=text, index=tmp_path / out, config=SMALL)
        return [
            [{k: v for k, v in p.items() if k != "seconds"} for p in c] for c in results["curves"].values()
        ]

    assert figures(1, "a") == figures(1, "b")
    assert figures(1, "a") != figures(2, "a")


def test_without_matplotlib_everything_but_the_picture_is_there(tmp_path, text, small, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["demo", "--steps", "2", "--corpus", str(text), "--out", str(tmp_path / "out")]) == 0
    assert (
        "No picture of the curves: plots need matplotlib; install it with: pip install"
        in capsys.readouterr().out
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "baseline",
        "curriculum-random-ltd",
        "demo.json",
        "index",
        "report.html",
    ]


@pytest.mark.parametrize(
    ("prepare", "options", "said"),
    [
        (None, ["--corpus", "nowhere"], "no corpus at nowhere: no such file or folder"),
        ("", ["--corpus", "it"], "it holds no text"),
        ("too little", ["--corpus", "it"], "it holds 10 bytes of text; the demo needs at least"),
        (
            "ok " * 9999,
            ["--corpus", "it", "--device", "abacus"],
            "device 'abacus' is not there; expected one that torch can use",
        ),
        ("ok " * 9999, ["--corpus", "it", "--device", "cuda:99"], "device 'cuda:99' is not there"),
        (b"\xff\xfe\x00" * 9999, ["--corpus", "it"], "it is not UTF-8 text"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, small, prepare, options, said):
    monkeypatch.chdir(tmp_path)
    if prepare is not None:
        (tmp_path / "it").write_bytes(prepare if isinstance(prepare, bytes) else prepare.encode())
    assert cli.main(["demo", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("dataeff: error: ")
    assert not (tmp_path / "dataeff-demo").exists()
    assert said in line


def test_an_out_that_is_a_file_is_refused(text, small, capsys):
    assert cli.main(["demo", "--out", str(text)]) == 2
    assert "text.txt is a file; expected a folder" in capsys.readouterr().err


def test_an_out_that_holds_an_index_of_other_text_is_refused(tmp_path, text, small, capsys):
    out = str(tmp_path / "out")
    assert cli.main(["demo", "--steps", "1", "--corpus", str(text), "--out", out]) == 0
    text.write_text(text.read_text().upper())
    assert cli.main(["demo", "--steps", "1", "--corpus", str(text), "--out", out]) == 2
    assert "is the index of another corpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--steps", "0"], ["--steps", "many"], ["--seed", "-1"], ["--seed", str(2**64)], ["--sped", "1"]],
)
def test_options_that_make_no_sense_exit_with_2(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo", *options])
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_command_is_installed_and_its_help_teaches():
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from dataeff.cli import main; sys.exit(main())",
            "demo",
            "--help",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for word in ("--steps", "--seed", "--device", "--out", "--corpus", "examples:", "equal compute"):
        assert word in shown


def test_flops_are_those_that_torch_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(_train, "bits_per_byte", lambda *_: 1.0)  # an evaluation is no training
    windows = de.corpus.from_samples([np.arange(9000) % 256]).windows(33)
    index = de.index.build(windows, ["vocab_rarity"], out=tmp_path)
    for arm in demo.arms(index, SMALL, steps=30):
        options = {"seed": 0, "device": "cpu", "steps": 30}
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            points = demo.train(arm, windows, torch.zeros(1, 33, dtype=torch.int64), SMALL, **options)
        assert counter.get_total_flops() == pytest.approx(points[-1]["flops"], rel=0.01)


def test_python_s_own_text_is_there_and_so_are_the_docstrings(monkeypatch):
    source, content = _text.load(None)
    assert "pydoc_data.topics" in source
    assert len(content) > 300_000
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    source, content = _text.load(None)
    assert "docstrings" in source
    assert len(content) > 300_000


def test_held_out_pages_are_not_trained_on():
    content = np.repeat(np.arange(200, dtype=np.uint8), 10)
    text = _text.split("numbers", content, page=10, share=0.05, need=1)
    assert len(text.held_out) == 100
    assert not set(text.train.tolist()) & set(text.held_out.tolist())
    assert len(text.train) + len(text.held_out) == len(content)
