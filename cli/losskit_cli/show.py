"""`losskit show NAME`: all that is known of a component."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Annotated, Any

import typer

from losskit.card import KINDS, Card
from losskit.registry import Option, Spec, find, is_target, lookup

from .list import among, record
from .output import say, write, write_json, write_table

__all__ = ["complete_component", "show"]


def complete_component(incomplete: str) -> list[tuple[str, str]]:
    """Names of components with their summaries, for the shell."""
    return [(spec.name, spec.summary) for spec in find() if spec.name.startswith(incomplete)]


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name, kind:name, distribution/name, class name, module:Class or path/file.py:Class",
            autocompletion=complete_component,
        ),
    ],
    kind: Annotated[str | None, typer.Option(help="One of: " + ", ".join(KINDS), autocompletion=among(KINDS))] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
) -> None:
    """Show the card, options, formula, citation, requirements and relations of a component, and an example."""
    specs = lookup(name, kind)
    problems = [spec.problem for spec in specs if spec.problem is not None]
    if as_json:
        components = [_record(spec) for spec in specs]
        write_json({"components": components, "problems": [problem.to_dict() for problem in problems]})
        return
    for index, spec in enumerate(specs):
        if index:
            write()
        _write(spec)
    for problem in problems:
        say(problem)


def _record(spec: Spec) -> dict[str, Any]:
    card = spec.card.to_dict() if spec.card else None
    return {**record(spec), "card": card, "file": spec.file, "line": spec.line, "provenance": spec.provenance()}


def _write(spec: Spec) -> None:
    write(f"{spec.kind} {spec.name}")
    _entry("", spec.summary)
    write()
    _entry("class", spec.target)
    _entry(
        "provider", f"{spec.provider} {spec.version}" + (", built in" if spec.builtin else "") if spec.provider else ""
    )
    _entry("file", f"{spec.file}:{spec.line}" if spec.file else "")
    _entry("status", spec.status)
    card = spec.card
    if card is not None:
        for form in card.formats:
            outputs = f", cross-encoder outputs: {form.outputs}" if form.outputs is not None else ""
            _entry("data", f"{' '.join(form.inputs)}, labels: {form.labels}{outputs}")
        _entry("encoders", ", ".join(card.encoders))
        _entry("needs", ", ".join(card.needs))
        if spec.kind in ("loss", "wrapper"):
            _entry("nature", ", ".join(_traits(card)))
            _entry("memory", f"O({card.memory})")
        _entry("formula", card.formula)
        _entry("aliases", ", ".join(card.aliases))
        _entry("requires", ", ".join(card.requires))
        for name in ("requirements", "relations"):
            for sentence in getattr(card, name):
                _entry(name, sentence)
        _entry("goes with", ", ".join(card.recommends))
        for check, reason in card.deviations.items():
            _entry("deviation", f"{check}: {reason}")
    if spec.options:
        write("\noptions")
        write_table(["name", "type", "default", "choices"], map(_option, spec.options))
    if spec.status == "ok":
        write("\nexample")
        _example(spec)
    if card is not None and card.citation:
        write("\ncitation")
        write(card.citation.strip())


def _traits(card: Card) -> list[str]:
    traits = {
        "a mean over rows": card.row_wise,
        "draws random numbers": card.stochastic,
        "bound to the encoder's width": card.fixed_dimension,
    }
    return [name for name, holds in traits.items() if holds]


def _entry(label: str, text: str) -> None:
    """A label and its text, wrapped on a terminal; nothing for an empty text."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    if text:
        write(textwrap.fill(text, max(width, 30), initial_indent=f"  {label:<13}", subsequent_indent=" " * 15))


def _option(option: Option) -> list[str]:
    default = "required" if option.required else str(option.default)
    return [option.name, option.type, default, " ".join(map(str, option.choices))]


def _example(spec: Spec) -> None:
    """How to build it in Python and name it in a recipe, with placeholders for what it requires."""
    required = {option.name: "..." for option in spec.options if option.required}
    pairs = ", ".join(f"{key}: {value}" for key, value in {"name": spec.name, **required}.items())
    recipe = f"{{{pairs}}}"
    python = ", ".join(f'"{key}": {value}' for key, value in required.items())
    expression = f'{{"name": "{spec.name}", {python}}}' if required else f'"{spec.name}"'
    section = "loss" if spec.kind == "wrapper" else spec.kind
    if not is_target(spec.name):
        _entry("recipe", f"{section}: {recipe if required else spec.name}")
    model = ", model" if section == "loss" else f', kind="{spec.kind}"'
    _entry("Python", f"losskit.build({expression}{model})")
