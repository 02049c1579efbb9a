import functools
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dataeff as de
from dataeff.index import _build
from dataeff.metrics import _base, per_sample
from dataeff.metrics._base import identity

TEXTS = [f"{'ab' * (i % 7)}{i}" for i in range(50)]


def halves(tokens):
    return len(tokens) / 2


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(de.metrics.Metric, "shard_tokens", 40)


def build(out, metrics=("length", "vocab_rarity", halves), **options):
    return de.index.build(TEXTS, list(metrics), out=out, progress=False, **options)


def test_the_layout_on_disk_is_the_documented_one(tmp_path):
    build(tmp_path / "idx")
    assert sorted(tree(tmp_path / "idx")) == [
        *(f"{metric}/{name}.npy" for metric in ("halves", "length") for name in ("order", "values")),
        "manifest.json",
        "vocab_rarity/fitted.npy",
        "vocab_rarity/order.npy",
        "vocab_rarity/values.npy",
    ]
    manifest = json.loads((tmp_path / "idx/manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["samples"] == 50
    assert set(manifest["metrics"]["length"]) == {"made_by", "dtype", "range", "percentiles", "checksums"}


def test_values_are_the_metrics_own_and_stay_ints_or_floats(tmp_path):
    index = build(tmp_path / "idx")
    assert index.metrics == ("length", "vocab_rarity", "halves")
    assert index.values("length").tolist() == [len(text) for text in TEXTS]
    assert index.values("length").dtype == np.int64
    np.testing.assert_array_equal(index.values("vocab_rarity"), de.metrics.vocab_rarity()(TEXTS))
    assert index.values("halves").dtype == np.float64


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=200))
def test_order_is_by_value_then_id_and_percentiles_are_nearest_ranks(values, tmp_path_factory):
    index = de.index.from_values({"m": values}, out=tmp_path_factory.mktemp("idx"))
    assert index.order("m").dtype == np.uint32
    assert index.order("m").tolist() == sorted(range(len(values)), key=lambda i: (values[i], i))
    ranks = [max(-(-p * len(values) // 100), 1) - 1 for p in range(101)]
    assert index.percentiles("m").tolist() == [sorted(values)[rank] for rank in ranks]


@pytest.mark.parametrize("executor", ["serial", "threads", "processes"])
def test_every_executor_and_shard_size_gives_the_same_bytes(tmp_path, small_shards, executor, monkeypatch):
    build(tmp_path / "a", executor=executor)
    monkeypatch.undo()
    build(tmp_path / "b", executor="serial")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("executor", [ThreadPoolExecutor, de.index.threads, None])
def test_what_is_no_executor_is_refused(tmp_path, executor):
    with pytest.raises(
        ValueError, match=r"executor is .*; expected a name, or an executor such as threads\(4\)"
    ):
        build(tmp_path / "idx", executor=executor)


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers_that_cannot_be_are_refused(tmp_path, executor, workers):
    with pytest.raises(ValueError, match=f"workers is {workers}; expected a whole number of at least 1"):
        build(tmp_path / "idx", executor=executor, workers=workers)


def test_an_executor_of_one_s_own_is_used_and_left_open(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        build(tmp_path / "idx", executor=pool)
        assert pool.submit(len, "abc").result() == 3
    with pytest.raises(ValueError, match="unknown name 'process' in executors; did you mean 'processes'"):
        build(tmp_path / "other", executor="process")


class Remote(de.index.serial):
    """Tasks reach their worker pickled."""

    def submit(self, fn, /, *args):
        return super().submit(fn, *pickle.loads(pickle.dumps(args)))  # noqa: S301


@pytest.mark.parametrize("rows", [50, 80, 20])
def test_workers_that_stay_see_the_files_of_each_build(tmp_path, rows):
    """A file replaced, grown or shortened under one path."""
    path, new = tmp_path / "tokens.npy", np.arange(4 * rows).reshape(rows, 4)
    np.save(path, np.zeros((50, 4), np.int64))
    pool = Remote()
    de.index.build(path, [max], out=tmp_path / "a", executor=pool, progress=False)
    np.save(tmp_path / "new.npy", new)
    (tmp_path / "new.npy").replace(path)
    index = de.index.build(path, [max], out=tmp_path / "b", executor=pool, progress=False)
    assert index.values("max").tolist() == new.max(1).tolist()
    assert index.fingerprint == de.corpus.open(path).fingerprint()


def test_a_corpus_that_is_shortened_while_it_is_indexed_is_named(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, np.zeros((50, 4), np.int64))
    corpus = de.corpus.open(path)
    np.save(tmp_path / "new.npy", np.zeros((20, 4), np.int64))
    (tmp_path / "new.npy").replace(path)
    with pytest.raises(ValueError, match=r"samples 0 up to 50 of npy\(.*\) are 20 by now; it was changed"):
        de.index.build(corpus, [max], out=tmp_path / "idx", executor=Remote(), progress=False)


class Growing:
    """A folder that another process still writes into, say."""

    count = 50

    def __len__(self):
        return Growing.count

    def __getitem__(self, index):
        return np.arange(index % 7 + 1)


def grown(tokens):
    Growing.count = 60
    return len(tokens)


@pytest.mark.parametrize("known", [0, 40])
def test_a_corpus_that_grows_while_it_is_indexed_is_named(tmp_path, monkeypatch, known):
    if known:
        monkeypatch.setattr(Growing, "count", known)
        de.index.build(Growing(), ["length"], out=tmp_path / "idx", progress=False)
    monkeypatch.setattr(Growing, "count", 50)
    metrics = ["length", grown]
    with pytest.raises(
        ValueError, match=r"had 50 samples when the build began and has 60 by now; .* build once more"
    ):
        de.index.build(Growing(), metrics, out=tmp_path / "idx", progress=False)
    assert (tmp_path / "idx/manifest.json").exists() == bool(known)
    de.index.build(Growing(), metrics, out=tmp_path / "idx", progress=False)
    de.index.build(Growing(), metrics, out=tmp_path / "fresh", progress=False)
    assert tree(tmp_path / "idx") == tree(tmp_path / "fresh")


class Killed(BaseException):
    """Not an Exception: nothing on the way catches it, as nothing catches a kill."""


@pytest.mark.parametrize("after", range(0, 9, 2))
def test_a_build_cut_off_goes_on_and_gives_the_same_bytes(tmp_path, small_shards, monkeypatch, after):
    build(tmp_path / "whole", executor="serial")
    written, write_part = [], _build._files.write_part

    def write_some(path, array):
        if len(written) == after:
            raise Killed
        written.append(path.name)
        write_part(path, array)

    monkeypatch.setattr(_build._files, "write_part", write_some)
    with pytest.raises(Killed):
        build(tmp_path / "cut", executor="serial")
    assert not (tmp_path / "cut/manifest.json").exists()

    again = []
    monkeypatch.setattr(_build._files, "write_part", lambda p, a: (again.append(p.name), write_part(p, a)))
    build(tmp_path / "cut", executor="serial")
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    parts = written
    assert not set(parts) & set(again)


@pytest.mark.parametrize("between", ["build", "add", "values"])
def test_pieces_of_a_build_cut_off_outlive_another_that_is_finished(
    tmp_path, small_shards, monkeypatch, between
):
    if between != "values":
        build(tmp_path, ["length"])
    written, write_part = [], _build._files.write_part

    def write_some(path, array):
        if len(written) == 2:
            raise Killed
        written.append(path)
        write_part(path, array)

    with monkeypatch.context() as cut_off:
        cut_off.setattr(_build._files, "write_part", write_some)
        with pytest.raises(Killed):
            build(tmp_path, [halves])
    if between == "build":
        build(tmp_path, ["type_token_ratio"])
    elif between == "add":
        de.index.open(tmp_path).add({"rank": range(50)})
    else:
        de.index.from_values({"rank": range(50)}, out=tmp_path, corpus=de.corpus.open(TEXTS))
    assert sorted((tmp_path / "parts").iterdir()) == sorted(written)
    build(tmp_path, [halves]).verify()
    assert not (tmp_path / "parts").exists()


def test_a_part_that_is_torn_is_made_again(tmp_path, small_shards, monkeypatch):
    """As after a loss of power: a part of the right size whose bytes never reached the disk."""
    build(tmp_path / "whole", executor="serial")
    with monkeypatch.context() as cut_off:
        cut_off.setattr(_build._store, "commit", lambda out, manifest: None)
        with pytest.raises(FileNotFoundError):
            build(tmp_path / "cut", executor="serial")
    for part in sorted((tmp_path / "cut/parts").glob("*.npy"))[::3]:
        part.write_bytes(bytes(part.stat().st_size))
    build(tmp_path / "cut", executor="serial")
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_results_of_a_build_cut_off_are_not_taken_by_another(tmp_path, small_shards, monkeypatch):
    index = build(tmp_path / "idx", metrics=["length"])
    before = index.values("length").tolist()
    with monkeypatch.context() as cut_off:
        cut_off.setattr(_build._store, "commit", lambda out, manifest: None)
        grown = [*TEXTS, "one more"]
        de.index.build(grown, ["length"], out=tmp_path / "idx", progress=False)
    assert (tmp_path / "idx/parts/length/values.npy").exists()
    added = de.index.open(tmp_path / "idx").add({"loss": np.arange(50.0)})
    assert added.values("length").tolist() == before
    added.verify()


def test_a_killed_process_leaves_a_build_that_goes_on(tmp_path):
    """A real SIGKILL in the middle of scoring."""
    script = (
        "import os, signal, dataeff as de\n"
        "de.metrics.Metric.shard_tokens = 40\n"
        "def halves(tokens):\n"
        "    if bytes(tokens).endswith(b'31'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return len(tokens) / 2\n"
        "texts = [f\"{'ab' * (i % 7)}{i}\" for i in range(50)]\n"
        "de.index.build(texts, {'halves': halves}, out='idx', executor='serial', progress=False)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    assert killed.returncode == -9
    assert list((tmp_path / "idx/parts").iterdir())
    index = de.index.build(TEXTS, {"halves": halves}, out=tmp_path / "idx", progress=False)
    assert index.values("halves").tolist() == [len(text) / 2 for text in TEXTS]
    assert not (tmp_path / "idx/parts").exists()


def test_an_error_in_a_metric_leaves_no_index_and_names_the_sample(tmp_path, small_shards):
    def fails(tokens):
        return float("nan") if bytes(tokens).endswith(b"33") else 1.0

    with pytest.raises(ValueError, match="gives nan for sample 33; expected a finite number"):
        build(tmp_path / "idx", metrics=[fails])
    with pytest.raises(FileNotFoundError, match="no index in .*idx: it has no manifest.json"):
        de.index.open(tmp_path / "idx")


def test_metrics_are_added_to_an_index_and_not_computed_twice(tmp_path, monkeypatch):
    build(tmp_path / "idx", metrics=["length"])
    build(tmp_path / "idx", metrics=[halves])
    monkeypatch.setattr(_build._tasks, "score", None)
    index = build(tmp_path / "idx", metrics=[halves, "length"])
    assert index.metrics == ("length", "halves")


def test_an_index_of_another_corpus_is_refused(tmp_path):
    index = build(tmp_path / "idx", metrics=["length"])
    with pytest.raises(
        ValueError,
        match=r"idx is the index of another corpus: .* 50 samples, .* over 49; give another out=",
    ):
        de.index.build(TEXTS[1:], ["length"], out=tmp_path / "idx", progress=False)
    with pytest.raises(ValueError, match="is the index of another corpus"):
        index.check(de.corpus.open([text.upper() for text in TEXTS]))
    index.check(de.corpus.open(TEXTS))


def test_a_function_mended_after_an_error_is_not_mixed_with_its_old_values(tmp_path, small_shards):
    def make(source):
        scope = {}
        exec(f"def score(tokens):\n    return {source}", scope)  # noqa: S102
        return scope["score"]

    with pytest.raises(ValueError, match="gives nan for sample 33"):
        build(tmp_path / "idx", metrics=[make("float('nan') if bytes(tokens).endswith(b'33') else 1.0")])
    index = build(tmp_path / "idx", metrics=[make("2.0")])
    assert set(index.values("score").tolist()) == {2.0}
    with pytest.raises(
        ValueError, match=r"holds 'score' made by .* of code .*, not by .* of code .*; give the metric"
    ):
        build(tmp_path / "idx", metrics=[make("3.0")])


def test_what_another_python_compiled_says_so(tmp_path, monkeypatch):
    build(tmp_path / "idx")
    monkeypatch.setattr(_base, "_PYTHON", "3.99")
    with pytest.raises(
        ValueError, match=r"in Python 3\.99; code is known by what .* build with Python 3\.1\d, g"
    ):
        build(tmp_path / "idx")
    build(tmp_path / "idx", ["length", "vocab_rarity"])


@pytest.mark.parametrize("how", ["class", "partial", "method"])
def test_a_metric_that_prints_with_its_address_is_refused(tmp_path, how):
    class Plain(de.metrics.Metric):
        def score(self, shard, fitted):
            return np.zeros(len(shard))

        def of(self, tokens):
            return 1

    metric = {"class": Plain(), "partial": functools.partial(lambda n, tokens: n, 1), "method": Plain().of}[
        how
    ]
    with pytest.raises(ValueError, match=r"prints with an address, .*; make the class @attrs.frozen, or"):
        de.index.build(TEXTS, {"m": metric}, out=tmp_path / "idx", progress=False)
    assert not (tmp_path / "idx").exists()


def test_processes_that_build_one_index_at_once_take_turns(tmp_path):
    script = (
        "import dataeff as de\n"
        "de.metrics.Metric.shard_tokens = 40\n"
        "texts = [f\"{'ab' * (i % 7)}{i}\" for i in range(50)]\n"
        "index = de.index.build(texts, ['length', 'vocab_rarity'], out='idx', progress=False)\n"
        "assert len(index.values('vocab_rarity')) == 50\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) for _ in range(3)]
    assert [racer.wait() for racer in racers] == [0, 0, 0]


def test_a_metric_made_otherwise_under_the_same_name_is_refused(tmp_path):
    build(tmp_path / "idx", metrics=["vocab_rarity"])
    with pytest.raises(
        ValueError, match=r"made by vocab_rarity\(mean=False\), not by vocab_rarity\(mean=True\)"
    ):
        build(tmp_path / "idx", metrics=[de.metrics.vocab_rarity(mean=True)])
    index = de.index.build(
        TEXTS, {"mean_rarity": de.metrics.vocab_rarity(mean=True)}, out=tmp_path / "idx", progress=False
    )
    assert index.metrics == ("vocab_rarity", "mean_rarity")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("length", r"metrics is the string 'length'; expected a list"),
        (halves, r"metrics is <function halves at .*>; expected a list, of one metric too: \[metric\]"),
        (de.metrics.mtld(), r"metrics is mtld\(threshold=0.72\); expected a list"),
        ([], "expected at least one"),
        (["length", "length"], r"each of its own name"),
        ([lambda tokens: 1], "'<lambda>' cannot name a metric"),
        ({"../up": len}, "'../up' cannot name a metric"),
        ({"parts": len}, "'parts' cannot name a metric"),
        (["lenght"], "did you mean 'length'"),
    ],
)
def test_metrics_that_cannot_be_are_refused_before_anything_is_written(tmp_path, metrics, said):
    with pytest.raises(ValueError, match=said):
        de.index.build(TEXTS, metrics, out=tmp_path / "idx", progress=False)
    assert not (tmp_path / "idx").exists()


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the corpus has no samples"):
        de.index.build([], ["length"], out=tmp_path / "idx", progress=False)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": [1, 2], "b": [1]}, "the shapes"),
        ({"a": [[1]]}, "the shapes"),
        ({}, "the shapes"),
        ({"a": [1.0, float("inf")]}, "the values of 'a' gives inf for sample 1"),
        ({"a": ["x"]}, "expected bools, ints or floats"),
        ({"a": [1.0, [2.0, 3.0]]}, r"the values of 'a' gives \[2.0, 3.0\]; expected one number a sample"),
        ({"a": [2**63, -1]}, f"gives -1 and {2**63}; expected whole numbers that int64 or uint64 holds"),
        ({"a": [2**64, 1]}, f"gives 1 and {2**64}; expected whole numbers that int64 or uint64 holds"),
    ],
)
def test_values_that_are_no_difficulties_are_refused(tmp_path, values, said):
    with pytest.raises(ValueError, match=said):
        de.index.from_values(values, out=tmp_path / "idx")
    assert not (tmp_path / "idx").exists()


@pytest.mark.parametrize("many", [list, tuple, np.array])
def test_whole_numbers_are_exact(tmp_path, many):
    values = [2**63 + 5, 2**63 + 1, 7, 2**63 + 3]
    given = np.array(values, np.uint64) if many is np.array else many(values)
    index = de.index.from_values({"hash": given}, out=tmp_path)
    assert index.values("hash").dtype == np.uint64
    assert index.values("hash").tolist() == values
    assert index.order("hash").tolist() == [2, 1, 3, 0]


def large(tokens):
    return 2**63 + 1 if bytes(tokens).endswith(b"31") else 2**53 + len(tokens)


def large_and_negative(tokens):
    return -1 if bytes(tokens) == b"0" else large(tokens)


def test_whole_numbers_are_exact_wherever_shards_are_cut(tmp_path, small_shards, monkeypatch):
    index = build(tmp_path / "cut", [large])
    assert index.values("large").dtype == np.uint64
    assert index.values("large").tolist() == [large(text.encode()) for text in TEXTS]
    with pytest.raises(
        ValueError, match=r"'large_and_negative' gives -1 and numbers from 2\*\*63 on; expected"
    ):
        build(tmp_path / "negative", [large_and_negative])
    monkeypatch.undo()
    build(tmp_path / "whole", [large])
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    with pytest.raises(ValueError, match=f"gives -1 and {2**63 + 1}; expected whole numbers"):
        build(tmp_path / "negative", [large_and_negative])


def test_tensors_are_values(tmp_path):
    values = torch.tensor([0.5, 0.25], requires_grad=True)
    forms = {"grad": values, "bf16": values.bfloat16(), "list": list(values), "plain": values.detach()}
    index = de.index.from_values(forms, out=tmp_path)
    for name in forms:
        assert index.values(name).dtype == np.float32
        assert index.values(name).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("combine", "said"),
    [
        (
            lambda: de.index.rank([0.5, float("nan"), 0.1]),
            "difficulty 0 gives nan for sample 1; expected a finite",
        ),
        (lambda: de.index.lexicographic([1, 2], [0.5, float("inf")]), "difficulty 1 gives inf for sample 1"),
        (lambda: de.index.weighted_sum([[float("nan")]], [1.0]), "difficulty 0 gives nan for sample 0"),
        (lambda: de.index.rank([[1, 2]]), r"shapes \[\(1, 2\)\]; expected one number a sample in each"),
        (
            lambda: de.index.weighted_sum([[1, 2, 3], [1]], [1, 1]),
            r"shapes \[\(3,\), \(1,\)\]; expected one number",
        ),
        (lambda: de.index.lexicographic([1, 2, 3], [1]), r"shapes \[\(3,\), \(1,\)\]; expected one number"),
        (lambda: de.index.weighted_sum(np.zeros((0, 2)), []), "got 0 difficulties and 0 weights"),
        (lambda: de.index.rank(["easy"]), "expected bools, ints or floats"),
    ],
)
def test_what_cannot_be_combined_is_refused(combine, said):
    with pytest.raises(ValueError, match=said):
        combine()


def test_rows_of_an_array_are_summed():
    assert de.index.weighted_sum(np.array([[1, 2], [3, 4]]), np.array([1, 10])).tolist() == [31, 42]


def test_no_values_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no values; expected one a sample"):
        de.index.from_values({"m": []}, out=tmp_path / "idx")
    index = de.index.from_values({"m": [1]}, out=tmp_path / "idx")
    with pytest.raises(ValueError, match="values is empty; expected one metric at least"):
        index.add({})
    for name in ("corpus.json", "x" * 101, "orders", ".hidden"):
        with pytest.raises(ValueError, match=f"'{name}' cannot name a metric"):
            index.add({name: [1]})


def test_from_values_does_not_overwrite(tmp_path):
    de.index.from_values({"a": [1]}, out=tmp_path)
    with pytest.raises(ValueError, match="already holds an index; choose another folder"):
        de.index.from_values({"a": [2]}, out=tmp_path)


def test_an_unknown_metric_names_the_known(index):
    with pytest.raises(ValueError, match="unknown name 'lose' in the index .*; did you mean 'loss'"):
        index.values("lose")


def test_an_index_pickles_as_its_path_and_fingerprint_and_compares(index):
    assert pickle.loads(pickle.dumps(index)) == index  # noqa: S301
    assert len(pickle.dumps(index)) < 500


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "manifest.json is not JSON"),
        ("{", "manifest.json is not JSON"),
        ("[]", "has format list; this version of dataeff reads 1"),
        ('{"format": 2}', "has format 2; this version"),
        ('{"format": 1, "fingerprint": 3}', "fingerprint is 3; expected a str"),
        ('{"format": 1, "fingerprint": "x", "samples": "many"}', "samples is 'many'; expected a int"),
    ],
)
def test_a_manifest_that_is_broken_is_named(index, content, said):
    (index.path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        de.index.open(index.path)


@pytest.mark.parametrize("change", ["cut", "empty", "gone", "shorter", "square"])
def test_an_array_that_is_broken_is_named(index, change):
    path = index.path / "loss/values.npy"
    content = path.read_bytes()
    if change == "gone":
        path.unlink()
    elif change in ("shorter", "square"):
        np.save(path, np.zeros(99) if change == "shorter" else np.zeros((10, 10)))
    else:
        path.write_bytes(content[:-8] if change == "cut" else b"")
    with pytest.raises(
        ValueError, match=r"loss/values.npy (is not a readable array|has 99 entries|holds an array of shape)"
    ):
        index.values("loss")


def test_verify_finds_a_changed_byte(index):
    index.verify()
    path = index.path / "loss/values.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"loss/values.npy has checksum .*; the manifest says .*; rebuild it"
    ):
        index.verify()


