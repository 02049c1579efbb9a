"""The command line: `dataeff ...`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from dataeff import _files, registry
from dataeff.cli import _index, _migration, _plan, _report, _show, _simulate, _tune

DEMO = """\
Train the same small GPT twice from the same seed on real text: once as usual, once on a curriculum
(rare characters and long sequences later) with random layerwise token dropping. Both are measured on the
same held-out text, at equal steps and at equal compute, and a page compares them. About two minutes on two
cores.
"""

PLUGINS = """\
List every metric, pacing, sampler, router, corpus reader and executor that is installed, the built-ins
among them, and whether it loads. Your own appear here once your package declares an entry point in the
group dataeff.metrics, dataeff.pacings, ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code. Bad input is one line on standard error, and code 2."""
    try:
        return _run(argv)
    except BrokenPipeError:  # whoever read the output has stopped, as `head` does
        return 0
    except KeyboardInterrupt:
        print("dataeff: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"dataeff: error: {error}", file=sys.stderr)
        return 2
    finally:
        _drop_unwritten()


def _run(argv: Sequence[str] | None) -> int:
    """Run a command. What it prints, or its help, is written before it ends; what is not is an error."""
    try:
        arguments = _parser().parse_args(argv)
    finally:
        print(end="", flush=True)
    code: int = arguments.run(arguments)
    print(end="", flush=True)
    return code


def _drop_unwritten() -> None:
    """Leave nothing that Python would try to write again at its exit, and complain of."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dataeff", description="Better use of training data, for any PyTorch loop."
    )
    parser.add_argument("--version", action="version", version=metadata.version("dataeff"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="train a small GPT with and without a curriculum and token dropping",
        description=DEMO,
        epilog="examples:\n  dataeff demo\n  dataeff demo --steps 100 --seed 1\n"
        "  dataeff demo --corpus my_texts/ --out my_run --device cuda",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument("--steps", type=_positive, default=240, help="of the baseline (default: %(default)s)")
    demo.add_argument(
        "--seed", type=_seed, default=0, help="of weights, samples, tokens (default: %(default)s)"
    )
    demo.add_argument(
        "--device", default="cpu", help="that torch can use: cpu, cuda, ... (default: %(default)s)"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("dataeff-demo"), help="folder for results (default: %(default)s)"
    )
    demo.add_argument(
        "--corpus", type=Path, metavar="PATH", help="a file or folder of your own text, in UTF-8"
    )
    demo.set_defaults(run=_demo)

    _index.add(commands)
    _show.add(commands)
    _simulate.add(commands)
    _plan.add(commands)
    _tune.add(commands)
    _migration.add(commands)
    _report.add(commands)

    plugins = commands.add_parser(
        "plugins", help="list what is installed and whether it loads", description=PLUGINS
    )
    plugins.set_defaults(run=_plugins)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    from dataeff import clock, demo, report

    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file; expected a folder, or nothing there yet")
    results = demo.run(
        steps=arguments.steps,
        seed=arguments.seed,
        device=arguments.device,
        text=arguments.corpus,
        index=arguments.out / "index",
        config=demo.Config(),
        logs=arguments.out,
    )
    figures, picture, page = (arguments.out / name for name in ("demo.json", "curves.png", "report.html"))
    title = f"dataeff demo on {results['text']['source']}"
    _files.write_json(figures, results)
    print(f"\n{demo.table(results)}\n\nEvery figure is in {figures}")
    try:
        report.save_curves(results["curves"], picture, title=title)
    except ImportError as error:
        print(f"No picture of the curves: {error}")
    else:
        print(f"The curves are in {picture}")
    logs = {name: clock.read_log(demo.log_of(arguments.out, name).path) for name in results["curves"]}
    report.save_page(logs, page, title=title)
    print(f"The page that compares the two runs is {page}")
    return 0


def _plugins(arguments: argparse.Namespace) -> int:
    rows, broken = [("KIND", "NAME", "DISTRIBUTION", "VERSION", "LOADS")], 0
    for kind in registry.KINDS:
        for plugin in registry.plugins(kind):
            try:
                registry.get(kind, plugin.name)
                loads = "yes"
            except (ImportError, ValueError) as error:
                loads, broken = f"no: {error}", broken + 1
            rows.append((kind, plugin.name, plugin.distribution, plugin.version, loads))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)))
    return 1 if broken else 0


def _positive(text: str) -> int:
    return _whole(text, 1, 10**9)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**63 - 1)


def _whole(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
    return int(text)
