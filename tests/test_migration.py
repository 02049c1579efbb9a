import copy
import json
import math
import random
import re
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

import dataeff as de
from dataeff import cli, config, migration, pacing
from dataeff.migration import from_deepspeed, recipe, recipe_text, recipes, unwrapped
from dataeff.simulation import Length

ANALYZED = Path(__file__).parent / "data/deepspeed_index"
IDS = list(range(1, 23))


def metric(low, high, kind, config, *, by="value", clustering="schedule_based"):
    return {
        "index_to_sample_path": "dummy",
        "index_to_metric_path": "dummy",
        "difficulty_type": by,
        "clustering_type": clustering,
        "min_difficulty": low,
        "max_difficulty": high,
        "schedule_type": kind,
        "schedule_config": config,
    }


def rooted(total, step, degree):
    return {"total_curriculum_step": total, "difficulty_step": step, "root_degree": degree}


def published(*, lengths=(80, 2048), first=1, total=110_000, kept=200_000, size=512, model="decoder"):
    """A config as the published scripts write it, with both techniques."""
    voc = metric(first, 100, "fixed_root", rooted(total, 1, 2), by="percentile")
    cut = metric(*lengths, "fixed_root", rooted(total, 8, 1), clustering="single_cluster")
    ltd = {
        "enabled": True,
        "total_layer_num": 24,
        "random_ltd_layer_num": 22,
        "random_ltd_layer_id": IDS,
        "model_mask_name": "attention_mask",
        "model_type": model,
        "hidden_state_order": "seq_batch_dim",
        "random_ltd_schedule": {
            "min_value": 128,
            "max_value": lengths[1],
            "schedule_type": "fixed_linear",
            "schedule_config": {"require_steps": kept, "seq_per_step": 16},
        },
    }
    curriculum = {
        "enabled": True,
        "data_cluster_path": "clusters",
        "curriculum_metrics": {"voc": voc, "seqlen_truncate": cut},
    }
    return {
        "train_batch_size": size,
        "fp16": {"enabled": True},
        "data_efficiency": {
            "enabled": True,
            "seed": 1234,
            "data_routing": {"enabled": True, "random_ltd": ltd},
            "data_sampling": {"enabled": True, "num_workers": 0, "curriculum_learning": curriculum},
        },
    }


def with_metrics(metrics, **sampling):
    curriculum = {"enabled": True, "curriculum_metrics": metrics}
    return {
        "data_efficiency": {
            "enabled": True,
            "data_sampling": {"enabled": True, "curriculum_learning": curriculum} | sampling,
        }
    }


def with_ltd(**changes):
    made = published()
    made["data_efficiency"]["data_routing"]["random_ltd"] |= changes
    del made["data_efficiency"]["data_sampling"]
    return made


def told(found, *words):
    return any(all(word in difference for word in words) for difference in found.differences)


