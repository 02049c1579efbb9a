"""The study's runner at toy size, and what its analysis says of results that are known."""

import functools
import itertools
import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import attrs
import numpy as np
import pytest
import torch

import dataeff as de
from tests.benchmarks.study import _again, _page, _study, _tables, _text, _timed, _tuned, _verdict, _work
from tests.benchmarks.study import _analysis as analysis
from tests.benchmarks.study.__main__ import main


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Killed(BaseException):
    """What a machine that is taken away looks like from within."""


def dies_after(steps):
    """A `stop` that never says so, and ends everything when it is asked for the last time."""
    left = iter(range(steps))

    def stop():
        if next(left, None) is None:
            raise Killed
        return False

    return stop


def of(result):
    """What two runs of one config share: all but times and dates."""
    own = {key: value for key, value in result.items() if key not in ("commit", "date", "index_seconds")}
    own["totals"] = {axis: count for axis, count in own["totals"].items() if axis != "seconds"}
    own["curve"] = [{k: v for k, v in row.items() if k != "seconds"} for row in own["curve"]]
    return own


def never():
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every arm of every study, as the command line runs them."""
    out = tmp_path_factory.mktemp("whole")
    own = [sys.executable, "-m", "tests.benchmarks.study", "run", "--size", "toy", "--out", out]

    def run(name):
        return subprocess.run([*own, name], capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(2) as pool:
        for name, ended in zip(_study.names(), pool.map(run, _study.names()), strict=True):
            assert ended.returncode == 0, ended.stderr
            study = _study.load(name, "toy")
            assert f"{study}: {len(study.runs())} of {len(study.runs())} runs are done" in ended.stdout
    return out


@pytest.mark.parametrize("name", _study.names())
def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(name, whole, tmp_path):
    """Twice: at a checkpoint, then behind one, where the log has gone further than it."""
    study = _study.load(name, "toy")
    expected = _work.done(study, whole)
    for run in {(study.arms[run.arm].router, study.arms[run.arm].sampler): run for run in expected}.values():
        for every, steps in ((0, 5), (math.inf, 4)):
            with pytest.raises(Killed):
                _work.work(study, tmp_path, stop=dies_after(steps), every=every, only=str(run))
        _work.work(study, tmp_path, stop=never, only=str(run))
        assert of(_work.done(study, tmp_path)[run]) == of(expected[run])


def test_a_real_kill_loses_nothing(whole, tmp_path):
    script = """
import os, sys
from pathlib import Path
from tests.benchmarks.study import _study, _work
left = iter(range(7))
stop = lambda: next(left, None) is None and os.kill(os.getpid(), 9)
study = _study.load("gpt", "toy")
_work.work(study, Path(sys.argv[1]), stop=stop, every=0, only="composed-100-1")
"""
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=False)
    assert ended.returncode == -9
    study = _study.load("gpt", "toy")
    (folder,) = (tmp_path / "gpt_toy").iterdir()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["run"]["clock"]["steps"] > 0
    assert _work.work(study, tmp_path, stop=never, only="composed-100-1") == (1, 1)
    (run,) = _work.done(study, tmp_path)
    assert of(_work.done(study, tmp_path)[run]) == of(_work.done(study, whole)[run])


def test_stopping_in_time_leaves_a_run_to_be_resumed(whole, tmp_path, capsys):
    study, asked = _study.load("gpt", "toy"), itertools.count()
    assert _work.work(study, tmp_path, stop=lambda: next(asked) > 5, only="voc-*") == (0, 1)
    assert list(tmp_path.glob("gpt_toy/voc-*/checkpoint.pt"))
    assert main(["run", "gpt", "--size", "toy", "--only", "voc-*", "--out", str(tmp_path)]) == 0
    assert "gpt_toy: 1 of 1 runs are done" in capsys.readouterr().out
    ((run, result),) = _work.done(study, tmp_path).items()
    assert of(result) == of(_work.done(study, whole)[run])


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path):
    study = _study.load("gpt", "toy")
    folder = tmp_path / "gpt_toy" / f"voc-100-1-{study.digest(study.runs()[3])}"
    folder.mkdir(parents=True)
    with _work.claimed(folder) as mine:
        assert mine
        assert _work.work(study, tmp_path, stop=never, only="voc-100-1")[0] == 0
    assert not (folder / "result.json").exists()


def test_every_run_ends_as_it_did_on_another_machine(whole):
    """To three digits; the toy's text is of Python itself."""
    record = json.loads((_work.TABLES / "toy" / "gpt_toy.json").read_text())
    study = _study.load("gpt", "toy")
    ended = {run["digest"]: run for run in _work.done(study, whole).values()}
    assert ended.keys() == {run["digest"] for run in record["runs"]}
    for before in record["runs"]:
        now = ended[before["digest"]]
        if before["versions"]["python"] != now["versions"]["python"]:
            pytest.skip(f"the text is of Python {before['versions']['python']}")
        assert analysis.loss(now) == pytest.approx(analysis.loss(before), abs=5e-4)


