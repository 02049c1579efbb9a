"""`dataeff import-config` and `dataeff recipes`: configs that others wrote."""

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataeff import _files, config, migration
from dataeff.cli import _output

IMPORT = """\
Read the sections data_efficiency and curriculum_learning of a DeepSpeed config and write what they ask for as
TOML, for `dataeff simulate` and for Curriculum.from_config. What will go otherwise than in DeepSpeed is
listed, each point with the path of the key that it is about. `dataeff plan` reads the TOML, too, once its
table run says where the run ends, which a DeepSpeed config does not. A key that is not known is an error:
DeepSpeed would have passed over it.
"""

IMPORT_EPILOG = """\
The TOML goes to standard output, with the list as comments, or with --out into a file, and the list to
standard output. What DeepSpeed's data analyzer wrote is read by `dataeff import-index`.

examples:
  dataeff import-config ds_config.json
  dataeff import-config ds_config.json --out run.toml
  dataeff import-index analysis/vocab_rarity --out idx
  dataeff simulate idx --config run.toml --steps 20000 --batch-size 512
"""

RECIPES = """\
Print a config that was published with DeepSpeed Data Efficiency: GPT-3 1.3B and BERT-Large, as usual
("baseline"), with a curriculum, with random-LTD, and with both ("composed"), at all or at a part of the
tokens. Comments say where each value is from. Without a name, list them.
"""

RECIPES_EPILOG = """\
examples:
  dataeff recipes
  dataeff recipes gpt3-1.3b-composed-300b
  dataeff recipes bert-large-composed-524b --out run.toml
"""


def add(commands: Any) -> None:
    """Declare the commands."""
    parser = commands.add_parser(
        "import-config",
        help="a DeepSpeed config as TOML, and what will go otherwise",
        description=IMPORT,
        epilog=IMPORT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="FILE", help="the DeepSpeed config, JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the new config, .toml or .json")
    parser.set_defaults(run=_import)

    parser = commands.add_parser(
        "recipes",
        help="list or print published configs",
        description=RECIPES,
        epilog=RECIPES_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the recipe (default: list them)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing it")
    parser.set_defaults(run=_recipes)


def _import(arguments: argparse.Namespace) -> int:
    _output.check("--out", arguments.out, arguments.config)
    found = migration.from_deepspeed(arguments.config)
    tables = found.to_config()
    text = (
        _wrapped(_needed(tables), first="# ") + "\n\n" + _commented(found.differences) + config.toml(tables)
    )
    if arguments.out is None:
        print(text, end="")
        return 0
    if arguments.out.suffix == ".toml":
        _write(arguments.out, text)
    else:
        config.write(tables, arguments.out)
    print(f"{arguments.out}: {_told(tables)}\n\n{_wrapped(_needed(tables), first='')}")
    for difference in found.differences:
        print("\n" + _wrapped(difference, first="- "))
    return 0


def _recipes(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        if arguments.out is not None:
            raise ValueError("--out needs the name of a recipe; `dataeff recipes` lists them")
        for name in migration.recipes():
            print(f"{name:30}{migration.recipe_text(name).splitlines()[0].removeprefix('# ')}")
        return 0
    text = migration.recipe_text(arguments.name)
    if arguments.out is None:
        print(text, end="")
    else:
        _write(arguments.out, text)
        print(f"{arguments.out}: {_told(config.read(arguments.out))}")
    return 0


def _write(path: Path, text: str) -> None:
    if path.suffix != ".toml":
        raise ValueError(f"--out {path}: expected a .toml file")
    content = text.encode()
    _files.write(path, lambda file: _files.put(file, content))


def _told(tables: Mapping[str, Any]) -> str:
    return ", ".join(tables)


def _needed(tables: Mapping[str, Any]) -> str:
    """What `dataeff plan` needs beside what a DeepSpeed config says."""
    missing = [key for key in ("batch_size", "sequence_length") if key not in tables["run"]]
    return (
        f"Before `dataeff plan`, give the table run {' and '.join([*missing, 'an end'])}: one of steps, "
        "samples, tokens, layer_tokens or flops."
    )


def _commented(differences: tuple[str, ...]) -> str:
    lines = [_wrapped(difference, first="# - ") for difference in differences]
    return "\n".join(["# Otherwise than in DeepSpeed:", *lines]) + "\n\n" if lines else ""


def _wrapped(text: str, *, first: str) -> str:
    rest = first.replace("-", " ")
    return textwrap.fill(
        text,
        110,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )
