"""`losskit show NAME`: all that is known of a component."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from losskit.card import KINDS, Card
from losskit.discover import KEBAB
from losskit.registry import Option, Spec, find, is_target, lookup, reference_to

from .list import among, record
from .output import say, write, write_entry, write_json, write_table, write_text

__all__ = ["complete_component", "show"]

LONGEST = 200
"""Characters of a summary that a shell is told."""


def complete_component(incomplete: str) -> list[tuple[str, str]]:
    """Names of components with their summaries, for the shell.

    Some shells evaluate what they are offered: names are words with hyphens, and of summaries only the words are left.
    """
    specs = [spec for spec in find() if KEBAB.fullmatch(spec.name) and spec.name.startswith(incomplete)]
    return [(spec.name, " ".join(re.findall(r"[^\W_]+", spec.summary[:LONGEST]))) for spec in specs]


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name, kind:name, distribution/name, class name, module:Class or path/file.py[:Class]",
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
    write_entry("", spec.summary)
    write()
    write_entry("class", spec.target)
    write_entry(
        "provider", f"{spec.provider} {spec.version}" + (", built in" if spec.builtin else "") if spec.provider else ""
    )
    write_entry("file", f"{spec.file}:{spec.line}" if spec.file else "")
    write_entry("status", spec.status)
    card = spec.card
    if card is not None:
        for form in card.formats:
            outputs = f", cross-encoder outputs: {form.outputs}" if form.outputs is not None else ""
            write_entry("data", f"{' '.join(form.inputs)}, labels: {form.labels}{outputs}")
        write_entry("encoders", ", ".join(card.encoders))
        write_entry("needs", ", ".join(card.needs))
        if spec.kind in ("loss", "wrapper"):
            write_entry("nature", ", ".join(_traits(card)))
            write_entry("memory", f"O({card.memory})")
        write_entry("formula", card.formula)
        write_entry("aliases", ", ".join(card.aliases))
        write_entry("requires", ", ".join(card.requires))
        for name in ("requirements", "relations"):
            for sentence in getattr(card, name):
                write_entry(name, sentence)
        write_entry("goes with", ", ".join(card.recommends))
        for check, reason in card.deviations.items():
            write_entry("deviation", f"{check}: {reason}")
    if spec.options:
        write()
        write("options")
        write_table(["name", "type", "default", "choices"], map(_option, spec.options))
    if spec.status == "ok":
        write()
        write("example")
        _example(spec)
    if card is not None and card.citation:
        write()
        write("citation")
        write_text(card.citation.strip())


def _traits(card: Card) -> list[str]:
    traits = {
        "a mean over rows": card.row_wise,
        "draws random numbers": card.stochastic,
        "bound to the encoder's width": card.fixed_dimension,
    }
    return [name for name, holds in traits.items() if holds]


def _option(option: Option) -> list[str]:
    default = "required" if option.required else str(option.default)
    return [option.name, option.type, default, " ".join(map(str, option.choices))]


def _example(spec: Spec) -> None:
    """How to build it in Python and name it in a recipe, with placeholders for what it requires."""
    required = {option.name: "..." for option in spec.options if option.required}
    name = reference_to(spec) if spec.provider else spec.name
    pairs = ", ".join(f"{key}: {value}" for key, value in {"name": name, **required}.items())
    recipe = f"{{{pairs}}}"
    python = ", ".join(f'"{key}": {value}' for key, value in required.items())
    expression = f'{{"name": "{name}", {python}}}' if required else f'"{name}"'
    section = "loss" if spec.kind == "wrapper" else spec.kind
    if not is_target(spec.name):
        write_entry("recipe", f"{section}: {recipe if required else name}")
    model = ", model" if section == "loss" else f', kind="{spec.kind}"'
    write_entry("Python", f"losskit.build({expression}{model})")
