"""`losskit new KIND NAME`: a component of one's own, as a package that can be published, or as one file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import losskit
from losskit.card import KINDS
from losskit.errors import RecipeError, check_choice
from losskit.registry import find, get
from losskit_templates import LICENCES, Answers, default_shape, package, shape_like, single_file

from .list import among
from .naming import check_address, check_component, check_distribution, check_file, check_text
from .output import write, write_json
from .writing import check_folder, folder_at, write_files

__all__ = ["new"]


def complete_origin(incomplete: str) -> list[tuple[str, str]]:
    """Names of built-in components with their summaries, for the shell."""
    return [(spec.name, spec.summary) for spec in find(provider="losskit") if spec.name.startswith(incomplete)]


def new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="One of: " + ", ".join(KINDS), autocompletion=among(KINDS))
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the component, such as my-margin")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Of the package, or of the file")] = "",
    origin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="NAME",
            help="A built-in component whose shape it begins with",
            autocompletion=complete_origin,
        ),
    ] = "",
    one_file: Annotated[bool, typer.Option("--single-file", help="The component alone, no package")] = False,
    summary: Annotated[str, typer.Option(metavar="TEXT", help="What it does, in a sentence")] = "",
    author: Annotated[str, typer.Option(metavar="NAME", help="Who holds the copyright")] = "",
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="Of the author")] = "",
    licence: Annotated[
        str,
        typer.Option("--license", "--licence", help="One of: " + ", ".join(LICENCES), autocompletion=among(LICENCES)),
    ] = "",
    distribution: Annotated[str, typer.Option(metavar="NAME", help="What is published; losskit-NAME without it")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing, only say what would be written")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
) -> None:
    """Write a loss, wrapper, regularizer, weighting, similarity or encoder that passes validate and its own tests.

    On a terminal it asks for what no option says.
    """
    check_choice("KIND", kind, KINDS)
    shape, encoders = _shape(kind, origin)
    answers = Answers(kind, name, shape, encoders, distribution=distribution, losskit=_range())
    given = {"summary": summary, "author": author, "email": email, "licence": licence}
    check_component(answers)
    if one_file:
        _refuse_beside_one_file({**given, "distribution": distribution})
        check_file(answers)
    else:
        check_distribution(answers, ours=force)
    folder = folder_at(out or ("." if one_file else answers.project))
    check_folder(folder, [f"{answers.module}.py"] if one_file else [], whole=not one_file, force=force)
    ask = sys.stdin.isatty() and sys.stderr.isatty() and not (as_json or dry_run)
    answers = _completed(answers, given, ask, ("summary",) if one_file else tuple(given))
    files = single_file(answers) if one_file else package(answers)
    check_folder(folder, list(files), whole=not one_file, force=force)
    if not dry_run:
        write_files(folder, files, force=force)
    _tell(folder, list(files), _next(answers, folder, one_file), dry_run, as_json)


def _tell(folder: Path, files: list[str], commands: list[str], dry_run: bool, as_json: bool) -> None:
    if as_json:
        write_json({"path": str(folder.absolute()), "files": files, "next": commands})
        return
    write(f"{folder}, if it were written:" if dry_run else f"{folder}:")
    for path in files:
        write(f"  {path}")
    write("next:")
    for command in commands:
        write(f"  {command}")


def _shape(kind: str, origin: str) -> tuple[Any, tuple[str, ...]]:
    """The shape that a component begins with, and the encoder families that it works with."""
    if not origin:
        shape = default_shape(kind)
        return shape, shape.encoders
    spec = get(kind, origin)
    found = shape_like(spec.kind, spec.name) if spec.builtin and spec.kind == kind else None
    if found is None or spec.card is None:
        got = f"a {spec.kind} of {spec.provider or spec.target}"
        fix = f"losskit list --kind {kind} --provider losskit shows them"
        raise RecipeError(f"--from {origin}", expected=f"a built-in {kind}", got=got, fix=fix)
    return found, tuple(family for family in found.encoders if family in spec.card.encoders)


def _range() -> str:
    """The versions of losskit that a new package requires: from this one's series up to the next major one."""
    major, minor, *_ = losskit.__version__.split(".")
    return f">={major}.{minor},<{int(major) + 1}"


def _refuse_beside_one_file(given: Mapping[str, str]) -> None:
    for option, value in given.items():
        if value and option != "summary":
            raise RecipeError(f"--{option}", expected="a package", got="--single-file", fix="leave one of them out")


def _completed(answers: Answers, given: Mapping[str, str], ask: bool, options: Sequence[str]) -> Answers:
    """The answers with the rest: as the options say, else as typed on a terminal, else as is usual."""
    usual = {
        "summary": f"{answers.a_kind.capitalize()} of your own: {answers.name}.",
        "author": f"The developers of {answers.project}",
        "email": "",
        "licence": LICENCES[0],
    }
    found = dict(usual)
    for option in options:
        if given[option]:
            found[option] = _checked(option, given[option])
        elif ask:
            found[option] = _asked(option, usual[option])
    return replace(answers, **found)


def _asked(option: str, usual: str) -> str:
    """What is typed; asked for again where it cannot be used."""
    words = {"licence": f"licence ({', '.join(LICENCES)})", "email": "email (may be empty)"}

    def checked(text: str) -> str:
        try:
            return _checked(option, text)
        except RecipeError as error:
            raise typer.BadParameter(str(error)) from None

    try:
        return str(typer.prompt(words.get(option, option), usual, err=True, value_proc=checked))
    except typer.Abort:  # the end of the input, or an interrupt
        typer.echo(err=True)
        raise KeyboardInterrupt from None


def _checked(option: str, text: str) -> str:
    if option == "email":
        return check_address(text)
    if option == "licence":
        check_choice("--license", text, LICENCES)
        return text
    text = check_text(f"--{option}", text)
    return text if option == "author" or text.endswith((".", "!", "?")) else f"{text}."


def _next(answers: Answers, folder: Path, one_file: bool) -> list[str]:
    """The commands that go on from here."""
    if one_file:
        place = shlex.quote(str(folder / f"{answers.module}.py"))
        commands = [f"losskit validate {place}"]
    else:
        place = answers.name
        commands = [
            f"cd {shlex.quote(str(folder))}",
            "pip install -e '.[test]'",
            f"losskit validate {answers.kind}:{answers.name}",
            "pytest",
        ]
    return [*commands, f"losskit train loss={place}"] if _trains_at_once(answers) else commands


def _trains_at_once(answers: Answers) -> bool:
    """Whether the built-in quickstart has data for it."""
    return answers.kind == "loss" and answers.shape.inputs[:2] == ("anchor", "positive") and "dense" in answers.encoders
