"""Imports components for `doctor --load`, in a process that they may crash.

Reads a pickled list of (spec or None, target) from stdin and writes a line of JSON for each to what stdout was
at the start: null, or what went wrong. What the components themselves print is dropped.
"""

from __future__ import annotations

import json
import os
import pickle
import sys

from losskit.errors import PluginError, brief
from losskit.spec import load_target


def main() -> None:
    """Import one after the other."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as results:
        os.dup2(2, 1)
        for spec, target in pickle.load(sys.stdin.buffer):
            error = None
            try:
                spec.load() if spec is not None else load_target(target)
            except PluginError as raised:
                error = {"reason": raised.got, "fix": raised.fix}
            except BaseException as raised:  # noqa: BLE001 - nothing that one raises may end the others
                error = {"reason": brief(raised), "fix": "report it to its authors"}
            results.write(json.dumps(error) + "\n")


if __name__ == "__main__":
    main()
