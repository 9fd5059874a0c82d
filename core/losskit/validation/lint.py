"""The check of a component's source: what ties it to one machine, or reaches beyond its own objects."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..source import ClassSource
from ..spec import Spec
from .findings import Violation
from .reading import Source, lineage, read

__all__ = ["source"]

DEVICE = re.compile(r"(cuda|mps|xpu|npu|hpu|tpu)(:\d+)?")
SEEDS = frozenset(
    (
        *("torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.random.seed", "torch.mps.manual_seed"),
        *("torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.cuda.seed", "random.seed"),
        *("numpy.random.seed", "transformers.set_seed", "accelerate.utils.set_seed"),
    )
)
SETTINGS = frozenset(
    (
        *("torch.set_default_dtype", "torch.set_default_device", "torch.set_default_tensor_type"),
        *("torch.set_num_threads", "torch.set_num_interop_threads", "torch.use_deterministic_algorithms"),
        *("torch.set_float32_matmul_precision", "torch.set_printoptions", "torch.cuda.set_device"),
        *("numpy.seterr", "numpy.set_printoptions", "logging.basicConfig", "logging.disable"),
        *("warnings.filterwarnings", "warnings.simplefilter", "os.chdir", "os.putenv", "os.environ.update"),
        *("os.environ.setdefault", "sys.setrecursionlimit", "locale.setlocale", "signal.signal"),
    )
)
SWITCHES = frozenset(("torch.set_grad_enabled", "torch.autograd.set_detect_anomaly"))
"""Context managers, that hold for the whole process where they are mere calls."""
GUARDS = {"torch.random.fork_rng": SEEDS, "warnings.catch_warnings": SETTINGS}
"""Context managers, and the calls whose effect they put back."""
SHARED = re.compile(r"os\.environ|torch\.backends\..*")
"""What is assigned to such names holds for the whole process."""
DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONTAINERS = frozenset(("list", "dict", "set", "collections.defaultdict", "collections.deque"))

_Found = tuple[ast.AST, str, str]


def source(spec: Spec) -> Iterator[Violation]:
    """The class, and what it uses of its module, works on any device and leaves the process as it is."""
    stated = next(each for each in lineage(spec) if isinstance(each, ClassSource))
    seen = read(stated)
    names = _Names(seen.module)
    found = [*_of_constructor(seen.node, names, carded=spec.card is not None)]
    for part in _used(seen):
        lint = _Lint(names)
        lint.visit(part)
        found += lint.found
    for node, message, expected in sorted(found, key=lambda each: each[0].lineno):  # type: ignore[attr-defined]
        line: int = node.lineno  # type: ignore[attr-defined]
        yield Violation(f"line {line}: {message}", expected, _shown(node), file=stated.file, line=line)


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _used(seen: Source) -> list[ast.stmt]:
    """What runs when the module is imported, the class, and the functions and classes that it names."""
    top = seen.module.body
    defined = {each.name: each for each in top if isinstance(each, ast.FunctionDef | ast.ClassDef)}
    found: list[ast.stmt] = [each for each in top if not isinstance(each, ast.FunctionDef | ast.ClassDef | ast.If)]
    queue: list[ast.stmt] = [seen.node]
    while queue:
        part = queue.pop()
        if part in found:
            continue
        found.append(part)
        named = {node.id for node in ast.walk(part) if isinstance(node, ast.Name)}
        queue += [defined[name] for name in sorted(named & defined.keys())]
    return found


class _Names:
    """What the names of a module stand for."""

    def __init__(self, module: ast.Module) -> None:
        self._imported: dict[str, str] = {}
        self._bound: set[str] = set()
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                for each in node.names:
                    top = each.name.partition(".")[0]
                    self._imported[each.asname or top] = each.name if each.asname else top
            elif isinstance(node, ast.ImportFrom) and not node.level:
                self._imported.update({each.asname or each.name: f"{node.module}.{each.name}" for each in node.names})
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                self._bound.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._bound.add(node.id)
            elif isinstance(node, ast.arg):
                self._bound.add(node.arg)

    def dotted(self, node: ast.expr) -> str:
        """The dotted name of an imported thing or of a builtin; nothing for any other expression."""
        if isinstance(node, ast.Name):
            return "" if node.id in self._bound else self._imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            before = self.dotted(node.value)
            return f"{before}.{node.attr}" if before.partition(".")[0] in self._roots() else ""
        return ""

    def _roots(self) -> set[str]:
        return {each.partition(".")[0] for each in self._imported.values()}


class _Lint(ast.NodeVisitor):
    """Walks a part of a module; `found` is what is wrong with it."""

    def __init__(self, names: _Names) -> None:
        self._names = names
        self._guarded: list[frozenset[str]] = []
        self.found: list[_Found] = []

    def visit_With(self, node: ast.With) -> None:
        """Calls within a guard are put back at its end."""
        calls = [each.context_expr for each in node.items if isinstance(each.context_expr, ast.Call)]
        guards = [GUARDS[name] for name in (self._names.dotted(each.func) for each in calls) if name in GUARDS]
        self._guarded += guards
        self.generic_visit(node)
        del self._guarded[len(self._guarded) - len(guards) :]

    def visit_Call(self, node: ast.Call) -> None:
        """Devices, seeds, settings and prints."""
        name, method = self._names.dotted(node.func), getattr(node.func, "attr", "")
        if method == "cuda" and not name:
            self._add(node, "it moves things to a device of its own choice", "the device of its inputs")
        for value in _devices(node, moves=method == "to" or name == "torch.device"):
            self._add(node, f"it names the device {value!r}", "the device of its inputs")
        if name in SEEDS | SETTINGS and not any(name in each for each in self._guarded):
            what = "seeds the generator" if name in SEEDS else "changes a setting"
            hint = "a generator of its own" if name in SEEDS else "arguments, or nothing"
            self._add(node, f"{name} {what} of the whole process", hint)
        if name == "print" and _on_terminal(node, self._names):
            self._add(node, "it prints", 'logging.getLogger("...")')
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Switches that no `with` switches back."""
        if isinstance(node.value, ast.Call) and self._names.dotted(node.value.func) in SWITCHES:
            self._add(node, f"{self._names.dotted(node.value.func)} holds for the whole process", "a with statement")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Variables of the environment, and switches of torch's backends."""
        for target in node.targets:
            place = target.value if isinstance(target, ast.Subscript) else target
            name = self._names.dotted(place)
            if (SHARED.fullmatch(name) and name != "os.environ") or (name == "os.environ" and place is not target):
                self._add(node, f"it changes {name} for the whole process", "arguments, or nothing")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Errors that are hidden."""
        broad = node.type is None or self._names.dotted(node.type) in ("Exception", "BaseException")
        raises = any(isinstance(each, ast.Raise) for each in ast.walk(node))
        silent = all(isinstance(each, ast.Pass | ast.Continue) for each in node.body)
        if (node.type is None and not raises) or (broad and silent):
            self._add(node, "it hides every error", "the errors that are meant")
        self.generic_visit(node)

    def _add(self, node: ast.AST, message: str, expected: str) -> None:
        self.found.append((node, message, expected))


def _devices(node: ast.Call, *, moves: bool) -> Iterator[str]:
    """The devices that the arguments of a call name, whichever the inputs are on."""
    values = [*(node.args[:1] if moves else ()), *(each.value for each in node.keywords if each.arg == "device")]
    for value in values:
        for choice in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
            if isinstance(choice, ast.Constant) and isinstance(choice.value, str) and DEVICE.fullmatch(choice.value):
                yield choice.value


def _on_terminal(node: ast.Call, names: _Names) -> bool:
    """Whether a print goes to the terminal, and not into a file."""
    files = [each.value for each in node.keywords if each.arg == "file"]
    return not files or names.dotted(files[0]) in ("sys.stdout", "sys.stderr")


def _of_constructor(cls: ast.ClassDef, names: _Names, *, carded: bool) -> Iterator[_Found]:
    """Defaults that all instances share, and arguments that nothing checks."""
    constructor = next((x for x in cls.body if isinstance(x, ast.FunctionDef) and x.name == "__init__"), None)
    if constructor is None:
        return
    arguments = constructor.args
    for default in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
        made = isinstance(default, ast.Call) and names.dotted(default.func) in CONTAINERS
        if made or isinstance(default, DISPLAYS):
            yield default, "a default that all instances share and can change", "None, or a tuple"
    passed = {ast.unparse(each) for each in ast.walk(constructor) if isinstance(each, ast.Starred)}
    passed |= {
        f"**{ast.unparse(each.value)}"
        for node in ast.walk(constructor)
        if isinstance(node, ast.Call)
        for each in node.keywords
        if each.arg is None
    }
    for stars, rest in (("*", arguments.vararg), ("**", arguments.kwarg)):
        if rest is not None and (carded or f"{stars}{rest.arg}" not in passed):
            why = "hides its options" if carded else "swallows misspelt options"
            yield rest, f"__init__ takes {stars}{rest.arg}, which {why}", "each option by its name"
