"""Comparing runs: figures that can be worked out by hand, words, refusals, and what the page holds."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from dataeff import cli
from dataeff._units import amount
from dataeff.clock import Clock, Log
from dataeff.report import read_runs, save_curves, save_histograms, save_page, savings
from dataeff.report._columns import curve
from dataeff.report._page_data import chart_data
from dataeff.report._page_tables import grouped
from dataeff.report._thin import thin
from dataeff.report._words import verdict

AXES = ("steps", "samples", "tokens", "layer_tokens", "flops", "seconds")


def moments(losses, *, tokens=10, **more):
    """One moment a step; the axes but steps grow by `tokens` a step."""
    counts = [
        {"steps": s, "samples": 8 * s, "tokens": tokens * s, "layer_tokens": 6 * tokens * s}
        | {"flops": 10**15 * tokens * s, "seconds": 0.5 * s}
        for s in range(1, len(losses) + 1)
    ]
    return [c | {"validation_loss": loss} | more for c, loss in zip(counts, losses, strict=True)]


def two():
    return {"usual": moments([5, 4, 3.5, 3, 3.25]), "ltd": moments([5, 3.5, 2.5, 2.25, 2], tokens=5)}


def found_in(page):
    """What the page's script reads."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def written(tmp_path, runs, **options):
    save_page(runs, tmp_path / "report.html", **{"title": "Runs"} | options)
    return (tmp_path / "report.html").read_text()


# Figures


def test_equal_quality_is_where_the_baselines_best_is_first_reached_between_moments():
    row = savings(two()).of("ltd", "steps")
    assert (row.baseline, row.consumed, row.ratio) == (4, 2.5, 1.6)
    assert savings(two()).of("ltd", "tokens").ratio == pytest.approx(40 / 12.5)


def test_equal_compute_is_the_quality_where_the_baseline_ended():
    row = savings(two()).of("ltd", "steps")
    assert (row.share, row.quality, row.difference) == (1, 2, 1.25)


def test_a_run_that_ended_sooner_is_compared_where_it_ended():
    row = savings(two()).of("ltd", "tokens")
    assert (row.ended, row.share, row.quality) == (25, 0.5, 2)
    assert row.difference == 3.75 - 2  # of the baseline, between 20 tokens and 30


def test_a_run_that_ended_one_percent_sooner_counts_as_having_got_there():
    usual = [{"tokens": t, "loss": 5 - t / 1000} for t in (10, 1000)]
    near = [{"tokens": t, "loss": 4 - t / 1000} for t in (10, 991)]
    row = savings({"usual": usual, "near": near}).of("near", "tokens")
    assert (row.share, row.quality) == (1, 4 - 0.991)


def test_a_run_is_not_compared_before_its_first_moment_nor_before_the_baseline_s():
    early = [{"steps": s, "loss": 5 - s} for s in (1, 2)]
    late = [{"steps": s, "loss": 5 - s / 10} for s in (30, 40)]
    for usual, other in ((early, late), (late, early)):
        found = savings({"usual": usual, "other": other})
        row = found.of("other", "steps")
        assert (row.quality, row.difference) == (None, None)
        assert str(found).splitlines()[-1].endswith("   not logged there")
        assert "where 'usual' ended" not in found.verdict


def test_the_baseline_saves_nothing_against_itself():
    for axis in AXES:
        row = savings(two()).of("usual", axis)
        assert (row.ratio, row.difference, row.share) == (1, 0, 1)


def test_a_run_that_never_gets_there_has_no_ratio():
    row = savings({"usual": moments([4, 3]), "worse": moments([4, 3.5])}).of("worse", "flops")
    assert (row.consumed, row.ratio, row.quality, row.difference) == (None, None, 3.5, -0.5)


def test_a_run_that_is_as_good_at_its_first_moment_is_counted_there():
    assert savings({"usual": moments([4, 3]), "warm": moments([2, 1])}).of("warm", "steps").consumed == 1


