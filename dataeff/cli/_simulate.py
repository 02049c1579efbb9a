"""`dataeff simulate`: a dry run of a curriculum."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataeff import _files, config, index, registry
from dataeff.cli import _output
from dataeff.curriculum import Curriculum
from dataeff.samplers import curriculum
from dataeff.simulation import Length, simulate

_TABLES = ("run", "model", "curriculum", "length", "routing", "lr", "token_budget")

SIMULATE = """\
Go through every batch that a curriculum would give, without training or loading a sample: how the pool grows,
how hard and how long batches are over time, how often samples come, the tokens that are saved, and what
does not fit together. Takes about a second for 20,000 batches.
"""

EPILOG = """\
The configuration is TOML or JSON. Each table [curriculum.<metric>] has `pace`, or `low` and `high` of a
window; [length] says how samples are cut, if they are, and needs the metric `length` in the index. [run] may
give `batch_size`, `steps` and `seed`. Tables of `dataeff plan` may stand beside them; others are refused:

  [run]
  batch_size = 512
  steps = 20_000

  [curriculum.vocab_rarity]
  by = "percentile"
  pace = { name = "root", start = 1, end = 100, steps = 10_000, degree = 2 }

  [length]
  transform = "truncate"        # or "reshape", which loses no token
  pace = { name = "linear", start = 80, end = 2048, steps = 10_000, multiple = 8 }

examples:
  dataeff simulate idx --config run.toml
  dataeff simulate idx --config run.toml --steps 20000 --batch-size 512 --plot run.png --json run.json
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "simulate",
        help="what a curriculum would train on, before it does",
        description=SIMULATE,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("index", type=Path, metavar="DIR", help="the folder of an index")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML or JSON, as below")
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of the run (default: `steps` of [run], else until the last pace ends)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="samples over all ranks (default: `batch_size` of [run])",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the sampler (default: `seed` of [run], else 0)"
    )
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=Path("simulation.png"),
        metavar="FILE",
        help="write a picture (default: %(const)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    _output.check("--json", arguments.json, arguments.config)
    _output.check("--plot", arguments.plot, arguments.config)
    tables = _read(arguments.config)
    growing = Curriculum.from_config(tables, index.open(arguments.index))
    sampler = curriculum(
        growing,
        batch_size=_batch_size(arguments, tables),
        seed=_run(tables).get("seed", 0) if arguments.seed is None else arguments.seed,
        steps=_run(tables).get("steps") if arguments.steps is None else arguments.steps,
        rank=0,
        world_size=1,
    )
    found = simulate(sampler, length=Length.from_config(tables), progress=not arguments.quiet)
    print(found)
    if arguments.json:
        _files.write_json(arguments.json, found.to_json())
        print(f"\nEvery figure is in {arguments.json}")
    if arguments.plot:
        from dataeff import report

        report.save_simulation(found, arguments.plot, title=f"{arguments.config} on {arguments.index}")
        print(f"\nThe picture is in {arguments.plot}")
    return 0


def _read(path: Path) -> dict[str, Any]:
    tables = config.read(path)
    if strange := [name for name in tables if name not in _TABLES]:
        raise ValueError(registry.unknown(strange[0], list(_TABLES), of=f"the tables of {path}"))
    return tables


def _run(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    run = tables.get("run", {})
    if not isinstance(run, Mapping):
        raise ValueError(f"run is {run!r}; expected a table, as [run]")
    return run


def _batch_size(arguments: argparse.Namespace, tables: Mapping[str, Any]) -> Any:
    size = _run(tables).get("batch_size") if arguments.batch_size is None else arguments.batch_size
    if size is None:
        raise ValueError(
            f"no batch size: {arguments.config} has no batch_size in its table run; give --batch-size, "
            "samples over all ranks"
        )
    return size
