"""The table of differences lists what the parity tests show, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers")

HERE = Path(__file__)


def shown():
    """(class, case) of every difference that a file of this folder shows."""
    for path in sorted(HERE.parent.glob("test_*.py")):
        if path != HERE:
            spec = importlib.util.spec_from_file_location(f"again_{path.stem}", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            yield from getattr(module, "DIFFERENCES", {})


def test_the_table_lists_what_is_shown(differences):
    found = list(shown())
    assert sorted(found) == sorted(differences)