def test_what_is_reached_before_the_first_step_is_reached_at_once():
    usual, warm = ([{"steps": s, "loss": loss - s} for s in (0, 1)] for loss in (3, 1))
    found = savings({"usual": usual, "warm": warm})
    assert found.of("warm", "steps").ratio == math.inf
    assert verdict(found) == "'warm' reached the best training loss of 'usual' (2.000) at once."
    overfit = [{"steps": s, "loss": 1 + s} for s in (0, 1)]
    slow = [{"steps": s, "loss": 3 - s} for s in (0, 1, 2)]
    assert savings({"usual": overfit}).of("usual", "steps").ratio == 1
    assert savings({"usual": overfit, "slow": slow}).of("slow", "steps").ratio == 0
    assert (
        "later than 'usual', which was at its best at once"
        in savings({"usual": overfit, "slow": slow}).verdict
    )


def test_a_higher_quality_may_be_the_better():
    usual = [{"steps": s, "accuracy": 0.1 * s} for s in (1, 2, 3)]
    faster = [{"steps": s, "accuracy": 0.2 * s} for s in (1, 2, 3)]
    found = savings({"usual": usual, "faster": faster}, metric="accuracy", higher_is_better=True)
    row = found.of("faster", "steps")
    assert row.ratio == pytest.approx(2)
    assert row.difference == pytest.approx(0.3)


def test_values_that_are_not_finite_or_missing_are_left_out():
    usual = moments([5, math.nan, 4, math.inf, 3])
    usual.insert(2, {"steps": 2, "lr": 0.1})
    assert savings({"usual": usual}).best == 3
    assert curve(usual, "steps", "validation_loss", run="usual").x.tolist() == [1, 3, 5]


def test_an_axis_that_the_baseline_did_not_count_is_left_out_and_one_that_a_run_did_not_is_named():
    usual = [{"steps": s, "tokens": s, "flops": 0, "loss": 5 - s} for s in (1, 2)]
    found = savings({"usual": usual, "ltd": [{"steps": s, "loss": 5 - s} for s in (1, 2)]})
    assert found.axes == ("steps", "tokens")
    assert "Tokens   not logged" in str(found)


def test_numbers_may_be_numpys_and_torchs():
    usual = [{"steps": np.int64(s), "loss": torch.tensor(5.0 - s)} for s in (1, 2)]
    assert savings({"usual": usual}).best == 3


def test_the_metric_is_the_first_by_convention_that_all_runs_log():
    usual = [{"steps": 1, "loss": 3, "bits_per_byte": 2}]
    assert savings({"usual": usual, "ltd": usual}).metric == "bits_per_byte"
    assert savings({"usual": usual, "ltd": [{"steps": 1, "loss": 3}]}).metric == "loss"


# Words


def test_savings_print_as_a_table():
    assert str(savings(two())).splitlines() == [
        "validation loss, lower is better; 'usual' got to 3.000",
        "",
        "                 equal quality              equal compute",
        "usual",
        "  Steps          3.000 at 4                 3.250 at 5",
        "  Samples        3.000 at 32                3.250 at 40",
        "  Tokens         3.000 at 40                3.250 at 50",
        "  Layer tokens   3.000 at 240               3.250 at 300",
        "  FLOPs          3.000 at 40 PFLOPs         3.250 at 50 PFLOPs",
        "  Time           3.000 at 2 s               3.250 at 2.5 s",
        "ltd",
        "  Steps          1.60x less (2.5)           2.000, 1.2 better",
        "  Samples        1.60x less (20)            2.000, 1.2 better",
        "  Tokens         3.20x less (12.5)          2.000, 1.8 better at 50%",
        "  Layer tokens   3.20x less (75)            2.000, 1.8 better at 50%",
        "  FLOPs          3.20x less (12.5 PFLOPs)   2.000, 1.8 better at 50%",
        "  Time           1.60x less (1.25 s)        2.000, 1.2 better",
    ]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (
            [3.5, 2.5, 2.0],
            "'ltd' reached the best validation loss of 'usual' (3.000) with 2.00x less compute",
        ),
        ([5, 4, 3, 2.5], "'ltd' reached the best validation loss of 'usual' (3.000) with the same compute"),
        ([6, 5, 4, 3], "'ltd' reached the best validation loss of 'usual' (3.000) with 1.33x more compute"),
        ([5, 4, 3.5], "'ltd' did not reach the best validation loss of 'usual' (3.000); it got to 3.500."),
        ([5, 4], "it got to 4.000 with 67% of the compute."),
    ],
)
def test_the_verdict_is_one_sentence(losses, said):
    assert said in verdict(savings({"usual": moments([5, 4, 3]), "ltd": moments(losses)}))


