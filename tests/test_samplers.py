import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

import dataeff as de
from dataeff import Curriculum, paced
from dataeff.curriculum import Pools
from dataeff.pacing import discrete, linear, root
from dataeff.samplers import _cohorts, curriculum, shuffled


@pytest.fixture
def growing(index):
    return Curriculum(index, {"loss": paced(root(5, 100, steps=60), by="percentile")})


def draws_by_definition(pools, sizes, phases, batch_size, steps):
    """The docstring of _cohorts, draw by draw: (cohort, number) of every step; `pools` is step to cohorts."""
    base, drawn, left, inside, last = {}, Counter(), {}, set(), 0
    given_out = []

    def tick(c):
        return base[c] + -(-(drawn[c] * 2**32 + phases[c]) // sizes[c])

    for step in range(steps):
        pool = set(pools(step))
        for c in inside - pool:
            left[c] = last
        for c in pool - inside:
            base[c] = base[c] + last - left[c] + 1 if c in left else last
        inside, batch = pool, []
        for _ in range(batch_size):
            last, c = min((tick(c), c) for c in inside)
            batch.append((c, drawn[c]))
            drawn[c] += 1
        given_out.append(batch)
    return given_out


def dealt(cohorts, step):
    """Which cohort, and which of its draws, each place in the batch of a step is."""
    slots, out = np.arange(cohorts.batch_size), np.empty((4, cohorts.batch_size), np.int64)
    place = cohorts._place(cohorts._pool(step), step * cohorts.batch_size)
    _cohorts._deal(
        *place, cohorts.batch_size, cohorts._cohorts, cohorts._first_run, cohorts._runs, slots, out
    )
    return np.searchsorted(cohorts._cohorts[0], out[0]).tolist(), out[3].tolist()


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    gaps=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    batch_size=st.integers(1, 7),
    seed=st.integers(0, 2**40),
)
def test_draws_are_those_of_the_definition(sizes, gaps, batch_size, seed):
    entry_steps, ends = np.cumsum([0, *gaps])[: len(sizes)], np.cumsum(sizes)
    pools = Pools(entry_steps, np.zeros_like(ends), ends)
    cohorts = _cohorts.Cohorts(pools, batch_size=batch_size, key=seed)
    entered = [np.flatnonzero(entry_steps <= step).tolist() for step in range(20)]
    phases = cohorts._cohorts[2].tolist()
    expected = draws_by_definition(entered.__getitem__, sizes, phases, batch_size, 20)
    for step, draws in enumerate(expected):
        assert sorted(zip(*dealt(cohorts, step), strict=True)) == sorted(draws)


@st.composite
def windows(draw):
    """A slice of [0, 30) for each of a few steps, changing as it likes."""
    bounds = st.tuples(st.integers(0, 29), st.integers(1, 12))
    chosen = draw(st.lists(bounds, min_size=1, max_size=8))
    gaps = draw(st.lists(st.integers(1, 4), min_size=len(chosen), max_size=len(chosen)))
    starts = np.array([start for start, _ in chosen])
    stops = np.minimum(starts + [width for _, width in chosen], 30)
    return Pools(np.cumsum([0, *gaps[1:]]), starts, stops)


@given(windows(), st.integers(1, 7), st.integers(0, 2**40))
def test_draws_of_a_window_are_those_of_the_definition(pools, batch_size, seed):
    cohorts = _cohorts.Cohorts(pools, batch_size=batch_size, key=seed)
    starts, sizes, phases, _ = cohorts._cohorts.tolist()
    steps = int(pools.steps[-1]) + 8

    def inside(step):
        at = pools.at(step)
        return [c for c, start in enumerate(starts) if at.start <= start < at.stop]

    expected = draws_by_definition(inside, sizes, phases, batch_size, steps)
    for step, draws in enumerate(expected):
        assert sorted(zip(*dealt(cohorts, step), strict=True)) == sorted(draws)
    stop = steps // 2
    drawn = [i for step in range(stop, steps) for i in cohorts.draw(step).tolist()]
    assert cohorts.exposures(stop, steps, 30).tolist() == np.bincount(drawn, minlength=30).tolist()


def test_every_step_has_a_full_batch_of_eligible_samples(growing):
    sampler = curriculum(growing, batch_size=7, seed=1)
    for step in range(len(sampler)):
        assert len(sampler[step]) == 7
        assert set(sampler[step]) <= set(growing.pool(step).tolist())


