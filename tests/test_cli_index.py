import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dataeff as de
from dataeff import cli

ANALYZED = Path(__file__).parent / "data/deepspeed_index"
LINES = [f"line {'ab ' * (i % 5)}{i}" for i in range(40)]


@pytest.fixture
def made(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join(LINES))
    arguments = ["index", str(tmp_path / "texts.txt"), "--sample-by", "line", "--out", str(tmp_path / "idx")]
    assert cli.main([*arguments, "--metric", "length", "vocab_rarity:mean=True", "--quiet"]) == 0
    assert "40 samples, length, vocab_rarity" in capsys.readouterr().out
    return tmp_path


def test_index_writes_what_build_does(made):
    index = de.index.open(made / "idx")
    assert index.values("length").tolist() == [len(line) for line in LINES]
    expected = de.metrics.vocab_rarity(mean=True)(LINES)
    np.testing.assert_array_equal(index.values("vocab_rarity"), expected)


def test_index_takes_windows_and_a_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"ab": 0, "line": 1, "?": 2}, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    (tmp_path / "texts.txt").write_text("\n".join(LINES))
    arguments = [
        "index",
        str(tmp_path / "texts.txt"),
        "--tokenizer",
        str(tmp_path / "t.json"),
        "--window",
        "8",
    ]
    assert cli.main([*arguments, "--metric", "length", "--out", str(tmp_path / "idx"), "--quiet"]) == 0
    assert set(de.index.open(tmp_path / "idx").values("length").tolist()) == {8}


def test_a_bar_shows_what_is_done(made, capsys):
    arguments = ["index", str(made / "texts.txt"), "--sample-by", "line", "--out", str(made / "idx")]
    assert cli.main([*arguments, "--metric", "mtld"]) == 0
    error = capsys.readouterr().err
    assert "index: score mtld: 100%" in error
    assert "samples/s" in error


def test_show_prints_percentiles_samples_and_correlations(made, capsys):
    assert cli.main(["show", str(made / "idx"), "--samples", "2"]) == 0
    out = capsys.readouterr().out
    assert "40 samples, fingerprint" in out
    assert "  percentile    0%    1%" in out
    assert "#0          line 0" in out
    assert "#39         line ab ab ab ab 39" in out
    assert "rank correlation (Spearman)" in out
    assert "1.00" in out


def test_show_works_after_the_folder_moved_with_its_corpus(made, tmp_path_factory, capsys):
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(made, moved / "all")
    shutil.rmtree(made)
    assert cli.main(["show", str(moved / "all/idx")]) == 0
    assert "line 0" in capsys.readouterr().out


def test_show_says_why_samples_are_missing(made, capsys):
    (made / "texts.txt").rename(made / "elsewhere.txt")
    assert cli.main(["show", str(made / "idx")]) == 0
    assert "Samples are not shown: no corpus at" in capsys.readouterr().out
    found = ["show", str(made / "idx"), "--corpus", str(made / "elsewhere.txt")]
    assert cli.main([*found, "--sample-by", "line"]) == 0
    assert "line 0" in capsys.readouterr().out
    assert cli.main(found) == 2
    assert "has 1 samples, and" in capsys.readouterr().err


def test_show_plots(made, capsys):
    assert cli.main(["show", str(made / "idx"), "--plot", str(made / "h.png"), "--samples", "0"]) == 0
    assert (made / "h.png").read_bytes().startswith(b"\x89PNG")