def test_a_run_is_trained_again_and_both_losses_are_noted(whole, tmp_path, monkeypatch, capsys):
    """Whatever is committed of it; what was noted before stays."""
    own = ["again", "gpt", "voc-100-1", "--size", "toy", "--out", str(tmp_path), "--into", str(tmp_path)]
    assert main(own) == 2
    told = capsys.readouterr().err
    assert f"gpt_toy has no finished run voc-100-1, in {tmp_path} or in tests/bench" in told
    assert "`run gpt --size toy --only voc-100-1` trains it first" in told
    monkeypatch.setattr(_work, "TABLES", tmp_path)
    _work.collect(_study.load("gpt", "toy"), whole, tmp_path)
    assert main([*own[:2], "vok-100-1", *own[3:]]) == 2
    assert "gpt_toy has no run vok-100-1; expected one as baseline-100-1" in capsys.readouterr().err
    path = _again.path_of(tmp_path)
    path.write_text('[{"run": "earlier"}]')
    assert main(own) == 0
    earlier, now = json.loads(path.read_text())
    assert earlier == {"run": "earlier"}
    assert (now["study"], now["run"]) == ("gpt_toy", "voc-100-1")
    assert now["loss"] == now["before"]["loss"]
    assert f"{now['loss']:.4f} before, {now['loss']:.4f} now" in capsys.readouterr().out


def test_results_of_other_settings_are_not_taken(whole, tmp_path):
    """Nor do they hide those of the settings that hold."""
    study = _study.load("gpt", "toy")
    path = _work.collect(study, whole, tmp_path)
    assert len(json.loads(path.read_text())["runs"]) == len(study.runs())
    other = attrs.evolve(study, settings=study.settings | {"learning_rate": 1.0})
    assert not _work.done(other, whole)
    shutil.copytree(whole / "gpt_toy", tmp_path / "gpt_toy")
    (folder,) = (tmp_path / "gpt_toy").glob("composed-100-1-*")
    shutil.copytree(folder, folder.with_name("composed-100-1-zzzz"))
    stale = json.loads((folder / "result.json").read_text()) | {"digest": "zzzz"}
    (folder.with_name("composed-100-1-zzzz") / "result.json").write_text(json.dumps(stale))
    assert len(_work.done(study, tmp_path)) == len(study.runs())


def test_what_a_config_leaves_to_the_task_and_the_device_are_settings_too():
    study = _study.load("gpt", "s")
    run = study.runs()[0]
    assert study.settings_of(run)["settings"]["keep_share"] == 0.7
    assert _study.load("gpt", "s", "cuda").digest(run) != study.digest(run)


def test_what_is_not_there_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(ValueError, match="there is no study 'gtp'; expected one of .*gpt"):
        _study.load("gtp", "s")
    assert main(["run", "gpt", "--size", "xxl"]) == 2
    assert "gpt has no size 'xxl'; expected one of s, w64, w192, m, toy" in capsys.readouterr().err
    assert main(["run", "gpt", "--size", "toy", "--only", "compsed*", "--out", str(tmp_path)]) == 2
    assert "gpt_toy has no run like 'compsed*'; they are called as baseline-100-1" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["run", "gpt", "--size", "m", "--out", str(tmp_path)]) == 2
        assert (
            "gpt_m is to run on cuda, and there is no such device here; see --device"
            in capsys.readouterr().err
        )
    assert main(["run", "gpt", "--size", "toy", "--device", "gpu0", "--out", str(tmp_path)]) == 2
    assert "'gpu0' is no device of torch; expected cpu or cuda" in capsys.readouterr().err


