"""One row for each registered primitive buys it all the tests below; a primitive without a row fails."""

import builtins
import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import attrs
import datasets
import numpy as np
import pytest
import torch

import dataeff as de
from dataeff import corpus, index, metrics, pacing, registry, routers, routing, samplers

ROOT = Path(__file__).parent.parent
TEXTS = ["to be", "or not", "", "to be"]


@attrs.frozen
class Row:
    """A primitive: how to make it, what calling it on its example gives."""

    kind: str
    name: str
    make: Any
    use: Any


def scores(metric):
    return metric(TEXTS).tolist()


def amounts(pace):
    return pacing.table(pace)


def content(opened):
    return [sample.tolist() for sample in opened.shard(0, len(opened))]


def batches(sampler):
    return [list(sampler[step]) for step in range(len(sampler))]


def chosen(router):
    tokens = torch.arange(32).view(2, 16) % 9
    offers = {
        "key": (1, 2, 3, 4),
        "hidden": torch.stack([tokens.sin(), tokens.cos(), tokens % 2], 2),
        "gate": lambda hidden: hidden[..., :1],
        "tokens": tokens,
        "state": torch.arange(9.0),
    }
    asked = {name: offers[name] for name in inspect.signature(router).parameters if name in offers}
    ids = router(2, 16, 8, **asked)
    return ids.ids.tolist() if isinstance(ids, routers.Chosen) else ids.tolist()


def squares(executor):
    with executor:
        return [future.result() for future in [executor.submit(pow, i, 2) for i in range(5)]]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contracts")
    (folder / "a.txt").write_text("\n".join(TEXTS))
    np.save(folder / "a.npy", np.arange(6).reshape(2, 3))
    np.arange(7, dtype=np.uint16).tofile(folder / "a.bin")
    (folder / "a.jsonl").write_text('{"text": "to be"}\n{"text": "or not"}\n')
    corpus.from_samples([[1, 2], [3]]).write(folder / "pair", "megatron")
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]]})
    rows.save_to_disk(str(folder / "rows"))
    rows.to_parquet(str(folder / "a.parquet"))
    index.from_values({"length": [3, 1, 2, 5]}, out=folder / "index")
    return folder


def budget(folder):
    stream = samplers.curriculum(everything(folder), batch_size=2, seed=1, steps=16)
    return samplers.token_budget(stream, lengths=[3, 1, 2, 5], max_tokens=8, multiple=2)


def everything(folder):
    return de.Curriculum(index.open(folder / "index"), {"length": de.paced(pacing.linear(2, 5, steps=4))})


ramp = pacing.linear(2, 10, steps=8)
ROWS = [
    Row("metrics", "bigram_surprisal", lambda _: metrics.bigram_surprisal(weight=0.5, bits=8), scores),
    Row("metrics", "compressibility", lambda _: metrics.compressibility(level=9), scores),
    Row("metrics", "length", lambda _: metrics.length(), scores),
    Row("metrics", "mtld", lambda _: metrics.mtld(threshold=0.6), scores),
    Row("metrics", "repetition", lambda _: metrics.repetition(n=2), scores),
    Row("metrics", "seqlen_vocab_rarity", lambda _: metrics.seqlen_vocab_rarity(), scores),
    Row("metrics", "type_token_ratio", lambda _: metrics.type_token_ratio(), scores),
    Row("metrics", "unigram_entropy", lambda _: metrics.unigram_entropy(), scores),
    Row("metrics", "vocab_rarity", lambda _: metrics.vocab_rarity(mean=True), scores),
    Row("pacings", "clip", lambda _: pacing.clip(ramp, low=3, high=6), amounts),
    Row("pacings", "constant", lambda _: pacing.constant(7), amounts),
    Row("pacings", "cosine", lambda _: pacing.cosine(1, 5, steps=4), amounts),
    Row("pacings", "custom", lambda _: pacing.custom(abs, steps=3), amounts),
    Row("pacings", "discrete", lambda _: pacing.discrete([1, 2], until=[4]), amounts),
    Row("pacings", "exponential", lambda _: pacing.exponential(1, 5, steps=4), amounts),
    Row(
        "pacings",
        "in_steps",
        lambda _: pacing.in_steps(pacing.linear(1, 9, steps=64, on="tokens"), ramp),
        amounts,
    ),
    Row("pacings", "join", lambda _: pacing.join([ramp, 3], boundaries=[5]), amounts),
    Row("pacings", "levels", lambda _: pacing.levels(ramp, k=3), amounts),
    Row("pacings", "linear", lambda _: pacing.linear(8, 64, steps=9, multiple=8), amounts),
    Row("pacings", "multiple", lambda _: pacing.multiple(ramp, 4), amounts),
    Row("pacings", "root", lambda _: pacing.root(1, 5, steps=4, degree=3), amounts),
    Row("pacings", "scale", lambda _: pacing.scale(ramp, by=0.5), amounts),
    Row(
        "samplers", "curriculum", lambda f: samplers.curriculum(everything(f), batch_size=2, seed=1), batches
    ),
    Row("samplers", "importance", lambda _: samplers.importance(7, batch_size=2, seed=1, epochs=2), batches),
    Row(
        "samplers",
        "mixture",
        lambda _: samplers.mixture({"a": 5, "b": 2}, weights={"a": ramp, "b": 1}, batch_size=2, seed=1),
        batches,
    ),
    Row("samplers", "shuffled", lambda _: samplers.shuffled(7, batch_size=2, seed=1, steps=9), batches),
    Row("samplers", "token_budget", lambda f: budget(f), batches),
    Row("routers", "mixture_of_depths", lambda _: routers.mixture_of_depths(width=3), chosen),
    Row("routers", "patch_dropout", lambda _: routers.patch_dropout(prefix=2), chosen),
    Row("routers", "random_ltd", lambda _: routers.random_ltd(shared=True), chosen),
    Row("routers", "span", lambda _: routers.span(), chosen),
    Row("routers", "token_bypass", lambda _: routers.token_bypass(vocabulary=9, special=(1,)), chosen),
    Row("routers", "tome", lambda _: routers.tome(prefix=1), chosen),
    Row(
        "corpora",
        "arrow",
        lambda f: corpus.arrow(next((f / "rows").glob("*.arrow")), tokens="input_ids"),
        content,
    ),
    Row("corpora", "bin", lambda f: corpus.bin(f / "a.bin", window=3, stride=2), content),
    Row("corpora", "hf_dataset", lambda f: corpus.hf_dataset(str(f / "rows")), content),
    Row("corpora", "jsonl", lambda f: corpus.jsonl(f / "a.jsonl", tokens="text"), content),
    Row("corpora", "map_dataset", lambda _: corpus.map_dataset([{"text": "to"}], tokens="text"), content),
    Row("corpora", "megatron", lambda f: corpus.megatron(f / "pair", dtype="int64"), content),
    Row("corpora", "npy", lambda f: corpus.npy(f / "a.npy"), content),
    Row("corpora", "parquet", lambda f: corpus.parquet(f / "a.parquet"), content),
    Row("corpora", "text", lambda f: corpus.text(f / "a.txt", sample_by="paragraph"), content),
    Row("executors", "processes", lambda _: index.processes(1), squares),
    Row("executors", "serial", lambda _: index.serial(), squares),
    Row("executors", "threads", lambda _: index.threads(2), squares),
]
PRIMITIVES = [row for row in ROWS if row.kind != "executors"]  # an executor holds threads: it has no value
every = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.name}")
every_primitive = pytest.mark.parametrize("row", PRIMITIVES, ids=lambda row: f"{row.kind}-{row.name}")


