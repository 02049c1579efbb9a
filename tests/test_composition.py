"""The parts of a run together: what a plan says is what a clock counts, what does not fit is named."""

import json
import re
import tomllib

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import dataeff as de
from dataeff import cli, flops, lr, pacing
from dataeff.clock import AXES
from dataeff.composition import Plan, compose, effective_length
from dataeff.demo._model import GPT
from dataeff.migration import recipe
from dataeff.samplers import curriculum, shuffled, token_budget

COST = flops.transformer(width=16, vocabulary=32)


def plan(**said):
    return Plan(**{"batch_size": 8, "length": 64, "until": {"steps": 100}} | said)


def routed(**said):
    return plan(**{"blocks": 4, "routed": ["1", "2"]} | said)


# What is consumed


def step_by_step(made):
    """The same without any shortcut."""
    counts, seen = dict.fromkeys(AXES, 0), []
    while not any(counts[axis] >= limit for axis, limit in made.until.items()):
        length = made.length
        if made.seqlen is not None:
            length = min(made.seqlen(counts[pacing.axis(made.seqlen)]), length)
        keep = length if made.keep is None else min(made.keep(counts[pacing.axis(made.keep)]), length)
        cut = made.transform == "truncate"
        rows = made.batch_size if cut else made.batch_size * -(-made.length // length)
        full = len(made.blocks) - len(made.routed)
        linear = rows * (full * length + len(made.routed) * keep)
        pairs = rows * (full * length**2 + len(made.routed) * keep**2)
        (token, pair) = COST.layers["*"]
        tokens = made.batch_size * (length if cut else made.length)
        more = {
            "steps": 1,
            "samples": made.batch_size,
            "tokens": tokens,
            "loss_tokens": tokens,
            "layer_tokens": linear,
            "flops": token * linear + pair * pairs + COST.token * rows * length,
        }
        seen.append((length, keep, counts))
        counts = {axis: counts[axis] + more[axis] for axis in AXES}
    return counts, seen


lengths = st.integers(1, 64)
axes = st.sampled_from(["steps", "samples", "tokens", "layer_tokens", "flops"])
SCALE = {"steps": 1, "samples": 8, "tokens": 300, "layer_tokens": 1000, "flops": 10**6}


@st.composite
def paces(draw):
    on = draw(axes)
    steps = draw(st.integers(1, 60)) * SCALE[on]
    start, end = draw(lengths), draw(lengths)
    made = [
        pacing.linear(start, end, steps=steps, multiple=draw(st.integers(1, 9)), on=on),
        pacing.root(start, end, steps=steps, multiple=4, on=on),
        pacing.levels(pacing.cosine(start, end, steps=min(steps, 999), multiple=1, on=on), k=3),
        pacing.discrete([start, end, start], until=[steps, 2 * steps], on=on),
        pacing.join([start, pacing.linear(start, end, steps=steps, multiple=1, on=on)], boundaries=[9]),
        pacing.clip(pacing.linear(start, end, steps=steps, multiple=2, on=on), low=5, high=40),
        pacing.constant(start),
    ]
    return draw(st.sampled_from(made))


@given(
    st.none() | paces(),
    st.none() | paces(),
    st.sampled_from(["truncate", "reshape"]),
    st.dictionaries(axes, st.integers(1, 80), min_size=1, max_size=2),
)
def test_a_plan_is_what_its_steps_add_up_to(seqlen, keep, transform, until):
    made = routed(
        until={axis: limit * SCALE[axis] for axis, limit in until.items()},
        seqlen=seqlen,
        keep=keep,
        routed=() if keep is None else ["1", "2"],
        transform=transform,
        cost=COST,
    )
    counts, seen = step_by_step(made)
    found = made.predict()
    assert found.counts == counts
    for step, (length, kept, before) in enumerate(seen):
        now = found.moment(step)
        assert (now.length, now.keep, now.at(step)) == (length, kept, before)
        of = {"layers": 4, "routed": len(made.routed)}
        assert found.effective_length(step) == effective_length(length, kept, **of)


def test_a_plan_is_what_a_clock_counts_in_training():
    model = GPT(vocabulary=32, length=64, width=16, heads=2, layers=4)
    clock, cost = de.Clock(), flops.measured(model, torch.zeros(1, 64, dtype=torch.int64))
    seqlen = pacing.linear(16, 64, steps=12, multiple=8)
    keep = pacing.linear(4, 64, steps=30_000, multiple=4, on="layer_tokens")
    route = de.routing.attach(model, keep=keep, seed=1, clock=clock)
    sampler = shuffled(100, batch_size=4, seed=1, steps=20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rate = lr.by_clock(optimizer, lr.cosine(warmup=500, total=3000), clock, on="tokens")
    run = compose(clock=clock, sampler=sampler, length=64, seqlen=seqlen, route=route, lr=rate, cost=cost)
    found = run.predict()
    for ids in sampler:
        now = found.moment(clock.steps)
        assert {axis: count for axis, count in clock.counts().items() if axis in AXES} == now.at(clock.steps)
        assert found.rate(clock.steps) == pytest.approx(optimizer.param_groups[0]["lr"])
        route.step = ids.step
        tokens = torch.tensor([[(i * j) % 32 for j in range(65)] for i in ids])
        batch = de.transforms.truncate(tokens, int(seqlen(ids.step)) + 1)
        logits = model(batch[:, :-1])
        assert len(route.kept().get("blocks.1", [batch[0, 1:]])[0]) == now.keep
        functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimizer.step()
        size = batch[:, 1:].numel()
        clock.tick(samples=len(ids), tokens=size, loss_tokens=size, route=route, cost=cost)
        rate.step()
    assert found.counts == {axis: clock.counts()[axis] for axis in AXES}


# The published recipes


def as_published(name, *, floor):
    """Steps and consumed tokens as the training script counts them, given the paces."""
    made = Plan.from_config(recipe(name))
    limit = made.until.get("tokens") or made.until["layer_tokens"] // 24
    seqlen, keep = made.seqlen or pacing.constant(made.length), made.keep or pacing.constant(made.length)
    consumed = step = 0
    lengths, kept = pacing.table(seqlen), pacing.table(keep)
    layers, drop = len(made.blocks), len(made.routed)
    while consumed < limit:
        length = lengths[min(step + 1, len(lengths) - 1)]  # the sampler counts before it looks
        r = min(kept[min(step, len(kept) - 1)], length)
        mean = (length * (layers - drop) + r * drop) / layers
        consumed += made.batch_size * (int(mean) if floor else mean)
        step += 1
    return step, consumed


@pytest.mark.parametrize(
    ("name", "steps", "tokens"),
    [
        ("gpt3-1.3b-baseline-300b", 286_103, 300_000_739_328),
        ("gpt3-1.3b-curriculum-300b", 339_169, 300_000_821_248),
        ("gpt3-1.3b-composed-300b", 377_264, 300_000_323_584),
        ("gpt3-1.3b-composed-150b", 188_632, 150_000_050_688),
    ],
)
def test_the_incumbent_s_count_of_consumed_tokens_is_reproduced(name, steps, tokens):
    """The figures are of a run with DeepSpeed 0.19's own schedulers; see docs/migration.md."""
    assert as_published(name, floor=True) == (steps, tokens)


@pytest.mark.parametrize(
    ("name", "steps", "layer_tokens"),
    [
        ("gpt3-1.3b-baseline-300b", 286_103, 24 * 300_000_739_328),
        ("gpt3-1.3b-curriculum-300b", 339_170, None),
        ("gpt3-1.3b-composed-300b", 377_233, 7_200_024_010_752),
        ("gpt3-1.3b-composed-150b", 188_617, None),
        ("bert-large-composed-1049b", 2_746_772, None),
        ("bert-large-composed-524b", 1_373_386, None),
    ],
)
def test_a_recipe_goes_to_its_end_on_paper(name, steps, layer_tokens):
    found = Plan.from_config(recipe(name)).predict()
    assert found.steps == steps
    assert layer_tokens in (None, found.counts["layer_tokens"])


def test_what_differs_from_the_incumbent_is_the_rounding_and_the_first_step():
    made = Plan.from_config(recipe("gpt3-1.3b-composed-300b"))
    exact, _ = as_published("gpt3-1.3b-composed-300b", floor=False)
    ahead = pacing.custom(lambda step: made.seqlen(step + 1), steps=110_000)
    shifted = attrs.evolve(made, seqlen=ahead)
    assert shifted.predict().steps == exact


# What does not fit

GROWING = pacing.linear(16, 64, steps=80, multiple=8)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            lambda: routed(seqlen=GROWING, keep=pacing.linear(24, 48, steps=80, multiple=8)),
            "the route drops nothing at 40 of 100 steps, where it may keep as many tokens as the",
        ),
        (
            lambda: routed(keep=pacing.linear(64, 128, steps=80, multiple=8)),
            "the route drops no token at any step: it keeps as many as the length has; keep fewer",
        ),
        (
            lambda: plan(seqlen=GROWING, packed=True),
            r"samples are packed, and truncation drops 3\d.\d% of their tokens.*\"reshape\" keeps them"
            r".*reshape\(batch, length \+ 1, overlap=1\)",
        ),
        (
            lambda: routed(seqlen=GROWING, keep=pacing.linear(24, 48, steps=80, multiple=8)),
            r".*share of the length: pacing.multiple\(pacing.scale\(seqlen, by=0.5\), 16\)",
        ),
        (
            lambda: plan(seqlen=pacing.linear(16, 128, steps=80, multiple=8)),
            "the pace of the length ends at 128, and samples have 64 tokens: from where it passes that it",
        ),
        (lambda: plan(seqlen=128), "the pace of the length ends at 128, and samples have 64 tokens"),
        (
            lambda: plan(by_tokens=True),
            r"batches are cut by tokens .* than the 8 that are planned: the plan is not exact",
        ),
        (
            lambda: plan(schedule=lr.cosine(total=100), on="flops"),
            "the learning rate is on flops, which are not counted, .*; give cost=, as",
        ),
        (
            lambda: plan(seqlen=pacing.linear(16, 64, steps=100, multiple=8, on="flops")),
            "the length is paced by flops, which are not counted, so it stays .*; give cost=, as",
        ),
        (
            lambda: plan(metrics={"m": de.paced(pacing.linear(5, 200, steps=50), by="percentile")}),
            r"the pace of 'm' goes from 5 to 200, and percentiles are in \(0, 100\]: .*; end it there",
        ),
        (
            lambda: plan(metrics={"m": de.paced(pacing.linear(0, 9, steps=50), by="percentile")}),
            r"the pace of 'm' goes from 0 to 9, and percentiles are in \(0, 100\]",
        ),
        (
            lambda: plan(metrics={"m": de.window(high=pacing.linear(9, 101, steps=50), by="percentile")}),
            r"the pace of 'm' goes from 9 to 101, and percentiles are in \[0, 100\]",
        ),
        (
            lambda: plan(metrics={"m": de.paced(pacing.linear(9, 5, steps=50))}),
            r"the pace of 'm' falls, so samples would leave the pool: .* or window\(high=pace\)",
        ),
        (
            lambda: plan(seqlen=pacing.linear(16, 64, steps=9000, multiple=8, on="tokens")),
            "the length is paced by tokens, of which it makes fewer itself: 128 in the first step, 512 in",
        ),
        (
            lambda: routed(keep=pacing.linear(16, 64, steps=9000, multiple=8, on="layer_tokens")),
            "keep is paced by layer_tokens, of which it makes fewer itself: 1,280 in the first step, 2,04",
        ),
        (
            lambda: plan(seqlen=GROWING, until={"steps": 50}),
            "the pace of the length never reaches its end: it is at 40 when the run ends, after 49 st",
        ),
        (
            lambda: plan(metrics={"rarity": de.paced(pacing.linear(1, 9, steps=500))}),
            "the pace of 'rarity' never reaches its end: it is at 2.584 when the run ends, after 99 steps",
        ),
        (
            lambda: plan(metrics={"rarity": de.window(high=pacing.linear(1, 9, steps=500))}),
            "the pace of 'rarity' high never reaches its end",
        ),
        (
            lambda: plan(seqlen=GROWING, schedule=lr.cosine(total=100), on="steps"),
            "the learning rate is on steps, and steps consume 128 to 512 layer tokens: .*put it on 'tokens'",
        ),
        (
            lambda: plan(schedule=lr.linear(total=10**6)),
            r"the learning rate is at 94.9% of its peak when the run ends, after 51,200 tokens; it",
        ),
        (
            lambda: plan(schedule=lr.linear(total=25_600)),
            r"the learning rate is at its floor for the last 50.0% of the run's 51,200 tokens",
        ),
    ],
)
def test_what_does_not_fit_is_noted_with_its_cure(made, words):
    notes = made().notes()
    assert [note for note in notes if re.match(words, note)], notes


