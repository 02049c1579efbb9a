"""README, docs and tutorials: every example runs, every public name has a page, nothing of this machine."""

import contextlib
import doctest
import importlib
import inspect
import io
import os
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import dataeff
from dataeff import registry
from tests import realdata
from tests.benchmarks import tables

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "tutorials").rglob("*.md")),
]
PUBLIC_MODULES = [
    importlib.import_module(f"dataeff.{module.name}")
    for module in pkgutil.iter_modules(dataeff.__path__)
    if not module.name.startswith("_") and module.name not in ("cli", "demo")
]


EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)


def examples(page):
    """Line, code, and the output that is shown right below it, if any. `...` stands for anything there."""
    text = page.read_text()
    for found in EXAMPLE.finditer(text):
        yield text.count("\n", 0, found.start(1)), found[1], found[2]


def put_dictionary(folder):
    try:
        dictionary = realdata.gcide_dictd()
    except realdata.Unavailable as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    folder.mkdir(parents=True)
    (folder / dictionary.name).symlink_to(dictionary)


def public_names():
    for module in PUBLIC_MODULES:
        own = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
        ]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            value = getattr(module, name)
            if not inspect.ismodule(value) and not isinstance(value, tuple):  # a list of names runs nothing
                yield f"{module.__name__}.{name}", value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "gcide.dict.dz" in page.read_text():
        put_dictionary(tmp_path / "usr/share/dictd")
    scope = {"__name__": "__main__"}
    try:
        for line, code, shown in examples(page):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + code, str(page), "exec"), scope)  # noqa: S102
            same = doctest.OutputChecker().check_output(shown or "", printed.getvalue(), doctest.ELLIPSIS)
            assert shown is None or same, f"{page}, line {line} prints:\n{printed.getvalue()}"
    finally:
        for name in [name for kind, name in registry._registered if kind == "metrics"]:
            registry.unregister("metrics", name)


@pytest.mark.parametrize(
    ("name", "value"), list(public_names()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_public_name_has_a_docstring_with_an_example(name, value):
    assert ">>>" in (inspect.getdoc(value) or "")


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_every_public_module_has_a_page(module):
    asked = re.compile(rf"^::: {re.escape(module.__name__)}$", re.MULTILINE)
    assert sum(bool(asked.search(page.read_text())) for page in (ROOT / "docs/reference").glob("*.md")) == 1


def test_the_plugin_of_the_readme_works_as_an_installed_package(distribution):
    """The entry point that the README shows, in a distribution that holds the function it shows."""
    readme = (ROOT / "README.md").read_text()
    (toml,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    (function,) = re.findall(r"^def digits.*?\n\n", readme, re.DOTALL | re.MULTILINE)
    ((kind, points),) = tomllib.loads(toml)["project"]["entry-points"].items()
    ((name, target),) = points.items()
    module = target.partition(":")[0]
    distribution(
        "my-package", entry_points=f"[{kind}]\n{name} = {target}\n", files={f"{module}.py": function}
    )
    assert dataeff.metrics.resolve(name)[1](["1990", "text"]).tolist() == [1.0, 0.0]


def test_no_committed_file_names_a_path_of_the_machine_it_was_made_on():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)  # noqa: S607
    machine = re.compile(rb"/(tmp|root|work|home)/[a-z]")
    for name in filter(None, files.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file():
            assert not machine.search(path.read_bytes()), name


@pytest.mark.parametrize("name", tables.measured())
def test_the_tables_of_benchmarks_are_those_of_the_committed_results(name):
    assert (tables.RESULTS / f"{name}.txt").read_text() == tables.table(name)