CONFIG = """
task = "gpt"
settings = { vocabulary = 256, text = "python", heads = 2, layers = 3, length = 32, batch_size = 4 }

[arms]
baseline = {}
mine = { lengths = "truncate" }
untrained = { settings = { tokens = 128, learning_rate = 0.0 } }

[sizes.s]
width = 16
tokens = 1280
learning_rate = 1e-3
stages = [{ arms = ["mine", "untrained"], fractions = [1.0, 1], seeds = 1 }]
"""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('task = "gpt"', 'task = "gtp"', "own.toml: task is 'gtp'; expected 'bert' or 'causal_lm' or 'gpt'"),
        ('task = "gpt"', "", "own.toml lacks task"),
        ('"python"', '"pyton"', "text is 'pyton'; expected 'gcide+reviews' or 'python'"),
        ("length = 32", "length = 0", "settings of mine: 'length' must be > 0: 0"),
        ("stages =", "stage =", "the size s of own lacks stages"),
        ("seeds = 1", "seeds = 0", "a stage of own: 'seeds' must be >= 1: 0"),
        ('["mine", "untrained"]', '"mine"', "a stage of own: arms is 'mine'; expected a list, each a text"),
        ("[1.0, 1]", '["half"]', "fractions is ['half']; expected a list, each a number"),
        ("[1.0, 1]", "[0.5, 0.501]", "own_s has several runs that are called mine-050-1"),
        ('{ lengths = "truncate" }', "3", "the arm mine of own is 3; expected a table"),
        ('lengths = "truncate"', "settings = 3", "the arm mine of own: settings is 3; expected a table"),
        ('lengths = "truncate"', 'lengths = "trim"', "lengths 'trim', and packed windows are full; expected"),
        (
            'lengths = "truncate"',
            'budget = "steps"',
            "budget is 'steps'; expected 'tokens' or 'layer_tokens'",
        ),
        (
            "width = 16",
            "width = 16\ntune = { seqln = {} }",
            "the search for seqln of own is for no pace; exp",
        ),
        ("width = 16", "width = 16\ntune = { keep = {} }", "the search for keep of own lacks arm, fraction"),
        (
            "width = 16",
            'width = 16\ntune.keep = { arm = "x", fraction = 0.5, starts = [], shares = [], warmup = 1 }',
            "the search for keep of own has the arm 'x'; expected one of baseline, mine",
        ),
        ("lengths", "lenghts", "unknown name 'lenghts' in the arm mine of own; did you mean 'lengths'?"),
        (
            '"truncate"',
            '"truncat"',
            "the arm mine of own: lengths is 'truncat'; expected 'truncate' or 'reshape'",
        ),
        ('lengths = "truncate"', 'sampler = "importance"', "sampler 'importance'; only a study of classes"),
        ('lengths = "truncate"', "settings = { sclaed = true }", "settings of mine; did you mean 'scaled'?"),
        (
            'lengths = "truncate"',
            'settings = { scaled = "no" }',
            "own_s, settings of mine: scaled is 'no'; expected true or false",
        ),
        ("width = 16", 'width = "16"', "width is '16'; expected a whole number"),
        ("width = 16", "width = 1.5", "width is 1.5; expected a whole number"),
        ("1e-3", "true", "learning_rate is True; expected a number"),
        ("width = 16", "", "own_s, settings of mine lacks width"),
        (", seeds = 1", "", "a stage of own lacks seeds"),
        ("[1.0, 1]", "[50]", "a stage of own has the fraction 50; expected more than 0 and at most 1"),
        ('["mine",', '["mien",', "a stage of own has the arm 'mien'; expected one of baseline, mine"),
        ("[arms]", "[arms", "own.toml: Expected ']' at the end of a table"),
    ],
)
def test_a_slip_in_a_config_trains_nothing(tmp_path, monkeypatch, capsys, before, after, told):
    monkeypatch.setattr(_study, "CONFIGS", tmp_path)
    assert before in CONFIG
    (tmp_path / "own.toml").write_text(CONFIG.replace(before, after))
    assert main(["run", "own", "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("own_s/*/result.json"))


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"runs": [{}]}'])
def test_damaged_results_are_told_by_name_and_nothing_is_written_over(tmp_path, monkeypatch, capsys, text):
    monkeypatch.setattr(_work, "TABLES", tmp_path / "committed")
    result, table = tmp_path / "gpt_toy" / "voc-100-1-abc" / "result.json", tmp_path / "gpt_toy.json"
    own = ["table", "gpt", "--size", "toy", "--out", str(tmp_path), "--into", str(tmp_path)]
    result.parent.mkdir(parents=True)
    result.write_text(text)
    assert main(own) == 2
    assert f"{result} is damaged: " in (told := capsys.readouterr().err)
    assert "restore it, or delete it" in told
    study = _study.load("gpt", "toy")
    run = study.runs()[0]
    whole = made(run.arm, run.fraction, run.seed, 5.0) | {"digest": study.digest(run)}
    result.write_text(json.dumps(whole))
    table.write_text(text)
    assert main(own) == 2
    assert f"{table} is damaged: " in capsys.readouterr().err
    assert table.read_text() == text


@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_a_damaged_checkpoint_is_told_by_name(tmp_path, capsys, content):
    study, asked = _study.load("gpt", "toy"), itertools.count()
    _work.work(study, tmp_path, stop=lambda: next(asked) > 5, only="voc-*")
    (path,) = tmp_path.glob("gpt_toy/voc-*/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    own = ["run", "gpt", "--size", "toy", "--only", "voc-*", "--out", str(tmp_path)]
    assert main(own) == 2
    assert f"{path} cannot be gone on from (" in (told := capsys.readouterr().err)
    assert "delete it and the run begins anew" in told
    path.unlink()
    assert main(own) == 0


def test_what_the_committed_table_has_is_trained_where_that_is_asked(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_work, "TABLES", tmp_path)
    _work.collect(_study.load("gpt", "toy"), whole, tmp_path)
    own = ["run", "gpt", "--size", "toy", "--only", "voc-*", "--out", str(tmp_path / "out")]
    assert main(own) == 0
    assert "1 of them are in the committed table; --anew trains these, too" in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob("result.json"))
    assert main([*own, "--anew"]) == 0
    assert "committed" not in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("result.json"))) == 1


