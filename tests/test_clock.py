"""The clock: exact counts, read over ranks, stopped, saved, written to logs."""

import copy
import json
import math
import os
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed, multiprocessing

import dataeff as de
from dataeff import Clock
from dataeff.clock import AXES, Log, Processed, add_scalars, read_log

NAMES = ("samples", "tokens", "loss_tokens", "layer_tokens", "flops")
amounts = st.integers(0, 10**30)
ticks = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, amounts)), max_size=20)


def ticked(clock, steps):
    for step in steps:
        clock.tick(**step)
    return clock


@given(ticks)
def test_counts_are_exact_sums(steps):
    sums = {name: sum(step[name] for step in steps) for name in NAMES}
    assert ticked(Clock(), steps) == Clock(steps=len(steps), **sums)


@given(ticks, ticks)
def test_a_resumed_clock_goes_on(before, after):
    resumed = Clock(timer=int)
    resumed.load_state_dict(ticked(Clock(timer=int), before).state_dict())
    uninterrupted = ticked(Clock(timer=int), before + after)
    assert ticked(resumed, after) == uninterrupted
    assert resumed.state_dict() == uninterrupted.state_dict()


def test_the_state_is_loaded_safely_by_torch(tmp_path):
    clock = Clock()
    clock.tick(samples=1, tokens=2**70)
    torch.save(clock.state_dict(), tmp_path / "clock.pt")
    assert torch.load(tmp_path / "clock.pt", weights_only=True) == clock.state_dict()


class Meter:
    def processed(self):
        return Processed(rows=2, tokens=12, layers={"layers.0": (24, 96), "layers.1": (8, 16)})


def test_a_route_counts_layer_tokens_and_a_cost_their_flops():
    clock = Clock()
    clock.tick(samples=2, tokens=12, route=Meter(), cost=lambda done: done.rows + done.layers["layers.0"][1])
    assert (clock.layer_tokens, clock.flops) == (32, 98)


@pytest.mark.parametrize(
    "step",
    [
        {"samples": -1, "tokens": 1},
        {"samples": 1, "tokens": 1.5},
        {"samples": 1, "tokens": 1, "layer_tokens": -2},
        {"samples": 1, "tokens": 1, "route": Meter(), "cost": lambda done: 0.5},
    ],
)
def test_a_tick_that_is_no_count_changes_nothing(step):
    clock = Clock()
    with pytest.raises(ValueError, match="expected a whole number of at least 0"):
        clock.tick(**step)
    assert clock == Clock()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"layer_tokens": 3, "route": Meter()}, "layer_tokens and a route that counts them; give one"),
        ({"cost": len}, "tick has a cost; expected a route with it"),
        ({"cost": len, "flops": 3, "route": Meter()}, "tick has a cost; expected a route with it, and no"),
    ],
)
def test_what_would_be_counted_twice_is_refused(said, words):
    with pytest.raises(ValueError, match=words):
        Clock().tick(samples=1, tokens=1, **said)


state = Clock().state_dict()


@pytest.mark.parametrize("bad", [{"ticks": 3}, {}, {"steps": 3}, state | {"steps": -1}, None])
def test_a_state_that_is_no_clock_s_changes_nothing(bad):
    clock = Clock(steps=5)
    with pytest.raises(ValueError, match="a clock's state has the keys|steps is .*; expected a whole number"):
        clock.load_state_dict(bad)
    assert clock == Clock(steps=5)


def test_it_prints_as_the_code_that_makes_it():
    clock = Clock(steps=3, flops=10**24)
    assert eval(repr(clock)) == clock  # noqa: S307
    with pytest.raises(ValueError, match="a clock has no 'epochs'; it counts steps, samples"):
        Clock(epochs=3)


def test_wall_time_runs_from_tick_to_tick_but_not_in_pauses():
    times = iter([0, 3, 5, 9, 10, 20, 24])
    clock = Clock(timer=lambda: 10**9 * next(times))
    clock.tick(samples=1, tokens=1)
    assert clock.seconds == 3
    with clock.paused():  # from 5 to 9
        pass
    clock.tick(samples=1, tokens=1)
    assert clock.seconds == 6
    resumed = Clock(timer=lambda: 10**9 * next(times))
    resumed.load_state_dict(clock.state_dict())
    assert resumed.seconds == 6


NOW = [0]


def now():
    return NOW[0]


def pickled(clock):
    return pickle.loads(pickle.dumps(clock))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_the_time_of_a_copy_begins_when_it_is_made(copied):
    NOW[0] = 10**15
    clock = Clock(timer=now, steps=2)
    with clock.paused():
        other = copied(clock)
    NOW[0] += 5
    other.tick(samples=1, tokens=1)
    assert (other.steps, other.state_dict()["wall_ns"]) == (3, 5)


