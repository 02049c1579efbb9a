"""The low-cost search: it finds the edge in few probes, stops at instabilities, and survives any kill."""

import functools
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeff import cli, config, pacing, report, tuning
from dataeff.tuning import Probe, ProbeError, Search, Stability, next_probe, stability, tune

GRIDS = {"starts": range(8, 129, 8), "durations": range(100, 2001, 100), "end": 256, "warmup": 20}


def curve(stable, steps=60):
    return [(0, 5.0), (steps // 2, 4.0), (steps, 3.0 if stable else 4.5)]


class Edge:
    """A probe that is stable within known bounds, and notes what it is asked for."""

    def __init__(self, *, start=0, duration=10**9, rate=10.0, unstable=()):
        self.start, self.duration, self.rate, self.unstable = start, duration, rate, set(unstable)
        self.asked = []

    def stable(self, config):
        if config.learning_rate_scale / config.batch_scale > self.rate:
            return False
        if not config.paced:
            return True
        within = config.start >= self.start and config.duration <= self.duration
        return within and (config.start, config.duration) not in self.unstable

    def __call__(self, config):
        self.asked.append(config)
        return curve(self.stable(config))


def found(search, edge, *, anyway=False):
    """What a search comes to, without files: the log of finished probes."""
    probes = []
    while (config := next_probe(search, probes, anyway=anyway)) is not None:
        assert all(config != probe.config for probe in probes)
        losses = tuple(edge(config))
        probes.append(Probe(config, losses, stability(losses)))
    return probes


def rising(values):
    return st.lists(values, min_size=1, max_size=40, unique=True).map(sorted)


@given(
    rising(st.integers(1, 999)), rising(st.integers(1, 10**6)), st.integers(0, 1100), st.integers(0, 10**6)
)
def test_the_search_finds_any_edge_in_a_logarithm_of_the_grids(starts, durations, smallest, longest):
    search = Search(starts=starts, durations=durations, end=1000, warmup=20)
    edge = Edge(start=smallest, duration=max(longest, durations[0]))
    probes = found(search, edge)
    concluded = tuning._tuned.conclude(search, probes, anyway=False)
    assert concluded.start == min((start for start in starts if start >= smallest), default=None)
    if concluded.start is not None:
        assert concluded.duration == max(d for d in durations if d <= max(longest, durations[0]))
    assert len(probes) <= search.most_probes() <= 9 + math.log2(len(starts)) + math.log2(len(durations))
    assert not any("against what a binary search presumes" in note for note in concluded.notes)


@given(rising(st.integers(1, 999)), rising(st.integers(1, 999)), st.data())
def test_no_verdicts_whatever_take_more_probes_than_foretold(starts, durations, data):
    search = Search(
        starts=starts, durations=durations, end=1000, warmup=20, fraction=data.draw(st.sampled_from([1, 0.5]))
    )
    anyway = data.draw(st.booleans())
    probes = found(search, lambda _: curve(data.draw(st.booleans())), anyway=anyway)
    assert len(probes) <= search.most_probes(anyway=anyway)


def test_the_most_wanted_are_tried_first(tmp_path):
    """Where the smallest start and the longest duration are stable, as is usual, few probes are needed."""
    edge = Edge()
    tuned = tune(edge, **GRIDS, out=tmp_path)
    assert (tuned.start, tuned.duration) == (8, 2000)
    whys = [config.why for config in edge.asked]
    assert whys == ["recipe", "scaled rate", "start", "duration", "beside", "beside", "scaled rate, paced"]
    assert "start 8 is the smallest of the grid: a smaller one may be stable too" in tuned.notes
    assert "duration 2,000 is the longest of the grid: a longer one may be stable too" in tuned.notes


def test_starts_are_sought_with_the_shortest_duration_and_durations_with_the_start(tmp_path):
    edge = Edge(start=40, duration=700)
    tuned = tune(edge, **GRIDS, multiple=8, out=tmp_path)
    assert {config.duration for config in edge.asked if config.why == "start"} == {100}
    assert {config.start for config in edge.asked if config.why == "duration"} == {40}
    assert tuned.pace == tuned.probes[-1].config.pace
    assert tuned.pace == pacing.linear(40, 256, steps=700, multiple=8)
    assert config.made("pacings", tuned.to_json()["pace"]) == tuned.pace
    assert {config.steps for config in edge.asked} == {60}


def test_perplexity_at_exactly_the_factor_is_stable_and_above_it_is_not():
    for best in (0.1, 1.0, math.log(10), 7.3):
        at = best + math.log(1.3)
        assert stability([(0, best), (1, at)]).stable
        assert stability([(0, best), (1, at + 1e-6)]).unstable_at == 1
        assert stability([(0, math.log(10)), (1, math.log(13))]).stable
    assert stability([(0, 2.0), (1, 2.0 + math.log(1.5))], factor=1.5).stable


def test_a_rise_is_measured_against_the_best_so_far():
    assert stability([(0, 1.0), (1, 9.0)]).unstable_at == 1
    assert stability([(0, 9.0), (1, 1.0), (2, 1.2), (3, 1.2)]) == Stability(
        None, pytest.approx(math.exp(0.2))
    )
    creeping = [(0, 3.0), (1, 3.2), (2, 3.4)]  # each within 1.3 of the one before it
    assert stability(creeping).unstable_at == 2
    assert stability([(0, 1.0), (1, 2000.0)]).rise == math.inf


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_unstable_at_once(loss, tmp_path):
    assert stability([(0, loss)]) == Stability(0, math.inf)
    probe = tuning._probe.run(lambda _: [(0, 5.0), (5, loss)], Search(**GRIDS).config("recipe"), factor=1.3)
    assert (probe.stable, probe.losses, probe.best) == (False, ((0, 5.0), (5, None)), 5.0)
    tuned = tune(lambda _: [(0, loss)], **GRIDS, out=tmp_path)
    assert tuned.pace is None
    assert tuning.load(tmp_path) == tuned
    json.dumps(tuned.to_json(), allow_nan=False)


def test_an_unstable_probe_is_abandoned_and_closed(tmp_path):
    trained, closed, alive = [], [], []

    def training(config):
        try:
            for step in range(0, 10**6, 10):
                trained.append((config, step))
                yield step, 9.0 if step >= 30 and config.paced else 5.0
        finally:
            closed.append(config)

    def probe(config):
        assert len(closed) == len(alive)
        alive.append(training(config))
        return alive[-1]

    tuned = tune(probe, **GRIDS, out=tmp_path)
    assert closed == [probe.config for probe in tuned.probes]
    for finished in tuned.probes:
        last = max(step for config, step in trained if config == finished.config)
        assert last == finished.steps == (30 if finished.config.paced else 60)


def test_a_probe_may_give_tensors_and_arrays(tmp_path):
    import numpy as np
    import torch

    def probe(_):
        return [(np.int64(0), torch.tensor(5.0)), (torch.tensor(60), np.float32(3.0))]

    assert tune(probe, **GRIDS, out=tmp_path).probes[0].losses == ((0, 5.0), (60, 3.0))


def test_an_unstable_recipe_is_said_with_what_steadies_it_and_nothing_is_searched(tmp_path):
    edge = Edge(rate=0.6)
    tuned = tune(edge, **GRIDS, out=tmp_path)
    assert [(c.why, c.learning_rate_scale, c.batch_scale) for c in edge.asked] == [
        ("recipe", 1, 1),
        ("half the rate", 0.5, 1),
        ("twice the batch", 1, 2),
    ]
    assert tuned.notes == (
        "the recipe is unstable without a pace, at step 60: lower the learning rate or raise the batch "
        "(half the rate is stable, twice the batch is stable)",
        "nothing is searched with it; where the pace is what is to steady it, search anyway",
    )
    assert (tuned.start, tuned.duration, tuned.pace) == (None, None, None)


def test_a_search_anyway_goes_on_from_the_same_log(tmp_path):
    class Steadied(Edge):
        def stable(self, config):
            return config.paced and super().stable(config)

    edge = Steadied(start=16)
    assert tune(edge, **GRIDS, out=tmp_path).pace is None
    assert len(edge.asked) == 3
    tuned = tune(edge, **GRIDS, out=tmp_path, anyway=True)
    assert tuned.start == 16
    assert len(set(edge.asked)) == len(edge.asked) == len(tuned.probes)
    assert tuned == tuning.load(tmp_path)
    assert "half the rate is unstable at step 60" in tuned.notes[0]


@pytest.mark.parametrize(("rate", "word"), [(10, "stable"), (3, "unstable at step 60")])
def test_the_scaled_rate_is_tried_without_a_pace_and_with_the_one_found(rate, word, tmp_path):
    tuned = tune(Edge(rate=rate), **GRIDS, fraction=0.25, out=tmp_path)
    assert tuned.notes[:2] == (
        f"4 times the learning rate, for 0.25 of the data, is {word} without a pace",
        f"4 times the learning rate, for 0.25 of the data, is {word} with the pace that is found",
    )
    assert tuned.pace is not None


def test_no_start_that_is_stable_is_said(tmp_path):
    tuned = tune(Edge(start=200), **GRIDS, fraction=1, out=tmp_path)
    assert tuned.notes == (
        "no start up to 128 is stable over 100 steps: allow larger starts, or lower the learning rate",
    )


def test_probes_against_the_presumed_order_are_named(tmp_path):
    tuned = tune(Edge(start=40, duration=700, unstable={(48, 700), (40, 600)}), **GRIDS, out=tmp_path)
    assert (tuned.start, tuned.duration) == (40, 700)
    (start, duration) = (note for note in tuned.notes if "presumes" in note)
    assert start.startswith("start 40 is stable and start 48 is not, both over 700 steps, against what a ")
    assert duration.startswith("duration 700 is stable and duration 600 is not, both from 40, against what")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("torn", [b"", b'{"start": 8, "end', b'{"start": 8}'])
@pytest.mark.parametrize("at", range(14))
def test_a_search_killed_at_any_probe_goes_on_and_repeats_none(at, torn, tmp_path):
    edge = Edge(start=40, duration=700)
    whole = tune(edge, **GRIDS, out=tmp_path / "whole")
    calls = []

    def probe(config):
        calls.append(config)
        yield 0, 5.0
        if len(calls) == at + 1:
            raise Killed
        yield from curve(edge.stable(config))[1:]

    probe.__qualname__ = "Edge"
    if at < len(whole.probes):
        with pytest.raises(Killed):
            tune(probe, **GRIDS, out=tmp_path / "killed")
        with (tmp_path / "killed/tuning.jsonl").open("ab") as file:
            file.write(torn)
    assert tune(probe, **GRIDS, out=tmp_path / "killed") == whole
    assert len(calls) == len(whole.probes) + (at < len(whole.probes))
    assert tuning.load(tmp_path / "killed") == whole
    assert tune(Edge(), **GRIDS, out=tmp_path / "killed") == whole  # nothing is left to run


def test_a_log_cut_at_any_byte_is_gone_on_from(tmp_path):
    options = GRIDS | {"starts": [8, 40], "durations": [100, 700], "fraction": 1}
    whole = tune(Edge(start=40), **options, out=tmp_path)
    log = tmp_path / "tuning.jsonl"
    content = log.read_bytes()
    for cut in range(0, len(content), 7):
        log.write_bytes(content[:cut])
        edge = Edge(start=40)
        assert tune(edge, **options, out=tmp_path) == whole
        assert len(edge.asked) == len(whole.probes) - max(0, content[:cut].count(b"\n") - 1)


def test_the_log_is_a_line_of_settings_and_a_line_for_each_probe(tmp_path):
    tuned = tune(Edge(), **GRIDS, out=tmp_path / "new/folder")
    first, *lines = map(json.loads, (tmp_path / "new/folder/tuning.jsonl").read_text().splitlines())
    assert first["format"] == 1
    assert first["probe"] == "Edge"
    assert first["starts"] == list(GRIDS["starts"])
    assert [line["why"] for line in lines] == [probe.config.why for probe in tuned.probes]
    assert lines[0]["losses"] == [[0, 5.0], [30, 4.0], [60, 3.0]]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"end": 512}, "end is 256 there and 512 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"starts": [8]}, r"starts is \[8, 16, .*\] there and \[8\] here"),
    ],
)
def test_a_log_of_another_search_is_refused_by_name(changed, words, tmp_path):
    tune(Edge(), **GRIDS, out=tmp_path)
    before = (tmp_path / "tuning.jsonl").read_bytes()
    with pytest.raises(
        ValueError, match=f"is of another search: {words}; choose another folder .--out., or delete it"
    ):
        tune(Edge(), **GRIDS | changed, out=tmp_path)
    assert (tmp_path / "tuning.jsonl").read_bytes() == before


