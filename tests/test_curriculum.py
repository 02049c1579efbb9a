import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dataeff as de
from dataeff import Curriculum, paced, window
from dataeff.curriculum import _merged
from dataeff.pacing import constant, custom, discrete, join, linear, root


def eligible(index, metrics, step):
    """What the words say, sample by sample."""
    pool = set(range(len(index)))
    for name, how in metrics.items():
        amount = how.pace(min(step, how.pace.steps))
        if how.by == "value":
            pool &= {i for i, value in enumerate(index.values(name)) if value <= amount}
        else:
            count = int(np.ceil(len(index) * amount / 100))
            pool &= set(index.order(name)[:count].tolist())
    return pool


class Skips:
    """A pace that is not a number at one step."""

    steps, on = 3, "steps"

    def __call__(self, step):
        return float("nan") if step == 1 else 40


PLANS = {
    "percentile": {"loss": paced(root(1, 100, steps=37), by="percentile")},
    "value": {"length": paced(linear(2, 33, steps=20, multiple=3))},
    "never all": {"length": paced(linear(2, 20, steps=20))},
    "both": {
        "loss": paced(linear(40, 100, steps=10), by="percentile"),
        "length": paced(discrete([12, 20, 33], until=[3, 30])),
    },
    "constant": {"loss": paced(100, by="percentile")},
    "late": {"loss": paced(custom(lambda step: 5 if step < 7 else 100, steps=9), by="percentile")},
}


@pytest.mark.parametrize("plan", PLANS)
def test_the_pool_is_what_every_pace_reaches(index, plan):
    curriculum = Curriculum(index, PLANS[plan])
    for step in range(curriculum.steps + 5):
        expected = eligible(index, PLANS[plan], step)
        assert set(curriculum.pool(step).tolist()) == expected
        assert curriculum.pool_size(step) == len(expected)
    assert curriculum.never == 100 - len(eligible(index, PLANS[plan], 10**6))


@given(
    values=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), min_size=1, max_size=60),
    start=st.integers(0, 9),
    percent=st.integers(1, 100),
    steps=st.integers(1, 12),
)
def test_any_two_metrics_combine(values, start, percent, steps, tmp_path_factory):
    columns = {"a": [a for a, _ in values], "b": [b for _, b in values]}
    index = de.index.from_values(columns, out=tmp_path_factory.mktemp("idx"))
    plan = {
        "a": paced(linear(start, 9, steps=steps)),
        "b": paced(linear(percent, 100, steps=steps + 2), by="percentile"),
    }
    if not eligible(index, plan, 0):
        with pytest.raises(ValueError, match="no sample is eligible at step 0"):
            Curriculum(index, plan)
        return
    curriculum = Curriculum(index, plan)
    for step in range(steps + 4):
        assert set(curriculum.pool(step).tolist()) == eligible(index, plan, step)


def test_the_order_of_several_metrics_is_by_entry_step_then_id(index):
    curriculum = Curriculum(index, PLANS["both"])
    starts = [0, *curriculum.pools.stops[:-1].tolist()]
    for start, end in zip(starts, curriculum.pools.stops.tolist(), strict=True):
        assert (np.diff(curriculum.order[start:end].astype(int)) > 0).all()
    assert (np.diff(curriculum.pools.steps) > 0).all()


def test_an_empty_pool_at_step_0_says_where_to_begin(index):
    with pytest.raises(
        ValueError,
        match="at step 0: 'length' reaches value -1.0, and its easiest sample has 0; begin with more",
    ):
        Curriculum(index, {"length": paced(linear(-1, 40, steps=10))})


def test_a_pace_that_falls_says_where(index):
    with pytest.raises(ValueError, match="the pace of 'length' falls from 33.0 at step 0 to 30.* at step 1"):
        Curriculum(index, {"length": paced(linear(33, 3, steps=10))})
    with pytest.raises(ValueError, match="falls from 30 at step 5 to 10 at step 6"):
        Curriculum(index, {"length": paced(discrete([30, 10], until=[5]))})


@pytest.mark.parametrize(
    "pace", [linear(0, 100, steps=10), constant(101), constant(-5), linear(50, 100.5, steps=3)]
)
def test_a_percentile_outside_is_refused(index, pace):
    with pytest.raises(
        ValueError, match=r"the pace of 'loss' goes from .* to .*; percentiles are in \(0, 100\]"
    ):
        Curriculum(index, {"loss": paced(pace, by="percentile")})


