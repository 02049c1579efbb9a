import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataeff import Clock

ticks = st.lists(st.tuples(*[st.integers(0, 10**12)] * 3), max_size=20)


@given(ticks)
def test_counts_are_exact_sums(steps):
    clock = Clock()
    for samples, tokens, layer_tokens in steps:
        clock.tick(samples=samples, tokens=tokens, layer_tokens=layer_tokens)
    assert clock == Clock(len(steps), *map(sum, zip(*steps, strict=True)))


@given(ticks, ticks)
def test_a_resumed_clock_goes_on(before, after):
    clock, uninterrupted = Clock(), Clock()
    for samples, tokens, layer_tokens in before:
        clock.tick(samples=samples, tokens=tokens, layer_tokens=layer_tokens)
    resumed = Clock()
    resumed.load_state_dict(clock.state_dict())
    for samples, tokens, layer_tokens in after:
        resumed.tick(samples=samples, tokens=tokens, layer_tokens=layer_tokens)
    for samples, tokens, layer_tokens in before + after:
        uninterrupted.tick(samples=samples, tokens=tokens, layer_tokens=layer_tokens)
    assert resumed == uninterrupted


def test_the_state_is_loaded_safely_by_torch(tmp_path):
    clock = Clock()
    clock.tick(samples=1, tokens=2**70)
    torch.save(clock.state_dict(), tmp_path / "clock.pt")
    assert torch.load(tmp_path / "clock.pt", weights_only=True) == clock.state_dict()


@pytest.mark.parametrize(
    "amounts",
    [
        {"samples": -1, "tokens": 1},
        {"samples": 1, "tokens": 1.5},
        {"samples": 1, "tokens": 1, "layer_tokens": -2},
    ],
)
def test_a_tick_that_is_no_count_changes_nothing(amounts):
    clock = Clock()
    with pytest.raises(ValueError, match="expected a whole number of at least 0"):
        clock.tick(**amounts)
    assert clock == Clock()


@pytest.mark.parametrize("state", [{"ticks": 3}, {}, {"steps": 3}, Clock().state_dict() | {"steps": -1}])
def test_a_state_that_is_no_clock_s_changes_nothing(state):
    clock = Clock(steps=5)
    with pytest.raises(ValueError, match="a clock's state has the keys|steps is .*; expected a whole number"):
        clock.load_state_dict(state)
    assert clock == Clock(steps=5)