def test_a_log_of_another_probe_or_that_is_damaged_is_refused(tmp_path):
    tune(Edge(), **GRIDS, out=tmp_path)
    log = tmp_path / "tuning.jsonl"
    with pytest.raises(ValueError, match="probe is 'Edge' there and 'curve' here"):
        tune(curve, **GRIDS, out=tmp_path)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], b"\0\0\n", *lines[2:]]))
    with pytest.raises(
        ValueError, match="tuning.jsonl, line 3, is damaged: .*; delete that line, or the file"
    ):
        tune(Edge(), **GRIDS, out=tmp_path)
    log.write_bytes(b"".join([lines[0], b'{"start": 8}\n']))
    with pytest.raises(ValueError, match="line 2, is no finished probe: KeyError"):
        tuning.load(tmp_path)
    log.write_bytes(b'{"format": 2}\n')
    with pytest.raises(ValueError, match="is no log of format 1"):
        tuning.load(tmp_path)
    log.write_bytes(b'{"format": 1, "starts": [8]}\n')
    with pytest.raises(ValueError, match="tuning.jsonl is the log of no search: .* missing .*'durations'"):
        tuning.load(tmp_path)


def test_a_log_of_another_source_is_refused_and_an_unchanged_one_is_said(script, capsys):
    arguments = ["tune", script, *OPTIONS]
    assert cli.main(arguments) == 0
    assert "of the probes are from" not in capsys.readouterr().out
    first = json.loads(Path("tuning/tuning.jsonl").read_text().splitlines()[0])
    assert (first["probe"], first["script"]) == ("probe", "scripts/tuned_script.py")
    assert first["source"].startswith("sha256:")
    assert cli.main(arguments) == 0
    assert re.search(r"log     \d of the probes are from tuning/tuning.jsonl\n", capsys.readouterr().out)
    log = Path("tuning/tuning.jsonl").read_bytes()
    Path("scripts/tuned_script.py").write_text(SCRIPT.replace("3.0 if", "2.0 if"))
    assert cli.main(arguments) == 2
    assert re.search(
        r"is of another search: the probe's source, scripts/tuned_script.py, is sha256:\w{8} there and "
        r"sha256:\w{8} here; choose another folder \(--out\), or delete it",
        capsys.readouterr().err,
    )
    assert Path("tuning/tuning.jsonl").read_bytes() == log
    assert cli.main([*arguments, "--out", "another"]) == 0


