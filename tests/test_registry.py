import subprocess
import sys

import pytest

from dataeff import cli, registry

GOOD = "[dataeff.metrics]\nshouting = good_plugin:shouting\n"
SOURCE = "def shouting(tokens):\n    return sum(65 <= token <= 90 for token in tokens)\n"


def test_a_plugin_of_another_distribution_is_found_and_loaded(distribution):
    distribution("good-plugin", entry_points=GOOD, files={"good_plugin.py": SOURCE}, version="2.5")
    assert {"length", "shouting", "vocab_rarity"} <= set(registry.names("metrics"))
    assert registry.get("metrics", "shouting")(b"To BE") == 3
    (plugin,) = [plugin for plugin in registry.plugins("metrics") if plugin.name == "shouting"]
    assert (plugin.distribution, plugin.version, plugin.target) == (
        "good-plugin",
        "2.5",
        "good_plugin:shouting",
    )


def test_only_what_is_asked_for_is_imported(distribution):
    distribution("good-plugin", entry_points=GOOD, files={"good_plugin.py": SOURCE})
    sys.modules.pop("good_plugin", None)
    registry.names("metrics")
    registry.get("metrics", "length")
    assert "good_plugin" not in sys.modules
    registry.get("metrics", "shouting")
    assert "good_plugin" in sys.modules


def test_a_broken_plugin_breaks_only_itself(distribution):
    distribution("good-plugin", entry_points=GOOD, files={"good_plugin.py": SOURCE})
    distribution(
        "bad-plugin",
        entry_points="[dataeff.metrics]\nbroken = bad_plugin:metric\n",
        files={"bad_plugin.py": "import a_module_that_is_not_there\n"},
    )
    assert registry.get("metrics", "shouting")
    with pytest.raises(
        ImportError,
        match=r"'broken' \(metrics\) of bad-plugin 1.0 .*a_module_that_is_not_there.*uninstall bad-plugin",
    ):
        registry.get("metrics", "broken")


@pytest.mark.parametrize("damage", ["no section\n", "\n[dataeff.metrics]\na = b:c\na = b:c\n"])
def test_a_damaged_file_of_entry_points_breaks_only_its_own_plugins(distribution, damage, capsys):
    distribution("good-plugin", entry_points=GOOD, files={"good_plugin.py": SOURCE})
    distribution("bad-plugin", entry_points=damage + GOOD.replace("metrics", "routers"))
    distribution("unrelated", entry_points=damage.replace("dataeff", "other"))
    assert registry.get("metrics", "shouting")
    assert registry.get("pacings", "linear")
    with pytest.raises(
        ImportError,
        match=r"of bad-plugin 1.0 did not load from '.*bad_plugin-1.0.dist-info.entry_points.txt': ",
    ):
        registry.get("routers", "bad-plugin")
    assert cli.main(["plugins"]) == 1
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines() if " no: " in line]
    assert all(row[1:] == ["bad-plugin", "bad-plugin"] for row in rows)
    assert {row[0] for row in rows} == ({"routers", "metrics"} if "metrics" in damage else {"routers"})


def test_a_plugin_without_its_object_says_so(distribution):
    distribution(
        "bad-plugin",
        entry_points="[dataeff.metrics]\nempty = empty_plugin:metric\n",
        files={"empty_plugin.py": ""},
    )
    with pytest.raises(ImportError, match="bad-plugin 1.0 did not load from 'empty_plugin:metric'"):
        registry.get("metrics", "empty")


def test_a_plugin_that_exits_at_import_breaks_only_itself(distribution, capsys):
    files = {"exit_plugin.py": "import sys\nsys.exit(3)\n"}
    distribution("bad-plugin", entry_points="[dataeff.metrics]\nleaves = exit_plugin:metric\n", files=files)
    assert cli.main(["plugins"]) == 1
    assert "SystemExit: 3" in capsys.readouterr().out


def test_two_distributions_that_claim_one_name_are_both_named(distribution):
    distribution("good-plugin", entry_points=GOOD, files={"good_plugin.py": SOURCE})
    distribution("other-plugin", entry_points=GOOD, version="0.3")
    with pytest.raises(
        ValueError, match="'shouting' in metrics is claimed by good-plugin 1.0 and other-plugin 0.3"
    ):
        registry.get("metrics", "shouting")
    assert registry.get("metrics", "length")


def test_a_claim_on_a_built_in_name_is_an_error_too(distribution):
    distribution("greedy", entry_points="[dataeff.metrics]\nlength = greedy:length\n")
    with pytest.raises(ValueError, match=r"'length' in metrics is claimed by dataeff .* and greedy 1.0"):
        registry.get("metrics", "length")


def test_a_name_misspelt_gets_the_nearest_and_all():
    with pytest.raises(
        ValueError, match="unknown name 'vocab_rarety' in metrics; did you mean 'vocab_rarity'"
    ):
        registry.get("metrics", "vocab_rarety")
    with pytest.raises(
        ValueError, match="unknown name 'zzz' in routers. Known: 'mixture_of_depths', .*'tome'"
    ):
        registry.get("routers", "zzz")


@pytest.mark.parametrize(
    "call",
    [
        lambda: registry.names("metric"),
        lambda: registry.get("metric", "length"),
        lambda: registry.register("metric", "x", len),
    ],
)
def test_a_kind_misspelt_gets_the_nearest(call):
    with pytest.raises(ValueError, match="unknown name 'metric' in kinds; did you mean 'metrics'"):
        call()


def test_registering_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="'length' .* of dataeff .* already has that name; choose another"):
        registry.register("metrics", "length", len)


def test_registering_the_same_thing_twice_is_fine_and_another_is_not():
    registry.register("metrics", "mine", len)
    try:
        registry.register("metrics", "mine", len)
        with pytest.raises(ValueError, match="already has that name"):
            registry.register("metrics", "mine", max)
    finally:
        registry.unregister("metrics", "mine")


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="expected a non-empty string"):
        registry.register("metrics", name, len)


def test_plugins_lists_what_loads_and_what_does_not(distribution, capsys):
    assert cli.main(["plugins"]) == 0
    whole = capsys.readouterr().out
    assert "no:" not in whole
    for kind in registry.KINDS:
        assert kind in whole
    distribution("bad-plugin", entry_points="[dataeff.metrics]\nbroken = bad_plugin2:metric\n", version="4.2")
    assert cli.main(["plugins"]) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "broken" in line]
    assert row.split()[:4] == ["metrics", "broken", "bad-plugin", "4.2"]
    assert "No module named 'bad_plugin2'" in row


def test_importing_dataeff_starts_no_threads_and_loads_no_extras():
    code = (
        "import sys, threading, dataeff; "
        "assert threading.active_count() == 1; "
        "assert not {'matplotlib', 'transformers', 'triton'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