def test_several_processes_stop_in_time_and_say_where_they_are(tmp_path, capfd):
    own = ["run", "gpt", "--size", "toy", "--only", "*voc-*", "--processes", "2", "--out", str(tmp_path)]
    assert main([*own, "--minutes", "0.001"]) == 0
    assert "gpt_toy: 0 of 3 runs are done\nstopped; the same command goes on" in capfd.readouterr().out
    assert main(own) == 0
    assert capfd.readouterr().out.endswith("gpt_toy: 3 of 3 runs are done\n")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--minutes", "-5"], "argument --minutes: '-5'; expected a number above 0"),
        (["--every", "nan"], "argument --every: 'nan'; expected a number above 0"),
        (["--out", __file__], "is a file; expected a folder"),
    ],
)
def test_options_that_cannot_be_are_refused(capsys, given, told):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "gpt", "--size", "toy", *given])
    assert told in capsys.readouterr().err


def test_an_arm_of_ones_own_is_run_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_study, "CONFIGS", tmp_path)
    (tmp_path / "own.toml").write_text(CONFIG)
    into = ["--out", str(tmp_path / "out"), "--into", str(tmp_path)]
    assert main(["table", "own", *into]) == 2
    assert "no run of own_s is finished in" in capsys.readouterr().err
    assert main(["run", "own", "--only", "baseline-*", "--out", str(tmp_path)]) == 2
    assert "the stages of 's' in its config" in capsys.readouterr().err
    assert main(["run", "own", *into[:2]]) == 0
    assert main(["table", "own", *into]) == 0
    assert "| `mine` | 100% | 1 | 5." in (shown := capsys.readouterr().out)
    assert "| `untrained` | 100% | 1 | 5." in shown, "it ends before it is measured"


def test_the_tuner_searches_the_beginnings_of_runs(tmp_path):
    """The real one: its log in `out`, what it found in the words of the config."""
    study = _study.load("gpt", "toy")
    path = _tuned.tune(study, tmp_path / "out", tmp_path)
    (found,) = json.loads(path.read_text())["searches"]
    assert (found["paced"], found["arm"]) == ("seqlen", "seqtru_voc")
    assert [probe["why"] for probe in found["probes"][:3]] == ["recipe", "scaled rate", "start"]
    assert all(probe["losses"][-1][0] == 6 for probe in found["probes"] if probe["stable"])
    own = found["settings"]
    assert own["seqlen_share"] == own["difficulty_share"] == found["duration"] / 10
    assert own["seqlen_start"] == found["start"]
    assert (tmp_path / "out" / "tune" / "gpt_toy_seqlen" / "tuning.jsonl").exists()
    assert "| `seqlen` | `seqtru_voc` | 8 to 16 | 50% to 100% |" in _tables.tuned([found])


def test_a_table_is_not_written_over_runs_that_would_be_lost(whole, tmp_path):
    study = _study.load("gpt", "toy")
    path = _work.collect(study, whole, tmp_path)
    before = path.read_text()
    other = attrs.evolve(study, settings=study.settings | {"learning_rate": 1.0})
    with pytest.raises(ValueError, match=r"gpt_toy.json has 15 runs of settings that gpt_toy no longer has"):
        _work.collect(other, whole, tmp_path)
    assert path.read_text() == before


def test_an_index_of_other_text_is_not_taken(tmp_path):
    one, other = (de.corpus.from_samples([np.arange(n, n + 9)] * 4 + [np.arange(9)]) for n in (0, 5))
    _text.index(one, "vocab_rarity", tmp_path)
    before = (tmp_path / "vocab_rarity.seconds").read_text()
    _text.index(one, "vocab_rarity", tmp_path)
    assert (tmp_path / "vocab_rarity.seconds").read_text() == before
    with pytest.raises(ValueError, match="vocab_rarity"):
        _text.index(other, "vocab_rarity", tmp_path)


def test_a_study_without_searches_has_nothing_to_tune(tmp_path):
    study = _study.load("images", "toy")
    with pytest.raises(ValueError, match=r"images_toy has nothing to tune; its config has no .*toy.tune"):
        _tuned.tune(study, tmp_path)


