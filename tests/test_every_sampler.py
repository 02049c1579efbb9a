"""What every sampler of keyed draws promises, in one table: a new one needs a row."""

import itertools
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dataeff as de
from dataeff import Curriculum, paced, registry, window
from dataeff.corpus import with_batch
from dataeff.pacing import join, linear, root
from dataeff.samplers import curriculum, importance, mixture, shuffled, token_budget

V_SHAPE = join([linear(70, 5, steps=20), linear(5, 60, steps=20)], boundaries=[20])
LENGTHS = np.array([(i * 13) % 40 + 1 for i in range(100)])


def growing(index):
    return Curriculum(index, {"loss": paced(root(5, 100, steps=60), by="percentile"), "length": paced(33)})


def moving(index):
    return Curriculum(index, {"loss": window(V_SHAPE, linear(90, 100, steps=9), by="percentile")})


ROWS = {
    "curriculum": lambda index, **of: curriculum(growing(index), batch_size=24, **of),
    "curriculum of a window": lambda index, **of: curriculum(moving(index), batch_size=24, steps=60, **of),
    "shuffled": lambda index, **of: shuffled(100, batch_size=24, steps=60, **of),
    "mixture": lambda index, **of: mixture(
        {"a": 70, "b": 30}, weights={"a": 1, "b": linear(0, 2, steps=40)}, batch_size=24, steps=60, **of
    ),
    "token_budget": lambda index, seed, **of: token_budget(
        curriculum(growing(index), batch_size=24, seed=seed, rank=0, world_size=1),
        lengths=LENGTHS,
        max_tokens=96,
        window=8,
        ranks=24,
        **of,
    ),
    "importance": lambda index, **of: importance(100, batch_size=24, epochs=4, **of),
}
every = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
every_pure = pytest.mark.parametrize(
    "make", [make for name, make in ROWS.items() if name != "importance"], ids=lambda make: None
)


def test_every_sampler_has_a_row():
    built_in = {plugin.name for plugin in registry.plugins("samplers") if plugin.distribution == "dataeff"}
    assert {name.split()[0] for name in ROWS} == built_in


