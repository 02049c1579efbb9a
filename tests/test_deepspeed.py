"""Beside DeepSpeed itself, where it is installed: its schedules live, and ours inside its engine.

DeepSpeed's engine has a state that is one for the whole process, so it runs in processes of its own:
`python tests/test_deepspeed.py FOLDER STAGE`.
"""

import importlib.util
import json
import logging
import math
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import dataeff as de
from dataeff.migration import from_deepspeed, recipe, unwrapped

ROOT = Path(__file__).parent.parent

if importlib.util.find_spec("deepspeed"):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.data_pipeline.curriculum_scheduler import CurriculumScheduler
    from deepspeed.runtime.data_pipeline.data_routing.basic_layer import RandomLayerTokenDrop
    from deepspeed.runtime.data_pipeline.data_routing.scheduler import RandomLTDScheduler

CONFIGS = 10_000


def steps_around(total, stream):
    """Steps before, at and after the end of a schedule, in order."""
    return sorted(
        {0, 1, total - 1, total, total + 1, 100 * total, *(stream.randrange(total) for _ in range(6))}
    )


def metric(low, high, kind, config, *, by="value", clustering="single_cluster"):
    return {
        "difficulty_type": by,
        "clustering_type": clustering,
        "min_difficulty": low,
        "max_difficulty": high,
        "schedule_type": kind,
        "schedule_config": config,
    }


def imported(metrics):
    section = {"enabled": True, "curriculum_metrics": metrics}
    return from_deepspeed({"data_efficiency": {"data_sampling": {"curriculum_learning": section}}})


def told(found, path):
    return any(path in difference for difference in found.differences)


