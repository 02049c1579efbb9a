import math
import zlib
from collections import Counter
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeff.corpus import Shard, from_samples
from dataeff.metrics import Metric, checked, identity
from dataeff.metrics._base import batched
from dataeff.metrics._bigram_surprisal import bigram_surprisal
from dataeff.metrics._compressibility import compressibility
from dataeff.metrics._distinct import distinct, most_distinct
from dataeff.metrics._mtld import mtld
from dataeff.metrics._repetition import repetition
from dataeff.metrics._seqlen_vocab_rarity import seqlen_vocab_rarity
from dataeff.metrics._type_token_ratio import type_token_ratio
from dataeff.metrics._unigram_entropy import unigram_entropy
from dataeff.metrics._vocab_rarity import vocab_rarity

DTYPES = [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
small = st.lists(st.lists(st.integers(0, 5), max_size=40), min_size=1, max_size=12)
wide = st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=20), min_size=1, max_size=8)
ragged = st.lists(st.lists(st.integers(0, 127), max_size=40), min_size=1, max_size=12)
METRICS = [
    type_token_ratio(),
    repetition(n=2),
    unigram_entropy(),
    mtld(),
    compressibility(),
    bigram_surprisal(bits=10),
    seqlen_vocab_rarity(),
]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)


def shard_of(texts, dtype=np.int64):
    offsets = np.cumsum([0] + [len(text) for text in texts], dtype=np.int64)
    return Shard(np.array([token for text in texts for token in text], dtype), offsets)


def values(metric, shard):
    return np.asarray(metric.score(shard, metric.fit(shard)))


# What each metric means, in plain Python.


def grams(text, n):
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def plain_repetition(text, n):
    found = grams(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def plain_entropy(text):
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log(share) for share in shares)


def plain_pass(text, threshold):
    factors, factor = 0.0, []
    for token in text:
        factor.append(token)
        if len(set(factor)) / len(factor) <= threshold:
            factors, factor = factors + 1, []
    if factor:
        factors += (1 - len(set(factor)) / len(factor)) / (1 - threshold)
    return len(text) / factors if factors else len(text)


def plain_mtld(text, threshold):
    return (plain_pass(text, threshold) + plain_pass(text[::-1], threshold)) / 2


def leb128(token):
    return bytes([token]) if token < 128 else bytes([token % 128 + 128]) + leb128(token // 128)


def plain_compressibility(text, level):
    encoded = b"".join(map(leb128, text))
    return len(zlib.compress(encoded, level)) / len(encoded) if encoded else 0.0


def plain_surprisal(texts, weight):
    """With a bucket for every pair."""
    pairs = Counter(pair for text in texts for pair in grams(text, 2))
    counts = Counter(token for text in texts for token in text)
    total = sum(counts.values())
    out = []
    for text in texts:
        p = [counts[text[0]] / total] if text else []
        for a, b in grams(text, 2):
            p.append(weight * pairs[a, b] / counts[a] + (1 - weight) * counts[b] / total)
        out.append(sum(-math.log(x) for x in p) / max(1, len(text)))
    return out


# The kernels against those meanings.


@given(small, st.integers(1, 6))
def test_distinct_counts_different_n_grams(texts, n):
    assert distinct(shard_of(texts), n).tolist() == [len(set(grams(text, n))) for text in texts]


@given(wide, st.integers(1, 3))
def test_distinct_tells_the_widest_ids_apart(texts, n):
    shard = shard_of([text * 2 for text in texts], np.uint64)
    assert distinct(shard, n).tolist() == [len(set(grams(text * 2, n))) for text in texts]


@pytest.mark.parametrize("stride", [1, 2**8, 2**16, 2**32, 2**48])
def test_distinct_is_exact_for_one_token_and_not_slowed_by_regular_ids(stride):
    ids = (np.arange(2**14, dtype=np.uint64) * np.uint64(stride)).repeat(2)
    shard = Shard(ids, np.array([0, len(ids)]))
    assert distinct(shard).tolist() == [len(np.unique(ids))]


def test_distinct_n_grams_of_a_large_sample_do_not_collide():
    tokens = np.random.default_rng(0).integers(0, 1000, 200_000).astype(np.uint16)
    for n in (2, 3):
        windows = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.int64), n)
        packed = windows @ (1000 ** np.arange(n))
        assert distinct(Shard(tokens, np.array([0, len(tokens)])), n).tolist() == [len(np.unique(packed))]