def test_a_tiny_corpus_has_a_pool_at_the_first_percentile(tmp_path):
    index = de.index.from_values({"m": [3, 1, 2]}, out=tmp_path)
    assert Curriculum(index, {"m": paced(1, by="percentile")}).pool(0).tolist() == [1]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "metrics is empty; expected at least one"),
        ([], r"metrics is \[\]; expected a mapping, as"),
        ({"lose": paced(1)}, "unknown name 'lose' in the index .*; did you mean 'loss'"),
        ({"loss": linear(1, 2, steps=3)}, r"'loss' has linear\(.*\); expected paced\(pace\)"),
    ],
)
def test_metrics_that_cannot_be_are_refused(index, metrics, said):
    with pytest.raises(ValueError, match=said):
        Curriculum(index, metrics)


def test_the_index_is_an_index_and_not_its_path(index):
    with pytest.raises(ValueError, match="index is .*; expected an Index, as dataeff.index.open"):
        Curriculum(str(index.path), {"loss": paced(1)})


def test_by_is_value_or_percentile():
    with pytest.raises(ValueError, match="by is 'rank'; expected 'value' or 'percentile'"):
        paced(1, by="rank")


@pytest.mark.parametrize("by", ["value", "percentile"])
def test_a_pace_that_is_no_number_somewhere_says_where(index, by):
    for others in ({}, {"loss": paced(100, by="percentile")}):
        with pytest.raises(
            ValueError, match="the pace of 'length' is nan at step 1; expected a number at every"
        ):
            Curriculum(index, {"length": paced(Skips(), by=by)} | others)


def test_which_metric_has_which_pace_is_in_the_fingerprint(tmp_path):
    values = np.random.default_rng(0).random((2, 100))
    index = de.index.from_values({"a": values[0], "b": values[1]}, out=tmp_path / "idx")
    grows, all_of_them = (paced(pace, by="percentile") for pace in (linear(10, 100, steps=50), 100))
    first, second = (
        Curriculum(index, {"a": grows, "b": all_of_them}),
        Curriculum(index, {"a": all_of_them, "b": grows}),
    )
    assert [first.pool_size(step) for step in range(50)] == [second.pool_size(step) for step in range(50)]
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == Curriculum(index, {"b": all_of_them, "a": grows}).fingerprint


def test_a_curriculum_compares_prints_and_pickles(index):
    plan = {"loss": paced(root(1, 100, steps=37), by="percentile")}
    curriculum = Curriculum(index, plan)
    assert curriculum == Curriculum(index, plan)
    assert curriculum != Curriculum(index, {"loss": paced(root(1, 100, steps=38), by="percentile")})
    assert "root(start=1, end=100, steps=37, multiple=None, on='steps', degree=2)" in repr(curriculum)
    copy = pickle.loads(pickle.dumps(curriculum))  # noqa: S301
    assert copy == curriculum
    assert copy.order.tolist() == curriculum.order.tolist()


def test_what_was_pickled_over_an_index_is_refused_over_another(tmp_path):
    texts = ["a" * n for n in range(1, 50)]
    index = de.index.build(texts, ["length"], out=tmp_path, progress=False).add({"loss": range(49)})
    curriculum = Curriculum(index, {"loss": paced(linear(10, 49, steps=9))})
    pickled = pickle.dumps(de.samplers.curriculum(curriculum, batch_size=4, seed=1))
    index.add({"rank": range(49)})
    assert pickle.loads(pickled).curriculum == curriculum  # noqa: S301
    (tmp_path / "loss/order.npy").write_bytes(b"damaged")
    index.add({"loss": range(49, 0, -1)})
    with pytest.raises(ValueError, match="holds other values of 'loss' than when this was pickled; make it"):
        pickle.loads(pickled)  # noqa: S301
    shutil.rmtree(tmp_path)
    de.index.build([*texts, "zz"], ["length"], out=tmp_path, progress=False)
    with pytest.raises(
        ValueError, match=r"has grown or is another index since .* make it again, from dataeff"
    ):
        pickle.loads(pickled)  # noqa: S301