def test_every_key_of_a_published_config_is_read():
    found = from_deepspeed(published())
    assert found.seed == 1234
    assert found.metrics == {
        "voc": de.paced(pacing.root(1, 100, steps=110_000, degree=2, multiple=1), by="percentile")
    }
    assert found.length == pacing.linear(80, 2048, steps=110_000, multiple=8)
    assert found.transform == "truncate"
    assert found.keep == pacing.linear(128, 2048, steps=200_000, multiple=16)
    assert (found.layers, found.depth, found.batch_first) == (tuple(IDS), 24, False)
    assert (found.batch_size, found.loader, found.token_args) == (512, {"num_workers": 0}, {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gpt3-1.3b-composed-300b", {}),
        ("gpt3-1.3b-composed-150b", {"total": 55_000, "kept": 100_000}),
        (
            "bert-large-composed-1049b",
            {"lengths": (128, 512), "first": 5, "total": 960_000, "kept": 2_000_000, "size": 1024},
        ),
        (
            "bert-large-composed-524b",
            {"lengths": (128, 512), "first": 5, "total": 480_000, "kept": 1_000_000, "size": 1024},
        ),
    ],
)
def test_a_recipe_is_what_the_published_config_imports_to(name, options):
    tables, told = recipe(name), from_deepspeed(published(**options)).to_config()
    assert {key: tables["run"][key] for key in told["run"]} == told["run"]
    ours, theirs = (made["curriculum"][key] for made, key in ((tables, "vocab_rarity"), (told, "voc")))
    assert config.made("pacings", ours["pace"]) == config.made("pacings", theirs["pace"])
    assert ours["by"] == theirs["by"]
    assert Length.from_config(tables) == Length.from_config(told)
    assert tables["routing"] == told["routing"]


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_read_by_what_reads_tables(name, tmp_path):
    tables = recipe(name)
    assert tomllib.loads(config.toml(tables)) == tables
    assert all(key in tables["run"] for key in ("batch_size", "sequence_length", "layers"))
    end = tables["run"].get("tokens") or tables["run"]["layer_tokens"] / tables["run"]["layers"]
    assert tables["lr"]["peak"] == pytest.approx(
        {"gpt3": 2e-4 * 300e9, "bert": 1e-4 * 2**20 * 1e6}[name[:4]] / end
    )
    if "curriculum" in tables:
        metric = tables["curriculum"]["vocab_rarity"]
        assert config.made("pacings", metric["pace"]).steps == Length.from_config(tables).pace.steps
    if name == "gpt3-1.3b-composed-150b":
        index = de.index.from_values({"vocab_rarity": np.arange(1000)}, out=tmp_path)
        assert de.Curriculum.from_config(tables, index).pool_size(0) == 10
    if "routing" in tables:
        assert config.made("pacings", tables["routing"]["keep"])(0) == 128
        assert len(tables["routing"]["layers"]) == tables["run"]["layers"] - 2
    assert "Source:" in recipe_text(name)


def test_recipes_are_part_of_the_package():
    folder = resources.files("dataeff.migration") / "recipes"
    assert len(recipes()) == len([file for file in folder.iterdir() if file.name.endswith(".toml")]) >= 8
    with pytest.raises(ValueError, match="unknown name 'gpt3' in recipes"):
        recipe("gpt3")


def test_tables_give_the_same_objects_again(tmp_path):
    found = from_deepspeed(published(total=1000))
    index = de.index.from_values({"voc": np.arange(1000)}, out=tmp_path / "idx")
    config.write(found.to_config(), tmp_path / "run.toml")
    tables = config.read(tmp_path / "run.toml")
    assert de.Curriculum.from_config(tables, index) == found.curriculum(index)
    assert Length.from_config(tables).pace == found.length
    assert config.made("pacings", tables["routing"]["keep"]) == found.keep


def test_the_legacy_section_cuts_samples():
    section = {
        "enabled": True,
        "curriculum_type": "seqlen",
        "min_difficulty": 64,
        "max_difficulty": 1024,
        "schedule_type": "fixed_linear",
        "schedule_config": {"total_curriculum_step": 15000, "difficulty_step": 8},
    }
    found = from_deepspeed({"curriculum_learning": section})
    assert found.length == pacing.linear(64, 1024, steps=15000, multiple=8)
    assert found.metrics == {}
    assert told(found, "curriculum_learning:", "step 1")
    off = from_deepspeed({"curriculum_learning": {"enabled": False, "curriculum_type": "seqlen"}})
    assert off.length is None
    assert [difference.split()[0] for difference in off.differences] == ["train_batch_size"]
    with pytest.raises(ValueError, match=r"both cut samples to a length"):
        from_deepspeed(published() | {"curriculum_learning": section})


def test_what_is_off_is_left_out_and_an_outer_switch_is_not_read_as_in_deepspeed():
    made = published()
    made["data_efficiency"]["data_routing"]["random_ltd"]["enabled"] = False
    made["data_efficiency"]["data_sampling"]["enabled"] = False
    found = from_deepspeed(made)
    assert (found.keep, found.layers) == (None, ())
    assert "voc" in found.metrics
    assert told(found, "data_efficiency.data_sampling.enabled:", "it is imported")
    assert "routing" not in found.to_config()


def test_lists_of_difficulties_hold_for_as_long():
    section = {"difficulty": [1, 2, 3], "max_step": [5, 10]}
    found = from_deepspeed(with_metrics({"m": metric(1, 3, "fixed_discrete", section)}))
    assert found.metrics["m"].pace == pacing.discrete([1, 2, 3], until=[5, 10])


