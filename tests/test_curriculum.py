import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dataeff as de
from dataeff import Curriculum, paced
from dataeff.pacing import constant, custom, discrete, linear, root


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


def test_the_order_is_by_entry_step_then_id(index):
    curriculum = Curriculum(index, PLANS["both"])
    starts = [0, *curriculum.ends[:-1].tolist()]
    for start, end in zip(starts, curriculum.ends.tolist(), strict=True):
        assert (np.diff(curriculum.order[start:end].astype(int)) > 0).all()
    assert (np.diff(curriculum.entry_steps) > 0).all()


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
        ({"lose": paced(1)}, "unknown name 'lose' in the index .*; did you mean 'loss'"),
        ({"loss": linear(1, 2, steps=3)}, r"'loss' has linear\(.*\); expected paced\(pace\)"),
    ],
)
def test_metrics_that_cannot_be_are_refused(index, metrics, said):
    with pytest.raises(ValueError, match=said):
        Curriculum(index, metrics)


def test_by_is_value_or_percentile():
    with pytest.raises(ValueError, match="by is 'rank'; expected 'value' or 'percentile'"):
        paced(1, by="rank")


def test_a_curriculum_compares_prints_and_pickles(index):
    plan = {"loss": paced(root(1, 100, steps=37), by="percentile")}
    curriculum = Curriculum(index, plan)
    assert curriculum == Curriculum(index, plan)
    assert curriculum != Curriculum(index, {"loss": paced(root(1, 100, steps=38), by="percentile")})
    assert "root(start=1, end=100, steps=37, multiple=None, degree=2)" in repr(curriculum)
    copy = pickle.loads(pickle.dumps(curriculum))  # noqa: S301
    assert copy == curriculum
    assert copy.order.tolist() == curriculum.order.tolist()
