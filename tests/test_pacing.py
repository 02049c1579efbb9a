import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dataeff as de
from dataeff import Clock, pacing
from dataeff.clock import AXES
from dataeff.pacing import (
    clip,
    constant,
    cosine,
    custom,
    discrete,
    exponential,
    join,
    levels,
    linear,
    multiple,
    next_change,
    root,
    scale,
)
from dataeff.simulation import Length

whole_numbers = st.integers(1, 5000)


def incumbent(step, *, start, end, steps, multiple, degree):
    """d(t) as PAPER.md gives it: floor, down to a multiple, at most the maximum."""
    amount = math.floor((step / steps) ** (1.0 / degree) * (end - start) + start)
    return min(amount - amount % multiple, end)


@given(
    start=whole_numbers,
    rise=whole_numbers,
    steps=whole_numbers,
    of=st.integers(1, 64),
    degree=st.integers(1, 4),
    share=st.floats(0, 0.999),
)
def test_values_are_the_incumbent_s_where_it_is_right(start, rise, steps, of, degree, share):
    end, step = start + rise, int(share * steps)
    pace = root(start, end, steps=steps, multiple=of, degree=degree)
    expected = incumbent(step, start=start, end=end, steps=steps, multiple=of, degree=degree)
    assert pace(step) == max(expected, start)  # theirs falls below its minimum
    assert pace(steps) == end  # theirs stops at the multiple below
    if degree == 1:
        assert linear(start, end, steps=steps, multiple=of)(step) == pace(step)


@pytest.mark.parametrize(
    "make",
    [
        lambda s, e: linear(s, e, steps=50),
        lambda s, e: linear(s, e, steps=50, multiple=8),
        lambda s, e: root(s, e, steps=50, degree=3),
        lambda s, e: exponential(s, e, steps=50),
        lambda s, e: cosine(s, e, steps=50),
        lambda s, e: cosine(s, e, steps=50, multiple=7),
    ],
)
@pytest.mark.parametrize(("start", "end"), [(10, 100), (100, 10), (5, 5)])
def test_a_ramp_goes_from_start_to_end_without_turning_and_stays(make, start, end):
    amounts = pacing.table(make(start, end))
    assert len(amounts) == 51
    assert amounts[0] == start
    assert amounts[-1] == end
    assert amounts == sorted(amounts, reverse=end < start)
    assert make(start, end)(10**9) == end


def test_a_multiple_gives_ints_within_the_range():
    amounts = pacing.table(linear(10, 101, steps=40, multiple=8))
    assert all(isinstance(amount, int) for amount in amounts)
    assert amounts[0] == 10
    assert amounts[-1] == 101
    assert all(amount % 8 == 0 for amount in amounts[1:-1] if amount != 10)


def test_multiple_the_combinator_is_multiple_the_option():
    assert pacing.table(multiple(linear(10, 101, steps=40), 8)) == pacing.table(
        linear(10, 101, steps=40, multiple=8)
    )


def test_multiple_of_a_pace_that_returns_to_its_start_is_not_flattened():
    up, down = linear(64, 512, steps=100), linear(512, 64, steps=100)
    hill, valley = (
        multiple(join(pair, boundaries=[100]), 8) for pair in itertools.permutations((up, down), 2)
    )
    assert [hill(step) for step in (0, 50, 100, 150, 200)] == [64, 288, 512, 288, 64]
    assert [valley(step) for step in (0, 50, 100, 150, 200)] == [512, 288, 64, 288, 512]
    assert [hill(step) for step in range(101)] == pacing.table(linear(64, 512, steps=100, multiple=8))


@given(amounts=st.lists(st.integers(0, 99), min_size=1, max_size=9), of=st.integers(1, 16))
def test_multiple_rounds_any_pace_down_within_its_ends_where_it_is_there_itself(amounts, of):
    pace = multiple(custom(lambda step: amounts[step], steps=len(amounts) - 1), of)
    given_, low = pacing.table(pace), min(amounts[0], amounts[-1])
    assert (given_[0], given_[-1]) == (amounts[0], amounts[-1])
    for rounded, amount in zip(given_, amounts, strict=True):
        assert isinstance(rounded, int)
        assert amount - of < rounded <= amount
        assert rounded % of == 0 or rounded in (amounts[0], amounts[-1])
        assert rounded >= low or amount < low