def test_a_function_of_one_s_own_is_given_or_asked_for():
    made = with_metrics({"m.x": metric(1, 3, "custom", {})})
    pace = pacing.custom(math.sqrt, steps=9)
    assert from_deepspeed(made, custom={"m.x": pace}).metrics["m.x"].pace == pace
    with pytest.raises(
        ValueError, match=r"curriculum_metrics\.m\.x\.schedule_type is 'custom'.*custom=\{'m\.x'"
    ):
        from_deepspeed(made)


def test_fractions_are_kept_and_said_to_be():
    found = from_deepspeed(with_metrics({"m": metric(0.5, 2.5, "fixed_linear", rooted(4, 1, 1) | {})}))
    assert found.metrics["m"].pace(1) == 1.0
    assert told(found, "curriculum_metrics.m: goes from 0.5 to 2.5", "rounds every amount")
    assert told(found, "m.schedule_config.root_degree is not read by a fixed_linear schedule")


def test_percentiles_of_another_maximum_are_scaled_since_that_is_all_samples_there(tmp_path):
    made = with_metrics({"m": metric(3, 30, "fixed_linear", rooted(9, 1, 1), by="percentile")})
    index = de.index.from_values({"m": np.arange(90)}, out=tmp_path)
    found = from_deepspeed(made)
    assert [found.curriculum(index).pool_size(step) for step in (0, 4, 9)] == [9, 45, 90]
    assert told(found, "m.max_difficulty: DeepSpeed takes 30 to be all samples")
    assert de.Curriculum.from_config(found.to_config(), index) == found.curriculum(index)


def test_metrics_of_one_cluster_select_nothing():
    reorder = metric(5, 100, "fixed_root", rooted(96, 8, 2), by="percentile", clustering="single_cluster")
    found = from_deepspeed(with_metrics({"seqlen": reorder}))
    assert (found.metrics, found.length) == ({}, None)
    assert found.unselective["seqlen"](96) == 100
    assert told(found, "curriculum_metrics.seqlen: a single_cluster selects no samples")
    cut = metric(64, 128, "fixed_linear", rooted(96, 8, 1), clustering="single_cluster")
    assert (
        from_deepspeed(with_metrics({"seqlen_reshape": cut})).to_config()["length"]["transform"] == "reshape"
    )
    assert from_deepspeed(with_metrics({"seqlen": cut})).length(96) == 128
    with pytest.raises(ValueError, match=r"seqlen is a second length to cut samples to"):
        from_deepspeed(with_metrics({"seqlen_truncate": cut, "seqlen": cut}))


def test_batches_by_tokens_are_options_of_a_token_budget():
    batching = {
        "enabled": True,
        "metrics_path": "analysis",
        "max_tokens": 100,
        "lr_scaling_method": "sqrt",
        "min_batch_size": 2,
        "max_batch_size": 10,
        "sequence_picking_order": "seqlen",
        "verbose": False,
    }
    found = from_deepspeed({"data_efficiency": {"data_sampling": {"dynamic_batching": batching}}})
    assert found.token_budget == {"max_tokens": 100, "lr_scaling": "sqrt", "max_samples": 10}
    stream = de.samplers.shuffled(20, batch_size=10, seed=found.seed)
    lengths = np.arange(1, 21)
    drawn = [
        i for batch in de.samplers.token_budget(stream, lengths=lengths, **found.token_budget) for i in batch
    ]
    assert sorted(drawn) == list(range(20))
    for key in ("max_tokens", "min_batch_size", "max_batch_size", "sequence_picking_order", "metrics_path"):
        assert told(found, f"dynamic_batching.{key}:")


def test_a_learning_rate_over_layer_tokens_has_its_table():
    lr = {"enabled": True, "total_layer_tokens": 1e12, "warmup_type": "linear", "warmup_layer_tokens": 10**10}
    found = from_deepspeed(with_ltd(layer_token_lr_schedule=lr))
    assert found.to_config()["lr"] == {
        "schedule": "linear",
        "on": "layer_tokens",
        "warmup": 10**10,
        "total": 10**12,
    }
    assert told(found, "optimizer.params.lr is missing")
    optimizer = {"type": "Adam", "params": {"lr": 2e-4}}
    found = from_deepspeed(with_ltd(layer_token_lr_schedule=lr) | {"optimizer": optimizer})
    assert found.lr["peak"] == 2e-4
    assert told(found, "layer_token_lr_schedule: works here")


