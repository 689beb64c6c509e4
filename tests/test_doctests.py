"""Every example in a docstring runs and gives what it says."""

import doctest
import importlib
import pkgutil

import pytest

import robaudit

MODULES = [info.name for info in pkgutil.walk_packages(robaudit.__path__, "robaudit.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples():
    found = [
        doctest.DocTestFinder().find(importlib.import_module(n))
        for n in MODULES
        if "__main" not in n
    ]
    assert sum(len(test.examples) > 0 for tests in found for test in tests) >= 15