@given(
    ends=st.tuples(st.integers(0, 99), st.integers(0, 99)), steps=st.integers(1, 40), of=st.integers(1, 16)
)
def test_multiple_is_the_same_of_a_ramp_that_is_not_known_to_be_one(ends, steps, of):
    ramp = linear(*ends, steps=steps)
    assert pacing.table(multiple(custom(ramp, steps=steps), of)) == pacing.table(multiple(ramp, of))


def test_exponential_grows_by_one_factor():
    amounts = pacing.table(exponential(2, 32, steps=4))
    assert amounts == pytest.approx([2, 4, 8, 16, 32])


def test_cosine_is_half_way_at_half_time():
    assert cosine(0, 10, steps=10)(5) == pytest.approx(5)


def test_discrete_changes_after_its_steps():
    pace = discrete([8, 16, 32], until=[4, 9])
    assert [pace(step) for step in (0, 4, 5, 9, 10, 11)] == [8, 8, 16, 16, 32, 32]
    assert pace.steps == 10
    assert discrete([8], until=[])(99) == 8


def test_amounts_and_steps_of_arrays_are_plain_numbers_that_can_be_written_down():
    pace = discrete(np.array([1, 2]), until=np.array([5]))
    assert repr(pace) == "discrete(values=(1, 2), until=(5,), on='steps')"
    assert de.config.said("pacings", pace) == {"name": "discrete", "values": [1, 2], "until": [5]}
    joined = join([1, 2], boundaries=np.array([5]))
    assert repr(joined.boundaries) == "(5,)"
    assert de.config.said("pacings", joined)["boundaries"] == [5]


def test_join_starts_each_pace_anew():
    pace = join([5, linear(10, 20, steps=10), 7], boundaries=[3, 8])
    assert [pace(step) for step in (0, 2, 3, 7, 8, 99)] == [5, 5, 10, 14, 7, 7]
    assert pace.steps == 8


@pytest.mark.parametrize("bounds", [{}, {"low": 3}, {"high": np.float64(5)}, {"low": -math.inf, "high": 5.5}])
def test_clip_prints_as_code_where_a_side_is_open(bounds):
    pace = clip(linear(0, 10, steps=10), **bounds)
    assert eval(repr(pace), {"clip": clip, "linear": linear}) == pace  # noqa: S307


def test_clip_and_scale():
    pace = clip(scale(linear(0, 10, steps=10), by=3), low=6, high=20)
    assert [pace(step) for step in (0, 3, 10)] == [6, 9, 20]
    assert pace.steps == 10


def test_custom_is_any_function_held_at_its_end():
    pace = custom(lambda step: step**2, steps=5)
    assert [pace(step) for step in (0, 3, 5, 6)] == [0, 9, 25, 25]
    assert custom(math.sqrt, steps=4) == pickle.loads(pickle.dumps(custom(math.sqrt, steps=4)))  # noqa: S301