def test_show_of_a_constant_metric_has_no_correlation(tmp_path, capsys):
    de.index.from_values({"same": [1, 1, 1], "loss": [0.5, 0.1, 0.9]}, out=tmp_path / "idx")
    assert cli.main(["show", str(tmp_path / "idx")]) == 0
    out = capsys.readouterr().out
    assert "-" in out.splitlines()[-3]
    assert "the index does not say where its corpus is; give --corpus" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "lenght"], "unknown name 'lenght' in metrics; did you mean 'length'"),
        (["--metric", "repetition:n"], "--metric is 'repetition:n'; expected repetition:option=value"),
        (["--metric", "repetition:k=2"], "--metric repetition:k=2: "),
        (["--metric", "repetition:n=x"], "n is 'x'; expected"),
        (["--metric", "vocab_rarity:mean=false"], "mean is 'false'; expected True or False"),
        (["--metric", "length", "--stride", "3"], "--stride is 3 and --window is not given"),
        (["--metric", "length", "--workers", "0"], "workers is 0; expected a whole number of at least 1"),
        (["--metric", "length", "--executor", "thread"], "did you mean 'threads'"),
        (["--metric", "length", "--address", "auto"], "executor 'threads' does not take these options"),
        (["--metric", "length", "--tokens", "x"], "the format 'text' does not take these options"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "texts.txt").write_text("\n".join(LINES))
    given = ["index", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "idx"), "--quiet", *arguments]
    assert cli.main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "idx/manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(["plan", "linked"], "--json"), (["import-config", "linked"], "--out")],
)
def test_a_config_is_not_written_over(tmp_path, monkeypatch, capsys, arguments, option):
    """Under another name, too."""
    monkeypatch.chdir(tmp_path)
    config = {"run": {"batch_size": 8, "sequence_length": 16, "steps": 4}}
    config = json.dumps(config if "plan" in arguments else {"curriculum_learning": {"enabled": False}})
    Path("config.json").write_text(config)
    Path("linked").symlink_to("config.json")
    assert cli.main([*arguments, option, "config.json"]) == 2
    said = f"dataeff: error: {option} config.json is what the command reads, and would be overwritten; name a"
    assert capsys.readouterr().err.startswith(said)
    assert Path("config.json").read_text() == config


def run_into(output, *arguments):
    """Exit code and error output of the command itself, with its output going there."""
    command = [sys.executable, "-c", "from dataeff.cli import main; raise SystemExit(main())", *arguments]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["recipes"], ["--help"]])
def test_a_reader_that_stopped_is_no_error_and_a_full_disk_is_one(arguments):
    read, closed = os.pipe()
    os.close(read)
    assert run_into(closed, *arguments) == (0, "")
    os.close(closed)
    with Path("/dev/full").open("w") as full:
        assert run_into(full, *arguments) == (2, "dataeff: error: [Errno 28] No space left on device\n")


def test_a_damaged_note_is_named(made, capsys):
    (made / "idx/corpus.json").write_text('{"format": 3}')
    assert cli.main(["show", str(made / "idx")]) == 2
    assert "corpus.json is damaged" in capsys.readouterr().err


def analyzed():
    return [np.array(sample) for sample in json.loads((ANALYZED / "corpus.json").read_text())]


def test_an_index_of_deepspeed_is_ours(tmp_path, capsys):
    """Files that DeepSpeed 0.19 wrote for this corpus, beside our own metrics on it."""
    corpus = de.corpus.open(analyzed())
    corpus.write(tmp_path / "corpus", dtype="uint16")
    arguments = ["import-index", str(ANALYZED), "--out", str(tmp_path / "idx")]
    assert cli.main([*arguments, "--corpus", str(tmp_path / "corpus")]) == 0
    assert "300 samples, rarity, seqlen" in capsys.readouterr().out
    imported = de.index.open(tmp_path / "idx")
    ours = de.index.build(corpus, ["length", "vocab_rarity"], out=tmp_path / "ours", progress=False)
    np.testing.assert_array_equal(imported.values("seqlen"), ours.values("length"))
    np.testing.assert_array_equal(imported.order("seqlen"), ours.order("length"))
    # their metrics are integers: the example scales the rarity by 100 and cuts the rest off
    np.testing.assert_array_equal(imported.values("rarity"), np.floor(100 * ours.values("vocab_rarity")))
    grown = de.index.build(corpus, ["mtld"], out=tmp_path / "idx", progress=False)
    assert grown.metrics == ("rarity", "seqlen", "mtld")


def test_an_index_of_deepspeed_is_read_from_its_levels_alone(tmp_path):
    shutil.copytree(ANALYZED, tmp_path / "theirs")
    for file in (tmp_path / "theirs").rglob("*_sample_to_metric.*"):
        file.unlink()
    by_level = de.index.import_deepspeed(tmp_path / "theirs", out=tmp_path / "a")
    by_sample = de.index.import_deepspeed(ANALYZED, out=tmp_path / "b", metrics=["seqlen", "rarity"])
    for metric in ("seqlen", "rarity"):
        np.testing.assert_array_equal(by_level.values(metric), by_sample.values(metric))