def ramp(stream, *, fractions=True):
    """A smallest and a largest amount, a step between amounts, and how many steps it takes."""
    step = stream.choice([1, 1, 8, 16, 64, stream.randint(1, 100)])
    low = stream.choice([step * stream.randint(1, 40), stream.randint(1, 400)])
    high = low + stream.choice([0, step * stream.randint(1, 300), stream.randint(1, 3000)])
    high = stream.choice([high, max(low, -(-high // step) * step)])
    if fractions and stream.random() < 0.1:
        low, high = low + stream.random(), high + 1 + stream.random()
    return low, high, step, stream.choice([1, 10, 100, 110_000, stream.randint(1, 10**6)])


def check(theirs, ours, low, high, step, total, *, first):
    """Equal, but where DeepSpeed misses what it was asked for; gives the classes of its faults."""
    faults = set()
    for t, amount in theirs.items():
        mine = ours(t)
        if any(number != int(number) for number in (low, high)):
            assert low <= mine <= high
            assert abs(mine - amount) <= step + 1 or t >= total
            faults.add("fractions")
        elif mine != amount and t < total:
            assert mine == low
            assert low % step
            assert amount == first
            faults.add("start")
        elif mine != amount:
            assert mine == high
            assert high % step
            assert high - step < amount < high or amount == first
            faults.add("end")
    return faults


def test_difficulties_are_deepspeed_s_over_10000_random_schedules_but_where_those_miss_what_was_asked():
    logging.disable(logging.WARNING)
    stream, faults, equal = random.Random(1), {"fractions": 0, "start": 0, "end": 0}, 0
    for _ in range(CONFIGS):
        low, high, step, total = ramp(stream)
        config = {"total_curriculum_step": total, "difficulty_step": step}
        kind = stream.choice(["fixed_linear", "fixed_root"])
        if kind == "fixed_root":
            config["root_degree"] = stream.choice([1, 2, 3, stream.uniform(0.3, 5)])
        section = metric(low, high, kind, config)
        scheduler = CurriculumScheduler(section)
        theirs = {t: scheduler.update_difficulty(t) for t in steps_around(total, stream)}
        found = imported({"mine": section})
        first = min(math.ceil(low / step) * step, high)
        classes = check(theirs, found.unselective["mine"], low, high, step, total, first=first)
        for name in classes:
            faults[name] += 1
        equal += not classes
        path = "curriculum_metrics.mine"
        assert "start" not in classes or told(found, f"{path}.min_difficulty: {low} is no multiple of {step}")
        assert "end" not in classes or told(found, f"{path}.max_difficulty: {high} is no multiple of {step}")
        assert "fractions" not in classes or told(found, f"{path}: goes from {low} to {high}")
    logging.disable(logging.NOTSET)
    assert equal > CONFIGS / 3
    assert all(count > 100 for count in faults.values())


def test_kept_tokens_are_deepspeed_s_over_10000_random_schedules_but_where_those_miss_what_was_asked():
    stream, faults, equal = random.Random(2), {"start": 0, "end": 0}, 0
    for _ in range(CONFIGS):
        low, high, step, total = ramp(stream, fractions=False)
        schedule = {
            "min_value": low,
            "max_value": high,
            "schedule_type": "fixed_linear",
            "schedule_config": {"require_steps": total, "seq_per_step": step},
        }
        ltd = {
            "enabled": True,
            "total_layer_num": 4,
            "random_ltd_layer_num": 2,
            "random_ltd_layer_id": [1, 2],
            "model_type": "encoder",
            "hidden_state_order": "batch_seq_dim",
            "random_ltd_schedule": schedule,
        }
        off = {"global_batch_size": 8, "layer_token_lr_schedule": {"enabled": False}}
        scheduler, theirs = RandomLTDScheduler(ltd | off), {}
        for t in steps_around(total, stream):
            scheduler.update_seq(t)
            theirs[t] = scheduler.get_current_seq()
        found = from_deepspeed({"data_efficiency": {"data_routing": {"random_ltd": ltd}}})
        classes = check(theirs, found.keep, low, high, step, total, first=low // step * step)
        for name in classes:
            faults[name] += 1
        equal += not classes
        assert "start" not in classes or told(found, f"min_value: {low} is no multiple of {step}")
        assert "end" not in classes or told(found, f"max_value: {high} is no multiple of {step}")
    assert equal > CONFIGS / 3
    assert all(count > 100 for count in faults.values())


def test_lists_of_difficulties_are_deepspeed_s_but_where_it_stops_before_their_end():
    stream, stopped = random.Random(3), 0
    for _ in range(1000):
        until = sorted(stream.sample(range(1000), stream.randint(1, 6)))
        values = [stream.randint(1, 50) for _ in range(len(until) + 1)]
        high = stream.choice([max(values), 51, stream.randint(1, 50)])
        section = metric(1, high, "fixed_discrete", {"difficulty": values, "max_step": until})
        scheduler = CurriculumScheduler(section)
        theirs = [scheduler.update_difficulty(t) for t in range(1001)]
        found = imported({"mine": section})
        ours = [found.unselective["mine"](t) for t in range(1001)]
        if theirs != ours:
            stopped += 1
            reached = next(t for t, value in enumerate(theirs) if value >= high) if high > 1 else 0
            assert theirs[:reached] == ours[:reached]
            assert len(set(theirs[reached:])) == 1
            assert told(found, "curriculum_metrics.mine.schedule_config.difficulty: goes on to its end here")
    assert 0 < stopped < 900


def test_a_pool_is_deepspeed_s_running_maximum_where_a_list_of_difficulties_falls():
    config = {"difficulty": [10, 5, 20], "max_step": [10, 20]}
    section = metric(1, 100, "fixed_discrete", config, clustering="schedule_based")
    scheduler = CurriculumScheduler(section)
    theirs = np.maximum.accumulate([scheduler.update_difficulty(t) for t in range(50)])
    pace = imported({"mine": section}).metrics["mine"].pace
    assert [pace(t) for t in range(50)] == theirs.tolist()


def consumed(tables, length, keep):
    """Steps and tokens of a whole run, as the published scripts count them."""
    run, steps, tokens = tables["run"], 0, 0
    layers, routed = run["layers"], len(tables["routing"]["layers"])
    while tokens < run["layer_tokens"] // layers:
        seq, kept = length(steps + 1), keep(steps)  # theirs begins with 1 for lengths, with 0 for kept tokens
        mean = (seq * (layers - routed) + min(kept, seq) * routed) // layers
        steps, tokens = steps + 1, tokens + run["batch_size"] * mean
    return steps, tokens


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt3-1.3b-composed-300b", (377_264, 300_000_323_584)),
        ("bert-large-composed-524b", (1_374_037, 524_288_196_608)),
    ],
)
def test_a_recipe_s_paces_consume_the_tokens_that_deepspeed_s_do(name, expected):
    tables = recipe(name)
    cut, kept = tables["length"]["pace"], tables["routing"]["keep"]
    config = {"total_curriculum_step": cut["steps"], "difficulty_step": cut["multiple"], "root_degree": 1}
    lengths = CurriculumScheduler(metric(cut["start"], cut["end"], "fixed_root", config))
    tokens = RandomLTDScheduler(
        {
            "total_layer_num": 24,
            "random_ltd_layer_num": 22,
            "global_batch_size": tables["run"]["batch_size"],
            "layer_token_lr_schedule": {"enabled": False},
            "random_ltd_schedule": {
                "min_value": kept["start"],
                "max_value": kept["end"],
                "schedule_type": "fixed_linear",
                "schedule_config": {"require_steps": kept["steps"], "seq_per_step": kept["multiple"]},
            },
        }
    )

    def keep(step):
        tokens.update_seq(step)
        return tokens.get_current_seq()

    assert consumed(tables, lengths.update_difficulty, keep) == expected
    length, keep = de.config.made("pacings", cut), de.config.made("pacings", kept)
    assert consumed(tables, length, keep) == expected


def test_checkpoints_of_layers_that_deepspeed_wrapped_load_into_plain_models():
    def make():
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        return torch.nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)

    wrapped, plain = make(), make()
    for i in (1, 2):
        wrapped.layers[i] = RandomLayerTokenDrop(wrapped.layers[i])
    assert any("random_ltd_layer" in name for name in wrapped.state_dict())
    plain.load_state_dict(unwrapped(wrapped.state_dict()), strict=True)
    batch = torch.randn(2, 5, 8)
    assert torch.equal(plain.eval()(batch), wrapped.eval()(batch))


@pytest.mark.parametrize(("stage", "ranks"), [(0, 1), (1, 1), (1, 2)])
def test_sampler_and_route_run_in_deepspeed_s_engine_and_resume_to_the_bit(stage, ranks, tmp_path):
    port = 20_000 + os.getpid() % 20_000 + 10 * stage + ranks
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": "1",
    }
    de.index.from_values({"rarity": np.random.default_rng(1).random(64)}, out=tmp_path / "index")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), str(stage)],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, outputs
    for rank in range(ranks):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert seen["resumed"] == seen["whole"][3:]
        assert seen["kept"] == [4, 4, 6, 6, 8, 8]
        assert seen["same"]
        assert not any("random_ltd" in name for name in seen["names"])


