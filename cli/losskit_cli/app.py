"""The command itself: global options, commands imported when called, exit codes.

0 fine   1 findings   2 the user's input   3 a plugin failed to load   4 nothing matched, or too little ran
70 internal error, reported to a file   130 interrupted
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from losskit import registry
from losskit.discover import Entry
from losskit.errors import AmbiguousError, LosskitError, PluginError, RecipeError, brief, is_interrupt
from losskit.policy import Policy
from losskit.spec import load_target

from .output import say, write

__all__ = ["app", "command_from", "main"]

COMMANDS = {
    "list": ("losskit_cli.list:list_components", "List components, importing none."),
    "show": ("losskit_cli.show:show", "Show all that is known of a component."),
    "validate": ("losskit_cli.validate:validate", "Check whether components keep the laws."),
    "new": ("losskit_cli.new:new", "Write a component of your own: a package, or one file."),
    "train": ("losskit_cli.train:train", "Train a model from a recipe, or the built-in quickstart."),
    "doctor": ("losskit_cli.doctor:doctor", "Check the environment and the plugins."),
}
"""What each command is loaded from, and its line in the list of commands."""


class _AsItIs:
    """Takes what the command line holds as the value of an option."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        return value


def _lightened(parameters: list[Any]) -> list[Any]:
    """Texts and flags that typer does not hand to pydantic, whose import would be a third of the start."""
    with contextlib.suppress(AttributeError):  # a typer that works otherwise is only slower
        for parameter in parameters:
            if parameter.type_descriptor.annotation in (str, bool):
                parameter._runtime_param = _AsItIs()
    return parameters


class Command(TyperCommand):
    """A command that starts quickly."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments, and the option for help."""
        return _lightened(super().get_params(ctx))


class Lazy(TyperCommand):
    """A command known by its name and one line, until it is called."""

    def __init__(self, name: str, line: str, load: Callable[[], Any]) -> None:
        super().__init__(name, help=line)
        self.load = load


class Commands(TyperGroup):
    """losskit's own commands and those of plugins; only the one that is called is imported."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The global options, and the option for help."""
        return _lightened(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Our own, then those of plugins."""
        names: set[str] = set()
        with contextlib.suppress(LosskitError):  # help is shown even where the configuration cannot be read
            names.update(entry.name for entry in registry.current().entries("command"))
        return [*COMMANDS, *sorted(names - COMMANDS.keys())]

    def get_command(self, ctx: Any, name: str) -> Lazy | None:
        """What is known of a command without importing it."""
        if name in COMMANDS:
            target, line = COMMANDS[name]
            return Lazy(name, line, lambda: command_from(name, load_target(target)))
        entries = [entry for entry in registry.current().entries("command") if entry.name == name]
        providers = ", ".join(f"{entry.provider}=={entry.version}" for entry in entries)
        return Lazy(name, f"From {providers}.", lambda: _from_plugin(name, entries)) if entries else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is called, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Lazy) else command, rest


_whose = "internal error"
"""What to call an error that nobody expected."""


def _from_plugin(name: str, entries: Sequence[Entry]) -> Any:
    global _whose
    if len(entries) > 1:
        providers = " and ".join(f"{entry.provider}=={entry.version}" for entry in entries)
        raise AmbiguousError(f"command {name!r} is provided by {providers}", fix="block all but one")
    entry = entries[0]
    culprit = f"command {name!r} of {entry.provider} {entry.version} ({entry.target})"
    obstacle = registry.current().obstacle(entry)
    if obstacle is not None:
        raise PluginError(culprit, got=obstacle.reason, fix=obstacle.fix)
    try:
        command = command_from(name, entry.load())
    except BaseException as error:
        if is_interrupt(error):
            raise
        fix = f"update {entry.provider}, or block it"
        raise PluginError(culprit, got=brief(error), fix=fix) from error
    _whose = f"error in {culprit}"
    return command


def command_from(name: str, value: Any) -> Any:
    """A function, or a plugin's Typer application or command, as a command."""
    if isinstance(value, FunctionType):
        application = typer.Typer(add_completion=False, rich_markup_mode=None)
        application.command(name, cls=Command)(value)
        value = application
    command = typer.main.get_command(value) if isinstance(value, typer.Typer) else value
    if not callable(getattr(command, "make_context", None)):
        raise TypeError(f"it is {type(command).__name__}, neither a Typer application nor a command")
    return command


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import losskit

        write(f"losskit {losskit.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
    allow: Annotated[str | None, typer.Option(metavar="NAMES", help="Use only these plugins (a,b/c).")] = None,
    block: Annotated[str | None, typer.Option(metavar="NAMES", help="Do not use these plugins.")] = None,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Use no plugins at all.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Losses as plugins: list, show, validate, train, publish.

    Options above may stand anywhere in the line.
    """


def main() -> NoReturn:
    """Run the command and leave Python with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open until Python ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    try:
        arguments, policy = _taken(sys.argv[1:])
        if policy:
            registry.refresh(Policy.read(**policy))
        app(arguments, prog_name="losskit")
    except SystemExit as end:
        _leave(end.code)
    except KeyboardInterrupt:
        _leave(130)
    except LosskitError as error:
        if debug:
            sys.excepthook(*sys.exc_info())
        say(f"losskit: {error}")
        _leave(error.exit_code)
    except BrokenPipeError:
        _leave(1)
    except Exception as error:  # noqa: BLE001 - the last resort, which reports
        if debug:
            sys.excepthook(*sys.exc_info())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            say(f"losskit: {brief(error)}. Fix: make room")
            _leave(2)
        say(f"losskit: {_whose}: {brief(error)}. A report is in {_report()}")
        _leave(70)
    _leave(0)


def _taken(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Arguments without the global options, which may stand anywhere, and the policy that these state."""
    rest: list[str] = []
    policy: dict[str, Any] = {}
    queue = iter(arguments)
    for argument in queue:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest.append(argument)
            break
        if argument == "--no-plugins":
            policy["plugins"] = False
        elif name in ("--allow", "--block"):
            value = value if equals else next(queue, "")
            if not value or value.startswith("-"):
                raise RecipeError(name, expected="a distribution", got=value or "none")
            policy.setdefault(name.removeprefix("--"), []).extend(value.split(","))
        elif argument != "--debug":
            rest.append(argument)
    return [*rest, *queue], policy


def _report() -> str:
    """Write what is needed to understand a crash; where it is."""
    import tempfile
    import traceback

    handle, path = tempfile.mkstemp(prefix="losskit-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(f"{sys.argv}\nPython {sys.version}\n\n{traceback.format_exc()}")
    return path


def _leave(code: Any) -> NoReturn:
    """Exit after what was printed has gone out, or has nobody to go to."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"losskit: the output cannot be written: {brief(error)}")
        code = code or (1 if isinstance(error, BrokenPipeError) else 2)
    sys.exit(code)