def test_a_clock_goes_on_where_another_machine_s_time_is_another():
    NOW[0] = 10**15
    content = pickle.dumps(Clock(timer=now, steps=2))
    NOW[0] = 10**9
    other = pickle.loads(content)  # noqa: S301
    NOW[0] += 5
    other.tick(samples=1, tokens=1)
    assert other.state_dict()["wall_ns"] == 5
    pickled(other).load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("limits", "stop"),
    [
        ({"steps": 2}, False),
        ({"steps": 1}, True),
        ({"tokens": 4096}, True),
        ({"tokens": 4097, "flops": 1e24}, False),
        ({"tokens": 4097, "samples": 8}, True),
        ({"seconds": 0.0}, True),
    ],
)
def test_it_stops_by_any_axis(limits, stop):
    assert Clock(steps=1, samples=8, tokens=4096, flops=1).reached(**limits) is stop


@pytest.mark.parametrize("limits", [{}, {"epochs": 3}, {"tokens": -1}, {"tokens": math.nan}])
def test_a_limit_that_is_none_is_refused(limits):
    with pytest.raises(ValueError, match="the limits are|expected a finite number of at least 0"):
        Clock().reached(**limits)


def test_an_axis_that_nobody_counts_paces_nothing():
    clock = Clock()
    assert clock.at("flops") == 0
    clock.tick(samples=1, tokens=1)
    assert clock.at("tokens") == 1
    with pytest.raises(ValueError, match=r"no flops were counted in 1 steps.*give route= and cost= \(or"):
        clock.at("flops")
    with pytest.raises(ValueError, match="on is 'epochs'; expected one of steps, samples, tokens"):
        clock.at("epochs")


@pytest.mark.parametrize("axis", ["flops", "layer_tokens", "loss_tokens"])
def test_a_run_does_not_wait_for_an_axis_that_nobody_counts(axis):
    clock = Clock()
    assert not clock.reached(**{axis: 5})
    clock.tick(samples=1, tokens=1)
    with pytest.raises(ValueError, match=f"no {axis} were counted in 1 steps, so nothing can be paced or"):
        clock.reached(**{axis: 5})
    clock.tick(samples=1, tokens=1, **{axis: 0})
    assert not clock.reached(**{axis: 5})
    assert clock.at(axis) == 0


def test_an_axis_that_a_resumed_loop_counts_no_longer_paces_nothing():
    before, clock = Clock(steps=1, samples=1, tokens=8, flops=100), Clock()
    clock.load_state_dict(before.state_dict())
    assert clock.at("flops") == 100
    clock.tick(samples=1, tokens=8)
    with pytest.raises(
        ValueError, match="no flops were counted since a state with 100 was loaded, so nothing"
    ):
        clock.reached(flops=200)
    clock.tick(samples=1, tokens=8, flops=50)
    assert clock.at("flops") == 150


def test_a_pause_within_a_pause_ends_with_the_outer_one():
    times = iter(range(100))
    clock = Clock(timer=lambda: 10**9 * next(times))
    with clock.paused():  # from 1 to 3
        with clock.paused():
            pass
        clock.load_state_dict(clock.state_dict())
    clock.tick(samples=1, tokens=1)
    assert clock.seconds == 2


def test_a_tick_in_a_pause_takes_no_time():
    times = iter([0, 3, 9, 11])
    clock = Clock(timer=lambda: 10**9 * next(times))
    with clock.paused():  # from 3 to 9
        clock.tick(samples=1, tokens=1)
    clock.tick(samples=1, tokens=1)
    assert clock.seconds == 5


def uneven(rank, file, results):
    """One rank ticks as often as all do on average; it must be told all the same."""
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=3)
    clock = Clock(timer=iter(range(0, 10**12, (rank + 1) * 10**9)).__next__)
    clock.tick(samples=1, tokens=1)
    clock.read()
    seconds = clock.seconds, clock.reached(seconds=2)
    for _ in range((1, 3, 2)[rank]):
        clock.tick(samples=1, tokens=1)
    try:
        clock.read()
        told = "nothing"
    except ValueError as error:
        told = str(error)
    distributed.barrier()
    distributed.destroy_process_group()
    try:
        clock.read()
        gone = "nothing"
    except ValueError as error:
        gone = str(error)
    results.put((seconds, told, gone))


def test_every_rank_is_told_of_uneven_steps_and_reads_the_same_time(tmp_path):
    for seconds, told, gone in run_on(3, uneven, tmp_path):
        assert seconds == (2.0, True)
        assert "3 ranks ticked 6 steps in all since the clock was read" in told
        assert (
            "the process group is gone; call clock.read() on every rank before destroy_process_group" in gone
        )