def test_a_mask_by_another_name_is_declared():
    assert from_deepspeed(with_ltd(model_mask_name="ltor")).token_args == {"ltor": (-2, -1)}
    assert from_deepspeed(with_ltd(model_mask_name=None)).token_args == {}


def small(**changes):
    schedule = {
        "min_value": 4,
        "max_value": 8,
        "schedule_type": "fixed_linear",
        "schedule_config": {"require_steps": 4, "seq_per_step": 2},
    }
    return with_ltd(
        **{
            "total_layer_num": 6,
            "random_ltd_layer_num": 3,
            "random_ltd_layer_id": [4, 1, 2],
            "random_ltd_schedule": schedule,
            "hidden_state_order": "batch_seq_dim",
        }
        | changes
    )


def model(depth):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return torch.nn.TransformerEncoder(layer, num_layers=depth, enable_nested_tensor=False)


def test_the_layers_of_a_model_drop_tokens():
    routed = model(6)
    route = from_deepspeed(small()).attach(routed)
    route.step = 0
    routed(torch.zeros(2, 8, 8))
    assert {name: tuple(ids.shape) for name, ids in route.kept().items()} == {
        f"layers.{i}": (2, 4) for i in (1, 2, 4)
    }
    assert route.seed == 1234
    with pytest.raises(ValueError, match="has 5 blocks, and total_layer_num is 6"):
        from_deepspeed(small()).attach(model(5))
    with pytest.raises(ValueError, match="no random_ltd that is enabled"):
        from_deepspeed({"data_efficiency": {}}).attach(model(6))


def test_hidden_states_that_begin_with_the_sequence_stay_so():
    layers = [torch.nn.TransformerEncoderLayer(8, 2, 16) for _ in range(6)]
    routed = torch.nn.Sequential(*layers)
    route = from_deepspeed(small(hidden_state_order="seq_batch_dim")).attach(routed)
    route.step = 0
    assert routed(torch.zeros(8, 2, 8)).shape == (8, 2, 8)
    assert route.kept()["1"].shape == (2, 4)


