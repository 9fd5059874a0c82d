"""The check `import`: each act at import is found, with its line; what other packages do is not held against anyone.

The modules are imported in processes that a single one forks, as `losskit validate` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest

from losskit.testing import Check
from losskit.validation.importing import import_check
from losskit.validation.target import resolve

CLASS = "\nclass Mine(torch.nn.Module):\n    pass\n"
QUIET = """
import importlib
import io
import os
import warnings

import lk_noisy
import torch
from lk_noisy import thing

lk_noisy.loud()
importlib.import_module("lk_noisy.late")
open(os.devnull, "w").close()
open(__file__).close()
io.StringIO().write("nothing")
torch.randn(2, generator=torch.Generator().manual_seed(0))
warnings.warn("be careful", stacklevel=1)
with torch.random.fork_rng():
    torch.rand(2)
"""
NOISY = """
import os
import random
import subprocess

import torch

print("noisy")
os.environ["NOISY"] = "1"
random.seed(0)
torch.set_num_threads(3)
open({out!r}, "a").close()
subprocess.run(["true"])
thing = 1


def loud():
    import lk_noisy.later
"""
DEFECTS = {
    "prints": ("print('hello')", "writes to stdout or stderr", "'hello'"),
    "warns by the log": ("import logging; logging.warning('hello')", "writes to stdout or stderr", None),
    "writes to the descriptor": ("import os; os.write(2, b'hello')", "writes to stdout or stderr", "'hello'"),
    "sets a variable": ("import os; os.environ['LK_A'] = '1'", "variables of the environment", "LK_A changed"),
    "seeds torch": ("torch.manual_seed(7)", "the random state of torch", None),
    "draws globally": ("torch.rand(2)", "the random state of torch", None),
    "seeds random": ("import random; random.seed(7)", "the random state of Python", None),
    "seeds numpy": ("import numpy; numpy.random.seed(7)", "the random state of numpy", None),
    "sets the dtype": ("torch.set_default_dtype(torch.float64)", "the default dtype of torch", "torch.float64"),
    "sets the threads": ("torch.set_num_threads(3)", "how many threads torch uses", None),
    "stops gradients": ("torch.set_grad_enabled(False)", "whether torch records gradients", "False"),
    "changes the folder": ("import os; os.chdir('/')", "the working folder", "/"),
    "changes sys.path": ("import sys; sys.path.append('/nowhere')", "sys.path", None),
    "filters warnings": ("import warnings; warnings.simplefilter('ignore')", "the filters of warnings", None),
    "configures logging": ("import logging; logging.basicConfig()", "the root logger", None),
    "handles signals": ("import signal; signal.signal(signal.SIGTERM, print)", "handlers of signals", None),
    "connects": (
        "import socket\ntry: socket.create_connection(('127.0.0.1', 1))\nexcept OSError: pass",
        "reaches for the network",
        None,
    ),
    "starts a process": ("import subprocess; subprocess.run(['true'])", "starts a process", None),
    "calls the shell": ("import os; os.system('true')", "starts a process", None),
    "writes a file": ("open(__file__ + '.out', 'w').close()", "writes files", None),
    "writes below Python": ("import os; os.close(os.open(__file__ + '.o', os.O_CREAT))", "writes files", None),
    "makes a folder": ("import pathlib; pathlib.Path(__file__ + '.d').mkdir()", "writes files", None),
    "raises": ("raise ValueError('no')", "ValueError: no", "ValueError"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3", "SystemExit"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
    "misses a module": ("import no_such_module", "No module named 'no_such_module'", "ModuleNotFoundError"),
}
SERVER = """
import json, os, signal, sys, threading
from dataclasses import asdict
import losskit.testing
from losskit.validation.importing import import_check
from losskit.validation.target import resolve

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started the tests ignores it
for name, target in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        try:
            told = asdict(import_check(resolve(target).spec))
        except KeyboardInterrupt:
            told = "interrupted"
        with open(sys.argv[2], "a") as results:
            results.write(json.dumps([name, told]) + "\\n")
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def checks(tmp_path_factory) -> dict[str, object]:
    """What comes of the check on each module, by name."""
    folder = tmp_path_factory.mktemp("modules")
    targets = {}
    for name, (lines, _, _) in DEFECTS.items():
        targets[name] = folder / f"{name.replace(' ', '_').replace('.', '_')}.py"
        targets[name].write_text(f"import torch\n\n{lines}\n{CLASS}")
    noisy = folder / "lk_noisy"
    noisy.mkdir()
    (noisy / "__init__.py").write_text(NOISY.format(out=str(folder / "out")))
    for late in ("late", "later"):
        (noisy / f"{late}.py").write_text(f"open({str(folder / 'out')!r}, 'a').close()\n")
    others = {
        "quiet": QUIET + CLASS,
        "through another": f"import torch\nfrom shutil import copy\ncopy(__file__, __file__ + '.copy')\n{CLASS}",
        "in a function": f"import torch\n\ndef work():\n    print(1)\n    open(__file__ + '.x', 'w')\n{CLASS}",
        "no class": "Mine = 3\nclass Mine2: pass\nclass Mine: pass\nMine = 3\n",
        "interrupted": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nlist(range(9))\nclass Mine: pass\n",
        "another card": dedent(
            """
            from losskit import Card
            class Mine:
                card = Card(memory="n")
            Mine.card = Card(memory="B")
            """
        ),
    }
    for name, source in others.items():
        targets[name] = folder / f"{name.replace(' ', '_')}.py"
        targets[name].write_text(source)
    package = folder / "lk_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import work\n")
    (package / "inner.py").write_text("import os\n\ndef work():\n    os.system('true')\n")
    (package / "loss.py").write_text(f"import torch\nfrom . import work\nwork()\n{CLASS}")
    given = {name: f"{file}:Mine" for name, file in targets.items()} | {"package": "lk_package.loss:Mine"}
    given |= {"cosent": "cosent", "similarity": "similarity:xtr", "wrapper": "matryoshka"}
    run = subprocess.run(
        [sys.executable, "-c", SERVER, json.dumps(given), str(folder / "results")],
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = map(json.loads, (folder / "results").read_text().splitlines())
    return {name: told if isinstance(told, str) else Check(**told) for name, told in lines}


@pytest.mark.parametrize("name", DEFECTS)
def test_an_act_at_import_is_found(checks, name) -> None:
    _, message, got = DEFECTS[name]
    check = checks[name]
    assert (check.id, check.level, check.status) == ("import", "interface", "failed")
    assert message in check.message
    assert got in (None, check.got)
    assert check.file.endswith(f"{name.replace(' ', '_').replace('.', '_')}.py")


@pytest.mark.parametrize("name", ["starts a process", "writes a file", "raises", "exits"])
def test_the_line_of_an_act_is_told(checks, name) -> None:
    assert checks[name].line == 3


def test_an_act_through_a_function_of_another_package_is_found(checks) -> None:
    check = checks["through another"]
    assert (check.message, check.line) == ("importing it writes files", 3)


def test_an_act_of_another_module_of_the_same_package_is_found_there(checks) -> None:
    check = checks["package"]
    assert check.message == "importing it starts a process"
    assert check.file.endswith("inner.py")
    assert check.line == 4


@pytest.mark.parametrize("name", ["quiet", "in a function", "cosent", "similarity", "wrapper"])
def test_what_other_packages_do_or_what_is_not_run_passes(checks, name) -> None:
    assert (checks[name].status, checks[name].message) == ("passed", "")


def test_what_is_no_class_is_found(checks) -> None:
    assert checks["no class"].message == "the target is no class"
    assert checks["no class"].got == "int"


def test_another_card_than_the_source_states_is_found(checks) -> None:
    assert checks["another card"].message == "the card is not what its source states"
    assert checks["another card"].got == "another card"


def test_an_interrupt_of_the_user_passes_on(checks) -> None:
    assert checks["interrupted"] == "interrupted"


def test_what_was_imported_before_cannot_be_observed() -> None:
    spec = resolve("losskit.testing.toys:ToyEncoder").spec
    assert spec.load()
    assert import_check(spec).status == "skipped"
