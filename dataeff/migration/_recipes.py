"""Configs that were published with the method, ready to use."""

import tomllib
from importlib import resources
from typing import Any

from dataeff import registry

_FOLDER = resources.files("dataeff.migration") / "recipes"


def recipes() -> list[str]:
    """The names of the recipes, sorted.

    Examples:
        >>> "gpt3-1.3b-composed-300b" in recipes()
        True
    """
    names = (file.name for file in _FOLDER.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def recipe(name: str) -> dict[str, Any]:
    """The tables of a recipe: run, model, curriculum, length, routing and lr, those that it has.

    Raises ValueError for an unknown name, with the known ones.

    Source: the published training scripts of DeepSpeed Data Efficiency (arXiv 2212.03597); each value's is in
    the file's comments, see `recipe_text`.

    Examples:
        >>> recipe("gpt3-1.3b-composed-300b")["length"]["pace"]
        {'name': 'linear', 'start': 80, 'end': 2048, 'steps': 110000, 'multiple': 8}
    """
    return tomllib.loads(recipe_text(name))


def recipe_text(name: str) -> str:
    """A recipe as TOML, with comments that say where its values are from.

    Raises ValueError for an unknown name, with the known ones.

    Examples:
        >>> recipe_text("gpt3-1.3b-composed-300b").splitlines()[0]
        '# GPT-3 1.3B on 300B tokens with a curriculum and random-LTD.'
    """
    if name not in recipes():
        raise ValueError(registry.unknown(name, recipes(), of="recipes"))
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
