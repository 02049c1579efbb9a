"""`dataeff tune`: the start and the duration of a pace, by short probes."""

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from fractions import Fraction
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from dataeff import _files, tuning
from dataeff._check import whole
from dataeff.cli import _output

TUNE = """\
Find how to start a pace and how long to make it, with a small part of the steps of a run: the smallest start
that is stable, then the longest duration that is. Both are found by probes of a few warmups. A probe whose
validation perplexity rises above 1.3 times its best so far is unstable, and ends there.

First the recipe is tried without a pace, and with the learning rate of the paper's recipe, 1/fraction times
yours. If it is unstable, half the learning rate and twice the batch are tried, and nothing is searched.
"""

EPILOG = """\
The probe is a function of yours that trains as it is told and gives validation losses on the way:

  def probe(config):                          # in train.py
      model, optimizer = fresh(seed=config.seed, rate=3e-4 * config.learning_rate_scale)
      for step in range(config.steps + 1):
          if step % 20 == 0:
              yield step, validation_loss(model)      # in nats, always at full difficulty
          train_step(model, optimizer, length=config.pace(step), batch=64 * config.batch_scale)

A grid is LOW:HIGH:STEP, both ends among it, or numbers with commas between. Each finished probe is a line of
DIR/tuning.jsonl; the same command again goes on from there, whatever stopped it. A log of another SCRIPT.py
is refused: choose another --out, or delete it.

examples:
  dataeff tune train.py:probe --starts 8:128:8 --durations 1000:20000:1000 --end 1024 --warmup 500 \\
      --multiple 8 --plot
  dataeff tune my_package.train:probe --starts 1,2,5,10,25 --durations 500,1000,2000 --end 100 --warmup 100
  dataeff tune train.py:probe --starts 64:512:64 --durations 5000:50000:5000 --end 2048 --warmup 1000 \\
      --dry-run --run-steps 300000
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "tune",
        help="find the start and the duration of a pace by short probes",
        description=TUNE,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("probe", metavar="SCRIPT.py:NAME", help="the probe; or package.module:NAME")
    parser.add_argument("--starts", type=_grid, required=True, metavar="GRID", help="first difficulties")
    parser.add_argument(
        "--durations", type=_grid, required=True, metavar="GRID", help="of the pace, in steps"
    )
    parser.add_argument("--end", type=_number, required=True, metavar="D", help="the last difficulty")
    parser.add_argument(
        "--warmup", type=int, required=True, metavar="N", help="of the learning rate, in steps"
    )
    parser.add_argument(
        "--warmups",
        type=int,
        default=3,
        metavar="N",
        help="how many a probe trains for (default: %(default)s)",
    )
    parser.add_argument("--multiple", type=int, metavar="M", help="of the pace, for whole numbers")
    parser.add_argument(
        "--factor",
        type=float,
        default=1.3,
        metavar="F",
        help="perplexity over its best (default: %(default)s)",
    )
    parser.add_argument(
        "--fraction",
        type=float,
        default=0.5,
        metavar="F",
        help="of the data that the run is to use: 1/F times the learning rate is tried too; 1 for not "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every probe (default: %(default)s)")
    parser.add_argument(
        "--anyway", action="store_true", help="search even if the recipe is unstable without a pace"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("tuning"), metavar="DIR", help="of the log (default: %(default)s)"
    )
    parser.add_argument(
        "--plot",
        nargs="?",
        type=Path,
        const=Path("tuning.png"),
        metavar="FILE",
        help="write a picture (default: %(const)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--dry-run", action="store_true", help="only say what the search may cost")
    parser.add_argument("--run-steps", type=int, metavar="N", help="of one full run, to compare with")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_tune)


def _tune(arguments: argparse.Namespace) -> int:
    probe, settings = _loaded(arguments.probe), _settings(arguments)
    search = tuning.Search(**settings)
    read = Path(arguments.probe.rpartition(":")[0]), arguments.out / "tuning.jsonl"
    _output.check("--json", arguments.json, *read)
    _output.check("--plot", arguments.plot, *read)
    if arguments.dry_run:
        print(_cost(search, anyway=arguments.anyway, run_steps=arguments.run_steps))
        return 0
    try:
        found = tuning.tune(
            probe, **settings, out=arguments.out, anyway=arguments.anyway, progress=not arguments.quiet
        )
    except tuning.ProbeError as error:
        traceback.print_exception(error.__cause__)
        print(f"dataeff: error: {error}", file=sys.stderr)
        return 2
    print(found)
    if arguments.json:
        _files.write_json(arguments.json, found.to_json())
        print(f"\nEvery figure is in {arguments.json}")
    if arguments.plot:
        from dataeff import report

        report.save_tuning(found, arguments.plot, title=f"dataeff tune {arguments.probe}")
        print(f"\nThe picture is in {arguments.plot}")
    return 0 if found.pace else 1


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("starts", "durations", "end", "warmup", "warmups", "multiple", "factor", "fraction", "seed")
    return {name: getattr(arguments, name) for name in names}


def _cost(search: tuning.Search, *, anyway: bool, run_steps: int | None) -> str:
    most = search.most_probes(anyway=anyway)
    said = f"at most {most} probes of {search.steps:,} steps: {most * search.steps:,} steps"
    if run_steps is not None:
        whole("--run-steps", run_steps, low=1)
        said += f", {most * search.steps / run_steps:.1%} of a run of {run_steps:,}"
    return f"{said}\nAn unstable probe ends where it is unstable, and those of easy starts cost less a step."


def _loaded(said: str) -> Callable[[tuning.Config], Any]:
    where, _, name = said.rpartition(":")
    if not where or not name:
        raise ValueError(f"{said!r} names no probe; expected SCRIPT.py:NAME or package.module:NAME")
    module = _script(Path(where)) if where.endswith(".py") else _module(where)
    try:
        probe = attrgetter(name)(module)
    except AttributeError:
        functions = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ValueError(f"{where} has no {name!r}; it has {', '.join(functions) or 'no function'}") from None
    if not callable(probe):
        raise ValueError(f"{said} is {probe!r}; expected a function of a config")
    found: Callable[[tuning.Config], Any] = probe
    return found


def _script(path: Path) -> ModuleType:
    """A script as the module that it is, its own folder importable: worker processes find it by its name."""
    if not path.is_file():
        raise ValueError(f"{path} is not there; expected a script")
    there = getattr(sys.modules.get(path.stem), "__file__", "") if path.stem in sys.modules else None
    if there is not None and (not there or Path(there).resolve() != path.resolve()):
        raise ValueError(f"{path} is named as the module {path.stem}, which is loaded; rename the script")
    sys.path.insert(0, str(path.resolve().parent))
    return _imported(path.stem, said=str(path))


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    return _imported(name, said=name)


def _imported(name: str, *, said: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ImportError(f"{said} does not import: {type(error).__name__}: {error}") from error


def _grid(text: str) -> list[float]:
    """LOW:HIGH:STEP with both ends, or numbers with commas between."""
    if ":" not in text:
        return [_number(part) for part in text.split(",")]
    try:
        low, high, step = map(Fraction, text.split(":"))  # exact, so that 0:0.9:0.3 has 4 values
    except (ValueError, ZeroDivisionError):
        low = high = step = Fraction(0)
    if step <= 0 or low > high:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no grid; expected LOW:HIGH:STEP, as 8:128:8, or 8,16,32"
        )
    inner = [low + i * step for i in range((high - low) // step + 1)]
    exact = inner if inner[-1] == high else [*inner, high]
    return [int(value) if value.denominator == 1 else float(value) for value in exact]


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
