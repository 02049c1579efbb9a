"""`dataeff plan`: what a composed run will consume, and what does not fit."""

import argparse
from pathlib import Path
from typing import Any

from dataeff import _files, composition
from dataeff.cli import _output

PLAN = """\
Go through every step of a run on paper, without a model or data: the length and the kept tokens over time,
what is consumed on every axis of the clock, the learning rate, what is saved against plain steps, and what
does not fit together (a route that keeps more than the curriculum's length, a pace that never reaches its
end, a learning rate that decays on the wrong axis, ...). 300B tokens take less than a second.
"""

EPILOG = """\
The configuration is TOML or JSON, as `dataeff recipes` prints them and `dataeff import-config` writes them:

  [run]
  batch_size = 512
  sequence_length = 2048
  layers = 24
  tokens = 300_000_000_000    # where it ends; or steps, samples, layer_tokens, flops

  [model]                     # for FLOPs; see dataeff.flops.transformer
  width = 2048
  vocabulary = 50304

  [length]                    # how samples are cut
  pace = { name = "linear", start = 80, end = 2048, steps = 110_000, multiple = 8 }

  [routing]                   # which blocks drop tokens; or layers = [1, 2, ...]
  skip = [1, 1]
  keep = { name = "linear", start = 128, end = 2048, steps = 200_000, multiple = 16 }

  [lr]                        # or linear, wsd, inverse_sqrt, constant
  schedule = "cosine"
  on = "tokens"
  peak = 2e-4
  floor = 1e-6                # a learning rate, too, not a share of the peak as in lr.cosine(floor=...)
  warmup = 3_000_000_000
  total = 300_000_000_000

A [token_budget] is taken, too; steps then have other numbers of samples, so the plan is not exact. A whole
number may be written 3e11, and a table or key that is not known is an error.

Paces may be on any axis: { name = "linear", ..., steps = 100_000_000_000, on = "tokens" }.

examples:
  dataeff recipes gpt3-1.3b-composed-300b --out run.toml && dataeff plan run.toml
  dataeff plan run.toml --json plan.json
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "plan",
        help="what a composed run will consume, and what does not fit",
        description=PLAN,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="FILE", help="TOML or JSON, as below")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    _output.check("--json", arguments.json, arguments.config)
    plan = composition.Plan.from_config(arguments.config)
    found, notes = plan.predict(), plan.notes()
    print(found)
    for note in notes:
        print(f"\nnote: {note}")
    if arguments.json:
        _files.write_json(arguments.json, found.to_json() | {"notes": list(notes)})
        print(f"\nEvery figure is in {arguments.json}")
    return 0
