"""Learning rates by the clock."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataeff import Clock, lr
from dataeff.clock import AXES
from dataeff.samplers import shuffled, token_budget


def optimizer(*rates):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates or (0.5,)]
    return torch.optim.AdamW(groups, lr=1.0)


def rates(made):
    return [group["lr"] for group in made.param_groups]


def train(made, clock, scheduler, tokens, *, scale=None):
    if scale is not None:
        scheduler.scale(scale)
    used = rates(made)
    made.step()
    clock.tick(samples=1, tokens=tokens)
    scheduler.step()
    return used


def papers(count, *, peak, low, warmup, total, decay):
    """As PAPER.md gives it, in rates: max * n / W, then on (n - W) / (D - W), at least min."""
    if count < warmup:
        return max(peak * count / warmup, low)
    share = min((count - warmup) / (total - warmup), 1)
    weight = (1 + math.cos(math.pi * share)) / 2 if decay == "cosine" else 1 - share
    return low + (peak - low) * weight


@given(
    st.integers(0, 10**12),
    st.integers(1, 10**12),
    st.integers(0, 3 * 10**12),
    st.sampled_from(["cosine", "linear"]),
)
def test_rates_are_those_of_the_paper(warmup, longer, count, decay):
    total = warmup + longer
    schedule = getattr(lr, decay)(warmup=warmup, total=total, floor=1e-6 / 2e-4)
    expected = papers(count, peak=2e-4, low=1e-6, warmup=warmup, total=total, decay=decay)
    assert 2e-4 * schedule(count) == pytest.approx(expected, rel=1e-9, abs=1e-15)


SCHEDULES = [
    lr.constant(warmup=10),
    lr.cosine(warmup=10, total=100, floor=0.1),
    lr.linear(warmup=10, total=100, floor=0.1),
    lr.inverse_sqrt(warmup=10, floor=0.1),
    lr.wsd(warmup=10, decay=20, total=100, floor=0.1),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_a_schedule_rises_to_one_at_its_warmup_and_never_again(schedule):
    shares = [schedule(count) for count in range(2000)]
    assert shares[10] == max(shares) == 1
    assert shares[:11] == sorted(shares[:11])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert min(shares) >= schedule.floor
    assert shares[-1] == pytest.approx(1 if isinstance(schedule, lr.constant) else 0.1)


def test_a_stable_phase_is_at_the_peak():
    schedule = lr.wsd(warmup=10, decay=20, total=100)
    assert {schedule(count) for count in range(10, 81)} == {1.0}
    assert schedule(90) == 0.5


@pytest.mark.parametrize("on", AXES)
def test_groups_follow_their_own_peaks_on_any_axis(on):
    made, clock = optimizer(0.5, 0.1), Clock(**dict.fromkeys(AXES, 1))
    scheduler = lr.by_clock(made, lr.linear(total=5), clock, on=on)
    assert rates(made) == pytest.approx([0.4, 0.08])
    made.step()
    clock.tick(samples=1, tokens=1, loss_tokens=1, layer_tokens=1, flops=1)
    scheduler.step()
    assert rates(made) == pytest.approx([0.3, 0.06])
    assert scheduler.get_last_lr() == rates(made)


def test_equal_tokens_give_equal_rates_however_many_steps_they_took():
    ends = []
    for sizes in ([100] * 6, [10] * 20 + [200, 200], [600]):
        made, clock = optimizer(), Clock()
        scheduler = lr.by_clock(made, lr.cosine(warmup=50, total=1000), clock)
        for tokens in sizes:
            train(made, clock, scheduler, tokens)
        ends.append(rates(made))
    assert ends[0] == ends[1] == ends[2]


def test_a_batch_s_scale_is_applied_once_and_only_to_its_step():
    made, clock = optimizer(0.5), Clock()
    scheduler = lr.by_clock(made, lr.linear(total=1000), clock)
    assert train(made, clock, scheduler, 100, scale=0.5) == [0.25]
    scheduler.scale(0.5)
    scheduler.scale(0.5)
    assert rates(made) == pytest.approx([0.225])
    assert train(made, clock, scheduler, 100) == pytest.approx([0.225])
    assert train(made, clock, scheduler, 100) == pytest.approx([0.4])


def test_a_scale_is_refused_while_another_scheduler_sets_the_rates():
    made, clock = optimizer(0.5), Clock()
    warmup = torch.optim.lr_scheduler.LinearLR(made, 0.1, total_iters=2)
    scheduler = lr.by_clock(made, lr.linear(total=1000), clock)
    sequence = torch.optim.lr_scheduler.SequentialLR(made, [warmup, scheduler], milestones=[2])
    with pytest.raises(
        ValueError,
        match="a rate is 0.05, and that of lr.by_clock 0.5: another scheduler sets the rates now; ",
    ):
        scheduler.scale(0.5)
    assert rates(made) == [0.05]
    for expected in (0.275, 0.4):
        made.step()
        clock.tick(samples=1, tokens=100)
        sequence.step()
        assert rates(made) == pytest.approx([expected])
    scheduler.scale(0.5)
    assert rates(made) == pytest.approx([0.2])


def test_the_scale_of_token_budget_batches_multiplies_the_schedule():
    sampler = token_budget(
        shuffled(64, batch_size=8, seed=1, steps=8),
        lengths=[4 + i % 13 for i in range(64)],
        max_tokens=64,
        lr_scaling="linear",
    )
    made, clock = optimizer(0.5), Clock()
    scheduler = lr.by_clock(made, lr.linear(total=10_000), clock)
    for batch in sampler:
        plain = 0.5 * (1 - clock.tokens / 10_000)
        scheduler.scale(batch.lr_scale)
        assert rates(made) == pytest.approx([plain * batch.lr_scale])
        made.step()
        clock.tick(samples=batch.samples, tokens=batch.tokens)
        scheduler.step()


def test_resuming_goes_on_with_the_same_rates():
    def start():
        made, clock = optimizer(0.5, 0.1), Clock()
        return made, clock, lr.by_clock(made, lr.cosine(warmup=50, total=1000, floor=0.1), clock)

    made, clock, scheduler = start()
    for tokens in (30, 40, 50):
        train(made, clock, scheduler, tokens)
    states = made.state_dict(), clock.state_dict(), scheduler.state_dict()
    rest = [train(made, clock, scheduler, 60) for _ in range(5)]

    made, clock, scheduler = start()
    for thing, state in zip((made, clock, scheduler), states, strict=True):
        thing.load_state_dict(state)
    assert [train(made, clock, scheduler, 60) for _ in range(5)] == rest


def test_its_state_is_plain_and_loaded_safely(tmp_path):
    scheduler = lr.by_clock(optimizer(), lr.linear(total=10), Clock())
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state == scheduler.state_dict()
    with pytest.raises(ValueError, match="the scheduler's state has the keys"):
        scheduler.load_state_dict({"last_epoch": 3})


def test_its_state_has_no_private_fields_of_a_release_of_torch():
    scheduler = lr.by_clock(optimizer(0.5, 0.25), lr.linear(total=10), Clock())
    assert scheduler.state_dict() == {
        "base_lrs": [0.5, 0.25],
        "last_epoch": 0,
        "_step_count": 1,
        "_last_lr": [0.5, 0.25],
    }


def test_a_rate_that_is_a_tensor_stays_that_tensor():
    made, clock = optimizer(torch.tensor(0.1), torch.tensor(0.3)), Clock()
    tensors = rates(made)
    scheduler = lr.by_clock(made, lr.linear(total=1000), clock)
    train(made, clock, scheduler, 500, scale=0.5)
    scheduler.scale(0.5)
    scheduler.scale(0.5)
    assert all(now is first for now, first in zip(rates(made), tensors, strict=True))
    assert [float(rate) for rate in rates(made)] == pytest.approx([0.025, 0.075])
    state = scheduler.state_dict()
    assert all(type(rate) is float for rate in state["base_lrs"] + state["_last_lr"])

    again = optimizer(torch.tensor(0.1), torch.tensor(0.3))
    tensors = rates(again)
    resumed = lr.by_clock(again, lr.linear(total=1000), Clock(tokens=500))
    resumed.load_state_dict(state)
    assert all(now is first for now, first in zip(rates(again), tensors, strict=True))
    assert [float(rate) for rate in rates(again)] == pytest.approx([0.05, 0.15])
    train(made, clock, scheduler, 7)
    train(again, resumed.clock, resumed, 7)
    assert rates(again) == rates(made)


def test_other_numbers_of_groups_are_refused_with_the_counts():
    made = optimizer(0.5)
    scheduler = lr.by_clock(made, lr.linear(total=10), Clock())
    state = scheduler.state_dict()
    made.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1})
    words = "the optimizer has 2 parameter groups and its scheduler was made with 1; add groups before lr"
    for call in (scheduler.step, lambda: scheduler.scale(1), lambda: scheduler.load_state_dict(state)):
        with pytest.raises(ValueError, match=words):
            call()
    two = lr.by_clock(optimizer(0.5, 0.1), lr.linear(total=10), Clock())
    with pytest.raises(
        ValueError, match="the state is of 1 parameter groups and the optimizer has 2; expected as many: make"
    ):
        two.load_state_dict(state)


def test_it_is_a_scheduler_of_torch():
    made = optimizer()
    scheduler = lr.by_clock(made, lr.linear(total=10), Clock(), on="steps")
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    sequence = torch.optim.lr_scheduler.ChainedScheduler([scheduler])
    made.step()
    scheduler.clock.tick(samples=1, tokens=1)
    sequence.step()
    assert rates(made) == [0.45]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lr.cosine(warmup=10, total=10), "warmup is 10 and total 10; expected less than total"),
        (lambda: lr.wsd(warmup=5, decay=6, total=10), "warmup 5 and decay 6 are longer than total, 10"),
        (lambda: lr.linear(total=10, floor=2e9), "floor is 2.*; expected a share of the peak, from 0 to 1"),
        (lambda: lr.inverse_sqrt(warmup=0), "warmup is 0; expected a whole number of at least 1"),
        (lambda: lr.scale_peak(1e-3, 0), "data_fraction is 0; expected a share above 0"),
        (lambda: lr.by_clock(optimizer(), lr.linear, Clock()), "schedule is .*; expected one, as lr.cosine"),
        (
            lambda: lr.by_clock(optimizer(), SCHEDULES[0], None),
            r"clock is None; expected the one that training ticks, a dataeff.Clock\(\)",
        ),
        (
            lambda: lr.by_clock(optimizer(), SCHEDULES[0], Clock(), on="epochs"),
            "on is 'epochs'; expected one",
        ),
        (lambda: lr.by_clock(optimizer(), SCHEDULES[0], Clock()).scale(-1), "by is -1; expected a finite"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