@every
def test_the_union_over_any_number_of_ranks_is_the_global_batch(index, make):
    whole = make(index, seed=7)
    for world_size in (1, 2, 3, 8):
        ranks = [make(index, seed=7, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert {len(sampler) for sampler in ranks} == {len(whole)}
        for step in range(len(whole)):
            parts = [sampler[step] for sampler in ranks]
            assert len({len(part) for part in parts}) == 1
            assert sorted(i for part in parts for i in part) == sorted(whole[step])
            assert ranks[-1].global_batch(step) == whole[step]


@every
def test_a_state_of_a_step_that_nothing_goes_on_from_is_not_made(index, make):
    sampler = make(index, seed=7)
    last = len(sampler)
    assert sampler.state_dict(step=last)["step"] == last
    with pytest.raises(ValueError, match=f"step is {last + 1}; expected a whole number from 0 to {last}"):
        sampler.state_dict(step=last + 1)


@every
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_batches_in_order_and_tells_collate_their_step(index, make, workers):
    sampler = make(index, seed=7)
    loader = DataLoader(
        with_batch(list(range(100))), batch_sampler=sampler, num_workers=workers, collate_fn=told
    )
    expected = [(step, list(make(index, seed=7)[step])) for step in range(len(sampler))]
    assert [(step, ids) for step, ids, _ in loader] == expected
    assert all(
        ids == samples
        for (_, ids, samples) in DataLoader(
            with_batch(list(range(100))), batch_sampler=make(index, seed=7), collate_fn=told
        )
    )


def told(samples):
    return samples.batch.step, list(samples.batch), list(samples)


@every_pure
def test_any_of_1000_random_resume_points_equals_the_uninterrupted_run(index, make, tmp_path):
    """On another number of ranks each, from a state that was on disk."""
    uninterrupted = make(index, seed=3)
    batches = [uninterrupted[step] for step in range(len(uninterrupted))]
    stream = np.random.default_rng(0)
    ranks = {n: [make(index, seed=3, rank=rank, world_size=n) for rank in range(n)] for n in (1, 2, 3)}
    for stop in stream.integers(0, len(batches) - 1, 1000 // 3):
        state = uninterrupted.state_dict(int(stop))
        for samplers in ranks.values():
            for sampler in samplers:
                sampler.load_state_dict(state)
            parts = [next(iter(sampler)) for sampler in samplers]
            assert sorted(i for part in parts for i in part) == sorted(batches[stop])
            assert {part.step for part in parts} == {stop}
    state = uninterrupted.state_dict(5)
    torch.save(state, tmp_path / "state.pt")
    resumed = make(index, seed=3)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert list(resumed) == batches[5:]


@every
def test_two_seeds_differ_and_the_same_does_not(index, make):
    assert list(make(index, seed=1)) == list(make(index, seed=1))
    assert list(make(index, seed=1)) != list(make(index, seed=2))
    assert make(index, seed=1) == make(index, seed=1)
    assert make(index, seed=1) != make(index, seed=2)


@every
def test_exposures_are_those_of_the_batches(index, make):
    sampler = make(index, seed=5)
    stop = len(sampler) - 1
    for start in (0, stop // 2, stop):
        counts = np.zeros(100, int)
        for step in range(start, stop):
            batch = sampler[step]
            weights = getattr(batch, "weights", [1] * len(batch))
            np.add.at(counts, [i for i, weight in zip(batch, weights, strict=True) if weight], 1)
        assert sampler.exposures(start, stop).tolist() == counts.tolist()
    with pytest.raises(ValueError, match=f"stop is {stop + 2}; expected a whole number from 0 to {stop + 1}"):
        sampler.exposures(0, stop + 2)


@every
def test_steps_outside_are_an_index_error(index, make):
    sampler = make(index, seed=5)
    for step in (-1, len(sampler)):
        with pytest.raises(IndexError, match=f"step {step} of a sampler of {len(sampler)} steps"):
            sampler[step]


@every
@pytest.mark.parametrize("step", ["1", 1.5, None, slice(2)])
def test_a_step_is_a_whole_number(index, make, step):
    assert type(make(index, seed=5)[np.int64(1)].step) is int
    with pytest.raises(ValueError, match="step is .*; expected a whole number"):
        make(index, seed=5)[step]


def test_a_curriculum_sampler_takes_a_curriculum(index):
    with pytest.raises(
        ValueError, match=r"curriculum is Index\(.*\); expected a Curriculum, as Curriculum\("
    ):
        curriculum(index, batch_size=4, seed=1)


@every
def test_after_the_last_step_it_warns_where_it_was_resumed_and_else_raises(index, make):
    sampler, said = make(index, seed=5), "steps are drawn already, so nothing is left to iterate over"
    for _ in range(4 if isinstance(sampler, importance) else 1):
        list(sampler)
    with pytest.raises(RuntimeError, match=said):
        list(sampler)
    for resumed in (make(index, seed=5), sampler):
        resumed.load_state_dict(sampler.state_dict())
        with pytest.warns(UserWarning, match=said):
            assert list(resumed) == []


@every_pure
def test_states_are_small_and_plain(index, make):
    state = make(index, seed=2**63).state_dict(7)
    assert len(pickle.dumps(state)) < 400
    plain = (int, str, list, dict)
    assert all(isinstance(value, plain) for value in state.values())


@pytest.mark.parametrize("name", ["curriculum", "curriculum of a window"])
def test_a_pickled_sampler_does_not_carry_the_order(name, tmp_path):
    index = de.index.from_values({"loss": np.arange(10**5), "length": np.zeros(10**5)}, out=tmp_path)
    sampler = ROWS[name](index, seed=1)
    assert len(pickle.dumps(sampler)) < 50_000
    copy = pickle.loads(pickle.dumps(sampler))  # noqa: S301
    assert copy[3] == sampler[3]


@every
@pytest.mark.parametrize("name", ["seed", "batch_size", "source", "settings"])
def test_a_state_of_other_settings_is_refused(index, make, name):
    sampler = make(index, seed=5)
    state = sampler.state_dict()
    if name not in state:
        assert isinstance(sampler, token_budget) != (name == "settings")
        return
    with pytest.raises(
        ValueError, match=rf"the state is of {name} .*, this sampler of .*; make it with that"
    ):
        sampler.load_state_dict(state | {name: "other"})
    for wrong in ({name: state[name]}, None):
        with pytest.raises(ValueError, match=r"state has the keys \['step', .*\]; got"):
            sampler.load_state_dict(wrong)
    assert sampler.step == 0


@every
def test_ranks_that_do_not_fit_are_refused(index, make):
    with pytest.raises(ValueError, match="rank is 3; expected less than world_size, 3"):
        make(index, seed=1, rank=3, world_size=3)
    with pytest.raises(
        ValueError, match=r"24 is not divisible by world_size 5|24 ranks, which 5 processes do"
    ):
        make(index, seed=1, rank=0, world_size=5)


def test_places_in_a_batch_are_as_likely_for_every_sample():
    """Chi-square of sample against place, over many steps: neither predicts the other."""
    sampler = shuffled(16, batch_size=16, seed=9, steps=20_000)
    counts = np.zeros((16, 16))
    for batch in sampler:
        counts[batch, np.arange(16)] += 1
    chi_square = ((counts - 20_000 / 16) ** 2 / (20_000 / 16)).sum()
    freedom = 15 * 15
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_shares_of_a_mixture_are_kept_over_the_whole_run_and_inside_every_sample_comes_in_turn():
    weights = {"a": 3, "b": root(0, 1, steps=100), "c": linear(5, 0, steps=300)}
    sampler = mixture({"a": 500, "b": 7, "c": 90}, weights=weights, batch_size=13, seed=2, steps=400)
    owed, seen = np.zeros(3), Counter()
    starts = [0, 500, 507, 597]
    for batch in sampler:
        now = np.array([3, weights["b"](batch.step), weights["c"](batch.step)])
        owed += 13 * now / now.sum()
        seen.update(batch)
        for d, (start, stop) in enumerate(itertools.pairwise(starts)):
            counts = [seen[i] for i in range(start, stop)]
            assert abs(sum(counts) - owed[d]) < 1.5
            assert max(counts) - min(counts) <= 1
    assert not any(i >= 507 for step in range(300, 400) for i in sampler[step])  # c weighs nothing then


def test_weights_change_while_training_and_after_a_resume():
    def make(weights):
        return mixture({"a": 50, "b": 50}, weights=weights, batch_size=10, seed=1, steps=60)

    first = make({"a": 1, "b": 1})
    before = [first[step] for step in range(20)]
    state = first.state_dict(20)
    first.reweigh({"a": 9, "b": 1}, step=20)
    changed = list(first)
    assert [batch.step for batch in changed] == list(range(20, 60))
    assert sum(i < 50 for batch in changed for i in batch) == 360
    resumed = make({"a": 9, "b": 1})
    resumed.load_state_dict(state)
    assert list(resumed) == changed
    late = make({"a": 9, "b": 1})
    late.load_state_dict(first.state_dict(30))
    assert list(late) == changed[10:]
    seen = Counter(i for batch in before + changed for i in batch)
    for domain in (range(50), range(50, 100)):
        counts = [seen[i] for i in domain]
        assert max(counts) - min(counts) <= 1
    said = "step 3 is before step 20, where the weights changed; steps"
    for ask in (resumed.__getitem__, resumed.global_batch):
        with pytest.raises(IndexError, match=said):
            ask(3)
    for ask in (resumed.state_dict, lambda step: resumed.exposures(step, 30)):
        with pytest.raises(ValueError, match=said):
            ask(3)
    resumed.step = 3
    resumed.load_state_dict(state)
    assert list(resumed) == changed
    assert not resumed.exposures(5, 5).any()
    assert not mixture({"a": 5}, weights={"a": 1}, batch_size=5, seed=1, steps=0).exposures(0, 0).any()
    with pytest.raises(
        ValueError, match="weights are of a, and domains are a, b; expected one weight a domain"
    ):
        resumed.reweigh({"a": 1})
    assert resumed[40] == first[40]


@pytest.mark.parametrize(
    ("domains", "weights", "said"),
    [
        ({}, {}, "domains is {}; expected one at least"),
        ({"a": 0}, {"a": 1}, "the size of 'a' is 0; expected a whole number of at least 1"),
        ([5], {"a": 1}, r"domains is \[5\]; expected one at least, as in"),
        ({"a": 5}, [1], r"weights is \[1\]; expected a mapping, as"),
        ({"a": 5}, {"b": 1}, "weights are of b, and domains are a; expected one weight a domain"),
        ({"a": 5}, {"a": -1}, "the weight of 'a' at step 0 is -1.0; expected a finite number of at least 0"),
        ({"a": 5}, {"a": linear(1, 0, steps=4)}, "all weights are 0 at step 4; expected one above 0"),
        ({"a": 5}, {"a": float("nan")}, "value is nan; expected a finite number"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(domains, weights, said):
    with pytest.raises(ValueError, match=said):
        mixture(domains, weights=weights, batch_size=2, seed=1)


@pytest.mark.parametrize("max_samples", [None, 12])
@pytest.mark.parametrize("window", [1, 8, 100])
def test_batches_of_a_token_budget_fit_and_use_every_sample(window, max_samples):
    stream = shuffled(100, batch_size=12, seed=1, steps=33)
    sampler = token_budget(
        stream, lengths=LENGTHS, max_tokens=100, window=window, ranks=3, max_samples=max_samples
    )
    ranks = [
        token_budget(
            stream,
            lengths=LENGTHS,
            max_tokens=100,
            window=window,
            ranks=3,
            max_samples=max_samples,
            rank=rank,
            world_size=3,
        )
        for rank in range(3)
    ]
    for step in range(len(sampler)):
        batch = sampler[step]
        assert batch.samples == len(batch) <= (max_samples or 10**9)
        assert batch.tokens == LENGTHS[batch].sum()
        assert batch.lr_scale == len(batch) / 12
        for part in (own[step] for own in ranks):
            padded = -(-LENGTHS[part].max() // 8) * 8
            assert len(part) * padded <= 100
            assert part.normalizer == batch.tokens / 3
            assert part.tokens == batch.tokens
    for low in range(0, 33, window):  # within a window, all samples of the stream and no other
        steps = range(low, min(low + window, 33))
        drawn = Counter(i for step in steps for i in stream[step])
        first, stop = (
            sum(len(sampler._windows.batches(w)) for w in range(n))
            for n in (low // window, low // window + 1)
        )
        assert Counter(i for step in range(first, stop) for i in sampler[step]) == drawn
    assert Counter(i for batch in sampler for i in batch) == Counter(i for batch in stream for i in batch)


def test_a_larger_window_pads_less():
    lengths = np.random.default_rng(0).integers(1, 500, 2000)
    stream = shuffled(2000, batch_size=50, seed=1)

    def padding(window):
        batches = token_budget(stream, lengths=lengths, max_tokens=8000, window=window)
        return sum(len(batch) * lengths[batch].max() for batch in batches) / lengths.sum()

    assert padding(40) < 1.05 < 1.2 < padding(1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64, ">i4"])
def test_lengths_are_whole_numbers_of_any_dtype(dtype):
    stream = shuffled(100, batch_size=20, seed=1)
    expected = token_budget(stream, lengths=LENGTHS, max_tokens=100)
    assert list(token_budget(stream, lengths=LENGTHS.astype(dtype), max_tokens=100)) == list(expected)


@pytest.mark.parametrize(("name", "power"), [("linear", 1), ("sqrt", 0.5), ("none", 0)])
def test_learning_rates_scale_with_the_batch(name, power):
    stream = shuffled(100, batch_size=20, seed=1)
    sampler = token_budget(stream, lengths=LENGTHS, max_tokens=100, lr_scaling=name)
    assert all(batch.lr_scale == (len(batch) / 20) ** power for batch in sampler)


def test_the_normalizer_makes_the_mean_over_all_tokens():
    """Two ranks' gradients, averaged, are those of the mean loss over the tokens of the global batch."""
    stream = shuffled(100, batch_size=20, seed=1)
    options = {"lengths": LENGTHS, "max_tokens": 100, "ranks": 2}
    losses = torch.rand(100, 40)

    def loss_sum(batch):
        return sum(losses[i, : LENGTHS[i]].sum() for i in batch)

    for step in range(5):
        parts = [token_budget(stream, **options, rank=rank, world_size=2)[step] for rank in (0, 1)]
        mean = sum(loss_sum(part) / part.normalizer for part in parts) / 2
        both = [i for part in parts for i in part]
        torch.testing.assert_close(mean, torch.cat([losses[i, : LENGTHS[i]] for i in both]).mean())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lengths": [1, -2]}, "the length of sample 1 is -2; expected 0 or more"),
        ({"max_tokens": 20}, r"sample 3 has 40 tokens, 40 with padding; max_tokens is 20: raise it, or cut"),
        ({"lengths": LENGTHS[:50]}, "the sampler gives sample .*, and lengths are of 50 samples; expected"),
        (
            {"lengths": [0.5]},
            r"lengths has shape \(1,\) and dtype float64; expected one whole number a sample",
        ),
        (
            {"ranks": 3, "world_size": 2, "rank": 0},
            "planned for 3 ranks, which 2 processes do not divide; give",
        ),
        ({"ranks": 7}, "the sampler's batch_size 20 is not divisible by ranks 7; choose a multiple"),
        ({"ranks": 4, "max_samples": 3}, "max_samples is 3; expected at least ranks, 4"),
        ({"lr_scaling": "cubic"}, "lr_scaling is 'cubic'; expected one of linear, sqrt, none"),
        ({"sampler": [[1, 2]]}, r"sampler is \[\[1, 2\]\]; expected curriculum, shuffled, mixture, or"),
        ({"window": 0}, "window is 0; expected a whole number of at least 1"),
    ],
)
def test_token_budgets_that_cannot_be_are_refused(options, said):
    given = {"lengths": LENGTHS, "max_tokens": 100} | options
    stream = given.pop("sampler", shuffled(100, batch_size=20, seed=1))
    with pytest.raises(ValueError, match=said):
        list(token_budget(stream, **given))


def test_a_token_budget_knows_how_many_samples_come_before_a_step():
    sampler = token_budget(
        shuffled(100, batch_size=12, seed=1, steps=33), lengths=LENGTHS, max_tokens=100, window=8
    )
    sizes = [len(batch) for batch in sampler]
    assert [sampler.drawn(step) for step in range(len(sizes) + 1)] == [0, *np.cumsum(sizes)]
    with pytest.raises(ValueError, match="step is -1; expected a whole number of at least 0"):
        sampler.drawn(-1)


def test_a_token_budget_resumes_without_planning_what_is_over(index):
    make = ROWS["token_budget"]
    sampler = make(index, seed=1)
    expected, state = list(make(index, seed=1)), sampler.state_dict(len(sampler) - 2)
    resumed = make(index, seed=1)
    planned, cut = set(), token_budget._cut
    resumed._windows.cut = lambda ids, window: planned.add(window) or cut(resumed, ids, window)
    resumed.load_state_dict(state)
    assert list(resumed) == expected[-2:]
    assert len(planned) <= 2
    assert [resumed[step] for step in range(len(resumed))] == expected  # and goes back where asked


def equal_lengths(stream, **options):
    """Ten batches of ten a window, as the stream has them."""
    return token_budget(stream, lengths=np.full(1000, 10), max_tokens=100, multiple=1, window=10, **options)


def halves(weights, steps=40):
    return mixture({"a": 500, "b": 500}, weights=weights, batch_size=10, seed=1, steps=steps)


@pytest.mark.parametrize(
    ("before", "after", "steps"), [(40, 65, 35), (35, 65, 29), (35, 40, 20), (65, 40, 40)]
)
def test_a_token_budget_of_more_or_fewer_steps_goes_on_as_if_it_had_them_from_the_start(before, after, steps):
    first, other = (equal_lengths(shuffled(1000, batch_size=10, seed=1, steps=n)) for n in (before, after))
    expected = list(other)
    for step in range(steps + 1):
        resumed = equal_lengths(shuffled(1000, batch_size=10, seed=1, steps=after))
        resumed.load_state_dict(first.state_dict(step))
        assert [resumed[i] for i in range(step, after)] == expected[step:]


@pytest.mark.parametrize("step", [31, 35])
def test_a_token_budget_does_not_go_on_in_a_window_that_other_steps_cut_otherwise(step):
    first = equal_lengths(shuffled(1000, batch_size=10, seed=1, steps=35))
    resumed = equal_lengths(shuffled(1000, batch_size=10, seed=1, steps=70))
    with pytest.raises(
        ValueError, match="of other samples than .* whose stream has 70 steps; make the stream"
    ):
        resumed.load_state_dict(first.state_dict(step))


def test_the_mixture_of_a_token_budget_changes_its_weights_between_two_windows():
    old, new = {"a": 1, "b": 1}, {"a": 1, "b": 3}
    first = equal_lengths(halves(old))
    before = [first[step] for step in range(20)]
    resumed = equal_lengths(halves(new))
    resumed.load_state_dict(first.state_dict(20))
    after = list(resumed)
    assert sum(i >= 500 for batch in after for i in batch) == 150
    seen = Counter(i for batch in before + after for i in batch)
    assert max(seen.values()) == 1
    again = equal_lengths(halves(new))
    again.load_state_dict(resumed.state_dict(25))
    assert list(again) == after[5:]
    with pytest.raises(ValueError, match="make the stream with the steps and weights of before, or change"):
        equal_lengths(halves(new)).load_state_dict(first.state_dict(25))


def test_a_stream_that_changes_under_a_token_budget_is_refused():
    reweighed = equal_lengths(halves({"a": 1, "b": 1}))
    state = reweighed.state_dict(5)
    reweighed.sampler.reweigh({"a": 1, "b": 3}, step=20)
    longer = equal_lengths(shuffled(1000, batch_size=10, seed=1, steps=35))
    next(iter(longer))
    longer.sampler.steps = 70
    for sampler in (reweighed, longer):
        for ask in (len, list, type(sampler).state_dict, lambda own: own.exposures(0, 1)):
            with pytest.raises(ValueError, match="other weights or steps, and windows of it are cut already"):
                ask(sampler)
    with pytest.raises(ValueError, match="make the stream with the steps and weights of before"):
        reweighed.load_state_dict(state)
    fresh = halves({"a": 1, "b": 1})
    sampler = equal_lengths(fresh)
    fresh.reweigh({"a": 1, "b": 3})  # before any window is cut
    assert list(sampler) == list(equal_lengths(halves({"a": 1, "b": 3})))


def test_pruned_epochs_keep_the_expected_gradient():
    """Over many seeds, the mean weight of every sample is 1: pruned ones 0, the others made up for."""
    losses = np.concatenate([np.full(30, 0.1), np.full(10, 3.0)])
    total = np.zeros(40)
    for seed in range(400):
        sampler = importance(40, batch_size=8, seed=seed, epochs=4, prune=0.4)
        for batch in sampler:
            sampler.update(batch, losses[batch])
        seen = Counter()
        for batch in sampler:
            for i, weight in zip(batch, batch.weights, strict=True):
                total[i] += weight
                seen[i] += weight > 0
        assert sum(seen.values()) == 40 - 12  # 30 below the mean, 0.4 of them out
        assert all(seen[i] == 1 for i in range(30, 40))
    assert (total[30:] == 400).all()
    assert abs(total[:30].mean() - 400) < 1e-3
    assert np.abs(total[:30] - 400).max() < 5 * np.sqrt(400 * (0.4 / 0.6))


def test_the_last_epochs_leave_out_none():
    sampler = importance(16, batch_size=4, seed=1, epochs=8, prune=0.5, anneal=0.5)
    sizes = []
    for _ in range(8):
        batches = list(sampler)
        sizes.append(len({i for batch in batches for i in batch}))
        for batch in batches:
            sampler.update(batch, [float(i >= 8) for i in batch])
    assert sizes == [16, 12, 12, 12, 16, 16, 16, 16]
    with pytest.raises(ValueError, match="step 3 was in an epoch that is over; the current one begins at 25"):
        sampler.exposures(3, 29)


def test_importance_resumes_in_the_middle_of_an_epoch_as_if_uninterrupted(tmp_path):
    def run(sampler, steps, record):
        while steps:
            for batch in sampler:
                sampler.update(batch, [(i * 7 % 5 + batch.step) / 10 for i in batch])
                record.append((batch.step, list(batch), batch.weights))
                steps -= 1
                if not steps:
                    break

    def make():
        return importance(30, batch_size=4, seed=1, epochs=5, momentum=0.3)

    uninterrupted, first, second = [], [], []
    run(make(), 30, uninterrupted)
    sampler = make()
    run(sampler, 13, first)
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    resumed = make()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.epoch == sampler.epoch == 1
    run(resumed, 17, second)
    assert first + second == uninterrupted


def test_ids_above_what_a_float_holds_stay_exact():
    sampler = importance(2**24 + 3, batch_size=2, seed=1, epochs=1)
    sampler.update(torch.tensor([2**24, 2**24 + 1]), torch.tensor([1.0, 2.0]))
    assert sampler.scores[[2**24, 2**24 + 1]].tolist() == [1.0, 2.0]
    assert np.isnan(sampler.scores[2**24 + 2])


@pytest.mark.parametrize(
    ("ids", "losses", "said"),
    [
        (
            [0.0],
            [1.0],
            r"ids have shape \(1,\) and dtype torch.float32, losses \(1,\); expected whole numbers",
        ),
        (
            [0, 1],
            [1.0],
            r"ids have shape \(2,\) and dtype torch.int64, losses \(1,\); expected whole numbers",
        ),
        ([0, 8], [1.0, 1.0], "ids go from 0 to 8; expected 0 to 7"),
        ([0, 3], [1.0, float("nan")], "the loss of sample 3 is nan; leave both out of the update"),
    ],
)
def test_losses_that_cannot_be_are_refused(ids, losses, said):
    sampler = importance(8, batch_size=2, seed=1, epochs=2)
    with pytest.raises(ValueError, match=said):
        sampler.update(torch.tensor(ids), torch.tensor(losses))
    assert np.isnan(sampler.scores).all()


def test_a_loss_that_float32_cannot_hold_is_refused_and_no_sample_is_none():
    sampler = importance(8, batch_size=2, seed=1, epochs=2)
    with pytest.raises(ValueError, match=r"the loss of sample 3 is 1e\+39; leave both out of the update"):
        sampler.update([0, 3], np.array([1.0, 1e39]))
    sampler.update([], [])
    assert np.isnan(sampler.scores).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prune": 1.0}, "prune is 1.0; expected a share, at least 0 and below 1"),
        ({"momentum": -0.1}, "momentum is -0.1; expected a share"),
        ({"epochs": 0}, "epochs is 0; expected a whole number of at least 1"),
        ({"batch_size": 3, "rank": 0, "world_size": 2}, "batch_size 3 is not divisible by world_size 2"),
    ],
)
def test_importance_that_cannot_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        importance(8, **{"batch_size": 2, "seed": 1, "epochs": 2} | options)


def test_the_current_epoch_alone_can_be_asked_for():
    sampler = importance(8, batch_size=2, seed=1, epochs=2)
    list(sampler)
    next(iter(sampler))
    with pytest.raises(IndexError, match="step 3 was in an epoch that is over; the current one begins at 4"):
        sampler[3]
    with pytest.raises(ValueError, match="step is 2; expected a whole number from 4 to 8"):
        sampler.state_dict(step=2)
    with pytest.raises(ValueError, match=r"the state has scores of shape \(3,\); expected \(8,\)"):
        sampler.load_state_dict(sampler.state_dict() | {"scores": torch.zeros(3)})


def test_a_state_that_is_refused_leaves_importance_as_it_was():
    sampler = importance(8, batch_size=2, seed=1, epochs=3)
    next(iter(sampler))
    before = sampler.state_dict()
    with pytest.raises(ValueError, match="step is 100; expected a whole number from 4 to 8"):
        sampler.load_state_dict(before | {"epoch": 1, "first": 4, "step": 100})
    assert (sampler.epoch, sampler.step, sampler[0]) == (
        0,
        1,
        importance(8, batch_size=2, seed=1, epochs=3)[0],
    )


def test_a_state_that_is_refused_leaves_a_token_budget_as_it_was():
    def make(steps):
        stream = shuffled(100, batch_size=10, seed=1, steps=steps, rank=0, world_size=1)
        return token_budget(stream, lengths=LENGTHS, max_tokens=80, window=4)

    shorter, longer = make(6), make(60)
    batches = [list(batch) for batch in shorter]
    with pytest.raises(ValueError, match="the state is of a window of other samples"):
        shorter.load_state_dict(longer.state_dict(step=len(shorter) - 1))
    assert (shorter.step, shorter.sampler.step) == (len(batches), make(6).sampler.step)
    assert [list(shorter[step]) for step in range(len(shorter))] == batches


def test_windows_come_back_where_they_stopped():
    """A band that leaves and returns goes on with the samples that are due: exposures stay level."""
    pools = de.curriculum.Pools([0, 10, 20], [0, 50, 0], [50, 100, 50])
    from dataeff.samplers._cohorts import Cohorts

    cohorts = Cohorts(pools, batch_size=7, key=3)
    seen = Counter(i for step in [*range(10), *range(20, 40)] for i in cohorts.draw(step).tolist())
    counts = [seen[i] for i in range(50)]
    assert max(counts) - min(counts) <= 1


GATHER = """
import sys
import torch
from torch import distributed
from dataeff.samplers import importance

folder, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
sampler = importance(2**24 + 10, batch_size=8, seed=1, epochs=2)
for step in range(3):
    batch = sampler[step]
    sampler.update(batch, [float(i % 1000) for i in batch])
sampler.update(torch.tensor([2**24 + rank]), torch.tensor([rank + 0.5]))
try:
    sampler.update([2**24 + 2], [1.0 if rank else float("nan")])
except ValueError as error:
    print(error)
sampler.update([2**24 + 3] * rank, [2.5] * rank)  # the first rank has none
torch.save(sampler.scores, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


def test_losses_of_all_ranks_are_gathered_with_their_ids_exact(tmp_path):
    call = [sys.executable, "-c", GATHER, str(tmp_path)]
    runs = [subprocess.Popen([*call, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    assert [run.communicate()[0].strip() for run in runs] == [
        f"the loss of sample {2**24 + 2} is nan; leave both out of the update",
        "rank 0 has ids or losses that cannot be recorded, so no rank records any; its error says which",
    ]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    whole = importance(2**24 + 10, batch_size=8, seed=1, epochs=2)
    drawn = [i for step in range(3) for i in whole[step]]
    expected = np.full(2**24 + 10, np.nan, np.float32)
    expected[drawn] = [i % 1000 for i in drawn]
    expected[[2**24, 2**24 + 1, 2**24 + 3]] = 0.5, 1.5, 2.5
    np.testing.assert_array_equal(first, expected)


@every_pure
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata calls
def test_it_works_under_a_stateful_loader(index, make, workers):
    """torchdata's loader saves the sampler's state with its own, and resumes it, workers or not."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    def load():
        return StatefulDataLoader(
            with_batch(list(range(100))),
            batch_sampler=make(index, seed=7),
            num_workers=workers,
            collate_fn=told,
        )

    uninterrupted = list(load())
    first, resumed = load(), load()
    stream = iter(first)
    trained = [next(stream) for _ in range(11)]
    resumed.load_state_dict(first.state_dict())
    assert trained + list(resumed) == uninterrupted