def run_on(world, function, folder):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=function, args=(rank, folder / "store", results)) for rank in range(world)
    ]
    for process in ranks:
        process.start()
    found = [results.get(timeout=120) for _ in ranks]
    for process in ranks:
        process.join()
    return found


def on_rank(rank, file, results):
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    clock = Clock()
    for _ in range(3):
        clock.tick(samples=4, tokens=10**20 + rank, flops=2**70)
    try:
        told = clock.tokens
    except ValueError as error:
        told = str(error)
    assert clock.steps == 3
    first = clock.read()
    clock.tick(samples=rank, tokens=1)
    clock.read()
    resumed = Clock()
    resumed.load_state_dict(clock.state_dict())
    if rank == 0:
        clock.tick(samples=1, tokens=1)
    try:
        clock.read()
        uneven = None
    except ValueError as error:
        uneven = str(error)
    first.pop("seconds")
    results.put((told, first, resumed.counts()["tokens"], uneven))
    distributed.barrier()
    distributed.destroy_process_group()


def test_ranks_add_up_when_the_clock_is_read(tmp_path):
    total = {"steps": 3, "samples": 24, "tokens": 6 * 10**20 + 3, "loss_tokens": 0, "layer_tokens": 0}
    for told, first, tokens, uneven in run_on(2, on_rank, tmp_path):
        assert "3 steps were ticked since the clock was read, so tokens are not known over all ranks" in told
        assert first == total | {"flops": 6 * 2**70}
        assert tokens == total["tokens"] + 2
        assert "2 ranks ticked 1 steps in all since the clock was read" in uneven


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_log_gives_back_what_was_written(tmp_path, suffix):
    log, clock = Log(tmp_path / f"runs/a.{suffix}"), Clock(timer=int)
    for step in range(3):
        clock.tick(samples=8, tokens=10**25)
        log.write(clock, loss=torch.tensor(2.5), pool=math.inf if step == 1 else 0.5, exposures=[step, 2])
    first, second, third = read_log(log.path)
    assert first == clock.counts() | {"steps": 1, "samples": 8, "tokens": 10**25} | {
        "loss": 2.5,
        "pool": 0.5,
        "exposures": [0, 2],
    }
    assert math.isnan(second["pool"])
    assert (third["tokens"], third["exposures"]) == (3 * 10**25, [2, 2])


def test_what_is_written_at_one_step_is_one_moment(tmp_path):
    log, clock = Log(tmp_path / "a.jsonl"), Clock(steps=3)
    log.write(clock, loss=2)
    log.write(clock, validation_loss=3)
    with log.path.open("a") as file:
        file.write('{"steps": 4, "lo')
    (moment,) = read_log(log.path)
    assert (moment["loss"], moment["validation_loss"]) == (2, 3)


