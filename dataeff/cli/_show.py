"""`dataeff show`."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeff import index, report
from dataeff.cli import _source
from dataeff.corpus import Corpus, as_tokenizer, decoded

SHOW = """\
Print what an index holds: for each metric its percentiles and the easiest and hardest samples, and how far
the metrics agree. Samples are shown as text if the corpus is where it was when `dataeff index` ran, or if
--corpus says where it is now.
"""

_PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_LOOK = 2**20  # samples that a correlation looks at, and a plot
_WIDTH = 100


def add(commands: Any) -> None:
    """The command."""
    show = commands.add_parser(
        "show",
        help="percentiles, easiest and hardest samples, correlations of an index",
        description=SHOW,
        epilog="examples:\n  dataeff show idx\n  dataeff show idx --metric mtld --samples 10 --plot",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("index", type=Path, metavar="DIR", help="the folder of an index")
    show.add_argument(
        "--metric", nargs="+", action="extend", metavar="NAME", help="only these (default: all)"
    )
    show.add_argument(
        "--samples", type=int, default=3, metavar="N", help="at each end (default: %(default)s)"
    )
    show.add_argument("--corpus", type=Path, metavar="PATH", help="where its samples are")
    show.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=Path("histograms.png"),
        metavar="FILE",
        help="write histograms to a PNG (default: %(const)s)",
    )
    _source.add_options(show)
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    opened = index.open(arguments.index)
    names = arguments.metric or list(opened.metrics)
    values = {name: opened.values(name) for name in names}
    corpus, tokenizer, missing = _samples_of(arguments, opened)
    print(f"{arguments.index}: {len(opened):,} samples, fingerprint {opened.fingerprint}")
    for name in names:
        print(f"\n{name} ({values[name].dtype})")
        _print_percentiles(opened.percentiles(name))
        order = opened.order(name)
        count = max(0, min(arguments.samples, len(opened)))
        for title, ids in (("easiest", order[:count]), ("hardest", order[len(order) - count :][::-1])):
            print(f"  {title}")
            for i in ids.tolist():
                print(f"    {_number(values[name][i]):>12}  #{i:<10} {_text(corpus, tokenizer, i)}".rstrip())
    if len(names) > 1:
        _print_correlations(values)
    if missing and arguments.samples > 0:
        print(f"\nSamples are not shown: {missing}")
    if arguments.plot:
        some = {name: own[_some(len(own))] for name, own in values.items()}
        report.save_histograms(some, arguments.plot, title=f"{arguments.index}: {len(opened):,} samples")
        print(f"\nHistograms are in {arguments.plot}")
    return 0


def _samples_of(arguments: argparse.Namespace, opened: index.Index) -> tuple[Corpus | None, Any, str]:
    """The corpus, its tokenizer and, if there is none to show, why."""
    asked = arguments.corpus is not None
    said = _source.given(arguments.corpus, arguments) if asked else _source.noted(arguments.index)
    if said is None:
        return None, None, "the index does not say where its corpus is; give --corpus"
    try:
        corpus = _source.opened(said)
    except (ValueError, OSError, ImportError) as error:
        if asked:
            raise
        return None, None, f"{error}; give --corpus"
    if len(corpus) != len(opened):
        differs = (
            f"{said['path']} has {len(corpus)} samples, and {arguments.index} is the index of {len(opened)}"
        )
        if asked:
            raise ValueError(f"{differs}; give the options that it was made with")
        return None, None, f"{differs}; run dataeff index again, or give --corpus"
    return corpus, as_tokenizer(arguments.tokenizer or said.get("tokenizer")), ""


def _text(corpus: Corpus | None, tokenizer: Any, sample: int) -> str:
    if corpus is None:
        return ""
    tokens = corpus[sample]
    head = tokens[: 4 * _WIDTH]
    if tokenizer is None and tokens.dtype != np.uint8:
        text = " ".join(map(str, head[:_WIDTH].tolist()))
    else:
        text = " ".join(decoded(head, tokenizer).split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _print_percentiles(percentiles: NDArray[Any]) -> None:
    shown = [_number(percentiles[p]) for p in _PERCENTILES]
    widths = [max(len(own), 4) for own in shown]
    heads = [f"{p}%".rjust(width) for p, width in zip(_PERCENTILES, widths, strict=True)]
    print(f"  percentile  {'  '.join(heads)}")
    print(f"  value       {'  '.join(own.rjust(width) for own, width in zip(shown, widths, strict=True))}")


def _print_correlations(values: dict[str, NDArray[Any]]) -> None:
    some = _some(len(next(iter(values.values()))))
    ranks = np.array([_average_rank(own[some]) for own in values.values()])
    with np.errstate(invalid="ignore"):  # a metric that is the same everywhere has none
        table = np.atleast_2d(np.corrcoef(ranks))
    width = max(map(len, values))
    looked = "" if some.step == 1 else f", every {some.step}th sample"
    print(f"\nrank correlation (Spearman{looked})")
    print(" " * (width + 4) + "  ".join(name.rjust(6) for name in values))
    for name, row in zip(values, table, strict=True):
        cells = ["-" if np.isnan(cell) else f"{cell:.2f}" for cell in row]
        aligned = [cell.rjust(max(6, len(other))) for cell, other in zip(cells, values, strict=True)]
        print(f"  {name.ljust(width)}  {'  '.join(aligned)}")


def _some(count: int) -> slice:
    return slice(None, None, -(-count // _LOOK) or 1)


def _average_rank(values: NDArray[Any]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, np.integer) else f"{float(value):,.6g}"
