"""The dry run: figures as the words say, sample by sample; what does not fit is named."""

import json
import re
from collections import Counter

import numpy as np
import pytest

import dataeff as de
from dataeff import Curriculum, cli, paced, window
from dataeff.pacing import constant, linear, root
from dataeff.simulation import Length, simulate

LENGTHS = [(i * 13) % 40 + 1 for i in range(100)]


@pytest.fixture
def index(tmp_path):
    losses = [((i * 37) % 100) / 10 for i in range(100)]
    return de.index.from_values({"loss": losses, "length": LENGTHS}, out=tmp_path / "index")


def sampler(index, how=None, **options):
    growing = Curriculum(index, {"loss": how or paced(root(5, 100, steps=60), by="percentile")})
    return de.samplers.curriculum(growing, **{"batch_size": 4, "seed": 1, "steps": 80} | options)


@pytest.mark.parametrize("percent", [7, 14, 28, 55.000000001, 56])
def test_the_bound_is_the_hardest_sample_of_the_pool(index, percent):
    drawn = sampler(index, paced(percent, by="percentile"), steps=2)
    hardest = index.values("loss")[drawn.curriculum.pool(0)].max()
    assert simulate(drawn).bound["loss"].tolist() == [hardest] * 2


def test_figures_are_those_of_the_batches(index):
    drawn, seqlen = sampler(index), linear(5, 40, steps=50, multiple=5)
    found = simulate(drawn, length=Length(seqlen))
    assert found.steps.tolist() == list(range(80))
    tokens, plain, seen = 0, 0, Counter()
    for step in range(80):
        batch = drawn[step]
        seen.update(batch)
        cut = [min(LENGTHS[i], seqlen(step)) for i in batch]
        tokens, plain = tokens + sum(cut), plain + sum(LENGTHS[i] for i in batch)
        losses = [((i * 37) % 100) / 10 for i in batch]
        assert found.pool[step] == len(drawn.curriculum.pool(step))
        np.testing.assert_allclose(found.difficulty["loss"][step, 1], np.mean(losses))
        assert found.length[step].tolist() == [np.mean(cut), max(cut)]
        assert (
            max(losses)
            <= found.bound["loss"][step]
            == max(((i * 37) % 100) / 10 for i in drawn.curriculum.pool(step).tolist())
        )
    assert (found.tokens, found.dropped) == (tokens, plain - tokens)
    assert found.plain_tokens == round(320 * np.mean(LENGTHS))
    assert found.saving == 1 - tokens / found.plain_tokens
    counts = Counter(seen[i] for i in range(100))
    assert found.exposures.tolist() == [counts[n] for n in range(max(counts) + 1)]


def test_reshaping_loses_no_token(index):
    found = simulate(sampler(index), length=Length(10, transform="reshape"))
    assert found.dropped == 0
    assert (
        found.tokens == simulate(sampler(index)).tokens > simulate(sampler(index), length=Length(10)).tokens
    )


def test_a_long_run_is_looked_at_evenly(index):
    found = simulate(sampler(index, steps=10_001))
    assert len(found.steps) == 200
    assert found.steps[[0, -1]].tolist() == [0, 10_000]
    assert found.exposures @ np.arange(len(found.exposures)) == 10_001 * 4


def test_an_index_without_lengths_says_nothing_of_tokens(tmp_path):
    index = de.index.from_values({"loss": np.arange(100)}, out=tmp_path)
    found = simulate(sampler(index))
    assert (found.length, found.tokens, found.saving) == (None, None, None)
    with pytest.raises(
        ValueError, match="holds no 'length', so what is cut is not known; it holds loss: add"
    ):
        simulate(sampler(index), length=Length(8))


def test_it_gives_the_same_each_time_and_depends_on_the_seed(index):
    first, second = (simulate(sampler(index)).to_json() for _ in range(2))
    assert first == second != simulate(sampler(index, seed=2)).to_json()


def test_windows_are_simulated_too(index):
    found = simulate(sampler(index, window(linear(90, 0, steps=60), by="percentile")))
    assert found.pool.tolist() == sorted(found.pool.tolist())
    assert found.difficulty["loss"][0, 1] > found.difficulty["loss"][-1, 1]