def test_a_number_is_a_constant_and_a_bare_function_needs_its_end():
    assert pacing.as_pace(3.5) == constant(3.5)
    with pytest.raises(
        ValueError, match=r"does not say when it ends; wrap it: dataeff.pacing.custom\(function, steps="
    ):
        pacing.as_pace(math.sqrt)
    with pytest.raises(ValueError, match="value is 'fast'; expected a finite number"):
        pacing.as_pace("fast")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: linear(1, 2, steps=0), "steps is 0; expected a whole number of at least 1"),
        (lambda: linear(1, 2, steps=2.5), "steps is 2.5; expected a whole number"),
        (lambda: linear(1, float("nan"), steps=5), "end is nan; expected a finite number"),
        (lambda: linear("1", 2, steps=5), "start is '1'; expected a finite number"),
        (
            lambda: linear(1.5, 8, steps=5, multiple=2),
            r"start \(with multiple=\) is 1.5; expected a whole number",
        ),
        (lambda: linear(1, 8, steps=5, multiple=0), "multiple is 0; expected a whole number of at least 1"),
        (lambda: levels(linear(1, 8, steps=5), k=1), "k is 1; expected a whole number of at least 2"),
        (lambda: root(1, 8, steps=5, degree=0), "degree is 0; expected a number above 0"),
        (lambda: exponential(0, 8, steps=5), "start is 0 and end is 8; expected both above 0"),
        (lambda: discrete([1, 2], until=[]), "until is .*; expected 1 steps in rising order"),
        (lambda: discrete([], until=[]), "nothing to change between .*; expected at least one amount"),
        (lambda: join([], boundaries=[]), "nothing to change between .*; expected at least one amount"),
        (lambda: clip(linear, low=1), "linear is a class; expected a pace made with it"),
        (lambda: discrete([1, 2, 3], until=[5, 5]), "in rising order"),
        (lambda: discrete([1, None], until=[5]), "a value is None; expected a finite number"),
        (lambda: join([1, 2], boundaries=[3, 4]), "boundaries is .*; expected 1 steps"),
        (lambda: discrete([1, 2], until=5), r"until is 5; expected a list, as \[5\]"),
        (lambda: discrete(1, until=[]), r"values is 1; expected a list, as \[1\]"),
        (lambda: join([1, 2], boundaries=3), r"boundaries is 3; expected a list, as \[3\]"),
        (lambda: join(1, boundaries=[]), r"paces is 1; expected a list, as \[1\]"),
        (lambda: clip(1, high=None), "high is None; expected a number, or no high= for no bound"),
        (lambda: clip(1, low=5, high=4), "low is 5 and high is 4; expected low <= high"),
        (lambda: scale(1, by=None), "by is None; expected a finite number"),
        (lambda: linear(1, 10**400, steps=5), "end is 1000*; expected a finite number"),
        (
            lambda: multiple(linear(0.5, 4, steps=3), 2),
            "goes from or to 0.5; expected whole numbers at both ends",
        ),
        (lambda: custom(lambda step: None, steps=3)(1), "at step 1 is None; expected a finite number"),
        (lambda: linear(1, 2, steps=5)(-1), "step is -1; expected 0 or more"),
        (lambda: constant(1)(-1), "step is -1; expected 0 or more"),
        (lambda: discrete([1], until=[])(-1), "step is -1; expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def missed(amounts, chosen):
    """What each level loses, summed over steps."""
    lost = dict.fromkeys(chosen, 0)
    for amount in amounts:
        level = max(each for each in chosen if each <= amount)
        lost[level] += amount - level
    return lost


@given(amounts=st.lists(st.integers(0, 9), min_size=1, max_size=9), k=st.integers(2, 4))
def test_no_other_levels_lose_less_to_the_worst_of_them(amounts, k):
    pace = levels(custom(lambda step: amounts[min(step, len(amounts) - 1)], steps=len(amounts) - 1), k=k)
    table = pacing.table(pace)
    chosen = sorted(set(table))
    assert len(chosen) <= k
    assert table[-1] == amounts[-1]
    assert all(level <= amount for level, amount in zip(table, amounts, strict=True))
    values = sorted(set(amounts))
    others = [
        set(own)
        for many in range(1, k + 1)
        for own in itertools.combinations(values, many)
        if {values[0], amounts[-1]} <= set(own)
    ]
    least = min(max(missed(amounts, own).values()) for own in others)
    assert max(missed(amounts, chosen).values()) <= least + 1e-6


@pytest.mark.parametrize(
    "ramp", [linear(128, 2048, steps=20_000, multiple=16), root(128, 2048, steps=20_000)]
)
def test_levels_lose_about_as_much_each(ramp):
    pace = levels(ramp, k=8)
    lost = missed(pacing.table(ramp), sorted(set(pacing.table(pace))))
    assert len(lost) == 8
    most, *others = sorted(lost.values(), reverse=True)
    assert min(others[:-2]) > 0.9 * most  # the last but one ends at the end, which loses nothing
    assert pace(20_000) == 2048
    assert pace(0) == 128


ON_TOKENS = linear(80, 2048, steps=10**9, on="tokens", multiple=8)


@pytest.mark.parametrize(
    "make",
    [
        lambda on: linear(10, 20, steps=100, on=on),
        lambda on: root(10, 20, steps=100, on=on),
        lambda on: exponential(10, 20, steps=100, on=on),
        lambda on: cosine(10, 20, steps=100, on=on),
        lambda on: discrete([1, 2], until=[50], on=on),
        lambda on: custom(abs, steps=100, on=on),
        lambda on: multiple(linear(10, 20, steps=100, on=on), 2),
        lambda on: clip(linear(10, 20, steps=100, on=on), high=15),
        lambda on: scale(linear(10, 20, steps=100, on=on), by=2),
        lambda on: levels(linear(10, 20, steps=100, on=on), k=3),
        lambda on: join([5, linear(10, 20, steps=100, on=on)], boundaries=[7]),
    ],
)
@pytest.mark.parametrize("on", ["steps", "samples", "tokens", "loss_tokens", "layer_tokens", "flops"])
def test_every_pace_reads_a_clock_on_its_axis(make, on):
    pace, clock = make(on), Clock(**dict.fromkeys(AXES, 3) | {on: 60})
    assert pacing.axis(pace) == on
    assert pace(clock) == pace(60) == make("steps")(60)
    assert pace(clock) != pace(3)


def test_a_constant_is_on_any_axis():
    assert constant(3)(Clock()) == 3
    assert pacing.axis(join([5, ON_TOKENS, 9], boundaries=[10, 10**10])) == "tokens"


def test_paces_on_different_axes_are_not_joined():
    with pytest.raises(ValueError, match="the paces are on samples and tokens; expected one axis for all"):
        join([linear(1, 2, steps=9, on="samples"), ON_TOKENS], boundaries=[20])


def test_levels_of_a_pace_over_many_tokens_are_found():
    amounts = set(pacing.amounts(levels(ON_TOKENS, k=4)))
    assert len(amounts) == 4
    assert {80, 2048} < amounts


def test_the_changes_of_a_pace_over_more_places_than_a_machine_s_integers_are_found():
    pace = linear(80, 2048, steps=2**70, multiple=8, on="flops")
    place = next_change(pace, 2**69)
    assert pace(place - 1) == pace(2**69) == 1064
    assert pace(place) == 1072
    assert next_change(pace, 2**70) is None


def test_a_plan_of_that_many_steps_prints_its_own_last_step():
    last = 2**70 - 1
    plan = de.Plan(batch_size=1, length=8, until={"steps": last + 1})
    assert f"\n{last:,} " in str(plan.predict())


def dipping(step):
    return 8.0 if step % 1024 == 1 else 64.0 + step // 2**20


def test_a_dip_between_the_places_that_levels_look_at_is_given_the_lowest_of_them():
    pace = levels(custom(dipping, steps=2**21, on="tokens"), k=2)
    assert [pace(step) for step in (0, 1, 2, 2**21)] == [64, 64, 64, 66]


def test_tokens_said_as_steps_are_refused_before_a_table_of_them_is_made(tmp_path):
    index = de.index.from_values({"length": [1, 2, 3]}, out=tmp_path)
    tokens = linear(1, 3, steps=300_000_000)
    said = r"is paced over 300,000,000 steps; expected 16,777,216 at most: .* on=\"tokens\", .*in_steps\("
    for use in (
        lambda: de.Curriculum(index, {"length": de.paced(tokens)}),
        lambda: de.window(low=tokens),
        lambda: de.samplers.mixture({"a": 8}, weights={"a": tokens}, batch_size=2, seed=1),
    ):
        with pytest.raises(ValueError, match=said):
            use()


@pytest.mark.parametrize(
    "refused",
    [
        lambda: de.paced(ON_TOKENS),
        lambda: de.window(low=ON_TOKENS),
        lambda: de.samplers.mixture({"a": 5}, weights={"a": ON_TOKENS}, batch_size=2, seed=1),
        lambda: Length(ON_TOKENS),
        lambda: pacing.in_steps(ON_TOKENS, ON_TOKENS),
    ],
)
def test_what_knows_any_step_alone_refuses_other_axes_and_says_the_way(refused):
    with pytest.raises(
        ValueError, match=r"paced by tokens; expected steps.*pacing.in_steps\(pace, per_step\)"
    ):
        refused()


@given(st.integers(1, 3000), st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 40))
def test_in_steps_adds_up_what_steps_consume(total, consumed, last):
    per_step = discrete([*consumed, last], until=list(range(len(consumed))))
    by_tokens = linear(0, 100, steps=total, on="tokens")
    pace = pacing.in_steps(by_tokens, per_step)
    done = 0
    for step in range(pace.steps + 3):
        assert pace(step) == by_tokens(done)
        assert (done >= total) == (step >= pace.steps)
        done += per_step(step)


def test_in_steps_of_nothing_never_ends():
    with pytest.raises(ValueError, match="consumes 0 a step at its end, so .* never reaches its own"):
        pacing.in_steps(ON_TOKENS, 0)