def test_every_line_of_a_log_is_standard_json(tmp_path):
    log = Log(tmp_path / "a.jsonl")
    log.write(Clock(), loss=math.nan, exposures=[1, math.inf])
    told = json.loads(log.path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert (told["loss"], told["exposures"]) == (None, [1, None])


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_resumed_run_goes_on_where_the_log_was(tmp_path, suffix):
    log, clock, saved = Log(tmp_path / f"a.{suffix}"), Clock(), None
    log.rewind(clock)
    assert not log.path.exists()
    for step in range(4):
        clock.tick(samples=1, tokens=2)
        log.write(clock, loss=4 - step)
        saved = clock.state_dict() if clock.steps == 2 else saved
    with log.path.open("a") as file:
        file.write('{"steps": 5, "lo' if suffix == "jsonl" else "5,1,")
    resumed = Clock()
    resumed.load_state_dict(saved)
    log.rewind(resumed)
    assert [(moment["steps"], moment["loss"]) for moment in read_log(log.path)] == [(1, 4), (2, 3)]
    resumed.tick(samples=1, tokens=2)
    log.write(resumed, loss=1)
    assert [moment["steps"] for moment in read_log(log.path)] == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_log_of_another_run_is_rewound_first(tmp_path, suffix):
    log, clock = Log(tmp_path / f"a.{suffix}"), Clock()
    for _ in range(3):
        clock.tick(samples=1, tokens=2)
        log.write(clock, loss=1, exposures=list(range(20_000)))
    fresh = Clock(steps=1)
    with pytest.raises(
        ValueError, match=r"goes on to step 3, and the clock is at 1; call log.rewind\(clock\)"
    ):
        log.write(fresh, loss=2)
    log.rewind(Clock())
    assert log.path.read_bytes() == b""
    log.write(fresh, loss=2, other=None)
    (moment,) = read_log(log.path)
    assert (moment["steps"], moment["loss"]) == (1, 2)
    assert math.isnan(moment["other"])


@pytest.mark.parametrize(
    ("suffix", "text"),
    [("jsonl", '{"tokens": 100, "steps": 1}\n'), ("csv", 'exposures,tokens,steps\n"[1, 200]",100,1\n')],
)
def test_steps_may_stand_anywhere_in_a_line(tmp_path, suffix, text):
    log = Log(tmp_path / f"a.{suffix}")
    log.path.write_text(text)
    with pytest.raises(ValueError, match="goes on to step 1, and the clock is at 0; call log.rewind"):
        log.write(Clock())
    if suffix == "jsonl":
        log.write(Clock(steps=5), loss=1)
        assert [moment["steps"] for moment in read_log(log.path)] == [1, 5]


def test_a_log_needs_no_pread(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread", raising=False)  # as on Windows
    log = Log(tmp_path / "a.jsonl")
    for step in range(3):
        log.write(Clock(steps=step), loss=step, exposures=list(range(20_000)))
    assert [moment["loss"] for moment in read_log(log.path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [("jsonl", '{"steps": 1, "loss": 2}\n{"steps": 2, "loss": 3}'), ("csv", "steps,loss\n1,2\n2,3")],
)
def test_a_last_line_that_only_lacks_its_end_is_a_line(tmp_path, suffix, text):
    log = Log(tmp_path / f"a.{suffix}")
    log.path.write_text(text)
    assert [moment["loss"] for moment in read_log(log.path)] == [2, 3]
    if suffix == "jsonl":
        log.write(Clock(steps=3), loss=4)
        assert [moment["loss"] for moment in read_log(log.path)] == [2, 3, 4]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_what_a_kill_or_a_full_disk_cut_off_does_no_harm(tmp_path, suffix, monkeypatch):
    log, clock = Log(tmp_path / f"a.{suffix}"), Clock()
    log.write(clock, loss=1)
    whole = log.path.read_bytes()
    with log.path.open("ab") as file:
        file.write(b'{"steps": 5, "lo' if suffix == "jsonl" else b"5,1,")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    with pytest.raises(OSError, match="No space left on device"):
        log.write(clock, loss=2)
    assert log.path.read_bytes() == whole
    monkeypatch.undo()
    log.write(Clock(steps=1), loss=2)
    assert [moment["loss"] for moment in read_log(log.path)] == [1, 2]


def test_csv_may_come_from_a_spreadsheet_and_hold_what_is_not_finite(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffsteps,loss,norm\n1,nan,Inf\n2,3.5,-inf\n", encoding="utf-8")
    first, second = read_log(tmp_path / "a.csv")
    assert math.isnan(first["loss"])
    assert (first["norm"], second["loss"], second["norm"]) == (math.inf, 3.5, -math.inf)
    with pytest.raises(
        ValueError, match="has no column 'samples'; CSV has those of its first line, steps, loss"
    ):
        Log(tmp_path / "a.csv").write(Clock(steps=3), loss=3.0)


def test_what_is_no_log_or_value_is_refused_by_name(tmp_path):
    log = Log(tmp_path / "a.csv")
    log.write(Clock(), loss=1)
    with pytest.raises(ValueError, match="has no column 'lr'; CSV has those of its first line, steps, "):
        log.write(Clock(), lr=1)
    with pytest.raises(ValueError, match="the value 'loss' is 'high'; expected a number"):
        log.write(Clock(), loss="high")
    with pytest.raises(ValueError, match="the value 'tokens' is called as a count of the clock; rename it"):
        log.write(Clock(), tokens=1)
    with pytest.raises(ValueError, match=r"expected a file named \*.jsonl or \*.csv"):
        Log(tmp_path / "a.txt")
    for line, words in (("{", "line 2, does not parse"), ('{"loss": 1}', "line 2, is no moment of a log")):
        (tmp_path / "b.jsonl").write_text(f'{{"steps": 1}}\n{line}\n')
        with pytest.raises(ValueError, match=words):
            read_log(tmp_path / "b.jsonl")


def test_tensorboard_gets_each_value_on_each_axis():
    added = []
    writer = type("", (), {"add_scalar": lambda _, *args, **kwargs: added.append((*args, kwargs))})()
    add_scalars(writer, {"loss": 2.0}, Clock(steps=3, flops=5 * 10**24), on=("steps", "flops"))
    assert added == [
        ("loss/by_steps", 2.0, {"global_step": 3}),
        ("loss/by_gflops", 2.0, {"global_step": 5 * 10**15}),
    ]


def test_the_axes_are_what_a_clock_counts():
    assert list(de.Clock().counts()) == [*AXES, "seconds"]