def test_negative_ids_are_ids_too():
    shard = shard_of([[-1, -1, 5], [-128, 127]], np.int8)
    assert distinct(shard).tolist() == [2, 2]
    assert values(unigram_entropy(), shard)[1] == pytest.approx(math.log(2))
    assert values(mtld(), shard)[1] == 2


@given(small)
def test_the_table_holds_what_the_dtype_can_tell(texts):
    longest = max(map(len, texts))
    assert most_distinct(shard_of(texts)) == longest
    assert most_distinct(shard_of([[1] * 1000], np.uint8)) == 256
    assert most_distinct(shard_of([[1] * 1000], np.uint8), 2) == 1000


@given(small)
def test_type_token_ratio_is_distinct_over_all(texts):
    expected = [len(np.unique(text)) / max(1, len(text)) for text in texts]
    assert values(type_token_ratio(), shard_of(texts)).tolist() == expected


@given(small, st.integers(1, 6))
def test_repetition_is_one_less_the_share_of_distinct_n_grams(texts, n):
    expected = [plain_repetition(text, n) for text in texts]
    np.testing.assert_allclose(values(repetition(n), shard_of(texts)), expected, rtol=0, atol=1e-15)


def test_repetition_of_samples_shorter_than_n_is_0():
    assert repetition()([[], [1], [1, 1], [1, 1, 1], [1, 1, 1, 1]]).tolist() == [0, 0, 0, 0, 0.5]
    assert repetition(10**12)([[1, 1]]).tolist() == [0]


@given(small)
def test_unigram_entropy_is_shannon_s(texts):
    expected = [plain_entropy(text) for text in texts]
    np.testing.assert_allclose(values(unigram_entropy(), shard_of(texts)), expected, rtol=1e-12, atol=1e-14)


@given(st.integers(1, 3000))
def test_unigram_entropy_is_never_below_0(length):
    assert 0 <= unigram_entropy()([[7] * length])[0] < 1e-14


@given(small, st.sampled_from([0.72, 0.5, 0.9]))
def test_mtld_is_that_of_the_definition(texts, threshold):
    expected = [plain_mtld(text, threshold) for text in texts]
    np.testing.assert_allclose(values(mtld(threshold), shard_of(texts)), expected, rtol=1e-12)


def test_mtld_by_hand():
    # Forward a b a ends a factor (2/3), c is left with ratio 1 and adds nothing: 4 / 1.
    # Backward c a b a has ratio 3/4: 0.25 / 0.28 of a factor: 4 / 0.892857 = 4.48.
    assert mtld()([[0, 1, 0, 2]])[0] == pytest.approx((4 + 4.48) / 2)
    # of the people by the people | for the people: one factor in either direction, nothing left over.
    assert mtld()([[0, 1, 2, 3, 1, 2, 4, 1, 2]])[0] == pytest.approx(9)
    assert mtld(0.75)([[0, 1, 2, 0]])[0] == 4  # a ratio that reaches the threshold ends a factor
    assert mtld()([[], [3], [1, 2, 3]]).tolist() == [0, 1, 3]  # all differ: the number of tokens


def test_mtld_of_long_samples_after_one_another():
    texts = [np.random.default_rng(i).zipf(1.3, 5000) % 500 for i in range(3)]
    expected = [plain_mtld(text.tolist(), 0.72) for text in texts]
    np.testing.assert_allclose(mtld()(texts), expected, rtol=1e-12)


@given(wide, st.integers(1, 9))
def test_compressibility_is_zlib_s_of_varints(texts, level):
    expected = [plain_compressibility(text, level) for text in texts]
    assert values(compressibility(level), shard_of(texts, np.uint64)).tolist() == expected


@pytest.mark.parametrize("token", [0, 127, 128, 255, 256, 2**14 - 1, 2**14, 2**32 - 1, 2**63, 2**64 - 1])
def test_compressibility_at_the_edges_of_a_varint(token):
    dtype = np.min_scalar_type(token)
    expected = [plain_compressibility([token] * count, 6) for count in (1, 300)]
    assert values(compressibility(), shard_of([[token], [token] * 300], dtype)).tolist() == expected


def test_compressibility_of_ascii_is_that_of_the_text():
    text = "to be, or not to be, that is the question" * 3
    assert compressibility()([text])[0] == len(zlib.compress(text.encode())) / len(text)


def test_compressibility_refuses_a_negative_id():
    with pytest.raises(ValueError, match="token id -3 is negative; expected ids of 0 or more to compress"):
        compressibility()([[1, 2], [4, -3]])


