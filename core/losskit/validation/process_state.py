"""The state that all code in a process shares, as far as importing a module could change it."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

__all__ = ["difference", "process_state"]


def process_state() -> dict[str, object]:
    """Values that compare equal while nothing has changed, by what they are; of libraries those that are loaded."""
    root = logging.getLogger()
    found: dict[str, object] = {
        "variables of the environment": dict(os.environ),
        "the working folder": str(Path.cwd()),
        "sys.path": tuple(sys.path),
        "the filters of warnings": tuple(warnings.filters),
        "the root logger": (root.level, root.disabled, tuple(map(id, root.handlers)), logging.root.manager.disable),
        "handlers of signals": {each: signal.getsignal(each) for each in signal.valid_signals()},
        "the limit of recursion": sys.getrecursionlimit(),
        "sys.excepthook": sys.excepthook,
        "the streams of sys": (id(sys.stdout), id(sys.stderr), id(sys.stdin)),
        "the random state of Python": random.getstate(),
    }
    for library, state in (("numpy", _of_numpy), ("torch", _of_torch)):
        module = sys.modules.get(library)
        if module is not None:
            found |= state(module)
    return found


def _of_numpy(numpy: Any) -> dict[str, object]:
    name, keys, *rest = numpy.random.get_state()
    return {
        "the random state of numpy": (name, keys.tobytes(), *rest),
        "how numpy treats floating-point errors": numpy.geterr(),
    }


def _of_torch(torch: Any) -> dict[str, object]:
    return {
        "the default dtype of torch": torch.get_default_dtype(),
        "the default device of torch": str(torch.get_default_device()),
        "the random state of torch": torch.get_rng_state().numpy().tobytes(),
        "how many threads torch uses": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "whether torch records gradients": torch.is_grad_enabled(),
        "whether torch detects anomalies": torch.is_anomaly_enabled(),
        "whether torch is deterministic": torch.are_deterministic_algorithms_enabled(),
        "the precision of torch's matrix products": torch.get_float32_matmul_precision(),
        "the switches of torch's backends": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


def difference(old: object, new: object) -> str:
    """What has changed, in a few words.

    >>> difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    'b changed'
    >>> difference(64, 32)
    '32'
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(str(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        return f"{', '.join(keys[:3])} changed"
    text = str(new)
    return text if len(text) <= 40 else "another"
