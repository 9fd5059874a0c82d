"""Virtual environments for the tests of packages, below a folder whose name has a space in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from packages import Environment


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A virtual environment of the test's own, without plugins."""
    return Environment(tmp_path / "an environment")