def test_what_fits_has_no_notes():
    fits = routed(
        seqlen=GROWING,
        keep=pacing.multiple(pacing.scale(GROWING, by=0.5), 8),
        transform="reshape",
        packed=True,
        schedule=lr.cosine(warmup=512, total=51_200),
    )
    assert fits.notes() == ()


@pytest.mark.parametrize(
    "made",
    [
        lambda: routed(keep=64),
        lambda: routed(seqlen=GROWING, keep=64),
        lambda: plan(until={"steps": 80}, seqlen=GROWING),
        lambda: plan(seqlen=pacing.linear(64, 16, steps=9000, multiple=8, on="tokens")),
        lambda: plan(seqlen=pacing.linear(16, 64, steps=9000, multiple=8, on="tokens"), transform="reshape"),
        lambda: plan(seqlen=GROWING, schedule=lr.constant(warmup=10), on="steps"),
        lambda: plan(until={"tokens": 600}, schedule=lr.linear(total=600)),
        lambda: plan(metrics={"m": de.window(low=pacing.linear(80, 0, steps=50), by="percentile")}),
    ],
)
def test_what_is_meant_is_not_noted(made):
    assert made().notes() == ()


def test_a_route_that_keeps_everything_counts_for_a_baseline():
    found = routed(keep=64).predict()
    assert "drop tokens" not in str(found)
    assert "kept" not in str(found)
    assert "2 of 4 blocks drop tokens" in str(routed(keep=32).predict())