def test_damaged_values_can_be_given_anew(index):
    with pytest.raises(ValueError, match="already holds 'loss'; choose another name"):
        index.add({"loss": range(len(index))})
    (index.path / "loss/order.npy").write_bytes(b"damaged")
    again = index.add({"loss": range(len(index))})
    again.verify()
    assert again.values("loss").tolist() == list(range(len(index)))


def test_values_are_counted_against_what_the_index_holds_by_now(tmp_path):
    opened = build(tmp_path / "idx", ["length"])
    de.index.build([*TEXTS, "one more"], ["length"], out=tmp_path / "idx", progress=False)
    with pytest.raises(ValueError, match=r"the values of 'loss' have the shape \(50,\); expected \(51,\)"):
        opened.add({"loss": np.arange(50.0)})
    assert len(opened.add({"loss": np.arange(51.0)}).values("loss")) == 51


def test_a_failed_write_leaves_what_was_there(tmp_path):
    def fail(file):
        file.write(b"half")
        raise OSError("no space left")

    (tmp_path / "file").write_text("whole")
    with pytest.raises(OSError, match="no space left"):
        _build._files.write(tmp_path / "file", fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "whole")]


def test_a_function_is_known_by_all_that_it_holds():
    def make(n, default=1, helper=abs):
        def score(tokens, scale=default):
            return helper(n) * scale

        return per_sample(score)

    def double(n):
        return 2 * n

    def triple(n):
        return 3 * n

    made = [make(1), make(2), make(1, default=3), make(1, helper=double), make(1, helper=triple)]
    assert len({identity(metric) for metric in made}) == len(made)
    assert identity(make(1)) == identity(make(1))
    with pytest.raises(ValueError, match="score holds a value that prints with an address"):
        identity(make(object()))


def test_a_script_without_a_guard_ends_and_says_what_it_lacks(tmp_path):
    (tmp_path / "script.py").write_text(
        "import dataeff as de\n"
        "de.index.build(['to be', 'or not'], ['length'], out='idx', executor='processes', progress=False)\n"
    )
    ran = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 1
    assert 'must be below if __name__ == "__main__":' in ran.stderr