@given(small, st.sampled_from([0.0, 0.5, 0.75, 1.0]))
def test_bigram_surprisal_is_interpolated(texts, weight):
    np.testing.assert_allclose(
        values(bigram_surprisal(weight), shard_of(texts)),
        plain_surprisal(texts, weight),
        rtol=1e-12,
        atol=1e-14,
    )


def test_bigram_surprisal_by_hand():
    # a b a b: p(a) = 1/2; p(b | a) = 0.75 * 2/2 + 0.25 * 2/4; p(a | b) = 0.75 * 1/2 + 0.25 * 2/4
    expected = -(math.log(0.5) + 2 * math.log(0.875) + math.log(0.5)) / 4
    assert bigram_surprisal()(["abab"])[0] == pytest.approx(expected)


def test_bigram_surprisal_takes_what_it_has_not_seen_as_seen_once():
    metric = bigram_surprisal()
    fitted = metric.fit(shard_of([[0, 0, 0, 2]]))
    found = metric.score(shard_of([[1], [999], [-5], [0, 1], [999, 2]]), fitted)
    once = math.log(4)
    pairs = [-math.log(0.75 / 3 + 0.25 / 4), -math.log(0.75 + 0.25 / 4)]
    expected = [once, once, once, (-math.log(3 / 4) + pairs[0]) / 2, (once + pairs[1]) / 2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(small)
def test_bigram_surprisal_shares_buckets_without_a_probability_above_1(texts):
    assert (values(bigram_surprisal(bits=1), shard_of(texts)) >= 0).all()


def test_bigram_surprisal_s_statistics_are_pairs_then_tokens():
    fitted = bigram_surprisal(bits=4).fit(shard_of([[1, 2, 1], [], [3]]))
    assert fitted.dtype == np.int64
    assert fitted[:16].sum() == 2
    assert fitted[16:].tolist() == [0, 2, 1, 1]


@pytest.mark.parametrize("token", [-3, 2**28, 2**45])
@pytest.mark.parametrize("metric", [bigram_surprisal(), seqlen_vocab_rarity()], ids=str)
def test_a_token_that_cannot_be_counted_is_refused(metric, token):
    with pytest.raises(ValueError, match=rf"token id {token} is outside \[0, 268435456\), what is counted"):
        metric([[1], [token]])


@given(small)
def test_seqlen_vocab_rarity_is_length_then_rarity(texts):
    found, lengths = seqlen_vocab_rarity()(texts), np.array([len(text) for text in texts])
    full = lengths > 0
    assert (found[~full] == 0).all()
    assert ((lengths - 1 < found) & (found <= lengths))[full].all()
    total = max(1, lengths.sum())
    expected = lengths - 1 + (1 + vocab_rarity(mean=True)(texts)) / (1 + math.log(total))
    np.testing.assert_allclose(found[full], expected[full], rtol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 100, 4096])
def test_seqlen_vocab_rarity_never_exceeds_the_length(length):
    texts = [list(range(length)), *[[length] * length] * 3]
    metric = seqlen_vocab_rarity()
    fitted = metric.fit(shard_of(texts))
    found = metric.score(shard_of([[10**6] * length, list(range(length))]), fitted)  # all seen once
    assert (found <= length).all()
    np.testing.assert_allclose(found, length, rtol=1e-12)


# What all of them keep to.


@every_metric
@given(texts=ragged)
def test_empty_samples_have_0_and_all_values_are_finite_floats(metric, texts):
    shard = shard_of([*texts, []])
    found = checked(metric.score(shard, metric.fit(shard)), shard, metric)
    assert found.dtype == np.float64
    assert (found[np.diff(shard.offsets) == 0] == 0).all()


@every_metric
@given(texts=ragged)
def test_every_token_dtype_gives_the_same(metric, texts):
    expected = values(metric, shard_of(texts))
    for dtype in DTYPES:
        np.testing.assert_array_equal(values(metric, shard_of(texts, dtype)), expected)


@every_metric
def test_a_narrow_dtype_gives_the_same_for_more_tokens_than_it_can_tell(metric):
    texts = [np.random.default_rng(0).integers(0, 256, 3000).tolist(), [1, 2]]
    np.testing.assert_array_equal(
        values(metric, shard_of(texts, np.uint8)), values(metric, shard_of(texts, np.int64))
    )