def test_plans_are_equal_by_value_and_hashable_and_foretold_once():
    one, other = (plan(seqlen=GROWING, metrics={"m": de.paced(50)}, cost=COST) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    assert one != plan(length=32)
    assert one.predict() is one.predict()
    assert one.predict().plain is one.predict().plain


def test_tokens_dropped_at_the_input_do_not_reach_the_head():
    model = GPT(vocabulary=32, length=64, width=16, heads=2, layers=4)
    blocks = list(model.blocks)
    route = de.routing.attach(model, router="patch_dropout", keep=16, layers=blocks[1:3], seed=1, check=False)
    run = compose(clock=de.Clock(), batch_size=2, length=64, until={"steps": 1}, route=route, cost=COST)
    route.step = 0
    model(torch.zeros(2, 64, dtype=torch.int64)).sum().backward()
    done = route.processed()
    counts = run.predict().counts
    assert (counts["layer_tokens"], counts["flops"]) == (done.layer_tokens, COST(done))
    assert run.effective_length(0) == (64 + 3 * 16) / 4


class Stepless:
    """As torchdata's own samplers are."""

    def __len__(self):
        return 9

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def live(index=None, **said):
    model = GPT(vocabulary=32, length=64, width=16, heads=2, layers=4)
    optimizer, clock = torch.optim.AdamW(model.parameters(), lr=1e-3), de.Clock()
    sampler = shuffled(100, batch_size=4, seed=1, steps=20)
    if index is not None:
        cl = de.Curriculum(index, {"loss": de.paced(pacing.linear(50, 100, steps=9), by="percentile")})
        sampler = curriculum(cl, batch_size=4, seed=1, steps=20)
    route = de.routing.attach(model, keep=8, seed=1)
    rate = lr.by_clock(optimizer, lr.cosine(total=5120), clock, on="tokens")
    return compose(**{"clock": clock, "sampler": sampler, "length": 64, "route": route, "lr": rate} | said)


def test_two_schedulers_of_one_optimizer_are_noted():
    run = live()
    rate = run.parts["lr"]
    plain = torch.optim.lr_scheduler.LambdaLR(rate.optimizer, lambda step: 1.0)
    (note,) = live(lr=[rate, plain], clock=rate.clock).notes
    assert note.startswith(
        "by_clock and LambdaLR set the learning rate of one optimizer, each over the other"
    )
    assert live().notes == ()


def test_a_scaled_batch_needs_a_scheduler_that_takes_it():
    budget = token_budget(shuffled(100, batch_size=4, seed=1, steps=20), lengths=[64] * 100, max_tokens=256)
    plain = torch.optim.lr_scheduler.LambdaLR(live().parts["lr"].optimizer, lambda step: 1.0)
    assert any(
        "no scheduler here takes that; use lr.by_clock" in note
        for note in live(sampler=budget, lr=plain).notes
    )
    assert not any("takes that" in note for note in live(sampler=budget).notes)


def test_a_second_clock_and_a_short_sampler_are_noted():
    notes = live(clock=de.Clock(), until={"steps": 30}).notes
    assert notes[0].startswith("the by_clock reads another clock than the one that is composed")
    assert (
        notes[-1] == "the sampler has 20 steps, and the run needs 30 to {'steps': 30}; make it with steps=30"
    )


def test_schedulers_within_a_chain_are_found_and_each_is_checked():
    first = live().parts["lr"]
    chain = torch.optim.lr_scheduler.SequentialLR(
        first.optimizer,
        [torch.optim.lr_scheduler.ConstantLR(first.optimizer), first],
        milestones=[2],
    )
    run = live(lr=chain, clock=first.clock)
    assert run.plan.schedule is first.schedule
    chained = torch.optim.lr_scheduler.ChainedScheduler([first])
    assert live(lr=chained, clock=first.clock).plan.schedule is first.schedule
    assert run.notes == (
        "the learning rate that is planned is that of by_clock alone, not of the SequentialLR that it is in",
    )
    other = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    late = lr.by_clock(other, lr.linear(total=10**9), first.clock, on="tokens")
    (note,) = live(lr=[first, late], clock=first.clock).notes
    assert note.startswith("by_clock 2: the learning rate is at 100.0% of its peak when the run ends")


def test_a_sampler_that_cuts_by_tokens_is_not_planned_exactly():
    budget = token_budget(
        shuffled(100, batch_size=4, seed=1, steps=20), lengths=[64] * 100, max_tokens=128, lr_scaling="none"
    )
    run = live(sampler=budget, lr=None)
    assert any("the plan is not exact" in note for note in run.notes)
    assert run.notes[-1] == (
        "the sampler's 40 batches have 80 samples and 5,120 tokens in all, 2.0 samples each; give "
        "batch_size=2 for a plan of about as many"
    )
    better = live(sampler=budget, lr=None, batch_size=2)
    assert better.predict().counts["tokens"] == 5120
    assert better.notes[-1].endswith("2.0 samples each")


def test_without_a_route_the_number_of_blocks_is_asked_for():
    said = {"clock": de.Clock(), "batch_size": 8, "length": 64, "until": {"layer_tokens": 51_200}}
    run = compose(**said)
    assert run.notes[0].startswith("there is no route to tell how many blocks the model has, so layer tokens")
    assert run.notes[0].endswith("say blocks=, a number or names")
    assert "in one block" in str(run)
    known = compose(**said, blocks=4)
    assert (known.notes, known.predict().steps, run.predict().steps) == ((), 25, 100)
    measured = flops.Cost({"h.0": (8, 1), "h.1": (8, 1)})
    assert compose(**said, cost=measured).plan.blocks == ("h.0", "h.1")


def test_packed_samples_are_seen_in_the_index(tmp_path):
    values = {"loss": list(range(100)), "length": [64] * 100}
    packed = de.index.from_values(values, out=tmp_path / "packed")
    assert live(packed, seqlen=GROWING).plan.packed
    assert any("samples are packed" in note for note in live(packed, seqlen=GROWING).notes)
    ragged = de.index.from_values(values | {"length": [32, 64] * 50}, out=tmp_path / "ragged")
    assert not live(ragged, seqlen=GROWING).plan.packed


# One state


def test_one_state_resumes_all_parts(index, tmp_path):
    run = live(index)
    for ids in run.parts["sampler"]:
        run.parts["route"].step = ids.step
        run.parts["lr"].optimizer.step()
        run.parts["clock"].tick(samples=4, tokens=256)
        run.parts["lr"].step()
        if ids.step == 6:
            break
    next(iter(run.parts["sampler"]))  # the loader has asked ahead
    torch.save(run.state_dict(), tmp_path / "run.pt")
    resumed = live(index)
    resumed.load_state_dict(torch.load(tmp_path / "run.pt", weights_only=True))
    parts = resumed.parts
    assert list(parts) == ["clock", "sampler", "route", "lr"]
    assert (parts["clock"].steps, parts["sampler"].step, parts["route"].step) == (7, 7, 6)
    assert parts["lr"].get_last_lr() == run.parts["lr"].get_last_lr()
    assert parts["lr"].optimizer.param_groups[0]["lr"] == run.parts["lr"].get_last_lr()[0]


def test_a_state_of_other_parts_is_refused():
    state = live().state_dict()
    del state["route"]
    with pytest.raises(
        ValueError, match=r"the state is of \['clock', 'sampler', 'lr'\]; expected \['clock', 's"
    ):
        live().load_state_dict(state)


def test_a_refused_state_changes_nothing():
    run, seed = live(), live().state_dict()
    run.parts["clock"].tick(samples=4, tokens=256)
    run.parts["sampler"].step = 3
    before = {name: part.state_dict() for name, part in run.parts.items()}
    seed["route"] = seed["route"] | {"seed": 2}
    with pytest.raises(ValueError, match="expected a step and the seed 1"):
        run.load_state_dict(seed)
    assert {name: part.state_dict() for name, part in run.parts.items()} == before


def accumulated(updates, micro=4):
    """A run whose clock ticks once in so many batches, and the last of these."""
    clock, sampler = de.Clock(timer=int), de.samplers.shuffled(800, batch_size=8, seed=1, steps=40)
    run, batches, last = de.compose(clock=clock, sampler=sampler, length=64), iter(sampler), None
    for _ in range(updates):
        for _ in range(micro):
            last = next(batches)
        clock.tick(samples=micro * 8, tokens=micro * 8 * 64)
    return run, last


def test_gradient_accumulation_resumes_with_the_batch_that_comes_next():
    run, last = accumulated(5)
    with pytest.raises(
        ValueError, match=r"160 samples in 5 steps.* have 40,.*state_dict\(step=batch.step \+ 1\)"
    ):
        run.state_dict()
    state = run.state_dict(step=last.step + 1)
    resumed, _ = accumulated(0)
    resumed.load_state_dict(state)
    assert (resumed.parts["sampler"].step, resumed.parts["clock"].steps) == (20, 5)
    with pytest.raises(
        ValueError, match="the clock is at step 5 and the sampler is at step 19; expected states of"
    ):
        resumed.load_state_dict(state | {"sampler": state["sampler"] | {"step": 19}})


def test_gradient_accumulation_over_batches_by_tokens_asks_for_the_step():
    lengths = [1 + 7 * i % 50 for i in range(1000)]
    stream = shuffled(1000, batch_size=8, seed=1, steps=100)
    budget, clock = token_budget(stream, lengths=lengths, max_tokens=256, window=4), de.Clock(timer=int)
    run = de.compose(clock=clock, sampler=budget, length=64, batch_size=8)
    for first, second in zip(*[iter(budget)] * 2, strict=False):
        assert run.state_dict(step=first.step)["sampler"]["step"] == first.step
        clock.tick(samples=first.samples + second.samples, tokens=first.tokens + second.tokens)
        if clock.steps == 10:
            break
    with pytest.raises(ValueError, match=r"samples in 10 steps.*so it is further: .*step=batch.step \+ 1"):
        run.state_dict()
    state = run.state_dict(step=second.step + 1)
    run.load_state_dict(state)
    assert (budget.step, clock.samples) == (20, budget.drawn(20))


def test_importance_is_planned_to_an_end_that_is_said():
    sampler = de.samplers.importance(100, batch_size=10, seed=1, epochs=5)
    with pytest.raises(ValueError, match=r"depends on losses to come; say until=\{'steps': 50\}, as many"):
        de.compose(clock=de.Clock(), sampler=sampler, length=64)
    run = de.compose(clock=de.Clock(), sampler=sampler, length=64, until={"steps": 50})
    assert (run.predict().steps, run.notes) == (50, ())
    longer = de.compose(clock=de.Clock(), sampler=sampler, length=64, until={"steps": 51})
    assert "the sampler has 50 steps, and the run needs 51" in longer.notes[0]


def test_a_state_of_several_moments_is_refused():
    state = live().state_dict()
    state["clock"] = de.Clock(steps=30).state_dict()
    state["sampler"] = state["sampler"] | {"step": 12}
    with pytest.raises(
        ValueError, match="the clock is at step 30 and the sampler is at step 12; expected st"
    ):
        live().load_state_dict(state)


def test_blocks_may_be_a_number_of_numpy():
    assert plan(blocks=np.int64(4)).blocks == plan(blocks=4).blocks == ("0", "1", "2", "3")


# Bad input, tables, the command line


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: plan(until={}), "until is {}; expected limits on axes of the clock"),
        (lambda: plan(until={"epochs": 3}), "until is {'epochs': 3}; expected limits on axes"),
        (lambda: plan(until={"flops": 10**9}).predict(), "a step consumes no flops, so the plan never ends"),
        (lambda: plan(transform="crop"), "transform is 'crop'; expected 'truncate' or 'reshape'"),
        (lambda: plan(on="epochs"), "on is 'epochs'; expected one of steps, samples"),
        (
            lambda: plan(blocks=0),
            "blocks are none; expected their names, or how many there are, at least 1",
        ),
        (lambda: plan(blocks=2.5), "blocks is 2.5; expected a whole number of at least 0"),
        (
            lambda: plan(blocks=2, routed=["7"], keep=3),
            "block '7' is to drop tokens, and there are only 0, 1",
        ),
        (lambda: plan(keep=3), r"keep is constant\(value=3\) and routed \[\]; expected both, or neither"),
        (lambda: routed(routed=["1", "1"], keep=3), "routed has '1' more than once; give each block once"),
        (lambda: plan(packed="yes"), "packed is 'yes'; expected True or False"),
        (lambda: plan(seqlen="32"), "seqlen: value is '32'; expected a finite number"),
        (lambda: plan(schedule=3), r"schedule is 3; expected one, as lr.cosine\("),
        (lambda: plan(cost=3), r"cost is 3; expected one, as flops.transformer\("),
        (lambda: plan(peak="x"), "peak is 'x'; expected a finite number of at least 0"),
        (lambda: plan(metrics={"m": 3}), "metrics is {'m': 3}; expected a mapping, as {'length': paced"),
        (lambda: plan(drops=1), "drops is 1; expected True or False"),
        (lambda: live(clock=None), r"clock is None; expected one, as dataeff.Clock\(\)"),
        (lambda: live(lr=3), r"lr is 3; expected a scheduler, as lr.by_clock\(optimizer, lr.cosine"),
        (lambda: live(lr=lr.cosine(total=9)), r"lr is cosine\(.*total=9\); expected a scheduler, as lr.by"),
        (
            lambda: live(lr=torch.optim.SGD([torch.zeros(1)])),
            r"lr is a SGD; expected a scheduler, as lr.by_clock\(",
        ),
        (
            lambda: live(route=torch.nn.Linear(1, 1)),
            r"route is Linear\(.*; expected what routing.attach\(model, keep=...\) gives",
        ),
        (lambda: live(cost=5), r"cost is 5; expected one, as flops.measured\(model, batch\)"),
        (
            lambda: live(sampler=torch.utils.data.BatchSampler(range(8), 2, drop_last=False)),
            "sampler is a BatchSampler, which has no state to go on from; expected one of dataeff.samplers",
        ),
        (
            lambda: live(sampler=Stepless()),
            r"sampler is a Stepless, whose state_dict\(\) takes no step; expected state_dict\(step=None\)",
        ),
        (lambda: live(batch_size=16), "batch_size is 16, and the sampler's 4; leave batch_size= out"),
        (lambda: live(blocks=3), "blocks is 3, and the route has .*; leave blocks= out"),
        (lambda: plan(blocks="layers"), "blocks is 'layers'; expected names, or how many there are"),
        (
            lambda: plan(seqlen=pacing.linear(1, 9, steps=7)).predict(),
            "the length is 2.14.* at steps 1; expec",
        ),
        (
            lambda: compose(clock=de.Clock(), length=8, batch_size=1),
            "there is no sampler to end the run; say un",
        ),
        (
            lambda: compose(clock=de.Clock(), length=8, until={"steps": 1}),
            "neither a sampler says how many sam",
        ),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


