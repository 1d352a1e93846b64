"""The examples that docstrings of public names show."""

from __future__ import annotations

import doctest
import importlib
import inspect
from typing import Any

import pytest

import thresher
from thresher import extend

# What takes a trained model or a finished run has its example in the docs.
WITHOUT = {
    "AuditConfig",
    "AuditResult",
    "Calibrated",
    "Checkpoint",
    "CheckpointKeeper",
    "Comparison",
    "Explanation",
    "Plan",
    "ThresherError",
    "audit",
    "cancellation",
    "check_audit",
    "check_model",
    "clean_run",
    "compare_runs",
    "explain",
    "plan_audit",
    "retrain_on",
    "read_checkpoints",
    "Evidence",
    "Family",
    "Contents",
    "Examples",
    "Pairing",
    "Task",
    "Tracker",
    "lines_of",
}
NAMES = sorted({name for name in (*thresher.__all__, *extend.__all__) if not name.isupper()} - WITHOUT)


def named(name: str) -> Any:
    return getattr(thresher if name in thresher.__all__ else extend, name)


@pytest.mark.parametrize("name", [*NAMES, "Registry"])
def test_the_example_of_a_public_name_gives_what_it_shows(name: str) -> None:
    value = importlib.import_module("thresher.registry").Registry if name == "Registry" else named(name)
    space = dict(vars(importlib.import_module(value.__module__)))
    tests = doctest.DocTestFinder(recurse=False).find(value, name, globs=space)
    assert tests and tests[0].examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert [runner.run(test).failed for test in tests] == [0] * len(tests)


def test_public_names_are_functions_and_classes_and_not_the_modules_behind_them() -> None:
    for home in set(thresher._HOMES.values()):  # pyright: ignore[reportPrivateUsage]
        importlib.import_module(home)
    assert not [name for name in thresher.__all__ if inspect.ismodule(getattr(thresher, name))]
