"""What every Numba kernel keeps to."""

import importlib
import pkgutil

import numba
import pytest

import dataeff
from dataeff import _kernel

MODULES = [
    importlib.import_module(module.name) for module in pkgutil.walk_packages(dataeff.__path__, "dataeff.")
]


def kernels(module):
    return {
        k.py_func.__name__: k
        for k in vars(module).values()
        if isinstance(k, numba.core.dispatcher.Dispatcher)
    }


def test_there_are_kernels():
    assert sum(len(kernels(module)) for module in MODULES) >= 10


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_kernel_calls_kernels_of_its_own_file_alone(module):
    """Numba keeps compiled code by the file that a kernel stands in: a change elsewhere would go unseen."""
    for kernel in kernels(module).values():
        assert kernel.py_func.__module__ == module.__name__


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_kernel_gives_up_exact_arithmetic(module):
    for kernel in kernels(module).values():
        assert not kernel.targetoptions.get("fastmath")
        assert not kernel.targetoptions.get("parallel")
        assert kernel.targetoptions["nogil"]


def test_without_a_place_for_compiled_code_a_kernel_still_works(monkeypatch):
    njit = numba.njit

    def refuse(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*args, **options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert _kernel.kernel(lambda x: x + 1)(1) == 2