class Model(torch.nn.Module):
    """Blocks, and a loss of its own, as an engine takes it."""

    def __init__(self):
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.blocks = torch.nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)

    def forward(self, x):
        return self.blocks(x).square().mean()


def engine_config(stage, ranks):
    """A config as somebody has it, with both techniques; DeepSpeed is given the rest of it."""
    voc = metric(25, 100, "fixed_linear", {"total_curriculum_step": 6, "difficulty_step": 1})
    ltd = {
        "enabled": True,
        "total_layer_num": 4,
        "random_ltd_layer_num": 2,
        "random_ltd_layer_id": [1, 2],
        "model_mask_name": None,
        "model_type": "encoder",
        "hidden_state_order": "batch_seq_dim",
        "random_ltd_schedule": {
            "min_value": 4,
            "max_value": 8,
            "schedule_type": "fixed_linear",
            "schedule_config": {"require_steps": 4, "seq_per_step": 2},
        },
    }
    curriculum = {
        "enabled": True,
        "curriculum_metrics": {
            "rarity": voc | {"difficulty_type": "percentile", "clustering_type": "schedule_based"}
        },
    }
    own = {
        "enabled": True,
        "data_sampling": {"enabled": True, "curriculum_learning": curriculum},
        "data_routing": {"enabled": True, "random_ltd": ltd},
    }
    theirs = {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 4 // ranks,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    return theirs | {"data_efficiency": own}, theirs


def main(folder, stage):
    """Train six steps, and again three of them from a checkpoint; write down what was seen."""
    import deepspeed

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # takes minutes to compile, and a compiler
    deepspeed.init_distributed("gloo")
    whole_config, config = engine_config(stage, ranks)
    found = from_deepspeed(whole_config)
    data = torch.randn(64, 8, 16, generator=torch.Generator().manual_seed(7))

    def started():
        torch.manual_seed(3)
        model = Model()
        sampler = found.sampler(de.index.open(folder / "index"), steps=6)
        route = found.attach(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        return engine, sampler, route

    def train(engine, sampler, route, *, save_after=None):
        seen, kept, first = [], [], sampler.step
        dataset = torch.utils.data.TensorDataset(data)
        loader = torch.utils.data.DataLoader(dataset, batch_sampler=sampler)
        for step, (batch,) in enumerate(loader, first):
            ids = sampler[step]
            route.step = step
            losses = []
            for micro in batch.chunk(2):
                loss = engine(micro)
                engine.backward(loss)
                engine.step()
                losses.append(loss.item())
            chosen = {name: kept_ids.tolist() for name, kept_ids in route.kept().items()}
            seen.append([list(ids), losses, chosen])
            kept.append(route.keep_at(8))
            if step + 1 == save_after:
                client = {"sampler": sampler.state_dict(step + 1), "route": route.state_dict()}
                engine.save_checkpoint(str(folder / "checkpoint"), client_state=client)
        return seen, kept

    engine, sampler, route = started()
    seen, kept = train(engine, sampler, route, save_after=3)
    weights = engine.module_state_dict()

    engine, sampler, route = started()
    _, client = engine.load_checkpoint(str(folder / "checkpoint"))
    sampler.load_state_dict(client["sampler"])
    route.load_state_dict(client["route"])
    resumed, _ = train(engine, sampler, route)
    again = engine.module_state_dict()
    result = {
        "whole": seen,
        "resumed": resumed,
        "kept": kept,
        "same": all(torch.equal(weights[name], again[name]) for name in weights),
        "names": list(weights),
    }
    (folder / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()
    os._exit(0)  # threads that the engine leaves race with the interpreter's end, which may abort


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