def test_exposures_in_a_cohort_differ_by_at_most_one(growing):
    sampler = curriculum(growing, batch_size=7, seed=3, steps=200)
    seen = Counter()
    stops = growing.pools.stops.tolist()
    starts = [0, *stops[:-1]]
    for batch in sampler:
        seen.update(batch)
        for start, end in zip(starts, stops, strict=True):
            exposures = [seen[sample] for sample in growing.order[start:end].tolist()]
            assert max(exposures) - min(exposures) <= 1


def test_a_constant_pool_is_plain_epochs(index):
    everything = Curriculum(index, {"loss": paced(100, by="percentile")})
    sampler = curriculum(everything, batch_size=10, seed=5)
    assert len(sampler) == 10
    assert sorted(sample for batch in sampler for sample in batch) == list(range(100))


def test_a_pool_is_drawn_from_in_proportion(index):
    """After the last cohort entered, each cohort is drawn as often as its size says."""
    two = Curriculum(index, {"loss": paced(discrete([20, 100], until=[9]), by="percentile")})
    sampler = curriculum(two, batch_size=10, seed=2, steps=1010)
    late = Counter(sample for step in range(10, 1010) for sample in sampler[step])
    easy = sum(late[sample] for sample in two.pool(0).tolist())
    assert easy == pytest.approx(2000, abs=20)


def test_places_in_a_batch_are_as_likely_for_every_cohort(index):
    two = Curriculum(index, {"loss": paced(discrete([50, 100], until=[0]), by="percentile")})
    sampler = curriculum(two, batch_size=4, seed=8, steps=4001)
    easy = set(two.pool(0).tolist())
    hits = np.array([[sample in easy for sample in sampler[step]] for step in range(1, 4001)]).sum(axis=0)
    chi_square = ((hits - 2000) ** 2 / 1000).sum()
    assert chi_square < 4 + 5 * 8**0.5


def test_the_union_over_ranks_is_the_global_batch(growing):
    whole = curriculum(growing, batch_size=24, seed=9)
    for world_size in (1, 2, 3, 8):
        ranks = [
            curriculum(growing, batch_size=24, seed=9, rank=r, world_size=world_size)
            for r in range(world_size)
        ]
        for step in (0, 7, 59):
            assert [sample for rank in ranks for sample in rank[step]] == whole[step]


@given(stop=st.integers(0, 59))
def test_a_resumed_run_goes_on_as_if_uninterrupted(stop, tmp_path_factory):
    index = de.index.from_values({"m": range(100)}, out=tmp_path_factory.mktemp("idx"))
    growing = Curriculum(index, {"m": paced(linear(10, 99, steps=60))})
    uninterrupted = list(curriculum(growing, batch_size=6, seed=4))
    first = curriculum(growing, batch_size=6, seed=4)
    iterator = iter(first)
    trained = [next(iterator) for _ in range(stop)]
    second = curriculum(growing, batch_size=6, seed=4)
    second.load_state_dict(first.state_dict())
    assert trained + list(second) == uninterrupted


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_epoch_is_refused_and_never_empty(growing, workers):
    sampler = curriculum(growing, batch_size=6, seed=4)
    loader = DataLoader(Ids(), batch_sampler=sampler, num_workers=workers)
    first = [batch.tolist() for batch in loader]
    with pytest.raises(RuntimeError, match="all 60 steps are drawn already, .*; set step = 0 to begin again"):
        list(loader)
    sampler.step = 0
    assert [batch.tolist() for batch in loader] == first
    sampler.steps = 70
    assert len(list(loader)) == 10


def test_seeds_differ_and_the_same_seed_does_not(growing):
    batches = [curriculum(growing, batch_size=7, seed=seed)[30] for seed in (1, 1, 2)]
    assert batches[0] == batches[1]
    assert batches[0] != batches[2]