@pytest.mark.parametrize(
    ("axis", "value", "said"),
    [
        ("tokens", 3e11, "300B"),
        ("tokens", 9999, "9,999"),
        ("samples", 15_500, "15.5K"),
        ("flops", 4.74e12, "4.74 TFLOPs"),
        ("flops", 2.5e21, "2.5 ZFLOPs"),
        ("flops", 12.0, "12 FLOPs"),
        ("seconds", 12.5, "12.5 s"),
        ("seconds", 5400, "90 min"),
        ("seconds", 86400, "24 h"),
        ("seconds", 864000, "10 days"),
    ],
)
def test_amounts_are_in_units_that_people_speak_in(axis, value, said):
    assert amount(axis, value) == said


# Thinning


def test_thinning_keeps_the_ends_and_the_extremes():
    values = np.random.default_rng(0).normal(size=5000)
    values[1234], values[4321] = 50, -50
    kept = thin(values, most=200)
    assert len(kept) <= 200
    assert {0, 1234, 4321, 4999} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()


def test_a_short_curve_is_kept_whole():
    assert thin([3, 1, 2], most=10).tolist() == [0, 1, 2]


def test_often_drawn_samples_share_a_bar():
    bars = grouped([1] * 40)
    assert [label for label, _ in bars[:3]] == ["never", "1-4 times", "5-8 times"]
    assert len(bars) <= 12
    assert sum(share for _, share in bars) == pytest.approx(1)


# Refusals


