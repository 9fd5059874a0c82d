"""Reads the examples of Markdown pages.

What a fenced block's language means:

    console   lines that begin with `$ ` are run, what follows them is the output they must have
    pycon     an interpreter session, whose output must be as shown
    python    run
    other     shown only

With a caption (`:caption: NAME` of a code-block directive) a block is a file of that name instead. The blocks of a
page run in their order, in one folder and one namespace. Where `<!-- not run: REASON -->` stands before a block it is
skipped, with `<!-- needs MODULE -->` where that cannot be imported, and with `<!-- numbers vary -->` any number of its
output stands for any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "agrees", "blocks", "commands", "pages"]

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"(?:<!-- (?P<note>[^\n]*?) -->\n+)?"
    r"^(?P<fence>`{3,})(?P<language>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_CAPTION = re.compile(r"\A:caption: (?P<name>\S+)\n\n?")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
_RULES = re.compile(r"[-=\u2500-\u259f]{2,}")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, at `line`."""

    language: str
    text: str
    line: int
    note: str = ""
    file: str = ""


def pages() -> list[Path]:
    """The README and every page of the documentation."""
    written = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *written]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    content = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(content):
        language = match["language"].strip().removeprefix("{code-block}").strip()
        text, file = match["body"], ""
        if caption := _CAPTION.match(text):
            text, file = text[caption.end() :], caption["name"]
        line = content.count("\n", 0, match.start("fence")) + 1
        found.append(Block(language, text, line, match["note"] or "", file))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown below it."""
    head, *rest = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    if head.strip():
        raise ValueError(f"line {block.line}: output before the first command: {head!r}")
    return [(command.strip(), output) for command, _, output in (each.partition("\n") for each in rest)]


def agrees(shown: str, got: str, *, numbers_vary: bool = False) -> bool:
    """Whether an output is as shown, but for white space; `...` stands for anything.

    >>> agrees("kind ... cosent", "kind  name\\nloss  cosent")
    True
    >>> agrees("ndcg@10 0.81", "ndcg@10 0.79"), agrees("ndcg@10 0.81", "ndcg@10 0.79", numbers_vary=True)
    (False, True)
    """
    if numbers_vary:
        shown, got = (_RULES.sub("--", _NUMBER.sub("0", text)) for text in (shown, got))
    parts = [re.escape(" ".join(part.split())) for part in shown.split("...")]
    return re.fullmatch(r"\s*.*\s*".join(parts), " ".join(got.split()), re.DOTALL) is not None