class Ids(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_a_batch_sampler_of_a_loader(growing, workers):
    loader = DataLoader(Ids(), batch_sampler=curriculum(growing, batch_size=6, seed=1), num_workers=workers)
    reference = curriculum(growing, batch_size=6, seed=1)
    assert len(loader) == 60
    assert [batch.tolist() for batch in loader] == [reference[step] for step in range(60)]


def test_a_checkpoint_can_name_the_step_that_training_reached(growing):
    sampler = curriculum(growing, batch_size=6, seed=1)
    loader = iter(DataLoader(Ids(), batch_sampler=sampler, num_workers=2, prefetch_factor=2))
    next(loader)  # the workers have asked for more by now
    assert sampler.state_dict()["step"] > 1
    resumed = curriculum(growing, batch_size=6, seed=1)
    resumed.load_state_dict(sampler.state_dict(step=1))
    assert next(iter(resumed)).step == 1


def test_the_state_is_a_few_numbers_that_torch_loads_safely(growing, tmp_path):
    state = curriculum(growing, batch_size=6, seed=2**63, steps=10**12).state_dict(step=10**12)
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == state
    assert len(pickle.dumps(state)) < 300


def test_a_batch_knows_its_step_after_pickling(growing):
    batch = pickle.loads(pickle.dumps(curriculum(growing, batch_size=6, seed=1)[13]))  # noqa: S301
    assert batch.step == 13
    assert isinstance(batch, list)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.0}, "batch_size is 2.0; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to"),
        ({"world_size": 4}, "batch_size 6 is not divisible by world_size 4; .* choose a multiple"),
        ({"world_size": 2, "rank": 2}, "rank is 2; expected less than world_size, 2"),
        ({"steps": -1}, "steps is -1; expected a whole number of at least 0"),
        ({"world_size": 0}, "world_size is 0; expected a whole number of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(growing, options, said):
    with pytest.raises(ValueError, match=said):
        curriculum(growing, **({"batch_size": 6, "seed": 1} | options))


def test_settings_that_the_batches_depend_on_do_not_change(growing):
    sampler = curriculum(growing, batch_size=6, seed=1)
    for field in ("curriculum", "batch_size", "seed", "rank", "world_size"):
        with pytest.raises(AttributeError):
            setattr(sampler, field, 12)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"seed": 2}, "the state is of seed 2, this sampler of 1; make it with that, or set step"),
        ({"batch_size": 8}, "the state is of batch_size 8, this sampler of 6; make it"),
        (
            {"source": "curriculum f00d"},
            "is of source curriculum f00d, this sampler of curriculum",
        ),
        ({"more": 1}, r"has the keys \['step', 'seed', 'batch_size', 'source'\]; got .*'more'\]"),
        ({"step": -1}, "step is -1; expected a whole number from 0 to 60"),
        ({"step": 61}, "step is 61; expected a whole number from 0 to 60"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(growing, state, said):
    sampler = curriculum(growing, batch_size=6, seed=1)
    with pytest.raises(ValueError, match=said):
        sampler.load_state_dict(sampler.state_dict(3) | state)
    assert sampler.step == 0


def test_a_state_of_another_index_or_pace_is_refused(growing, tmp_path):
    state = curriculum(growing, batch_size=6, seed=1).state_dict(3)
    other = de.index.from_values({"loss": np.arange(100)}, out=tmp_path / "other")
    for index, end in ((other, 100), (growing.index, 90)):
        plan = {"loss": paced(root(5, end, steps=60), by="percentile")}
        with pytest.raises(ValueError, match="the state is of source curriculum .*, this sampler of"):
            curriculum(Curriculum(index, plan), batch_size=6, seed=1).load_state_dict(state)


def test_a_launched_process_without_its_group_is_refused(growing, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ValueError, match="WORLD_SIZE is 2, but .* call init_process_group first, or give rank="
    ):
        curriculum(growing, batch_size=6, seed=1)
    assert curriculum(growing, batch_size=6, seed=1, rank=1, world_size=2).rank == 1


def test_numbers_of_numpy_become_plain(growing, tmp_path):
    sampler = curriculum(growing, batch_size=np.int64(6), seed=np.uint64(1), steps=np.int32(9))
    sampler.step = np.int64(3)
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    expected = {"step": 3, "seed": 1, "batch_size": 6, "source": f"curriculum {growing.fingerprint}"}
    assert torch.load(tmp_path / "state.pt", weights_only=True) == expected
    assert "np." not in repr(sampler)


def test_a_step_outside_is_an_index_error(growing):
    sampler = curriculum(growing, batch_size=6, seed=1)
    for step in (-1, 60):
        with pytest.raises(IndexError, match=f"step {step} of a sampler of 60 steps"):
            sampler[step]


def test_a_pool_smaller_than_a_batch_repeats_samples_evenly(tmp_path):
    index = de.index.from_values({"m": [1, 2, 3, 9]}, out=tmp_path)
    small = Curriculum(index, {"m": paced(discrete([3, 9], until=[5]))})
    counts = Counter(curriculum(small, batch_size=7, seed=1)[0])
    assert sorted(counts) == [0, 1, 2]
    assert max(counts.values()) - min(counts.values()) <= 1


def test_too_many_passes_over_a_tiny_pool_are_refused(tmp_path):
    index = de.index.from_values({"m": [1]}, out=tmp_path)
    one = Curriculum(index, {"m": paced(1)})
    with pytest.raises(
        ValueError, match=r"passes over the pool; at most 2\*\*30 can be: begin with a larger pool"
    ):
        curriculum(one, batch_size=1024, seed=1, steps=2**40)[2**30]


@pytest.mark.parametrize("step", [0, 10**6, 10**8])
def test_far_steps_are_exact(step):
    """Whole epochs before and after: the counts are checked in Python's unbounded integers."""
    sizes, batch_size = np.array([3, 2**20, 2**31]), 4096
    pools = Pools([0, 5, 9], [0, 0, 0], np.cumsum(sizes))
    cohorts = _cohorts.Cohorts(pools, batch_size=batch_size, key=1)
    active = 1 if step < 5 else 3
    bases, phases = cohorts._runs[0].tolist(), cohorts._cohorts[2].tolist()
    ticks = [
        bases[c] + -(-(j * 2**32 + phases[c]) // int(sizes[c]))
        for c, j in zip(*dealt(cohorts, step), strict=True)
    ]

    def drawn_by(tick):
        return sum(
            max(0, ((tick - bases[c]) * int(sizes[c]) - phases[c]) // 2**32 + 1)
            for c in range(active)
            if tick >= bases[c]
        )

    assert drawn_by(min(ticks) - 1) <= step * batch_size
    assert drawn_by(max(ticks)) >= (step + 1) * batch_size


def test_many_steps_of_growth_are_gathered_without_entering_early():
    pools = Pools(np.arange(0, 30_000, 3), np.zeros(10_000), np.arange(1, 10_001))
    some = pools.gathered(100)
    assert len(some) <= 100
    assert some.steps[0] == 0
    for step in range(0, 30_010, 7):
        assert pools.at(max(0, step - 304)).stop <= some.at(step).stop <= pools.at(step).stop
    assert some.at(pools.steps[-1]) == pools.at(pools.steps[-1])


def test_many_steps_of_a_window_are_gathered_without_an_ineligible_sample():
    steps = np.arange(30_001)
    low = np.abs(15_000 - steps) * 2
    pools = Pools(steps, low, low + 2_000)
    some = pools.gathered(200)
    assert len(some) <= 200
    for step in range(0, 30_010, 7):
        assert pools.at(step).start <= some.at(step).start < some.at(step).stop <= pools.at(step).stop
    with pytest.raises(ValueError, match="the window moves farther than it is wide, and only 20 different"):
        pools.gathered(20)


def test_a_cohort_too_large_for_the_arithmetic_is_refused():
    with pytest.raises(ValueError, match=r"2147483649 samples enter in one step; at most 2\*\*31 can"):
        _cohorts.Cohorts(Pools([0], [0], [2**31 + 1]), batch_size=1, key=1)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    gaps=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    batch_size=st.integers(1, 7),
    bounds=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_exposures_are_counted_without_the_batches(sizes, gaps, batch_size, bounds):
    ends = np.cumsum(sizes)
    pools = Pools(np.cumsum([0, *gaps])[: len(sizes)], np.zeros_like(ends), ends)
    cohorts = _cohorts.Cohorts(pools, batch_size=batch_size, key=3)
    start, stop = sorted(bounds)
    drawn = [i for step in range(start, stop) for i in cohorts.draw(step).tolist()]
    expected = np.bincount(np.array(drawn, int), minlength=ends[-1] + 2)  # the last two never enter
    assert cohorts.exposures(start, stop, ends[-1] + 2).tolist() == expected.tolist()


def test_exposures_of_a_sampler_are_those_of_all_ranks(growing):
    half = curriculum(growing, batch_size=6, seed=1, rank=1, world_size=2)
    drawn = [i for step in range(3, 20) for i in curriculum(growing, batch_size=6, seed=1)[step]]
    assert half.exposures(3, 20).tolist() == np.bincount(drawn, minlength=100).tolist()
    with pytest.raises(ValueError, match="stop is 61; expected a whole number from 3 to 60"):
        half.exposures(3, 61)


@pytest.mark.parametrize("samples", [10, list(range(10))])
def test_shuffled_draws_every_sample_once_an_epoch(samples):
    sampler = shuffled(samples, batch_size=5, seed=1, steps=4)
    drawn = [i for batch in sampler for i in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert len(shuffled(samples, batch_size=4, seed=1)) == 3
    parts = [shuffled(samples, batch_size=5, seed=1, rank=rank, world_size=5)[0] for rank in range(5)]
    assert [i for part in parts for i in part] == drawn[:5]


@pytest.mark.parametrize("samples", [0, -1, [], 2.5])
def test_shuffled_needs_samples(samples):
    with pytest.raises(ValueError, match="samples is .*; expected a whole number"):
        shuffled(samples, batch_size=4, seed=1)