V_SHAPE = join([linear(80, 0, steps=6), linear(0, 60, steps=8)], boundaries=[6])
WINDOWS = {
    "hard first": window(linear(30, 0, steps=9)),
    "V": window(V_SHAPE, by="percentile"),
    "band": window(linear(0, 50, steps=9), linear(20, 100, steps=7), by="percentile"),
    "shrinking": window(high=linear(33, 3, steps=4)),
    "everything": window(),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_the_pool_of_a_window_is_between_its_bounds(index, name):
    how = WINDOWS[name]
    curriculum = Curriculum(index, {"length": how})
    values, order, ever = index.values("length"), index.order("length"), set()
    for step in range(how.steps + 3):
        low = -np.inf if how.low is None else how.low(step)
        high = np.inf if how.high is None else how.high(step)
        if how.by == "value":
            expected = set(np.flatnonzero((low <= values) & (values <= high)).tolist())
        else:
            low, high = max(low, 0), min(high, 100)
            expected = set(order[int(np.floor(low)) : int(np.ceil(high))].tolist())  # 100 samples
        assert set(curriculum.pool(step).tolist()) == expected
        ever |= expected
    assert curriculum.never == 100 - len(ever)
    assert pickle.loads(pickle.dumps(curriculum)) == curriculum  # noqa: S301


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (
            {"length": window(linear(0, 20, steps=10), linear(5, 10, steps=10))},
            "no sample is eligible at step 4: the window of 'length' goes from value 8.0 to 7.0; make it",
        ),
        ({"length": window(50, by="percentile"), "loss": paced(1)}, "a window stands beside other metrics"),
        ({"length": window(5, 101, by="percentile")}, r"goes from 101 to 101; percentiles are in \[0, 100\]"),
        (
            {"length": window(high=Skips())},
            "the pace of 'length' is nan at step 1; expected a number at every",
        ),
        ({"length": window(-1, by="percentile")}, r"goes from -1 to -1; percentiles are in \[0, 100\]"),
    ],
)
def test_windows_that_cannot_be_are_refused(index, metrics, said):
    with pytest.raises(ValueError, match=said):
        Curriculum(index, metrics)


CONFIG = """
seed = 7

[curriculum.loss]
pace = { name = "root", start = 1, end = 100, steps = 37 }
by = "percentile"

[curriculum.length]
pace = { name = "join", paces = [12, { name = "linear", start = 12, end = 33, steps = 5 }], boundaries = [3] }
"""


def test_a_curriculum_is_made_from_a_file_and_printed_back(index, tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG)
    made = Curriculum.from_config(tmp_path / "run.toml", index)
    assert made == Curriculum(
        index,
        {
            "loss": paced(root(1, 100, steps=37), by="percentile"),
            "length": paced(join([12, linear(12, 33, steps=5)], boundaries=[3])),
        },
    )
    for name in ("again.toml", "again.json"):
        de.config.write(made.to_config(), tmp_path / name)
        assert Curriculum.from_config(tmp_path / name, index) == made
    banded = Curriculum(index, {"length": WINDOWS["band"]})
    assert Curriculum.from_config(banded.to_config(), index) == banded


def test_names_of_plugins_work_in_a_file(index, monkeypatch):
    de.registry.register("pacings", "doubled", lambda start: linear(start, 2 * start, steps=3))
    try:
        told = {"curriculum": {"length": {"pace": {"name": "doubled", "start": 10}}}}
        made = Curriculum.from_config(told, index)
        assert made.metrics["length"].pace == linear(10, 20, steps=3)
    finally:
        de.registry.unregister("pacings", "doubled")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {},
            r"curriculum is None; expected a table for each metric, as \[curriculum.length\] with pace = ...",
        ),
        ({"length": 5}, "expected a table for each metric"),
        ({"length": {}}, "curriculum.length has nothing; expected pace, or low and high of a window"),
        (
            {"length": {"pace": 1, "low": 1}},
            "curriculum.length has pace, low; expected pace, or low and high",
        ),
        ({"length": {"pase": 1}}, "unknown name 'pase' in curriculum.length; did you mean 'pace'"),
        ({"length": {"pace": "fast"}}, "curriculum.length: value is 'fast'; expected a finite number"),
        ({"length": {"pace": {"start": 1}}}, "has no name of pacings; known: clip, constant"),
        ({"length": {"pace": {"name": "liner"}}}, "unknown name 'liner' in pacings; did you mean 'linear'"),
        (
            {"length": {"pace": {"name": "linear", "start": 1, "end": 2}}},
            "linear, of pacings: missing a required .*argument: 'steps'; it takes",
        ),
        (
            {"length": {"pace": {"name": "linear", "start": 1, "end": 2, "steps": 0}}},
            "curriculum.length: linear, of pacings: steps is 0; expected a whole number of at least 1",
        ),
        ({"length": {"pace": 1, "by": "rank"}}, "curriculum.length: by is 'rank'; expected 'value' or"),
        ({"lenth": {"pace": 1}}, "unknown name 'lenth' in the index .*; did you mean 'length'"),
    ],
)
def test_a_config_that_cannot_be_says_where(index, told, said):
    with pytest.raises(ValueError, match=said):
        Curriculum.from_config({"curriculum": told} if told else {}, index)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.toml", "a = ", "a.toml does not parse"),
        ("a.json", "[1]", "a.json holds a list; expected tables"),
        ("a.yaml", "a: 1", "a.yaml: expected a .toml or .json file"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        de.config.read(tmp_path / name)


def test_a_pace_of_one_s_own_cannot_be_written_down(index):
    curriculum = Curriculum(index, {"loss": paced(custom(abs, steps=3), by="value")})
    with pytest.raises(ValueError, match="cannot be written down: pacings has no name for it"):
        curriculum.to_config()


plain = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats().map(lambda number: number + 0.0) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), plain))
def test_tables_survive_toml(tmp_path_factory, tables):
    file = tmp_path_factory.mktemp("toml") / "a.toml"
    de.config.write(tables, file)
    np.testing.assert_equal(de.config.read(file), tables)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"a": None}, "a has None, and TOML no word for it; expected numbers, .*: leave out what is none"),
        ({"run": {"a": {"b": {"c": [{"d": [1, None]}]}}}}, "run.a.b.c.d has None, and TOML no word"),
        ({"run": {"steps": np.int64(3)}}, r"run.steps has np.int64\(3\), and TOML no word"),
    ],
)
def test_what_toml_cannot_say_is_refused_by_its_key(tmp_path, tables, said):
    with pytest.raises(ValueError, match=said):
        de.config.write(tables, tmp_path / "a.toml")
    assert not list(tmp_path.iterdir())