def test_arms_are_timed_side_by_side_and_their_runs_have_those_seconds(whole, tmp_path):
    study = _study.load("images_selection", "toy")
    path = _timed.measure(study, whole, tmp_path, points=2, steps=1, rounds=3)
    record = json.loads(path.read_text())
    assert [row["arm"] for row in record["arms"]] == ["baseline"], "importance can't be entered at any step"
    assert [row["digest"] for row in record["arms"]] == [study.digest(next(iter(_work.done(study, whole))))]
    rates, runs = _timed.rates(study, tmp_path), list(_work.done(study, whole).values())
    for before, after in zip(runs, _timed.corrected(runs, rates), strict=True):
        due = before["totals"]["flops"] * np.median(record["arms"][0]["seconds_a_tflop"]) / 1e12
        assert after["totals"]["seconds"] == pytest.approx(due)


def test_what_slows_a_round_slows_all_of_its_arms(tmp_path):
    """And an arm that has changed since, or was not timed, has no time."""
    study = _study.load("gpt", "toy")
    one, other, changed, voc = study.runs()[:4]
    rows = [
        {"arm": one.arm, "digest": study.digest(one), "seconds_a_tflop": [1.0, 2.0, 4.0]},
        {"arm": other.arm, "digest": study.digest(other), "seconds_a_tflop": [3.0, 6.0, 12.0]},
        {"arm": changed.arm, "digest": "0", "seconds_a_tflop": [5.0, 10.0, 20.0]},
        {"arm": voc.arm, "digest": study.digest(voc), "seconds_a_tflop": [3.0, 6.0, 12.0]},
    ]
    path = _timed.path_of(study, tmp_path)
    path.parent.mkdir()
    path.write_text(json.dumps({"arms": rows}))
    rates = _timed.rates(study, tmp_path)
    assert rates[one.arm] == pytest.approx([4e-12] * 3), "of both rows: its windows are as long as voc's"
    assert rates["voc"] == rates["mtld"] == rates[one.arm]
    assert rates[other.arm] == pytest.approx([6e-12] * 3)
    assert rates["baseline_twice_rate"] == rates["baseline"], "its steps do the same work"
    assert changed.arm not in rates
    runs = [made(one.arm, 1.0, 1, 5.0, flops=10**12), made(changed.arm, 1.0, 1, 5.0)]
    timed, untimed = (run["totals"]["seconds"] for run in _timed.corrected(runs, rates))
    assert timed == pytest.approx(4)
    assert math.isnan(untimed)
    assert _timed.corrected(runs, {}) == runs


def test_timing_needs_finished_runs(tmp_path):
    with pytest.raises(ValueError, match="no run of images_toy is finished that takes over 48 steps"):
        _timed.measure(_study.load("images", "toy"), tmp_path)


def made(arm, fraction, seed, loss, work=None, **totals):
    counts = {"tokens": 100 * fraction, "flops": 100 * fraction, "seconds": 10 * fraction} | totals
    config = {"arm": {"metric": None, "router": "span", "budget": "tokens"}}
    config["arm"] |= {"lengths": None, "sampler": "shuffled"}
    config["settings"] = {"layers": 8, "work": work or arm}
    counts = {"layer_tokens": 7 * counts["tokens"], "samples": counts["tokens"]} | counts
    own = {"arm": arm, "fraction": fraction, "seed": seed, "config": config}
    own |= {"fluctuations": 0, "diverged": False, "parameters": 10, "curve": [{}, {}]}
    return own | {"final": {"validation_loss": loss, "bits_per_byte": loss / 3}, "totals": counts}


def _page_table(runs):
    return _tables.measures(runs, _page.LOSS | _page.BITS | _page.TOKENS, _page.COSTS)


LINE = [made("baseline", f, s, 5 - math.log2(f) + 0.01 * s) for f in (0.25, 0.5, 1.0) for s in (1, 2, 3)]


def test_an_interval_is_students():
    found = analysis.estimate([1.0, 2.0, 4.0])
    assert found.half == pytest.approx(4.30265 * np.std([1, 2, 4], ddof=1) / math.sqrt(3), rel=1e-5)


def test_an_arm_is_compared_with_the_baseline_at_equal_cost():
    """The baseline's loss is linear in the logarithm of cost; the arm costs as the baseline at 0.7."""
    arm = [made("ltd", 1.0, s, 5.2 + 0.01 * s, flops=70) for s in (1, 2, 3)]
    arm.append(made("one", 1.0, 3, 5.22, flops=70))
    data, flops = (analysis.against(LINE + arm, axis) for axis in ("tokens", "flops"))
    assert data["ltd", 1.0].mean == pytest.approx(0.2)
    assert flops["ltd", 1.0].mean == pytest.approx(0.2 + math.log2(0.7))
    assert flops["ltd", 1.0].half == pytest.approx(math.sqrt(2) * analysis.estimate([0.01, 0.02, 0.03]).half)
    assert flops["one", 1.0].mean == flops["ltd", 1.0].mean, "whichever seed it had"
    assert math.isnan(flops["one", 1.0].half)


