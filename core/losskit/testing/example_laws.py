"""The law of examples: what docstrings show is what happens."""

from __future__ import annotations

import doctest
import inspect
import random
import sys
import warnings
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch

from .compare import Violation
from .law import NotApplicable, Skipped, law
from .subject import Subject

__all__ = ["examples"]

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@law(
    None,
    "loss",
    "wrapper",
    "regularizer",
    "similarity",
    "weighting",
    "encoder",
    level="interface",
    cause="an example that was not run again after the code had changed",
)
def examples(subject: Subject) -> None:
    """The examples in the docstrings of the class, and of its module's public functions, give what they show."""
    found = _outcome(subject.looked_at)
    if found is not None:
        raise found


@lru_cache(maxsize=8)
def _outcome(cls: type) -> Exception | None:
    """What the examples of a class come to: they do not depend on the subject."""
    module = sys.modules.get(cls.__module__)
    tests = [] if module is None else [*_tests(cls, module), *_of_functions(module)]
    if not any(test.examples for test in tests):
        return NotApplicable("it has no examples")
    for test in tests:
        runner = _Runner(optionflags=FLAGS)
        state = random.getstate()
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            runner.run(test, out=lambda text: None)
        random.setstate(state)
        if runner.found is not None:
            return runner.found
    return None


def _tests(item: Any, module: ModuleType) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(item, module=module, globs=dict(vars(module))) if test.examples]


def _of_functions(module: ModuleType) -> list[doctest.DocTest]:
    functions = [
        item
        for name, item in vars(module).items()
        if inspect.isfunction(item) and item.__module__ == module.__name__ and not name.startswith("_")
    ]
    return [test for function in functions for test in _tests(function, module)]


class _Runner(doctest.DocTestRunner):
    """Keeps the first example that fails."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.found: Exception | None = None

    def report_failure(self, out: Any, test: doctest.DocTest, example: doctest.Example, got: str) -> None:
        """Another output."""
        self._keep(test, example, example.want, got)

    def report_unexpected_exception(
        self, out: Any, test: doctest.DocTest, example: doctest.Example, exc_info: Any
    ) -> None:
        """An error; one of the system is that of a missing file or network."""
        error = exc_info[1]
        if isinstance(error, OSError) and self.found is None:
            self.found = Skipped(
                f"the example `{example.source.strip()}` needs what is not here: {type(error).__name__}"
            )
        self._keep(test, example, example.want or "no error", f"{type(error).__name__}: {error}")

    def _keep(self, test: doctest.DocTest, example: doctest.Example, want: str, got: str) -> None:
        if self.found is None:
            line = None if test.lineno is None else test.lineno + example.lineno + 1
            message = f"the example `{example.source.strip()}` of {test.name} gives something else"
            self.found = Violation(message, _brief(want), _brief(got), file=test.filename, line=line)


def _brief(text: str) -> str:
    """An output in few words.

    >>> _brief("tensor([1.,\\n        2.])")
    'tensor([1., 2.])'
    """
    words = " ".join(text.split())
    return words if len(words) <= 80 else f"{words[:77]}..."