def test_what_the_analyzer_wrote_becomes_the_index_of_the_config(tmp_path):
    rarity = metric(20, 100, "fixed_linear", rooted(10, 1, 1), by="percentile")
    rarity["index_to_sample_path"] = str(ANALYZED / "rarity/rarity_index_to_sample_percentile_merged")
    found = from_deepspeed(with_metrics({"voc": rarity}, num_epochs=2))
    index = found.index(tmp_path / "idx")
    expected = de.index.import_deepspeed(ANALYZED, metrics=["rarity"], out=tmp_path / "plain")
    assert index.values("voc").tolist() == expected.values("rarity").tolist()
    sampler = found.sampler(index, batch_size=16)
    assert (len(sampler), sampler.seed) == (2 * 300 // 16, 1234)
    assert len(found.sampler(index, batch_size=16, steps=7)) == 7
    with pytest.raises(ValueError, match="no train_batch_size"):
        found.sampler(index)
    with pytest.raises(ValueError, match="index_to_sample_path of 'm' is 'dummy'; expected the prefix"):
        from_deepspeed(with_metrics({"m": metric(1, 2, "fixed_linear", rooted(9, 1, 1))})).index(
            tmp_path / "x"
        )
    with pytest.raises(ValueError, match="no metric that selects samples"):
        from_deepspeed(with_ltd()).curriculum(index)


def test_wrapped_checkpoints_load():
    plain = model(3)
    wrapped = {
        re.sub(r"^(layers\.[12])\.", r"\1.random_ltd_layer.", name): value
        for name, value in plain.state_dict().items()
    }
    assert wrapped.keys() != plain.state_dict().keys()
    model(3).load_state_dict(unwrapped(wrapped))
    assert list(unwrapped(wrapped)) == list(plain.state_dict())
    assert unwrapped({"random_ltd_layer.w": 1, "random_ltd_layer_2.w": 2}) == {
        "w": 1,
        "random_ltd_layer_2.w": 2,
    }
    optimizer = {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = unwrapped({"model": wrapped, "optimizer": optimizer, "step": 3})
    model(3).load_state_dict(checkpoint["model"])
    assert (checkpoint["optimizer"], checkpoint["step"]) == (optimizer, 3)
    with pytest.raises(ValueError, match=r"both become 'a\.w'"):
        unwrapped({"model": {"a.w": 1, "a.random_ltd_layer.w": 2}})
    with pytest.raises(ValueError, match=r"both become 'a\.w'"):
        unwrapped({"a.w": 1, "a.random_ltd_layer.w": 2})


METRIC = "data_efficiency.data_sampling.curriculum_learning.curriculum_metrics.voc"
LTD = "data_efficiency.data_routing.random_ltd"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{METRIC}.min_difficulty", "low", f"{METRIC}.min_difficulty is 'low'; expected a finite number"),
        (f"{METRIC}.min_difficulty", 101, f"{METRIC}.min_difficulty is 101, above max_difficulty, 100"),
        (f"{METRIC}.min_difficulty", 0, f"{METRIC}.min_difficulty is 0, a pool of no sample"),
        (
            f"{METRIC}.min_dificulty",
            1,
            f"unknown name 'min_dificulty' in {METRIC}; did you mean 'min_difficulty'?",
        ),
        (
            f"{METRIC}.difficulty_type",
            "percent",
            f"'percent' in {METRIC}.difficulty_type; did you mean 'percentile'?",
        ),
        (
            f"{METRIC}.clustering_type",
            None,
            f"{METRIC}.clustering_type is None; expected one of 'schedule_based'",
        ),
        (f"{METRIC}.schedule_type", "fixed_cosine", f"unknown name 'fixed_cosine' in {METRIC}.schedule_type"),
        (f"{METRIC}.schedule_config", [], f"{METRIC}.schedule_config is []; expected a table"),
        (
            f"{METRIC}.schedule_config.total_curriculum_step",
            0,
            f"{METRIC}.schedule_config.total_curriculum_step is 0; expected a whole number of at least 1",
        ),
        (
            f"{METRIC}.schedule_config.root_degree",
            -1,
            f"{METRIC}.schedule_config.root_degree is -1; expected",
        ),
        (f"{LTD}.random_ltd_layer_num", 21, f"{LTD}.random_ltd_layer_num is 21; expected as many as ids, 22"),
        (
            f"{LTD}.random_ltd_layer_id",
            [24],
            f"{LTD}.random_ltd_layer_id is [24]; expected different numbers",
        ),
        (f"{LTD}.enabled", "true", f"{LTD}.enabled is 'true'; expected true or false"),
        (f"{LTD}.model_type", "both", f"unknown name 'both' in {LTD}.model_type"),
        (f"{LTD}.random_ltd_schedule.min_value", 0, f"{LTD}.random_ltd_schedule.min_value is 0; expected"),
        ("data_efficiency.data_samplig", {}, "unknown name 'data_samplig' in data_efficiency; did you mean"),
        (
            "data_eficiency",
            {},
            "unknown name 'data_eficiency' in the config; did you mean 'data_efficiency'?",
        ),
        ("train_batch_size", "many", "train_batch_size is 'many'; expected a whole number"),
    ],
)
def test_an_error_says_where_what_was_expected_and_what_is_near(path, value, message):
    made = published()
    table = made
    *above, last = path.split(".")
    for key in above:
        table = table[key]
    table[last] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        from_deepspeed(made)