def test_what_costs_less_than_any_baseline_is_compared_with_nothing():
    assert not analysis.against([*LINE, made("ltd", 0.25, 1, 5.0, flops=5)], "flops")


def test_all_seeds_of_the_baseline_are_compared_with_or_none():
    """Time differs from seed to seed, so an arm may cost more than some of them."""
    ends = (11.5, 12.0, 12.0)
    line = [made("baseline", 1.0, s, 5 + 0.01 * s, seconds=end) for s, end in enumerate(ends, 1)]
    one, none = (made("a", 1.0, 1, 5.0, seconds=seconds) for seconds in (12.05, 12.1))
    assert analysis.against([*LINE[:6], *line, one], "seconds")["a", 1.0].mean == pytest.approx(-0.02)
    assert not analysis.against([*LINE[:6], *line, none], "seconds")
    more = [made("baseline", 1.0, s, 5.0) for s in (4, 5)]
    half, whole = (made("a", f, 1, 5.0) for f in (0.5, 1.0))
    found = analysis.against([*LINE, *more, half, whole], "tokens")
    assert found["a", 0.5].mean == pytest.approx(-1.02), "seeds at one share alone are of that share"
    assert found["a", 1.0].mean == pytest.approx(-0.012)


def test_a_factor_is_how_much_less_is_needed_for_the_baselines_loss():
    """By seed; the baseline's loss rises by 0.01 with the seed, and so does the arm's."""
    arm = [made("a", f, s, 4.5 - math.log2(f) + 0.01 * s) for f in (0.5, 1.0) for s in (1, 2, 3)]
    found = analysis.factor(LINE + arm, "a", "tokens")
    assert (found.times.mean, found.bound) == (pytest.approx(math.sqrt(2)), "")
    assert found.times.half == pytest.approx(0, abs=1e-9)


def test_a_factor_is_of_the_best_learning_rate_at_each_share():
    half = [made("a", 0.5, s, 5.5 + 0.01 * s) for s in (1, 2, 3)]
    whole = [made("a", 1.0, s, 5.2 + 0.01 * s) for s in (1, 2, 3)]
    better = [made("a_rate", 1.0, s, 4.5 + 0.01 * s, work="a") for s in (1, 2, 3)]
    assert analysis.alike(half + whole + better, "a") == half + better
    assert analysis.alike(half + whole + better[:2], "a") == half + whole, "fewer seeds"
    found = analysis.factor(LINE + half + whole + better, "a", "tokens")
    assert found.times.mean == pytest.approx(math.sqrt(2))
    rows = _tables.factors(LINE + half + whole + better).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| `a`, `a_rate`"]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((1.0, 1.0, 1.0), "at least 2.00"),
        ((9.0, 9.0, 9.0), "less than 1.00"),
        ((1.0, 1.0, 9.0), "about 1.67, beyond the runs with some seeds"),
    ],
)
def test_a_factor_that_is_a_bound_says_so(losses, words):
    arm = [made("a", f, s, loss) for f in (0.5, 1.0) for s, loss in enumerate(losses, 1)]
    assert str(analysis.factor(LINE + arm, "a", "tokens")) == words


def test_seeds_without_several_shares_tell_no_factor():
    arm = [made("a", 1.0, s, 6.0) for s in (1, 2, 3)]
    assert analysis.factor(LINE + arm, "a", "tokens") is None
    assert analysis.factor([made("a", 0.5, 9, 1.0), *LINE], "a", "tokens") is None, "there is no baseline"
    arm.append(made("a", 0.5, 2, 7.0))
    assert analysis.factor(LINE + arm, "a", "tokens").times.seeds == 1


def test_a_factor_is_of_the_seeds_with_the_most_shares():
    arm = [made("a", f, 1, 4.5 - math.log2(f) + 0.01) for f in (0.25, 0.5, 1.0)]
    fewer = [made("a", f, s, 9.0) for f in (0.25, 0.5) for s in (2, 3)]
    found = analysis.factor(LINE + arm + fewer, "a", "tokens")
    assert (found.times.seeds, found.times.mean) == (1, pytest.approx(math.sqrt(2)))