@pytest.mark.parametrize(
    ("how", "options", "length", "said"),
    [
        (
            None,
            {"steps": 20},
            None,
            r"the pace of 'loss' \(by percentile\) never reaches its end: it is at 58.* at the last step, "
            r"19, and at 100 only at step 60; shorten it, or train longer",
        ),
        (
            None,
            {"steps": 40},
            Length(linear(8, 40, steps=90, multiple=8)),
            "the pace of the length never reaches",
        ),
        (paced(7.5), {}, None, "24 of 100 samples never enter"),
        (
            None,
            {"batch_size": 12},
            None,
            r"smaller than a batch of 12 at 1 of 80 steps, up to step 0 \(5 samples at the least\): a sample",
        ),
        (
            None,
            {},
            Length(linear(8, 64, steps=9, multiple=8)),
            "ends at 64, and the longest sample has 40 tokens",
        ),
        (
            window(linear(0, 98, steps=30), by="percentile"),
            {},
            None,
            r"smaller than a batch of 4 at 50 of 80 steps, up to step 79 \(2 samples at the least\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(index, how, options, length, said):
    [*notes] = simulate(sampler(index, how, **options), length=length).notes
    assert any(re.search(said, note) for note in notes), notes


def test_what_fits_has_no_notes(index):
    assert simulate(sampler(index), length=Length(linear(8, 40, steps=60, multiple=8))).notes == ()


def test_a_run_until_the_last_pace_ends_has_no_note_that_it_does_not(index):
    run = sampler(index, steps=None)
    assert len(run) == 60
    assert simulate(run).notes == ()
    [note] = simulate(sampler(index, steps=59)).notes
    assert "never reaches its end" in note


def test_truncating_packed_samples_is_named(tmp_path):
    index = de.index.from_values({"loss": np.arange(100), "length": np.full(100, 64)}, out=tmp_path)
    [note] = simulate(sampler(index), length=Length(constant(48))).notes
    assert note.startswith("all samples have 64 tokens, as packed ones do, and truncation drops 25.0% of the")
    assert simulate(sampler(index), length=Length(constant(48), transform="reshape")).notes == ()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Length(8, transform="cut"), "transform is 'cut'; expected 'truncate' or 'reshape'"),
        (
            lambda: Length.from_config({"length": {"paces": 8}}),
            "length has 'paces'; expected pace, transform,",
        ),
        (lambda: Length("long"), "value is 'long'; expected a finite number"),
        (lambda: Length(8, transform=5), "transform is 5; expected 'truncate' or 'reshape'"),
        (lambda: Length(8, metric=5), "metric is 5; expected the name of one of the index, as 'length'"),
        *(
            (
                lambda told=told: Length.from_config({"length": told}),
                r"length is .*; expected a table, as \[l",
            )
            for told in (5, None, [["pace", 5]])
        ),
    ],
)
def test_lengths_that_cannot_be_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_another_sampler_is_refused():
    with pytest.raises(
        ValueError,
        match=r"the sampler is shuffled; expected samplers.curriculum\(...\), whose batches foll",
    ):
        simulate(de.samplers.shuffled(10, batch_size=2, seed=1))


def test_a_length_is_read_from_a_file(tmp_path):
    tables = {"length": {"pace": {"name": "linear", "start": 8, "end": 16, "steps": 2}, "metric": "tokens"}}
    de.config.write(tables, tmp_path / "run.toml")
    expected = Length(linear(8, 16, steps=2), metric="tokens")
    assert Length.from_config(tmp_path / "run.toml") == Length.from_config(tables) == expected


def test_a_length_that_is_no_whole_number_is_refused(index):
    with pytest.raises(
        ValueError, match=r"the length is 8.5 at step 1; expected a whole .* give the pace multiple="
    ):
        simulate(sampler(index), length=Length(linear(8, 18, steps=20)))


CONFIG = """
[curriculum.loss]
by = "percentile"
pace = { name = "root", start = 5, end = 100, steps = 60 }

[length]
pace = 20
"""


def test_the_command_prints_writes_and_draws(index, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG)
    arguments = [
        "simulate",
        "index",
        "--config",
        "run.toml",
        "--batch-size",
        "12",
        "--steps",
        "50",
        "--quiet",
    ]
    assert cli.main([*arguments, "--json", "run.json", "--plot"]) == 0
    out = capsys.readouterr().out
    assert "50 steps of 12 samples, of 100 in the index" in out
    assert "loss: mean  bound  tokens: mean  longest" in out
    assert "note: the pace of 'loss' (by percentile) never reaches its end" in out
    assert max(map(len, out.split("note:")[0].splitlines())) <= 110
    told = json.loads((tmp_path / "run.json").read_text())
    expected = simulate(sampler(index, seed=0, batch_size=12, steps=50), length=Length(20))
    assert told == json.loads(json.dumps(expected.to_json()))
    assert (tmp_path / "simulation.png").read_bytes().startswith(b"\x89PNG")