RUN = {"batch_size": 8, "sequence_length": 64, "layers": 4, "steps": 100}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({}, "run has no batch_size; expected one"),
        ({"run": RUN | {"stepps": 3}}, "unknown name 'stepps' in run; did you mean 'steps'?"),
        (
            {"run": {k: v for k, v in RUN.items() if k != "steps"}},
            "run does not say where it ends; expected one",
        ),
        ({"run": 3}, r"run is 3; expected a table, as \[run\]"),
        (
            {"run": RUN, "lr": {"schedule": "cosin"}},
            "unknown name 'cosin' in lr.schedule; did you mean 'cosine'",
        ),
        (
            {"run": RUN, "lr": {"peak": 1e-4, "floor": 1e-3, "total": 5}},
            "lr.floor is 0.001 and lr.peak 0.0001",
        ),
        ({"run": RUN, "lr": {"schedule": "cosine"}}, "lr: total is missing; 'cosine' needs it"),
        ({"run": RUN, "lr": {"schedule": "inverse_sqrt"}}, "lr: warmup is missing; 'inverse_sqrt' needs it"),
        (
            {"run": RUN, "lr": {"schedule": "constant", "total": 5}},
            "lr.total is not of 'constant', which takes warmup, floor; leave it out",
        ),
        (
            {"run": RUN, "lr": {"floor": 1e-6, "total": 5}},
            r"lr.floor is 1e-06, a learning rate here \(lr.cosine.* share of .*lr.peak is missing; give",
        ),
        ({"run": RUN, "lr": {"peak": 0, "total": 5}}, "lr.peak is 0; expected a learning rate above 0"),
        ({"run": RUN, "lr": {"peak": "x", "total": 5}}, "lr.peak is 'x'; expected a finite number"),
        ({"run": RUN, "lr": {"on": "epochs", "total": 5}}, "lr.on is 'epochs'; expected one of steps"),
        ({"run": RUN, "lr": {"total": 5, "warmup": 7}}, "lr: warmup is 7 and total 5; expected less"),
        ({"run": RUN, "lr": {"total": 5.5}}, "lr.total is 5.5; expected a whole number"),
        (
            {"run": RUN, "lenght": {"pace": 8}},
            "unknown name 'lenght' in the config; did you mean 'length'.*token_budget",
        ),
        ({"run": RUN, "route": {"keep": 8}}, "unknown name 'route' in the config; did you mean 'routing'"),
        ({"run": RUN, "token_budget": {"max_token": 8}}, "unknown name 'max_token' in token_budget; did you"),
        ({"run": RUN, "routing": {"layers": [1]}}, "routing has no keep; expected how many"),
        ({"run": RUN, "routing": {"keep": 8, "skip": 5}}, "routing.skip is 5; expected how many blocks to"),
        ({"run": RUN, "routing": {"keep": 8, "skip": [1]}}, r"routing.skip is \[1\]; expected how many bl"),
        (
            {"run": RUN, "routing": {"keep": 8, "skip": [4, 4]}},
            r"routing.skip is \[4, 4\] and run.layers 4, so no block is left to route; skip fewer",
        ),
        ({"run": RUN, "routing": {"keep": 8, "layers": 3}}, "routing.layers is 3; expected a list of block"),
        ({"run": RUN, "routing": {"keep": 8, "layers": []}}, r"routing.layers is \[\]; expected a list of"),
        (
            {"run": RUN, "routing": {"keep": 8, "layers": [1, 1]}},
            "routing.layers has 1 more than once; give each block once",
        ),
        (
            {"run": RUN, "routing": {"keep": 8, "router": "random_lt"}},
            "unknown name 'random_lt' in routing.router; did you mean 'random_ltd'",
        ),
        ({"run": RUN, "routing": {"keep": "32"}}, "routing.keep is '32'; expected a number, or a pace, as"),
        ({"run": RUN, "routing": {"keep": 0}}, "routing.keep is 0; expected a whole number of at least 1"),
        (
            {"run": RUN, "length": {"pace": 64.5}},
            "length.pace is 64.5; expected a whole number of at least 1",
        ),
        ({"run": RUN | {"layers": 3e11}}, "run.layers is 300000000000; expected a whole number from 1 to"),
        ({"run": RUN, "length": {"pace": [1, 2]}}, r"length.pace is \[1, 2\]; expected a number, or a pace"),
        ({"run": RUN, "length": {"transform": "crop"}}, "length.transform is 'crop'; expected 'truncate' or"),
        ({"run": RUN | {"packed": "yes"}}, "run.packed is 'yes'; expected true or false"),
        ({"run": RUN | {"tokens": 1.5}}, "run.tokens is 1.5; expected a whole number"),
        ({"run": RUN | {"batch_size": "8"}}, "run.batch_size is '8'; expected a whole number of at least 1"),
        ({"run": RUN | {"flops": 10**9}}, r"run.flops is 1000000000, .*; give the table \[model\]"),
        (
            {"run": {k: v for k, v in RUN.items() if k != "layers"}, "routing": {"keep": 8}},
            r"run has no layers; expected how many blocks .* as \[run\] with layers = 24",
        ),
        ({"run": RUN, "model": {"vocabulary": 9}}, "model has no width; expected"),
        ({"run": RUN, "model": {"width": 8, "gated": "no"}}, "model.gated is 'no'; expected true or false"),
        ({"run": RUN, "length": {"pace": {"name": "linea"}}}, "length.pace: unknown name 'linea' in pacings"),
        (
            {"run": RUN, "routing": {"keep": 8, "layers": [4]}},
            "an entry of routing.layers is 4; expected.* 3",
        ),
        ({"run": RUN, "routing": {"keep": 8, "layers": [1], "skip": [1, 1]}}, "routing has layers and skip"),
        ({"run": RUN, "model": {"width": 0}}, "model: width is 0; expected a whole number of at least 1"),
        ({"run": RUN, "curriculum": 3}, "curriculum is 3; expected a table for each metric"),
    ],
)
def test_tables_that_are_no_plan_are_refused_by_key(tables, words):
    with pytest.raises(ValueError, match=words):
        Plan.from_config(tables)