def two(end=100):
    return {
        "loss": paced(root(1, end, steps=37), by="percentile"),
        "length": paced(linear(12, 33, steps=20)),
    }


@pytest.fixture
def cached(monkeypatch):
    monkeypatch.setattr(_merged, "CACHED", 10)


def test_the_order_of_several_metrics_is_kept_beside_a_large_index(index, cached, monkeypatch):
    made = Curriculum(index, two())
    files = sorted((index.path / "orders").iterdir())
    assert len(files) == 2
    merge = _merged._merge
    monkeypatch.setattr(_merged, "_merge", lambda *_: pytest.fail("made again"))
    again = Curriculum(de.index.open(index.path), two())
    assert again.order.tolist() == made.order.tolist()
    assert [again.pools.at(step) for step in range(40)] == [made.pools.at(step) for step in range(40)]
    monkeypatch.setattr(_merged, "_merge", merge)
    other = Curriculum(index, two(end=50))  # another pace: another file
    assert other.order.tolist() != made.order.tolist()
    assert len(list((index.path / "orders").iterdir())) == 4
    index.verify()


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:]])
def test_a_kept_order_that_is_damaged_is_made_again(index, cached, damage):
    made = Curriculum(index, two())
    for file in (index.path / "orders").iterdir():
        file.write_bytes(damage(file.read_bytes()))
        assert Curriculum(index, two()).order.tolist() == made.order.tolist()


def test_kept_orders_of_what_the_index_was_are_forgotten(tmp_path, cached):
    texts = [f"{'ab' * (i % 7)}{i}" for i in range(50)]
    plan = {name: paced(50, by="percentile") for name in ("length", "vocab_rarity")}
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders/.f00d-1.npy.123").touch()  # of a writer that was killed
    for stop in (40, 50):
        index = de.index.build(texts[:stop], ["length", "vocab_rarity"], out=tmp_path, progress=False)
        Curriculum(index, plan)
    assert {file.name[:16] for file in (tmp_path / "orders").iterdir()} == {index.fingerprint}


def test_a_full_disk_does_not_keep_a_curriculum_from_working(index, cached, monkeypatch):
    def full(*_):
        raise OSError(28, "full")

    monkeypatch.setattr(_merged._files, "write_part", full)
    assert len(Curriculum(index, two()).order)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_index_that_cannot_be_written_is_used_all_the_same(index, cached):
    index.path.chmod(0o500)
    assert len(Curriculum(index, two()).order)
    assert not (index.path / "orders").exists()


def test_processes_that_open_a_curriculum_at_once_make_its_order_once(index, cached, tmp_path):
    script = (
        "import dataeff as de\n"
        "from dataeff.curriculum import _merged\n"
        "_merged.CACHED = 10\n"
        "made, merge = [], _merged._merge\n"
        "_merged._merge = lambda *args: made.append(1) or merge(*args)\n"
        "plan = {'loss': de.paced(80, by='percentile'), 'length': de.paced(20)}\n"
        "cl = de.Curriculum(de.index.open('index'), plan)\n"
        "print(len(made), cl.order.tolist())\n"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [racer.communicate()[0].split(" ", 1) for racer in racers]
    assert sorted(made for made, _ in said) == ["0", "0", "1"]
    assert len({order for _, order in said}) == 1
    assert json.loads(said[0][1])