def simulated(tmp_path, monkeypatch, text, *options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(text)
    return cli.main(["simulate", "index", "--config", "run.toml", "--quiet", *options])


def test_the_batch_size_and_the_steps_are_those_of_the_table_run(index, tmp_path, monkeypatch, capsys):
    run = "[run]\nbatch_size = 6\nsteps = 30\nsequence_length = 40\n" + CONFIG
    assert simulated(tmp_path, monkeypatch, run) == 0
    assert capsys.readouterr().out.startswith("30 steps of 6 samples, of 100 in the index\n")
    assert simulated(tmp_path, monkeypatch, run, "--steps", "20", "--batch-size", "5") == 0
    assert capsys.readouterr().out.startswith("20 steps of 5 samples, of 100 in the index\n")
    assert simulated(tmp_path, monkeypatch, CONFIG, "--batch-size", "5") == 0
    assert capsys.readouterr().out.startswith("60 steps of 5 samples, of 100 in the index\n")


def test_whole_numbers_may_be_written_as_floats_as_in_a_plan(index, tmp_path, monkeypatch, capsys):
    run = "[run]\nbatch_size = 6.0\nsteps = 3e1\nseed = 1e0\n" + CONFIG.replace("steps = 60", "steps = 6e1")
    assert simulated(tmp_path, monkeypatch, run) == 0
    assert capsys.readouterr().out.startswith("30 steps of 6 samples, of 100 in the index\n")


def test_so_is_the_seed(index, tmp_path, monkeypatch, capsys):
    def out(text, *options):
        assert simulated(tmp_path, monkeypatch, text, "--batch-size", "5", *options) == 0
        return capsys.readouterr().out

    run = "[run]\nseed = 3\n" + CONFIG
    assert out(run) == out(CONFIG, "--seed", "3") != out(CONFIG)
    assert out(run, "--seed", "0") == out(CONFIG)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            CONFIG,
            "no batch size: run.toml has no batch_size in its table run; give --batch-size, samples over",
        ),
        ("run = 3\n" + CONFIG, "run is 3; expected a table, as [run]"),
        (
            "length = 5\n[run]\nbatch_size = 5\n" + CONFIG.split("[length]")[0],
            "length is 5; expected a table, as [length] with pace = ...",
        ),
        ('[run]\nbatch_size = "auto"\n' + CONFIG, "batch_size is 'auto'; expected a whole number"),
        (
            CONFIG.replace("[length]", "[lenght]"),
            "unknown name 'lenght' in the tables of run.toml; did you mean 'length'? Known: 'curriculum', ",
        ),
    ],
)
def test_the_command_refuses_a_config_by_name(index, tmp_path, monkeypatch, capsys, text, said):
    assert simulated(tmp_path, monkeypatch, text) == 2
    assert said in capsys.readouterr().err


def test_a_recipe_s_tables_are_known(index, tmp_path, monkeypatch):
    others = "".join(f"[{name}]\n" for name in ("model", "routing", "lr", "token_budget"))
    assert simulated(tmp_path, monkeypatch, CONFIG + others, "--batch-size", "5") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("index", "nowhere"), "no index in nowhere"),
        (("run.toml", "other.toml"), "No such file or directory: 'other.toml'"),
        (("12", "0"), "batch_size is 0; expected a whole number of at least 1"),
        (("50", "-1"), "steps is -1; expected a whole number of at least 0"),
        (("--quiet", "--json=index/../run.toml"), "--json index/../run.toml is what the command reads, and"),
        (("--quiet", "--plot=run.toml"), "--plot run.toml is what the command reads, and would be overwrit"),
    ],
)
def test_the_command_refuses_in_one_line(index, tmp_path, capsys, monkeypatch, change, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG)
    arguments = [
        "simulate",
        "index",
        "--config",
        "run.toml",
        "--batch-size",
        "12",
        "--steps",
        "50",
        "--quiet",
    ]
    assert cli.main([change[1] if word == change[0] else word for word in arguments]) == 2
    assert said in capsys.readouterr().err
