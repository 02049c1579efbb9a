"""The command line of the study."""

import argparse
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests import realdata
from tests.benchmarks.study import _study, _work

CACHE = Path.home() / ".cache" / "dataeff-study"


def main(argv: list[str] | None = None) -> int:
    """Run a command; gives the exit code."""
    try:
        options = _parser().parse_args(argv)
        return int(COMMANDS[options.command](options))
    except (ValueError, OSError, realdata.Unavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.study", description=_first_lines())
    commands = parser.add_subparsers(dest="command", required=True)
    sizes = "; ".join(f"{study}: {', '.join(_study.sizes(study))}" for study in _study.names())
    run = _of_study(commands, sizes, "run", "train what is due of a study; it may be stopped at any moment")
    run.add_argument("--only", default="*", metavar="PATTERN", help="names of runs, as 'composed-050-*'")
    run.add_argument(
        "--minutes",
        type=_positive,
        default=math.inf,
        help="stop after so long, to be resumed (default: never)",
    )
    run.add_argument(
        "--every", type=_positive, default=60.0, metavar="SECONDS", help="between checkpoints (default: 60)"
    )
    run.add_argument(
        "--anew", action="store_true", help="train what is in the committed table, too (default: the rest)"
    )
    run.add_argument(
        "--processes", type=_count, default=1, help="so many runs at once, a core each (default: 1)"
    )
    run.add_argument("--device", help="to try on another than the config says: no table takes these")
    again = _of_study(commands, sizes, "again", "train one finished run anew, and note both losses")
    again.add_argument("run", help="as in the table: composed-050-1")
    tune = _of_study(
        commands, sizes, "tune", "search the paces of a study by short probes, as its config says"
    )
    timed = _of_study(commands, sizes, "time", "time some steps of all finished arms, side by side")
    table = _of_study(commands, sizes, "table", "gather what is finished in one table")
    for each in (again, tune, timed, table):
        each.add_argument(
            "--into", type=_folder, default=_work.TABLES, help="what is written is put here (%(default)s)"
        )
    commands.add_parser("page", help="write docs/evidence.md and its pictures from the tables")
    return parser


def _run(options: argparse.Namespace) -> int:
    study = _study.load(options.study, options.size, options.device)
    try:
        wanted = torch.device(study.device)
    except RuntimeError as error:
        raise ValueError(f"{study.device!r} is no device of torch; expected cpu or cuda") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{study} is to run on {wanted}, and there is no such device here; see --device")
    stop = _stopper(60 * options.minutes)
    if options.processes > 1 and (code := _together(options, stop)):
        return code
    how = {"every": options.every, "only": options.only, "anew": options.anew}
    done, due = _work.work(study, options.out, stop=stop, **how)
    print(f"{study}: {done} of {due} runs are done")
    if done < due:
        print("stopped; the same command goes on" if stop() else "other processes are at the rest")
    elif not options.anew and (
        known := len(set(_work.due(study, options.only)) & _work.committed(study).keys())
    ):
        print(f"{known} of them are in the committed table; --anew trains these, too")
    return 0


def _together(options: argparse.Namespace, stop: Callable[[], bool]) -> int:
    """Several processes of this command, which are told to stop when this one is."""
    own = [sys.executable, "-m", "tests.benchmarks.study", "run", options.study, "--size", options.size]
    own += ["--only", options.only, "--every", str(options.every), "--out", str(options.out)]
    own += ["--device", options.device] if options.device else []
    own += ["--anew"] if options.anew else []
    started = [subprocess.Popen(own) for _ in range(options.processes)]
    while any(each.poll() is None for each in started):
        if stop():
            for each in started:
                each.terminate()
            break
        time.sleep(0.5)
    early = -signal.SIGTERM  # told to stop before it could hear
    return int(any(code not in (0, early) for code in [each.wait() for each in started]))


def _stopper(seconds: float) -> Callable[[], bool]:
    """Says to stop when the time is over, or SIGTERM or SIGINT was received."""
    end, told = time.monotonic() + seconds, []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.append(True))
    return lambda: bool(told) or time.monotonic() > end


def _again(options: argparse.Namespace) -> int:
    from tests.benchmarks.study import _again

    study = _study.load(options.study, options.size)
    run = next((run for run in study.runs() if str(run) == options.run), None)
    if run is None:
        raise ValueError(f"{study} has no run {options.run}; expected one as {study.runs()[0]}")
    found = _again.again(study, run, options.out, options.into, stop=_stopper(math.inf))
    if found is None:
        print(f"{run} was stopped; the same command goes on with it")
        return 0
    print(f"{run}: {found['before']['loss']:.4f} before, {found['loss']:.4f} now")
    return 0


def _tune(options: argparse.Namespace) -> int:
    from tests.benchmarks.study import _tuned

    print(_tuned.tune(_study.load(options.study, options.size), options.out, options.into))
    return 0


def _time(options: argparse.Namespace) -> int:
    from tests.benchmarks.study import _timed

    study = _study.load(options.study, options.size)
    print(
        _timed.measure(study, options.out, options.into, stop=_stopper(math.inf))
        or f"{study} was stopped; nothing is written"
    )
    return 0


def _table(options: argparse.Namespace) -> int:
    from tests.benchmarks.study import _analysis, _tables

    study = _study.load(options.study, options.size)
    if not (found := list(_work.done(study, options.out).values())):
        raise ValueError(f"no run of {study} is finished in {options.out}; `run` trains them")
    print(_work.collect(study, options.out, options.into))
    print(_tables.measures(found, {"validation loss": _tables.Column(_analysis.loss)}))
    return 0


def _page(options: argparse.Namespace) -> int:
    from tests.benchmarks.study import _page

    for path in _page.write():
        print(path)
    return 0


def _of_study(commands: Any, sizes: str, name: str, words: str) -> argparse.ArgumentParser:
    """A command about one study at one size."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words)
    parser.add_argument("study", choices=_study.names(), help="its config is in configs/, beside the code")
    parser.add_argument("--size", default="s", help=f"one of the config's (default: s). {sizes}")
    parser.add_argument(
        "--out", type=_folder, default=CACHE, help="folder of data and checkpoints (%(default)s)"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not found > 0:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number above 0")
    return found


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; expected a folder, which is made if need be")
    return path


def _first_lines() -> str:
    from tests.benchmarks import study

    return (study.__doc__ or "").split("\n\n")[0]


COMMANDS = {"run": _run, "again": _again, "tune": _tune, "time": _time, "table": _table, "page": _page}


if __name__ == "__main__":
    raise SystemExit(main())
