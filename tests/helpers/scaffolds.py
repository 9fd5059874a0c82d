"""What `losskit new` writes, for tests: an example of every shape, and whole trees as one text.

python tests/helpers/scaffolds.py    writes the trees that tests compare with
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from losskit_templates import LICENCES, SHAPES, Answers, package

__all__ = ["EXAMPLES", "GOLDEN", "LONGEST_NAME", "example", "readme_files", "tree", "write_tree"]

GOLDEN = Path(__file__).parents[1] / "packaging" / "golden"
LONGEST_NAME = "abcdefghij-klmnopqrst-uvwxyzabcd-efghijk"
EXAMPLES = [(kind, shape) for kind, shapes in SHAPES.items() for shape in shapes]
"""Kind and shape of every template."""
_PEOPLE = (("", ""), ("Ada Lovelace", "ada@example.org"), ('José "Pepe" \\ Ñandú', ""))


def example(kind: str, shape: str, name: str = "") -> Answers:
    """The answers of an example; between them, the examples have every licence, kind of author and length of name."""
    found, number = SHAPES[kind][shape], EXAMPLES.index((kind, shape))
    name = name or (f"my-{shape}", LONGEST_NAME, f"z{number}")[number % 3]
    author, email = _PEOPLE[number % len(_PEOPLE)]
    return Answers(
        kind,
        name,
        found,
        found.encoders,
        f'An example of {"an" if kind == "encoder" else "a"} {kind} with "quotes" and a back\\slash, number {number}.',
        author or f"The developers of losskit-{name}",
        email,
        LICENCES[number % len(LICENCES)],
        losskit=">=0.1,<1",
    )


def tree(kind: str, shape: str) -> str:
    """The files of an example as one text; after the first shape of a kind only those that the shape changes."""
    answers = example(kind, shape)
    own = (f"src/{answers.package}/", f"tests/test_{answers.module}", "README.md")
    shown = ("",) if shape == next(iter(SHAPES[kind])) else own
    return "".join(f"==> {path}\n{text}" for path, text in package(answers).items() if path.startswith(shown))


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files below a folder; that folder."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def readme_files(text: str) -> dict[str, str]:
    """The files that a README shows: data and recipes behind a line with "`NAME`" that ends in a colon."""
    shown = re.findall(r"`([\w.]+)`[^`\n]*:\n+```(?:json|yaml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(shown)


def main() -> None:
    """Write the trees anew."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    for kind, shape in EXAMPLES:
        (GOLDEN / f"{kind}-{shape}.txt").write_text(tree(kind, shape), encoding="utf-8")


if __name__ == "__main__":
    main()