def test_what_a_trainer_fills_in_is_missing_and_said():
    auto = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"}
    auto |= {"gradient_accumulation_steps": "auto", "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}}
    found = from_deepspeed(published() | auto)
    assert (found.batch_size, found.lr) == (None, {})
    assert "batch_size" not in found.to_config()["run"]
    for key in (*list(auto)[:3], "optimizer.params.lr"):
        assert f"{key}: is 'auto', which a trainer fills in, so it is read as missing" in found.differences
    assert found.differences[-1] == (
        "train_batch_size is missing; give batch_size to a sampler and to the table run"
    )


def test_a_config_without_a_batch_size_says_so():
    made = published()
    said = "train_batch_size is missing; give batch_size to a sampler and to the table run"
    assert said not in from_deepspeed(made).differences
    del made["train_batch_size"]
    assert from_deepspeed(made).differences[-1] == said


def test_the_order_of_hidden_states_is_said_since_the_tables_do_not_hold_it():
    made = published()
    said = f"{LTD}.hidden_state_order: the table routing does not hold it; `attach` of what is imported gives"
    assert any(difference.startswith(said) for difference in from_deepspeed(made).differences)
    made["data_efficiency"]["data_routing"]["random_ltd"]["hidden_state_order"] = "batch_seq_dim"
    assert not any("hidden_state_order" in difference for difference in from_deepspeed(made).differences)


def test_a_config_of_nothing_of_ours_is_an_error():
    with pytest.raises(ValueError, match="neither data_efficiency nor curriculum_learning"):
        from_deepspeed({"fp16": {"enabled": True}})


WRONG = [None, "text", -1, 0, 1.5, float("nan"), [], [3, 1], {}, {"a": 1}, True, 10**30, 7]


def leaves(table, path=()):
    """Every key of a config below its sections, by path."""
    for key, value in table.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def mutated(stream):
    """A good config with one thing wrong, or changed, and the path of the key."""
    made = published()
    made["data_efficiency"]["data_sampling"]["dynamic_batching"] = {
        "enabled": True,
        "max_tokens": 4096,
        "lr_scaling_method": "linear",
        "max_batch_size": 64,
    }
    path = stream.choice([path for path in leaves(made) if path[0] == "data_efficiency"])
    table = made
    for key in path[:-1]:
        table = table[key]
    kind = stream.choice(["remove", "rename", "replace", "scale"])
    if kind == "remove":
        del table[path[-1]]
    elif kind == "rename":
        at = stream.randrange(len(path[-1]))
        name = path[-1][:at] + path[-1][at + 1 :]
        table[name] = table.pop(path[-1])
        path = (*path[:-1], name)
    elif kind == "scale" and isinstance(table[path[-1]], int) and not isinstance(table[path[-1]], bool):
        table[path[-1]] = stream.choice([1, 2, 3, 5, 8]) * table[path[-1]]
    else:
        table[path[-1]] = copy.deepcopy(stream.choice(WRONG))
    return made, path


def theirs(section, t):
    """DeepSpeed's formula, for what it is right about."""
    low, high = section["min_difficulty"], section["max_difficulty"]
    config = section["schedule_config"]
    share = (t / config["total_curriculum_step"]) ** (1 / config["root_degree"])
    amount = math.floor(share * (high - low) + low)
    return min(amount - amount % config["difficulty_step"], high)


def test_of_1000_mutated_configs_each_is_imported_rightly_or_is_one_error_at_its_key():
    stream, imported, refused = random.Random(1), 0, 0
    for number in range(1000):
        made, path = mutated(stream)
        before = copy.deepcopy(made)
        try:
            found = from_deepspeed(made)
        except ValueError as error:
            refused += 1
            message = str(error)
            assert "\n" not in message
            assert any(".".join(path[:n]) in message for n in (len(path), len(path) - 1)), (path, message)
            assert path[-1] in message or "expected" in message, (path, message)
            assert ("expected" in message) or ("Known:" in message), message
        else:
            imported += 1
            assert number % 10 or found.to_config()["run"]["seed"] == found.seed
            assert_equivalent(found, made)
        assert repr(made) == repr(before)
    assert imported > 100
    assert refused > 500


def assert_equivalent(found, made):
    sampling = made["data_efficiency"].get("data_sampling", {})
    metrics = sampling.get("curriculum_learning", {}).get("curriculum_metrics", {})
    on = sampling.get("curriculum_learning", {}).get("enabled", False)
    paces = {"seqlen_truncate": found.length, **found.unselective}
    paces |= {name: how.pace for name, how in found.metrics.items()}
    for name, section in metrics.items() if on else ():
        if name == "voc" and section["max_difficulty"] != 100:
            continue  # scaled to percent
        pace, low, high = paces[name], section["min_difficulty"], section["max_difficulty"]
        step = section["schedule_config"]["difficulty_step"]
        if section["schedule_type"] == "fixed_root" and all(n == int(n) for n in (low, high, step)):
            total = section["schedule_config"]["total_curriculum_step"]
            for t in (0, 1, total // 3, total // 2, total - 1):
                assert pace(t) == max(theirs(section, t), low)
            assert pace(total) == high
    routing = made["data_efficiency"].get("data_routing", {}).get("random_ltd", {})
    assert (found.keep is not None) == routing.get("enabled", False)
    if found.keep is not None:
        assert list(found.layers) == sorted(routing["random_ltd_layer_id"])


def run(*arguments, capsys):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_prints_toml_with_the_differences_as_comments(tmp_path, capsys):
    (tmp_path / "ds.json").write_text(json.dumps(published()))
    code, out, _ = run("import-config", tmp_path / "ds.json", capsys=capsys)
    assert code == 0
    assert tomllib.loads(out) == from_deepspeed(published()).to_config()
    assert "# Otherwise than in DeepSpeed:\n# - data_efficiency." in out
    assert out.startswith(
        "# Before `dataeff plan`, give the table run an end: one of steps, samples, tokens,"
    )


@pytest.mark.parametrize("name", ["run.toml", "run.json"])
def test_the_command_writes_a_file_and_lists_the_differences(name, tmp_path, capsys):
    (tmp_path / "ds.json").write_text(json.dumps(published()))
    code, out, _ = run("import-config", tmp_path / "ds.json", "--out", tmp_path / name, capsys=capsys)
    assert code == 0
    assert config.read(tmp_path / name) == from_deepspeed(published()).to_config()
    flat = " ".join(out.split())
    said = "Before `dataeff plan`, give the table run an end: one of steps, samples, tokens, layer_tokens"
    assert said in flat
    assert name == "run.json" or (tmp_path / name).read_text().startswith(f"# {said[:60]}")
    assert all(difference in flat for difference in from_deepspeed(published()).differences)


def test_the_command_names_all_that_a_plan_needs(tmp_path, capsys):
    (tmp_path / "ds.json").write_text(json.dumps(published() | {"train_batch_size": "auto"}))
    _, out, _ = run("import-config", tmp_path / "ds.json", "--out", tmp_path / "run.toml", capsys=capsys)
    assert "give the table run batch_size and an end: one of steps" in out
    tables = config.read(tmp_path / "run.toml")
    tables["run"] |= {"batch_size": 8, "steps": 10}
    assert de.Plan.from_config(tables).predict().steps == 10


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    made = published()
    made["data_efficiency"]["sed"] = 1
    (tmp_path / "ds.json").write_text(json.dumps(made))
    code, _, error = run("import-config", tmp_path / "ds.json", capsys=capsys)
    assert code == 2
    assert error.startswith("dataeff: error: unknown name 'sed' in data_efficiency; did you mean 'seed'?")
    code, _, error = run("import-config", tmp_path / "none.json", capsys=capsys)
    assert (code, error.count("\n")) == (2, 1)


def test_recipes_are_listed_printed_and_written(tmp_path, capsys):
    code, out, _ = run("recipes", capsys=capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == recipes()
    code, out, _ = run("recipes", "gpt3-1.3b-composed-300b", capsys=capsys)
    assert (code, tomllib.loads(out)) == (0, migration.recipe("gpt3-1.3b-composed-300b"))
    code, _, _ = run("recipes", recipes()[0], "--out", tmp_path / "r.toml", capsys=capsys)
    assert (tmp_path / "r.toml").read_text() == recipe_text(recipes()[0])
    code, _, error = run("recipes", "gpt3-1.3b-composed-300", capsys=capsys)
    assert code == 2
    assert "did you mean 'gpt3-1.3b-composed-300b'" in error
    assert run("recipes", "--out", tmp_path / "x.toml", capsys=capsys)[0] == 2
    assert run("recipes", recipes()[0], "--out", tmp_path / "x.yaml", capsys=capsys)[0] == 2
