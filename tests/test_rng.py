import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeff import rng


def philox(counter, key):
    """Philox4x32-10 as its paper writes it, in plain Python."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known-answer tests that its authors publish
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_plain_twin_gives_the_published_vectors(counter, key, expected):
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == expected


@given(key=st.integers(0, 2**64 - 1), first_row=st.integers(0, 2**31), columns=st.integers(0, 23))
def test_the_stream_equals_its_plain_twin(key, first_row, columns):
    expected = [
        [
            word
            for block in range(-(-columns // 4))
            for word in philox((block, row, 0, 0), (key & 0xFFFFFFFF, key >> 32))
        ][:columns]
        for row in range(first_row, first_row + 3)
    ]
    assert rng.bits(key, 3, columns, first_row=first_row).tolist() == expected


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_sends_each_index_to_another(size, key):
    assert sorted(rng.permute(np.arange(size), size, key).tolist()) == list(range(size))


@given(
    size=st.integers(1, 3000) | st.sampled_from([64, 512, 2**20, 2**40 + 1]), key=st.integers(0, 2**64 - 1)
)
def test_shuffling_is_a_permutation_of_consecutive_numbers(size, key):
    stop = min(size, 3000)
    expected = rng.permute(np.arange(stop // 3, stop), size, rng.fold(key, 7))
    assert rng.shuffle(size, key, 7, start=stop // 3, stop=stop).tolist() == expected.tolist()
    with pytest.raises(ValueError, match="expected them in rising order"):
        rng.shuffle(size, key, 7, stop=size + 1)


@given(
    numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=9),
    size=st.integers(1, 3000),
    key=st.integers(0, 2**64 - 1),
)
def test_draws_are_permutations_one_after_the_other(numbers, size, key):
    number = np.array(numbers)
    expected = rng.permute(number % size, size, rng.fold(key, number // size))
    assert rng.draw(number, size, key).tolist() == expected.tolist()
    with pytest.raises(ValueError, match="the number of a draw is below 0, or size is outside"):
        rng.draw([*numbers, -1], size, key)


@pytest.mark.parametrize("size", [2**33 + 1, 10**15, 2**62 - 1])
def test_a_permutation_of_a_huge_range_stays_in_it_and_does_not_collide(size):
    index = np.arange(10_000) * (size // 10_000)
    images = rng.permute(index, size, 7)
    assert len(np.unique(images)) == len(index)
    assert images.min() >= 0
    assert images.max() < size


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_order_of_a_few_items_is_as_likely(size):
    keys = rng.fold(rng.key("orders", size), np.arange(60_000))
    orders = rng.permute(np.arange(size)[None], size, keys[:, None])
    _, counts = np.unique(orders, axis=0, return_counts=True)
    possible = len(list(itertools.permutations(range(size))))
    expected = len(keys) / possible
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert len(counts) == possible
    assert chi_square < possible - 1 + 5 * (2 * (possible - 1)) ** 0.5  # five sigma; the key is fixed


def test_every_place_of_a_thousand_is_as_likely():
    keys = rng.fold(rng.key("places"), np.arange(200))
    images = rng.permute(np.arange(1000)[None], 1000, keys[:, None])
    counts = np.stack([np.histogram(images[:, i], bins=10, range=(0, 1000))[0] for i in range(1000)])
    chi_square = ((counts - 20) ** 2 / 20).sum()
    assert abs(chi_square - 9000) < 5 * (2 * 9000) ** 0.5


@given(key=st.integers(0, 2**64 - 1), part=st.integers(0, 2**64 - 1))
def test_folding_is_what_its_plain_twin_says(key, part):
    golden = 0x9E3779B97F4A7C15
    assert rng.fold(key, part) == rng._plain_mix((key ^ rng._plain_mix(part + golden)) + golden)
    assert rng.fold(rng.key(key), part) == rng.key(key, part)


def test_keys_depend_on_every_part_and_its_place():
    keys = {
        rng.key(*parts) for parts in [(0, 1), (1, 0), (0,), (1,), (0, 0), ("0", 1), ("0", "1"), (), ("",)]
    }
    assert len(keys) == 9


@pytest.mark.parametrize("part", [-1, 2**64, 1.5, True, None])
def test_a_part_that_is_no_counter_is_refused(part):
    with pytest.raises(ValueError, match=r"a part of a key is .*; expected a whole number"):
        rng.key(1, part)


@pytest.mark.parametrize(("index", "size"), [(5, 5), (-1, 5), (0, 0), (0, 2**62)])
def test_an_index_outside_is_refused(index, size):
    with pytest.raises(ValueError, match="outside"):
        rng.permute(index, size, 1)


@pytest.mark.parametrize("make", [rng.permute, rng.draw])
def test_what_is_no_whole_number_is_refused(make):
    assert make([], 5, 1).shape == (0,)
    assert make([1], 5, [2**64 - 1, 7]).shape == (2,)
    for name, parts in (("index|number", ([0, 0.7], 5, 1)), ("size", ([0], 5.7, 1)), ("keys", ([0], 5, 0.7))):
        with pytest.raises(ValueError, match=rf"({name}) has \d\.7; expected whole numbers"):
            make(*parts)
    with pytest.raises(ValueError, match="parts has nan; expected whole numbers"):
        rng.fold(1, float("nan"))
