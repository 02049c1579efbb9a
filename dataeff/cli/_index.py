"""`dataeff index` and `dataeff import-index`."""

import argparse
import ast
import time
from pathlib import Path
from typing import Any

from dataeff import index, registry
from dataeff.cli import _source
from dataeff.index._place import refuse_inside

INDEX = """\
Score every sample of a corpus with one or more metrics and write an index, which a curriculum reads. The
format of the corpus is found from its content: Megatron .idx/.bin, .npy, raw .bin, .jsonl, text, Parquet,
Arrow, a saved Hugging Face dataset, or a folder of any of these. A build that was killed goes on where it
was; a corpus that has grown is scored where it is new; metrics can be added later.
"""

EXAMPLES = """\
examples:
  dataeff index texts/ --metric vocab_rarity length --out idx
  dataeff index train.bin --window 1024 --metric vocab_rarity:mean=True --out idx
  dataeff index docs.jsonl --tokens text --tokenizer tokenizer.json --metric mtld --out idx
  dataeff index corpus_prefix --metric bigram_surprisal --out idx --executor processes --workers 16
then look at it:
  dataeff show idx
"""

IMPORT = """\
Turn what DeepSpeed's data analyzer wrote (its save_path) into an index. With --corpus, it is checked that
there is one value for each sample, and `dataeff index` can add metrics to it.
"""


def add(commands: Any) -> None:
    """The two commands."""
    formatter = argparse.RawDescriptionHelpFormatter
    build = commands.add_parser(
        "index",
        help="score every sample of a corpus with difficulty metrics",
        description=INDEX,
        epilog=EXAMPLES,
        formatter_class=formatter,
    )
    build.add_argument("corpus", type=Path, metavar="CORPUS", help="a file, a folder, or a Megatron prefix")
    build.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME",
        help="of `dataeff plugins`, with options after a colon, and another name before an equals sign: "
        "vocab_rarity:mean=True, pairs=repetition:n=2",
    )
    build.add_argument("--out", type=Path, required=True, metavar="DIR", help="the index; made if not there")
    build.add_argument(
        "--executor", default="threads", help="serial, threads, processes, ray, ... (default: %(default)s)"
    )
    build.add_argument("--workers", type=int, metavar="N", help="threads or processes; one a core by default")
    build.add_argument("--address", help="of a cluster, for executors that have one, such as ray")
    build.add_argument("--quiet", action="store_true", help="no progress bars")
    _source.add_options(build)
    build.set_defaults(run=_index)

    imported = commands.add_parser(
        "import-index",
        help="turn an index of DeepSpeed's data analyzer into one of dataeff",
        description=IMPORT,
        epilog="example:\n  dataeff import-index analysis/ --out idx --corpus corpus_prefix",
        formatter_class=formatter,
    )
    imported.add_argument("source", type=Path, metavar="DIR", help="the analyzer's save_path")
    imported.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new index")
    imported.add_argument("--metric", nargs="+", metavar="NAME", help="only these (default: all)")
    imported.add_argument("--corpus", type=Path, metavar="PATH", help="what was analyzed")
    _source.add_options(imported)
    imported.set_defaults(run=_import)


def _index(arguments: argparse.Namespace) -> int:
    refuse_inside(arguments.corpus, arguments.out)
    said = _source.given(arguments.corpus, arguments)
    corpus = _source.opened(said)
    metrics = dict(map(_metric, arguments.metric))
    if len(metrics) < len(arguments.metric):
        raise ValueError(
            f"--metric is {' '.join(arguments.metric)}; expected each name once: give one another name, as "
            "pairs=repetition:n=2"
        )
    asked = {"workers": arguments.workers, "address": arguments.address}
    options = {name: value for name, value in asked.items() if value is not None}
    began = time.perf_counter()
    made = index.build(
        corpus,
        metrics,
        out=arguments.out,
        executor=arguments.executor,
        progress=not arguments.quiet,
        **options,
    )
    _source.note(said, arguments.out)
    print(
        f"{len(made):,} samples, {', '.join(metrics)}: {time.perf_counter() - began:.1f} s. "
        f"Look at it: dataeff show {arguments.out}"
    )
    return 0


def _import(arguments: argparse.Namespace) -> int:
    refuse_inside(arguments.corpus, arguments.out)
    said = _source.given(arguments.corpus, arguments) if arguments.corpus else None
    corpus = _source.opened(said) if said else None
    made = index.import_deepspeed(
        arguments.source, out=arguments.out, metrics=arguments.metric, corpus=corpus
    )
    if said:
        _source.note(said, arguments.out)
    print(f"{len(made):,} samples, {', '.join(made.metrics)}. Look at it: dataeff show {arguments.out}")
    return 0


def _metric(text: str) -> tuple[str, Any]:
    """`metric` or `metric:option=value,option=value`, after `name=` if it is to be called otherwise."""
    said, _, rest = text.partition(":")
    called, _, name = said.rpartition("=")
    metric = registry.get("metrics", name)
    if not rest:
        return called or name, metric
    options = {}
    for pair in rest.split(","):
        option, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--metric is {text!r}; expected {name}:option=value,option=value")
        options[option] = _value(value)
    try:
        return called or name, metric(**options)
    except TypeError as error:
        raise ValueError(f"--metric {text}: {error}") from None


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