@pytest.mark.parametrize(
    ("runs", "options", "said"),
    [
        ({}, {}, "there are no runs; expected at least one"),
        (
            two(),
            {"baseline": "usul"},
            "unknown name 'usul' in runs; did you mean 'usual'? Known: 'ltd', 'usual'",
        ),
        (
            two(),
            {"metric": "val_loss"},
            "run 'usual': unknown name 'val_loss' in its log; did you mean 'validation_loss'?",
        ),
        (
            {"a": [{"steps": 1, "loss": 3}], "b": [{"steps": 1, "bits_per_byte": 3, "lr": 1}]},
            {},
            "no metric of validation_loss, bits_per_byte, loss is logged by all runs: 'a' logs loss; "
            "'b' logs bits_per_byte, lr; name another",
        ),
        ({"a": [{"steps": 1}]}, {}, "'a' logs none"),
        (
            {"a": [{"steps": 1, "loss": 3}, {"steps": "two", "loss": 3}]},
            {},
            "run 'a', moment 2: steps is 'two'; expected a number",
        ),
        (
            {"a": [{"steps": s, "seconds": t, "loss": 3} for s, t in ((1, 50), (2, 3))]},
            {},
            "run 'a': seconds falls from 50 to 3; expected all that was consumed since the beginning",
        ),
        (
            {"a": [{"steps": 1, "loss": 3, "exposures": [1, None]}]},
            {},
            "run 'a': exposures is [1, None]; expected how many samples were drawn 0, 1, 2, ... times",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, runs, options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        save_page(runs, tmp_path / "report.html", title="", **options)
    assert list(tmp_path.iterdir()) == []


def test_savings_know_their_runs_and_axes():
    with pytest.raises(ValueError, match="unknown name 'token' in these savings; did you mean 'tokens'?"):
        savings(two()).of("ltd", "token")
    with pytest.raises(ValueError, match="unknown name 'lt' in these savings; did you mean 'ltd'?"):
        savings(two()).of("lt", "tokens")


# Reading


def log(path, losses, **more):
    clock, writer = Clock(timer=int), Log(path)
    for loss in losses:
        clock.tick(samples=8, tokens=4096, layer_tokens=6 * 4096, flops=10**12)
        writer.write(clock, validation_loss=loss, **more)


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log("runs/usual/log.jsonl", [5.0, 4.0, 3.0], pool=1.0, exposures=[0, 5, 5])
    log("runs/ltd/log.csv", [4.0, 3.0, 2.0], pool=0.5, exposures=[1, 9])
    return tmp_path


def test_a_run_is_a_folder_or_a_file_and_named_after_it(logs):
    log("runs/ltd-seed1.jsonl", [3.0])
    runs = read_runs(["runs/usual", "runs/ltd/log.csv", "runs/ltd-seed1.jsonl"])
    assert list(runs) == ["usual", "ltd", "ltd-seed1"]
    assert [moment["exposures"] for moment in runs["ltd"]] == [[1, 9]] * 3


def test_runs_of_one_name_are_called_by_their_paths(logs):
    log("other/usual/log.jsonl", [3.0])
    assert list(read_runs(["runs/usual", "other/usual", "runs/ltd"])) == ["runs/usual", "other/usual", "ltd"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "no run is at nowhere; expected a log, or a folder with a log.jsonl or log.csv"),
        (["runs"], "no log is in runs; expected a log, or a folder with a log.jsonl or log.csv"),
        (["runs/usual", "runs/usual/log.jsonl"], "runs/usual/log.jsonl was given twice"),
        (["broken.jsonl"], "broken.jsonl, line 2, "),
        (["empty.jsonl"], "empty.jsonl is empty; expected a line for each moment of training"),
        (["picture.jsonl"], "picture.jsonl is not text in UTF-8; expected a log"),
        (["notes.txt"], "notes.txt: expected a file named *.jsonl or *.csv"),
        (["runs/usual", "--baseline", "usuall"], "unknown name 'usuall' in runs; did you mean 'usual'?"),
        (["runs/usual", "--metric", "los"], "run 'usual': unknown name 'los' in its log"),
        (["runs/usual", "--out", "runs"], "--out runs is a folder; expected the name of a file"),
        (
            ["runs/usual", "--out", "runs/ltd/log.csv"],
            "--out runs/ltd/log.csv is no page; expected a name that ends in .html or .htm",
        ),
    ],
)
def test_the_command_refuses_in_one_line(logs, capsys, argv, said):
    (logs / "broken.jsonl").write_text('{"steps": 1, "loss": 3}\nstep 2: 2.9\n')
    (logs / "empty.jsonl").touch()
    (logs / "picture.jsonl").write_bytes(b"\x89PNG\xff")
    (logs / "notes.txt").touch()
    assert cli.main(["report", *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error
    assert not (logs / "report.html").exists()


def test_the_command_prints_what_was_saved_and_where_the_page_is(logs, capsys):
    argv = [
        "report",
        "runs/ltd",
        "runs/usual",
        "--baseline",
        "usual",
        "--out",
        "pages/a.html",
        "--title",
        "A & B",
    ]
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert "  FLOPs          1.50x less (2 TFLOPs)" in printed
    assert "'ltd' reached the best validation loss of 'usual' (3.000) with 1.50x less compute" in printed
    assert printed.endswith("The page is pages/a.html\n")
    page = (logs / "pages/a.html").read_text()
    assert "<title>A &amp; B</title>" in page
    assert [run["name"] for run in found_in(page)["runs"]] == ["usual", "ltd"]


def test_the_page_is_named_for_its_runs(logs):
    assert cli.main(["report", "runs/usual", "runs/ltd"]) == 0
    assert "<title>usual, ltd</title>" in (logs / "report.html").read_text()


# The page


def test_the_page_needs_nothing_else(tmp_path):
    page = written(tmp_path, two())
    assert not re.search(r"(src|href)=\"(?!data:,)", page)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "default-src 'none'" in page
    assert "{{" not in page


def test_the_tables_stand_without_a_script(tmp_path):
    page = written(tmp_path, two())
    for said in ("3.20x less", "1.2 better", "12.5 PFLOPs", "1.8 better at 50%"):
        assert said in page.split("<script")[0]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "</script><b>", "\"&'", "<!--", "{{data}}"])
def test_names_do_no_harm(tmp_path, name):
    page = written(tmp_path, {name: two()["usual"], "ltd": two()["ltd"]}, title=name)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<b>" not in page.split("<h1>")[1].split("</h1>")[0]
    assert found_in(page)["runs"][0]["name"] == name
    if "<" in name:
        assert name not in page


def test_metrics_do_no_harm(tmp_path):
    usual = [{"steps": s, '<i>"': 3 - s, "loss": 2} for s in (1, 2)]
    page = written(tmp_path, {"usual": usual}, metric='<i>"')
    assert '<i>"' not in page


def test_what_is_not_finite_does_not_break_it(tmp_path):
    runs = two() | {"diverged": moments([5, 4, math.nan, math.inf, -math.inf], lr=math.nan)}
    page = written(tmp_path, runs)
    assert found_in(page)["runs"][2]["y"]["validation_loss"] == [[0, 1], [5, 4]]
    assert not re.search(r"\b(nan|inf)\b", page.split("<script")[0])


def test_the_same_runs_give_the_same_bytes(tmp_path):
    assert written(tmp_path, two()) == written(tmp_path, two())


def test_twenty_long_runs_are_under_two_megabytes(tmp_path):
    stream = np.random.default_rng(0)
    noise = stream.normal(size=(20, 5000, 6))
    runs = {
        f"run-{i}": [
            counts
            | dict(zip(("loss", "bits_per_byte", "lr", "pool", "kept_tokens"), row[1:].tolist(), strict=True))
            for counts, row in zip(moments(noise[i, :, 0].tolist(), tokens=123_457), noise[i], strict=True)
        ]
        for i in range(20)
    }
    page = written(tmp_path, runs)
    assert len(page) < 2e6
    lows = [min(run["y"]["loss"][1]) for run in found_in(page)["runs"]]
    np.testing.assert_allclose(lows, noise[:, :, 1].min(1), rtol=1e-4)


def test_paces_and_exposures_are_shown_where_they_were_logged(tmp_path):
    assert "How it was trained" not in written(tmp_path, two())
    runs = {"usual": two()["usual"], "ltd": moments([5, 4], pool=0.5, exposures=[1, 9])}
    page = written(tmp_path, runs)
    assert 'data-key="pool"' in page
    assert 'data-key="lr"' not in page
    assert "90.0%" in page
    arrays = {"usual": moments([5, 4], exposures=np.array([3, 1])), "ltd": moments([5], exposures=math.nan)}
    assert "75.0%" in written(tmp_path, arrays)
    assert found_in(page)["runs"][1]["y"]["pool"] == [[0, 1], [50, 50]]


def test_all_metrics_that_all_runs_log_can_be_chosen(tmp_path):
    runs = {name: [m | {"loss": 3, "bits_per_byte": 2} for m in run] for name, run in two().items()}
    del runs["ltd"][0]["bits_per_byte"]
    for moment in runs["ltd"]:
        moment.pop("bits_per_byte", None)
    page = written(tmp_path, runs)
    assert re.findall(r'data-metric="(\w+)"', page) == ["validation_loss", "loss"]
    assert "data-metric" not in written(tmp_path, two()).split("<script")[0]


def test_curves_are_in_readable_units_from_the_same_figures(tmp_path):
    data = json.loads(chart_data(two(), [savings(two())]))
    flops = next(axis for axis in data["axes"] if axis["key"] == "flops")
    assert (flops["label"], data["axis"]) == ("Compute (PFLOPs)", "flops")
    assert data["runs"][1]["x"]["flops"] == [5, 10, 15, 20, 25]
    assert data["metrics"][0]["reached"] == [
        {"steps": 4, "samples": 32, "tokens": 40, "layer_tokens": 240, "flops": 40, "seconds": 2},
        {"steps": 2.5, "samples": 20, "tokens": 12.5, "layer_tokens": 75, "flops": 12.5, "seconds": 1.25},
    ]


def test_a_report_needs_no_matplotlib(tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None; from dataeff import report; "
        f"report.save_page({{'a': [{{'steps': 1, 'loss': 2}}]}}, {str(tmp_path / 'a.html')!r}, title='A')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("draw", "given", "said"),
    [
        (save_curves, {}, "curves is {}; expected at least one run, as {'baseline': points}"),
        (
            save_curves,
            {"ltd": [{"steps": 1, "bits_per_byte": 2}]},
            "run 'ltd', moment 1 has steps, bits_per_byte; expected flops, too",
        ),
        (save_histograms, {}, "difficulties is {}; expected at least one metric, as {'length': values}"),
        (save_histograms, {"length": []}, "the values of 'length' have none; expected at least one, all fin"),
        (save_histograms, {"loss": [1, math.nan]}, "the values of 'loss' have nan among them; expected at l"),
    ],
)
def test_a_picture_of_nothing_is_refused(tmp_path, draw, given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        draw(given, tmp_path / "a.png", title="nothing")