def test_whole_numbers_may_be_written_as_floats():
    pace = {"name": "linear", "start": 16.0, "end": 64.0, "steps": 8e1, "multiple": 8.0}
    tables = {
        "run": {"batch_size": 8.0, "sequence_length": 64.0, "layers": 4.0, "tokens": 3e6},
        "length": {"pace": pace},
        "routing": {"keep": 16.0, "layers": [1.0, 2.0]},
        "lr": {"peak": 1.0, "total": 3e6, "warmup": 1e3},
        "token_budget": {"max_tokens": 4096},
    }
    made = Plan.from_config(tables)
    assert made.until == {"tokens": 3_000_000}
    assert (made.seqlen, made.schedule) == (GROWING, lr.cosine(total=3_000_000, warmup=1000))
    assert any("the plan is not exact" in note for note in made.notes())


def test_a_router_at_the_input_takes_all_blocks_by_default():
    made = Plan.from_config({"run": RUN, "routing": {"router": "patch_dropout", "keep": 8}})
    assert (made.drops, made.routed) == (True, ("0", "1", "2", "3"))
    plain = Plan.from_config({"run": RUN, "routing": {"keep": 8}})
    assert (plain.drops, plain.routed) == (False, ("1", "2"))


CONFIG = """
[run]
batch_size = 8
sequence_length = 64
layers = 4
tokens = 40_000

[model]
width = 16

[length]
pace = { name = "linear", start = 16, end = 64, steps = 80, multiple = 8 }

[routing]
keep = { name = "linear", start = 8, end = 64, steps = 80, multiple = 8 }

[lr]
schedule = "wsd"
peak = 1e-3
warmup = 1000
decay = 9000
total = 40_000
"""


def test_the_command_prints_and_writes_the_plan(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    assert cli.main(["plan", str(path), "--json", str(tmp_path / "plan.json")]) == 0
    out = capsys.readouterr().out
    found = Plan.from_config(tomllib.loads(CONFIG)).predict()
    assert str(found) in out
    assert "FLOPs" in out
    assert "% saved" in out
    told = json.loads((tmp_path / "plan.json").read_text())
    assert told["counts"] == found.counts
    assert told["notes"] == list(found.plan.notes())
    path.write_text("[run]\nbatch_size = 8\n")
    assert cli.main(["plan", str(path)]) == 2
    assert "run has no sequence_length" in capsys.readouterr().err


def test_the_command_says_what_a_floor_is(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", "--help"])
    out = capsys.readouterr().out
    assert "a learning rate, too, not a share of the peak as in lr.cosine(floor=...)" in out
    assert "[token_budget]" in out