def test_a_seed_that_was_as_good_at_once_tells_a_bound():
    arm = [made("a", 0.5, s, 4.0) for s in (1, 2, 3)]
    assert str(analysis.factor(LINE + arm, "a", "tokens")) == "at least 2.00"
    assert analysis.factor([*LINE, *arm[:2], made("a", 0.5, 3, 5.2)], "a", "tokens") is None, "one was not"


def test_what_was_not_timed_is_left_out_and_not_told_as_nan():
    arm = [made("composed", 0.5, s, 4.0, seconds=math.nan) for s in (1, 2, 3)]
    assert str(analysis.factor(LINE + arm, "composed", "seconds")) == ""
    assert "nan" not in _verdict.verdict(LINE + arm, "On CPU cores (size S")
    column = _tables.Column(analysis.consumed("seconds"), ".0f", interval=False)
    assert "nan" not in _tables.measures(arm, {"seconds": column})


def test_the_baseline_to_beat_is_the_best_at_each_share():
    better = [made("baseline_unscaled", 0.5, s, 5.5) for s in (1, 2, 3)]
    fewer = [made("baseline_half_rate", 1.0, s, 1.0) for s in (1, 2)]
    diverged = [made("baseline_twice_rate", 0.25, s, math.nan) for s in (1, 2, 3)]
    found = analysis.reference(diverged + LINE + better + fewer)
    assert {fraction: runs[0]["arm"] for fraction, runs in found.items()} == {
        0.25: "baseline",
        0.5: "baseline_unscaled",
        1.0: "baseline",
    }
    more = [made("baseline", 1.0, s, 5.0) for s in (4, 5)]
    best = [made("baseline_twice_rate", 1.0, s, 4.9) for s in (1, 2, 3)]
    assert analysis.reference(LINE + more + best)[1.0] == best, "three seeds are enough"
    arm = [made("a", 0.5, 1, 5.0)]
    assert analysis.against(LINE + better + arm, "tokens")["a", 0.5].mean == pytest.approx(-0.5)


def test_whether_an_arm_reaches_the_baseline_needs_seeds():
    base = [made("baseline", 1.0, s, 5 + 0.01 * s) for s in (1, 2, 3)]
    good, bad = ([made("composed", 0.5, s, loss) for s in (1, 2, 3)] for loss in (5.03, 5.2))
    assert analysis.reaches(base + good, "composed", 0.5).reached is True
    assert analysis.reaches(base + bad, "composed", 0.5).reached is False
    assert analysis.reaches(base[:2] + good, "composed", 0.5).reached is None, "its interval is 0.06 wide"
    assert analysis.reaches(base, "composed", 0.5) is None


def test_the_verdict_judges_a_setting_by_other_seeds_than_it_was_chosen_by():
    """`composed_b` is best of the first seed, and worse with the others."""
    base = [made("baseline", 1.0, s, 5 + 0.01 * s) for s in (1, 2, 3)]
    own = [made("composed", 0.5, s, 5.2) for s in (1, 2, 3)]
    own += [made("composed_b", 0.5, s, 5.0 if s == 1 else 5.3, samples=80) for s in (1, 2, 3)]
    own += [made("composed_b_layers", 0.5, s, 5.0, tokens=70, seconds=math.nan) for s in (1, 2, 3)]
    own += [made("composed_layers", 0.5, 1, 5.2)]
    judged = functools.partial(_verdict.verdict, where="On CPU cores (size S")
    assert judged(base + own) == (
        "On CPU cores (size S: 0.0 million parameters, 0.00 million tokens), the composed arm with 50% of "
        "the data does **not** reach the validation loss of the best baseline with all of it, `baseline`: "
        "5.200 ± 0.000 against 5.020 ± 0.025 nats a token. The best of 2 settings of it, `composed_b`, does "
        "**not** reach it: 5.300 ± 0.000, +0.280 ± 0.025 away. Data are the tokens that a model processes, "
        "as in the paper: what is cut off a sample is not counted. By the samples that are drawn, with half "
        "of the data it had 80% of the text that the baseline did. Counted as in the paper, where a token "
        "that half of the blocks process is half consumed, the best of 2 settings, `composed_b_layers` "
        "(without short samples), reaches it: 5.000 ± 0.000, with 70% of the tokens and 50% of the FLOPs."
    )
    _, _, recipe, by_tokens, by_layer = _verdict.table(base + own).splitlines()
    assert recipe.startswith("| `composed` | the paper's recipe | 12.5% | 5.200 ± 0.000 | +0.180 ± 0.025 |")
    assert by_tokens.startswith("| `composed_b` | best of 2 | 12.5% | 5.300 ± 0.000 | +0.280 ± 0.025 | 2 oth")
    assert by_layer.endswith("| at least 1.43 | at least 2.00 |  | at least 1.43 |")
    whole = [made("composed_b", 1.0, s, 4.9) for s in (1, 2, 3)]
    assert "| about 1.49, beyond the runs with some seeds |" in _verdict.table(base + own + whole)
    assert "| the seed that chose it |" in _verdict.table(base + own[:4])
    assert judged(base) == _verdict.table(base) == ""
    diverged = [{**own[3], "final": {"validation_loss": math.nan}}, *own[4:6]]
    assert "| `composed` | best of 2 |" in _verdict.table(base + own[:3] + diverged)
    lost = [{**run, "final": {"validation_loss": math.nan}} for run in own[:3]]
    assert "`baseline`: no loss, as it diverged against 5.020" in judged(base + lost)