def test_every_built_in_has_a_row():
    built_in = [
        (kind, plugin.name)
        for kind in registry.KINDS
        for plugin in registry.plugins(kind)
        if plugin.distribution == "dataeff"
    ]
    assert sorted((row.kind, row.name) for row in ROWS) == sorted(built_in)


@every
def test_it_is_what_the_registry_gives(row, files):
    strategy = registry.get(row.kind, row.name)
    made = row.make(files)
    assert isinstance(made, strategy if isinstance(strategy, type) else type(strategy()))


@every
def test_it_gives_the_same_each_time(row, files):
    assert row.use(row.make(files)) == row.use(row.make(files))


@every_primitive
def test_using_it_does_not_change_it(row, files):
    made = row.make(files)
    before = pickle.dumps(made)
    first = row.use(made)
    assert row.use(made) == first
    assert pickle.dumps(made) == before


@every_primitive
def test_it_pickles_and_copies(row, files):
    made = row.make(files)
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):  # noqa: S301
        assert row.use(twin) == row.use(made)


@every_primitive
def test_it_compares_by_what_it_is_made_of(row, files):
    assert row.make(files) == row.make(files)


@every_primitive
def test_it_prints_as_the_code_that_makes_it(row, files):
    made = row.make(files)
    modules = (metrics, pacing, corpus, routers, samplers)
    names = {name: getattr(module, name) for module in modules for name in dir(module)}
    names |= {"Index": index.Index, "Curriculum": de.Curriculum, "paced": de.paced, "builtins": builtins}
    assert eval(repr(made), names) == made  # noqa: S307


@every_primitive
def test_its_fields_cannot_be_set_but_for_progress(row, files):
    made = row.make(files)
    assert attrs.has(type(made))
    fields = [field.name for field in attrs.fields(type(made)) if field.init]
    state = {"steps"} if row.kind == "samplers" else set()
    for field in set(fields) - state:
        with pytest.raises(AttributeError):
            setattr(made, field, None)


@every
def test_its_docstring_has_an_example(row):
    strategy = registry.get(row.kind, row.name)
    assert ">>>" in inspect.getdoc(strategy)


@every
def test_it_has_a_page(row):
    strategy = registry.get(row.kind, row.name)
    module = ".".join(strategy.__module__.split(".")[:2])
    pages = [page.read_text() for page in (ROOT / "docs/reference").glob("*.md")]
    assert sum(f"::: {module}" in page for page in pages) == 1


def sampler_row(name):
    make = next(row.make for row in ROWS if (row.kind, row.name) == ("samplers", name))
    return make, lambda sampler: next(iter(sampler))


STATEFUL = {
    "clock": (lambda: de.Clock(timer=int), lambda clock: clock.tick(samples=1, tokens=2)),
    **{name: sampler_row(name) for name in ("curriculum", "mixture", "shuffled", "token_budget")},
    "route": (lambda f: routed(), lambda route: setattr(route, "step", route.step + 1)),
}


def routed():
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2))
    return routing.attach(layers, keep=2, seed=1, layers=[layers[0]])


@pytest.mark.parametrize("name", STATEFUL)
def test_what_has_state_resumes_equal_to_uninterrupted(name, files, tmp_path):
    make, advance = STATEFUL[name]
    make_one = (lambda: make()) if name == "clock" else (lambda: make(files))
    uninterrupted, first, second = make_one(), make_one(), make_one()
    for _ in range(2):
        advance(uninterrupted)
        advance(uninterrupted)
        advance(first)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        advance(second)
    assert second.state_dict() == uninterrupted.state_dict()
