"""Prints the versions that this environment has of everything that losskit and its extras need.

    python .ci/constraints.py test docs sentence-transformers > constraints.txt

Run it in an environment made for it, with losskit and those extras installed and the tests passing.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def closure(root: str, extras: frozenset[str]) -> dict[str, str]:
    """Name -> version of every distribution that `root[extras]` requires here."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(f"{root}[{','.join(sorted(extras))}]")]
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        new = {extra for extra in ("", *wanted.extras) if (name, extra) not in seen}
        if not new:
            continue
        seen |= {(name, extra) for extra in new}
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is required but not installed: pip install '{root}[{','.join(sorted(extras))}]'")
        if name != canonicalize_name(root):
            found[name] = Version(installed.version).public
        for line in installed.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in new):
                queue.append(needed)
    return found


if __name__ == "__main__":
    pins = closure("losskit", frozenset(sys.argv[1:]))
    lines = [f"{name}=={version}" for name, version in sorted(pins.items())]
    sys.stdout.write("# The versions losskit is tested with; written by .ci/constraints.py, not by hand.\n")
    sys.stdout.write("\n".join(lines) + "\n")
