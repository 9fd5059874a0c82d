"""Validations of what crashes, hangs, exits or lies: findings, and nothing left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from losskit.validation import Check, Report, validate

LOSS = """
import json, os, subprocess, sys

from losskit import Card, Format, Loss


class Mine(Loss):
    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"], formula="|a - p|^2")

    def compute(self, columns, labels, rows):
        {act}
        a, p = columns[0].embedding[rows], columns[1].embedding[rows]
        return (a - p).square().sum(1).mean()
"""

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


@pytest.fixture
def mine(home):
    """Validate a loss that does something whenever it computes."""

    def run(act: str, **settings) -> Report:
        Path("mine.py").write_text(LOSS.format(act=act))
        return validate("mine.py:Mine", **{"only": ["protocol", "order"], **settings})

    return run


def order_of(report: Report) -> Check:
    assert [check.status for check in report.checks if check.id != "order"] == ["passed"]
    return next(check for check in report.checks if check.id == "order")


@pytest.mark.parametrize(
    ("act", "found"),
    [
        pytest.param("os._exit(0)", "it ended Python with exit code 0", marks=pytest.mark.quick),
        ("os._exit(7)", "it ended Python with exit code 7"),
        ("os.abort()", "it ended Python by SIGABRT"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("raise type('Mute', (Exception,), {'__str__': lambda self: 3})", "Mute: its text cannot be read"),
        ("json.dumps = lambda *_, **__: 'no JSON'", "it wrote to the pipe that carries the results"),
        ("json.dumps = lambda *_, **__: '{}'", "it wrote to the pipe that carries the results"),
    ],
)
def test_what_ends_its_process_or_lies_is_found(mine, act, found) -> None:
    check = order_of(mine(act))
    assert check.status == "failed"
    assert found in check.message


def test_a_check_that_does_not_end_is_found(mine) -> None:
    check = order_of(mine("while True: pass", time_limit=3.0))
    assert (check.status, check.message) == ("failed", "it did not end within 3 seconds")


@pytest.mark.quick
def test_what_a_check_starts_ends_with_it(mine, home) -> None:
    noted = home / "children"
    start = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])"
    act = f"{start}; print(child.pid, file=open({str(noted)!r}, 'a'))"
    assert order_of(mine(act)).status == "passed"
    children = [int(each) for each in noted.read_text().split()]
    assert children
    for _ in range(100):
        if not any(map(_runs, children)):
            return
        time.sleep(0.05)
    raise AssertionError(f"{children} still run")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_plain_module_that_cannot_be_built_is_one_finding(home) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n\n\nclass Mine(nn.Module):\n    def __init__(self, model):\n        self.model = model\n"
    )
    report = validate("mine.py:Mine", level="interface", inputs=["anchor", "positive"])
    [finding] = report.findings
    assert (finding.id, finding.line) == ("constructor", 4)
    assert finding.message.startswith("AttributeError: cannot assign module before Module.__init__() call")