def test_a_probe_without_a_file_is_known_by_its_name(tmp_path):
    names = {"__name__": "notebook"}
    exec("def probe(config):\n    return [(0, 5.0), (60, 3.0)]\n", names)  # noqa: S102
    tune(names["probe"], **GRIDS, out=tmp_path)
    first = json.loads((tmp_path / "tuning.jsonl").read_text().splitlines()[0])
    assert (first["script"], first["source"]) == ("notebook.probe", "notebook.probe")
    names["__name__"] = "other"
    exec("def probe(config):\n    return [(0, 5.0), (60, 3.0)]\n", names)  # noqa: S102
    with pytest.raises(ValueError, match="source, other.probe, is 'notebook.probe' there and 'other.probe'"):
        tune(names["probe"], **GRIDS, out=tmp_path)


def test_objects_and_partial_functions_are_of_the_file_of_what_they_call():
    edge = tuning._source.source(Edge())
    assert edge == tuning._source.source(functools.partial(Edge(), seed=1))
    assert edge["probe"] == "Edge"
    assert edge["source"] == tuning._source.source(curve)["source"]
    assert Path(edge["script"]).name == "test_tuning.py"


def test_what_a_probe_raises_is_said_with_its_config_and_the_log_stays(tmp_path):
    def probe(config):
        yield from curve(True)[:2]
        if config.paced:
            raise KeyError("tokens")
        yield 60, 3.0

    with pytest.raises(
        ProbeError, match=r"the probe Config\(start=8, .*\) failed: KeyError: 'tokens'; "
    ) as error:
        tune(probe, **GRIDS, out=tmp_path)
    assert isinstance(error.value.__cause__, KeyError)
    assert str(tmp_path / "tuning.jsonl") in str(error.value)
    assert [finished.config.why for finished in tuning.load(tmp_path).probes] == ["recipe", "scaled rate"]
    assert tuning.load(tmp_path).notes[-1] == "the search is not finished: run the same again, and it goes on"


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (None, "it gave None; expected an iterator of pairs of step and validation loss"),
        ([3.0, 2.0], "it gave 3.0; expected a pair of step and validation loss"),
        ([(0, "much")], "expected a pair of step and validation loss"),
        ([(0, 3.0), (0, 2.0)], "its step is 0; expected a whole number of at least 1"),
        ([(-1, 3.0)], "its step is -1; expected a whole number of at least 0"),
        ([], "it gave 0 validation losses; expected at least 2"),
        ([(60, 3.0)], "it gave 1 validation losses; expected at least 2"),
    ],
)
def test_what_is_no_curve_is_refused(given_, words, tmp_path):
    with pytest.raises(ProbeError, match=words):
        tune(lambda _: given_, **GRIDS, out=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": []}, "starts is empty; expected at least one"),
        ({"starts": [8, 8]}, "starts has 8 after 8; expected each above the one before"),
        ({"starts": "8:128"}, "'8:128' is no grid; expected rising numbers"),
        ({"starts": 8}, "8 is no grid"),
        ({"starts": [8, 256]}, "starts go up to 256 and end is 256; expected all below the end"),
        ({"starts": [8, math.nan]}, "a start is nan; expected a finite number"),
        ({"starts": [1.5], "multiple": 8}, r"a start \(with multiple=\) is 1.5"),
        ({"durations": [0, 5]}, "a duration is 0; expected a whole number of at least 1"),
        ({"durations": [5, 4]}, "durations has 4 after 5"),
        ({"end": "all"}, "end is 'all'; expected a finite number"),
        ({"warmup": 0}, "warmup is 0"),
        ({"warmups": 0}, "warmups is 0"),
        ({"factor": 1}, "factor is 1; expected a number above 1, as 1.3"),
        ({"fraction": 0}, "fraction is 0; expected a part of the data, above 0 and at most 1"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_run_or_written(options, words, tmp_path):
    edge = Edge()
    with pytest.raises(ValueError, match=words):
        tune(edge, **GRIDS | options, out=tmp_path / "out")
    assert edge.asked == []
    assert not (tmp_path / "out").exists()


def test_a_probe_that_is_no_function_is_refused(tmp_path):
    with pytest.raises(ValueError, match="probe is 3; expected a function of a Config"):
        tune(3, **GRIDS, out=tmp_path)


def test_percentiles_are_searched_as_they_are(tmp_path):
    options = GRIDS | {"starts": [0.5, 1, 2.5, 10], "end": 100}
    tuned = tune(Edge(start=2), **options, out=tmp_path)
    assert tuned.start == 2.5
    assert tuned == tuning.load(tmp_path)


def test_a_search_prints_as_a_table_and_the_pace(tmp_path):
    tuned = tune(Edge(start=16), **GRIDS, multiple=8, out=tmp_path)
    lines = str(tuned).splitlines()
    assert " ".join(lines[0].split()) == "probe start duration rate batch steps best loss rise"
    assert lines[1].split() == ["1", "recipe", "-", "-", "1", "1", "60", "3.000", "1.00", "stable"]
    assert lines[3].split() == ["3", "start", "8", "100", "1", "1", "60", "4.000", "1.65", "unstable"]
    assert "pace    linear(start=16, end=256, steps=2000, multiple=8)" in lines
    count = len(tuned.probes)
    assert f"cost    {60 * count} steps in {count} probes, at most 60 each" in lines


def test_a_bar_shows_what_is_done(tmp_path, capsys):
    tune(Edge(), **GRIDS, out=tmp_path, progress=True)
    err = capsys.readouterr().err
    assert "7/7" in err
    assert "recipe, 60 steps" in err
    assert "duration from 8 over 2,000, 60 steps" in err
    tune(Edge(), **GRIDS, out=tmp_path, progress=True)
    assert f"7 finished probes are taken from {tmp_path}/tuning.jsonl\n" in capsys.readouterr().err


def test_a_picture_is_drawn_also_of_a_search_that_found_nothing(tmp_path):
    for name, edge in {
        "some": Edge(start=40),
        "none": Edge(start=200),
        "nan": lambda _: [(0, math.nan)],
    }.items():
        tuned = tune(edge, **GRIDS, out=tmp_path / name)
        report.save_tuning(tuned, tmp_path / f"{name}.png", title=name)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


RANKS = """
import sys
from pathlib import Path
from torch import distributed
from dataeff import tuning

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)

def probe(config):
    yield 0, 5.0
    distributed.barrier()
    yield 60, 3.0 if config.start >= 24 or not config.paced else 9.0

def search(out, end=64):
    grids = {"starts": [8, 16, 24, 32], "durations": [9]}
    return tuning.tune(probe, **grids, end=end, warmup=20, out=folder / f"{out}{rank}")

whole = search("node")
assert whole.start == 24
log = folder / "node0/tuning.jsonl"
assert not (folder / "node1").exists()
distributed.barrier()
if rank == 0:
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
again = search("node")
assert again.probes == whole.probes and again.resumed.startswith("2 of the probes are from")
distributed.barrier()
refused = (
    ("node", 128, "is of another search: end is 64 there and 128 here"),
    ("file", 64, "exists"),
    ("else", 64 + rank, "end is 64 on the first rank and 65 on rank 1; expected the same search"),
)
for out, end, said in refused:
    if rank == 0:
        (folder / "file0").touch()
    try:
        search(out, end)
    except (ValueError, OSError) as error:
        assert said in str(error), error
    else:
        raise AssertionError(said)
distributed.destroy_process_group()
"""


def test_ranks_search_together_and_only_the_first_has_the_log(tmp_path):
    """Each has a folder of its own. All go on from the first one's log, and raise what it raises."""
    runs = [subprocess.Popen([sys.executable, "-c", RANKS, str(tmp_path), str(rank)]) for rank in (0, 1)]
    assert [run.wait() for run in runs] == [0, 0]
    assert tuning.load(tmp_path / "node0").start == 24


SCRIPT = """
from known import edge

def probe(config):
    print("training")
    yield 0, 5.0
    yield 60, 3.0 if config.start >= edge or not config.paced else 9.0

def broken(config):
    raise RuntimeError("out of memory")

here = 3
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/known.py").write_text("edge = 24\n")
    (tmp_path / "scripts/tuned_script.py").write_text(SCRIPT)
    yield "scripts/tuned_script.py:probe"
    for name in ("known", "tuned_script"):
        sys.modules.pop(name, None)


OPTIONS = ["--starts", "8:32:8", "--durations", "100,200", "--end", "64", "--warmup", "20", "--quiet"]


def test_the_command_searches_with_a_script_and_writes_what_it_is_asked_for(script, capsys):
    arguments = ["tune", script, *OPTIONS, "--multiple", "8", "--plot", "--json", "all.json"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "pace    linear(start=24, end=64, steps=200, multiple=8)" in out
    assert "Every figure is in all.json" in out
    assert "The picture is in tuning.png" in out
    assert json.loads(Path("all.json").read_text())["start"] == 24
    assert Path("tuning.png").stat().st_size > 1000
    assert Path("tuning/tuning.jsonl").exists()
    assert cli.main(arguments) == 0
    assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--json", "--plot"])
@pytest.mark.parametrize("file", ["scripts/tuned_script.py", "tuning/tuning.jsonl"])
def test_the_script_and_the_log_are_not_written_over(script, option, file, capsys):
    assert cli.main(["tune", script, *OPTIONS, option, file]) == 2
    assert f"{option} {file} is what the command reads, and would be overwritten;" in capsys.readouterr().err
    assert Path("scripts/tuned_script.py").read_text() == SCRIPT


def test_a_dry_run_says_the_cost_and_runs_nothing(script, capsys):
    assert cli.main(["tune", script, *OPTIONS, "--dry-run", "--run-steps", "100_000"]) == 0
    said = "at most 8 probes of 60 steps: 480 steps, 0.5% of a run of 100,000\n"
    assert capsys.readouterr().out.startswith(said)
    assert not Path("tuning").exists()


@pytest.mark.parametrize("steps", ["-5", "0"])
def test_a_run_without_steps_is_refused(script, steps, capsys):
    assert cli.main(["tune", script, *OPTIONS, "--dry-run", "--run-steps", steps]) == 2
    said = f"dataeff: error: --run-steps is {steps}; expected a whole number of at least 1\n"
    assert capsys.readouterr().err == said


def test_a_pace_that_is_not_found_is_exit_code_1(script, capsys):
    assert cli.main(["tune", script, *OPTIONS, "--starts", "8,16"]) == 1
    assert "none is found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("tuned_script", "'tuned_script' names no probe; expected SCRIPT.py:NAME or package.module:NAME"),
        ("nowhere.py:probe", "nowhere.py is not there; expected a script"),
        ("scripts/tuned_script.py:prob", "scripts/tuned_script.py has no 'prob'; it has probe, broken"),
        (
            "scripts/tuned_script.py:here",
            "scripts/tuned_script.py:here is 3; expected a function of a config",
        ),
        ("scripts/bad.py:probe", "scripts/bad.py does not import: NameError: name 'x' is not defined"),
        ("scripts/leaves.py:probe", "scripts/leaves.py does not import: SystemExit: 0"),
        ("no.such.module:probe", "no.such.module does not import: ModuleNotFoundError: No module named 'no'"),
        ("scripts/json.py:probe", "scripts/json.py is named as the module json, which is loaded; rename"),
    ],
)
def test_a_probe_that_does_not_load_is_one_line(probe, words, script, capsys):
    Path("scripts/bad.py").write_text("x\n")
    Path("scripts/leaves.py").write_text("raise SystemExit(0)\n")
    Path("scripts/json.py").write_text("")
    assert cli.main(["tune", probe, *OPTIONS]) == 2
    assert words in capsys.readouterr().err


def test_what_a_probe_raises_is_shown_with_its_traceback(script, capsys):
    assert cli.main(["tune", script.replace("probe", "broken"), *OPTIONS]) == 2
    error = capsys.readouterr().err
    assert 'raise RuntimeError("out of memory")' in error
    assert "dataeff: error: the probe Config(start=64" in error
    assert "mend it and run the same again" in error


@pytest.mark.parametrize(
    ("grid", "values"),
    [
        ("8:32:8", [8, 16, 24, 32]),
        ("8:30:8", [8, 16, 24, 30]),
        ("1,2.5", [1, 2.5]),
        ("0:0.9:0.3", [0, 0.3, 0.6, 0.9]),
        ("0.1:1:0.3", [0.1, 0.4, 0.7, 1]),
        ("10:25:7.5", [10, 17.5, 25]),
    ],
)
def test_grids_have_both_ends(grid, values):
    assert cli._tune._grid(grid) == values


@pytest.mark.parametrize("grid", ["8:4:1", "8:16", "1:2:0", "8:inf:8", "8:64:nan", "a:b:c", "a,b", ""])
def test_a_grid_that_is_none_is_refused(grid, script, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tune", script, *OPTIONS, "--starts", grid])
    assert stopped.value.code == 2
    assert "argument --starts: " in capsys.readouterr().err


def test_an_interrupt_leaves_a_log_to_go_on_from(tmp_path):
    """The command itself, interrupted in its third probe, as Ctrl-C does."""
    (tmp_path / "interrupted.py").write_text(
        "import os, signal, pathlib\n"
        "def probe(config):\n"
        "    yield 0, 5.0\n"
        "    if config.paced and not pathlib.Path('once').exists():\n"
        "        pathlib.Path('once').touch()\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    yield 60, 3.0\n"
    )
    command = [sys.executable, "-c", "from dataeff.cli import main; raise SystemExit(main())", "tune"]
    command += ["interrupted.py:probe", *OPTIONS]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stderr) == (130, "dataeff: interrupted\n")
    assert len(tuning.load(tmp_path / "tuning").probes) == 2
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "pace    linear(start=8, end=64, steps=200)" in again.stdout