def test_an_index_inside_its_corpus_is_refused(tmp_path, monkeypatch, capsys):
    """Its files would be read as samples from then on."""
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.int64))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["index", ".", "--out", "idx", "--metric", "length", "--quiet"]) == 2
    assert "idx lies in the corpus folder ., and would be read as a part of it" in capsys.readouterr().err
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("to be")
    for corpus in ("texts", de.corpus.open("texts")):
        with pytest.raises(ValueError, match="texts/a/idx lies in .* texts, .*; give another out= beside"):
            de.index.build(corpus, ["length"], out="texts/a/idx", progress=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npy", "a.txt", "texts"]
    arguments = ["index", "texts", "--metric", "length", "--quiet"]
    assert cli.main([*arguments, "--out", "texts2"]) == cli.main([*arguments, "--out", "."]) == 0


def test_what_is_no_index_of_deepspeed_is_refused(tmp_path):
    for name in ("a", "b"):
        shutil.copytree(ANALYZED / "seqlen", tmp_path / "twice" / name)
    with pytest.raises(ValueError, match=r"'seqlen' is in .*a and in .*b; give one of the folders"):
        de.index.import_deepspeed(tmp_path / "twice", out=tmp_path / "idx")
    shutil.rmtree(tmp_path / "twice")
    with pytest.raises(FileNotFoundError, match=r"has no merged files of 'loss'; found: 'rarity', 'seqlen'"):
        de.index.import_deepspeed(ANALYZED, out=tmp_path / "idx", metrics=["loss"])
    with pytest.raises(FileNotFoundError, match="has no merged files of any metric; found: none"):
        de.index.import_deepspeed(tmp_path, out=tmp_path / "idx")
    with pytest.raises(ValueError, match="there are 300 values and 1 samples; expected one value a sample"):
        de.index.import_deepspeed(ANALYZED, out=tmp_path / "idx", corpus=de.corpus.open(["a"]))
    shutil.copytree(ANALYZED, tmp_path / "theirs")
    for file in (tmp_path / "theirs/seqlen").glob("*_sample_to_metric.*"):
        file.unlink()
    shutil.copy(
        ANALYZED / "rarity/rarity_index_to_metric.idx", tmp_path / "theirs/seqlen/seqlen_index_to_metric.idx"
    )
    shutil.copy(
        ANALYZED / "rarity/rarity_index_to_metric.bin", tmp_path / "theirs/seqlen/seqlen_index_to_metric.bin"
    )
    with pytest.raises(ValueError, match=r"seqlen_index_to_metric has \d+ values and seqlen_index_to_sample"):
        de.index.import_deepspeed(tmp_path / "theirs", out=tmp_path / "idx", metrics=["seqlen"])


def test_metrics_of_several_options_add_up_and_no_name_comes_twice(made, capsys):
    arguments = ["index", str(made / "texts.txt"), "--sample-by", "line", "--quiet", "--out", str(made / "b")]
    assert cli.main([*arguments, "--metric", "mtld", "--metric", "repetition"]) == 0
    assert de.index.open(made / "b").metrics == ("mtld", "repetition")
    assert cli.main([*arguments, "--metric", "repetition:n=2", "repetition:n=1"]) == 2
    assert "expected each name once: give one another name, as pairs=repet" in capsys.readouterr().err
    assert (
        cli.main([*arguments[:-1], str(made / "c"), "--metric", "pairs=repetition:n=2", "chars=length"]) == 0
    )
    named = de.index.open(made / "c")
    assert named.metrics == ("pairs", "chars")
    np.testing.assert_array_equal(named.values("pairs"), de.metrics.repetition(n=2)(LINES))


def test_show_of_an_index_whose_corpus_has_grown(made, capsys):
    with (made / "texts.txt").open("a") as file:
        file.write("\nmore")
    assert cli.main(["show", str(made / "idx")]) == 0
    out = capsys.readouterr().out
    assert "percentile" in out
    assert "has 41 samples, and" in out
