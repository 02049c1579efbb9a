"""`dataeff report`: a page that compares runs."""

import argparse
from pathlib import Path
from typing import Any

REPORT = """\
Read the logs of one or more runs and write one HTML page that needs no network: what each run saved against
a baseline at equal quality and at equal compute, curves against steps, samples, tokens, layer tokens, FLOPs
or time, pool, sequence length, kept tokens, learning rate, and how often samples came.
"""

EPILOG = """\
A run is a log, or a folder that holds a log.jsonl or log.csv; its name is that of the folder or the file. A
log is what dataeff.clock.Log writes: one line for each moment of training, with all that was consumed until
then and any of the values that the page knows (broken here to fit).

  {"steps": 100, "samples": 51200, "tokens": 52428800, "layer_tokens": 629145600, "flops": 11000000000000000,
   "seconds": 61.5, "validation_loss": 4.21, "lr": 0.0002, "sequence_length": 1024, "kept_tokens": 512,
   "pool": 0.35, "exposures": [900, 80, 20]}

  validation_loss, loss   nats a token; or bits_per_byte; or any other number by --metric
  pool                    share of samples that are eligible, from 0 to 1
  exposures               how many samples were drawn 0, 1, 2, ... times so far

Only steps and one metric must be there, and values may be missing in some lines. Columns of CSV are the same.

examples:
  dataeff report runs/baseline runs/ltd
  dataeff report runs/* --baseline baseline --metric bits_per_byte --out pages/gpt.html --title "GPT, 1.3B"
  dataeff report vit.jsonl vit-ltd.jsonl --metric accuracy --higher-is-better
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="compare runs: a page with savings and curves",
        description=REPORT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="logs, or folders that hold one")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page (default: %(default)s)",
    )
    parser.add_argument("--baseline", metavar="NAME", help="compare with this run (default: the first)")
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="compare by this (default: the first of validation_loss, bits_per_byte, loss that all runs log)",
    )
    parser.add_argument("--higher-is-better", action="store_true", help="of the metric, as of an accuracy")
    parser.add_argument("--title", metavar="TEXT", help="of the page (default: the names of the runs)")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from dataeff import report

    if arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a folder; expected the name of a file, as report.html")
    if arguments.out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out {arguments.out} is no page; expected a name that ends in .html or .htm")
    runs = report.read_runs(arguments.runs)
    found = report.save_page(
        runs,
        arguments.out,
        title=arguments.title or _title(list(runs)),
        baseline=arguments.baseline,
        metric=arguments.metric,
        higher_is_better=arguments.higher_is_better,
    )
    print(f"{found}\n\n{found.verdict}\n\nThe page is {arguments.out}")
    return 0


def _title(names: list[str]) -> str:
    return f"{', '.join(names[:3])} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)