def test_the_page_tells_of_a_gpu_first_once_there_are_results(monkeypatch):
    assert "The larger size, for a GPU, is due." in _page.text()
    assert _page.text().count(_page.DUE) == 2, "of GPT and BERT"
    committed = _work.committed

    def with_a_gpu(study):
        of_cpu = {"gpt_m": "s", "bert_m": "s"}.get(str(study))
        return committed(_study.load(study.name, of_cpu) if of_cpu else study)

    monkeypatch.setattr(_work, "committed", with_a_gpu)
    text = _page.text()
    assert text.startswith("# Evidence\n\nOn one GPU (size M: 3.7 million parameters")
    assert "On CPU cores (size S" in text
    assert "is due" not in text.partition("##")[0]
    assert _page.DUE not in text
    assert text.count("| `random_ltd_twice_rate`, `random_ltd` | 3 |") == 2


def test_a_run_that_diverged_is_told_of_and_compared_with_nothing():
    own = made("ltd", 1.0, 1, math.nan) | {"fluctuations": 2, "diverged": True}
    (row,) = (line for line in _page_table([*LINE, own]).splitlines() if "`ltd`" in line)
    assert row == "| `ltd` | 100% | 1 |  |  | 0.00 |  |  |  |"
    assert _tables.steadiness(LINE) == (
        "0 of 18 evaluations on the way had a loss above the best before, and 0 of 9 runs diverged."
    )
    assert _tables.steadiness([*LINE, own, made("ltd", 1.0, 2, 5.0)]) == (
        "2 of 22 evaluations on the way had a loss above the best before (`ltd` with 100% 2), and 1 of 11 "
        "runs diverged: `ltd` with 100% (1 of 2)."
    )


def test_tables_show_what_is_compared():
    arm = [made("ltd", f, s, 5.2 - math.log2(f), flops=60 * f) for f in (0.5, 1.0) for s in (1, 2, 3)]
    assert "| `ltd` | 100% | 3 | 5.200 ± 0.000 | 1.733 ± 0.000 | 0.00 |" in _page_table(LINE + arm)
    rates = {"baseline": [1.0, 2.0, 1.0], "ltd": [1.1, 2.2, 1.0]}
    *_, row = _tables.savings(LINE + arm, rates).splitlines()
    assert row == "| `ltd` | 100% | 40.0% | 34.0% | 34.0% | 40.0% |"
    arm = [made("ltd", f, s, 4.8 - math.log2(f)) for f in (0.5, 1.0) for s in (1, 2, 3)]
    sizes = [[{**run, "parameters": size} for run in LINE + arm] for size in (10, 100, 1000)]
    assert "the factor changes by +0.000 ± 0.0" in (said := _tables.scaling(sizes, "ltd"))
    assert "least squares over 9 pairs of size and seed" in said
    worse = [
        [{**run, "parameters": size} for run in [*LINE, made("ltd", 0.5, 1, 9.0), made("ltd", 1.0, 1, 9.0)]]
        for size in (1, 2)
    ]
    assert "less than 1.00" in (said := _tables.scaling(worse, "ltd"))
    assert "A bound is no point of a line" in said
    assert _tables.scaling([LINE, LINE, LINE], "ltd") == ""


def test_the_page_is_what_the_committed_tables_say():
    text = _page.text()
    assert text == (_page.DOCS / "evidence.md").read_text(encoding="utf-8")
    assert "{{" not in text
    assert _page.MISSING not in text


def test_the_tuned_arm_is_what_the_tuner_found():
    found = json.loads(_tuned.path_of(_study.load("gpt", "s")).read_text())["searches"]
    own = {key: value for search in found for key, value in search["settings"].items()}
    assert _study.load("gpt", "s").arms["composed_tuned"].settings == own


def test_every_result_that_is_committed_is_of_its_config_and_says_where_it_was_made():
    for path in sorted(_work.TABLES.glob("*_*.json")):
        record = json.loads(path.read_text())
        study = _study.load(record["study"], record["size"])
        assert len(_work.committed(study)) == len(record["runs"])
        for run in record["runs"]:
            assert {"date", "machine", "versions", "config", "seed", "digest"} <= set(run)
