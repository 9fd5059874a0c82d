"""The table of deliberate differences, as the documentation has it."""

from __future__ import annotations

from pathlib import Path

import pytest

TABLE = Path(__file__).parents[3] / "docs" / "differences.md"


@pytest.fixture(scope="session")
def differences():
    """(class, case) of each row of docs/differences.md."""
    rows = [line.strip("|\n").split("|") for line in TABLE.read_text().splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in row) for row in rows[2:]]
    assert all(len(row) == 5 and all(row) for row in cells)
    return {row[:2] for row in cells}
