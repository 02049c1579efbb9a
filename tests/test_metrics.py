import copy
import dataclasses
import functools
import math
import os
import subprocess
import sys
from collections import Counter

import attrs
import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataeff import index, metrics, registry
from dataeff.corpus import from_samples

samples = st.lists(st.lists(st.integers(0, 300), max_size=30), min_size=1, max_size=20)


def rarity(texts):
    """The formula as the paper gives it."""
    counts = Counter(token for text in texts for token in text)
    total = sum(counts.values())
    return [sum(-math.log(counts[token] / total) for token in text) for text in texts]


@given(samples)
def test_length_counts_tokens(texts):
    assert metrics.length()(texts).tolist() == [len(text) for text in texts]


@given(samples)
def test_vocab_rarity_is_the_paper_s_formula(texts):
    np.testing.assert_allclose(metrics.vocab_rarity()(texts), rarity(texts), rtol=1e-12, atol=1e-12)


@given(samples)
def test_mean_vocab_rarity_is_the_sum_per_token(texts):
    expected = [total / max(1, len(text)) for total, text in zip(rarity(texts), texts, strict=True)]
    np.testing.assert_allclose(metrics.vocab_rarity(mean=True)(texts), expected, rtol=1e-12, atol=1e-12)


@given(samples, st.integers(0, 20))
def test_statistics_merge_to_those_of_the_whole(texts, cut):
    metric, corpus = metrics.vocab_rarity(), from_samples(texts)
    cut = min(cut, len(corpus))
    parts = metric.fit(corpus.shard(0, cut)), metric.fit(corpus.shard(cut, len(corpus)))
    np.testing.assert_array_equal(metric.merge(*parts), metric.fit(corpus.shard(0, len(corpus))))


def test_an_unseen_token_counts_as_seen_once():
    metric = metrics.vocab_rarity()
    fitted = metric.fit(from_samples([[0, 0, 0, 2]]).shard(0, 1))
    values = metric.score(from_samples([[1], [2], [999]]).shard(0, 3), fitted)
    assert values.tolist() == [math.log(4)] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_every_token_dtype_gives_the_same(dtype):
    texts = [np.array(text, dtype) for text in ([1, 2, 3, 100], [1, 1], [100])]
    np.testing.assert_array_equal(
        metrics.vocab_rarity()(texts), metrics.vocab_rarity()([t.tolist() for t in texts])
    )


@pytest.mark.parametrize("token", [-3, 2**28, 2**45, np.uint64(2**63 + 5)])
def test_a_token_that_cannot_be_counted_is_refused(token):
    with pytest.raises(ValueError, match=rf"token id {token} is outside \[0, 268435456\), what is counted"):
        metrics.vocab_rarity()([np.array([1]).astype(np.array(token).dtype), np.array([token])])


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_value_that_is_not_finite_is_refused_with_its_sample(value, said):
    metric = metrics.per_sample(lambda tokens: value if len(tokens) == 3 else 1.0)
    with pytest.raises(ValueError, match=f"gives {said} for sample 1; expected a finite number"):
        metric([[1], [1, 2, 3]])


@pytest.mark.parametrize("function", [lambda tokens: [1, 2], lambda tokens: "hard", lambda tokens: None])
def test_a_function_that_gives_no_number_is_refused(function):
    with pytest.raises(ValueError, match="expected one number a sample|expected bools, ints or floats"):
        metrics.per_sample(function)([[1], [2]])