@every_metric
@given(texts=ragged, cuts=st.lists(st.integers(0, 12), max_size=3))
def test_values_do_not_depend_on_where_shards_are_cut(metric, texts, cuts):
    corpus = from_samples(texts)
    edges = sorted({0, len(corpus), *(cut for cut in cuts if cut < len(corpus))})
    shards = [corpus.shard(start, stop) for start, stop in pairwise(edges)]
    whole = corpus.shard(0, len(corpus))
    fitted = None
    if type(metric).fit is not Metric.fit:
        fitted = reduce(metric.merge, map(metric.fit, shards))
        np.testing.assert_array_equal(fitted, metric.fit(whole))
    found = np.concatenate([metric.score(shard, fitted) for shard in shards])
    np.testing.assert_array_equal(found, values(metric, whole))


@every_metric
def test_a_read_only_memory_map_is_read_and_left_alone(metric, tmp_path):
    texts = [[1, 2, 3, 100, 1, 2, 3], [], [1, 1, 1], [100]]
    shard = shard_of(texts, np.uint16)
    np.save(tmp_path / "tokens.npy", shard.tokens)
    mapped = Shard(np.load(tmp_path / "tokens.npy", mmap_mode="r"), shard.offsets.copy())
    mapped.offsets.flags.writeable = False
    np.testing.assert_array_equal(values(metric, mapped), values(metric, shard))
    np.testing.assert_array_equal(mapped.tokens, shard.tokens)


@every_metric
def test_statistics_are_left_alone_and_may_be_read_only(metric):
    shard = shard_of([[1, 2, 1, 2], [3]])
    fitted = metric.fit(shard)
    expected = metric.score(shard, fitted)
    if fitted is not None:
        before = fitted.copy()
        fitted.flags.writeable = False
        metric.merge(fitted, fitted)
        np.testing.assert_array_equal(metric.score(shard, fitted), expected)
        np.testing.assert_array_equal(fitted, before)


@every_metric
def test_no_samples_have_no_values(metric):
    assert len(values(metric, Shard(np.zeros(0, np.uint16), np.zeros(1, np.int64)))) == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: vocab_rarity(1), "mean is 1; expected True or False"),
        (lambda: repetition(0), "n is 0; expected a whole number of at least 1"),
        (lambda: repetition(n=2.5), "n is 2.5; expected a whole number of at least 1"),
        (lambda: mtld(0), "threshold is 0; expected a number between 0 and 1, neither of them"),
        (lambda: mtld(1.0), "threshold is 1.0; expected a number between 0 and 1, neither of them"),
        (lambda: mtld(float("nan")), "threshold is nan; expected a finite number"),
        (lambda: mtld("low"), "threshold is 'low'; expected a finite number"),
        (lambda: compressibility(0), "level is 0; expected a whole number from 1 to 9"),
        (lambda: compressibility(10), "level is 10; expected a whole number from 1 to 9"),
        (lambda: bigram_surprisal(1.5), "weight is 1.5; expected a number from 0 to 1"),
        (lambda: bigram_surprisal(-0.1), "weight is -0.1; expected a number from 0 to 1"),
        (lambda: bigram_surprisal(bits=0), "bits is 0; expected a whole number from 1 to 28"),
        (lambda: bigram_surprisal(bits=29), "bits is 29; expected a whole number from 1 to 28"),
    ],
)
def test_a_parameter_out_of_range_is_refused(make, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        make()


def test_parameters_are_plain_numbers_whatever_they_were_given_as():
    assert repr(mtld(np.float64(0.5))) == "mtld(threshold=0.5)"
    assert repr(repetition(np.int64(4))) == "repetition(n=4)"
    assert repr(bigram_surprisal(np.float64(0.5), np.int32(3))) == "bigram_surprisal(weight=0.5, bits=3)"


# A function of a shard.


def lengths(shard):
    return np.diff(shard.offsets)


def test_batched_takes_a_function_of_a_shard():
    assert batched(lengths)([[1, 2], [], [3]]).tolist() == [2, 0, 1]
    assert repr(batched(lengths)) == f"batched(function={__name__}.lengths)"
    assert identity(batched(lambda shard: 1)) != identity(batched(lambda shard: 2))


def test_batched_is_held_to_one_number_a_sample():
    with pytest.raises(
        ValueError, match=r"gives values of shape \(1,\) for 2 samples; expected one number a sample"
    ):
        batched(lambda shard: [1])([[1], [2]])


def test_an_error_calls_a_metric_what_it_is_told_to():
    shard = shard_of([[1], [2]])
    with pytest.raises(ValueError, match=r"^depth gives nan for sample 8; expected a finite number$"):
        checked([1.0, float("nan")], shard, "depth", first=7)
    with pytest.raises(ValueError, match=r"^depth gives values of shape \(1,\) for 2 samples"):
        checked([1.0], shard, "depth")