def test_lists_of_several_lengths_are_no_numbers():
    with pytest.raises(ValueError, match=r"gives \[1, 2\]; expected one number a sample"):
        metrics.per_sample(lambda tokens: tokens.tolist() if len(tokens) > 1 else 0)([[1], [1, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_numbers(dtype):
    loss = torch.tensor([0.5], dtype=dtype, requires_grad=True)
    for metric in (metrics.per_sample(lambda tokens: loss[0]), metrics.batched(lambda shard: loss)):
        assert metric([[1, 2]]).tolist() == [0.5]
        assert metric([[1, 2]]).dtype == np.float32


def smallest(tokens):
    tokens.sort()
    return tokens[0]


@attrs.frozen
class sorts(metrics.Metric):
    def score(self, shard, fitted):
        return [smallest(sample) for sample in shard]


class sorts_first(metrics.vocab_rarity):
    def fit(self, shard):
        shard.tokens.sort()
        return super().fit(shard)


WRITING = [
    metrics.per_sample(smallest),
    metrics.batched(lambda shard: [smallest(shard.tokens)]),
    sorts(),
    sorts_first(),
]


@pytest.mark.parametrize("metric", WRITING, ids=["per_sample", "batched", "score", "fit"])
def test_a_metric_that_writes_into_tokens_is_told_to_copy_them(metric, tmp_path):
    """Others would be of what it wrote."""
    corpus = from_samples([[3, 1, 2]])
    words = r"writes into the tokens \(.*read-only\); copy them first: tokens.copy"
    with pytest.raises(ValueError, match=words):
        metric(corpus)
    with pytest.raises(ValueError, match=f"'mine', .*, {words}"):
        index.build(corpus, {"mine": metric}, out=tmp_path, progress=False)
    assert corpus[0].tolist() == [3, 1, 2]


def test_a_copy_may_be_written_into():
    assert metrics.per_sample(lambda tokens: smallest(tokens.copy()))([[3, 1, 2]]).tolist() == [1]


def total(tokens):
    return tokens.sum()


def test_a_function_that_numba_compiles_is_a_metric():
    compiled = metrics.per_sample(numba.njit(total))
    assert compiled([[1, 2], [3]]).tolist() == [3, 3]
    assert metrics.identity(compiled) == metrics.identity(metrics.per_sample(total))
    assert metrics.identity(weighted((numba.njit(total),))) == metrics.identity(weighted((total,)))


def test_bools_ints_and_floats_stay_what_they_are():
    kinds = [
        metrics.per_sample(f)([[1], [2, 3]]).dtype.kind for f in (lambda t: len(t) > 1, len, lambda t: 0.5)
    ]
    assert kinds == ["b", "i", "f"]


def test_resolving_takes_names_classes_metrics_and_functions():
    assert metrics.resolve("vocab_rarity") == ("vocab_rarity", metrics.vocab_rarity())
    assert metrics.resolve(metrics.length) == ("length", metrics.length())
    assert metrics.resolve(metrics.vocab_rarity(mean=True))[1].mean
    assert metrics.resolve(len) == ("len", metrics.per_sample(len))
    with pytest.raises(ValueError, match="metric is 7; expected a registered name, a metric or a function"):
        metrics.resolve(7)


def printed_by_processes(code):
    environments = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2", "3")]
    return {subprocess.check_output([sys.executable, "-c", code], env=env) for env in environments}


def test_a_function_is_known_by_its_code_in_every_process():
    code = (
        "from dataeff import metrics\n"
        "def vowels(tokens): return sum(chr(t) in {'a', 'e', 'i', 'o', 'u'} for t in tokens)\n"
        "print(metrics.identity(metrics.per_sample(vowels)))"
    )
    said = printed_by_processes(code)
    assert len(said) == 1


def test_a_metric_that_holds_sets_is_known_in_every_process():
    code = (
        "import attrs\n"
        "from dataeff import metrics\n"
        "@attrs.frozen\n"
        "class words(metrics.Metric):\n"
        "    held: object\n"
        "    def score(self, shard, fitted): return [0] * len(shard)\n"
        "def closure(held): return lambda tokens: len(held)\n"
        "some = {b'the', b'of', b'and', b'a'}\n"
        "for held in (some, frozenset(some), [some, (frozenset(some), {'b': some})]):\n"
        "    print(metrics.identity(words(held)), metrics.identity(metrics.per_sample(closure(held))))"
    )
    said = printed_by_processes(code)
    assert len(said) == 1
    assert b"words(held=[\"b'a'\", \"b'and'\"" in said.pop()


@attrs.frozen
class weighted(metrics.Metric):
    table: object
    hidden: object = attrs.field(default=None, repr=False)

    def score(self, shard, fitted):
        return np.zeros(len(shard))


@dataclasses.dataclass(frozen=True)
class of_a_dataclass(metrics.Metric):
    table: object

    def score(self, shard, fitted):
        return np.zeros(len(shard))


def closure(held):
    return metrics.per_sample(lambda tokens: held)


def default(held):
    def score(tokens, held=held):
        return held

    return metrics.per_sample(score)


@pytest.mark.parametrize("make", [weighted, of_a_dataclass, closure, default])
@pytest.mark.parametrize("nest", [lambda a: a, lambda a: [1, (a, "b")], lambda a: {"k": {"l": a}}, weighted])
def test_a_metric_is_known_by_all_that_its_arrays_hold(make, nest):
    table = np.arange(5000)
    other = table.copy()
    other[2500] = 7
    arrays = [table, other, table.astype(np.int32), table.reshape(50, 100), table[:-1], table.astype(object)]
    arrays += [torch.from_numpy(array) for array in (table, other)]
    arrays += [torch.from_numpy(array).to(torch.bfloat16) for array in (table, other)]
    known = {metrics.identity(make(nest(array))) for array in arrays}
    assert len(known) == len(arrays)
    assert known == {metrics.identity(make(nest(copy.deepcopy(array)))) for array in arrays}


def test_what_is_plain_is_known_by_what_it_prints():
    plain = {1: "1", (1, 2.5): "(1, 2.5)", np.ndarray: "<class 'numpy.ndarray'>"}
    said = {metrics.identity(weighted(held)).partition(" of code ") for held in plain}
    assert {made for made, _, _ in said} == {f"weighted(table={printed})" for printed in plain.values()}
    assert len({code for _, _, code in said}) == 1
    assert metrics.identity(weighted(1, hidden=len)) == metrics.identity(weighted(1))
    assert metrics.identity(weighted(1, hidden=closure)) != metrics.identity(weighted(1))


def test_a_built_in_metric_is_known_by_name_and_parameters():
    """So an index stays what it is when their code, or the Python that runs it, is another."""
    for plugin in registry.plugins("metrics"):
        if plugin.distribution == "dataeff":
            metric = plugin.load()()
            assert metrics.identity(metric) == repr(metric)


METHODS = [
    "def score(self, shard, fitted): return [{0}] * len(shard)",
    "def fit(self, shard): return [{0}]",
    "@staticmethod\n    def own(): return {0}",
    "@property\n    def own(self): return {0}",
    "@functools.cached_property\n    def own(self): return {0}",
    "@functools.lru_cache\n    def own(self): return {0}",
    "def __attrs_post_init__(self): print({0})",
]


@pytest.mark.parametrize("base", ["metrics.length", "weighted"])
@pytest.mark.parametrize("method", METHODS)
def test_a_class_of_one_s_own_is_known_by_its_methods(method, base):
    def make(value):
        scope = {"attrs": attrs, "functools": functools, "metrics": metrics, "weighted": weighted}
        scope["__name__"] = __name__
        slots = "cached_property" not in method  # attrs would make another method of it
        exec(f"@attrs.frozen(slots={slots})\nclass own({base}):\n    {method.format(value)}", scope)  # noqa: S102
        return scope["own"](*([1] if base == "weighted" else []))

    known = {metrics.identity(make(value)) for value in (1, 7)}
    assert len(known) == 2
    assert known == {metrics.identity(make(value)) for value in (1, 7)}


def test_a_class_is_known_by_the_methods_that_it_inherits_and_calls():
    def make(value):
        class first(weighted):
            def score(self, shard, fitted):
                return np.full(len(shard), value)

        class second(first):
            def score(self, shard, fitted):
                return super().score(shard, fitted)

        return second(1)

    assert metrics.identity(make(1)) == metrics.identity(make(1)) != metrics.identity(make(2))


def test_a_metric_with_fit_and_no_merge_says_so():
    class Half(metrics.Metric):
        def fit(self, shard):
            return np.zeros(1)

        def score(self, shard, fitted):
            return np.zeros(len(shard))

    with pytest.raises(NotImplementedError, match=r"Half has fit\(\) but no merge\(\)"):
        Half().merge(np.zeros(1), np.zeros(1))


@attrs.frozen
class fitted_by(metrics.Metric):
    own: object

    def fit(self, shard):
        return self.own

    def merge(self, first, second):
        return first

    def score(self, shard, fitted):
        return np.zeros(len(shard))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (np.array([None]), "1-D object"),
        (np.array(["a"]), "1-D <U1"),
        (np.ones((1, 1)), "2-D float64"),
        ({}, "dict"),
    ],
)
def test_statistics_that_are_no_numbers_are_refused(tmp_path, own, said):
    with pytest.raises(
        ValueError, match=rf"fit\(\) gives {said}; expected a one-dimensional array of numbers"
    ):
        index.build(["a"], {"m": fitted_by(own)}, out=tmp_path, progress=False)


def test_statistics_may_be_tensors(tmp_path):
    built = index.build(["a"], {"m": fitted_by(torch.ones(2))}, out=tmp_path, progress=False)
    assert built.fitted("m").tolist() == [1, 1]
