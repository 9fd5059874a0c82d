"""`losskit list`: every component, read without importing any."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from losskit.card import FAMILIES, INPUTS, KINDS, LABELS
from losskit.registry import Problem, Spec, find, problems
from losskit.spec import STATUSES

from .output import say, write_json, write_table

__all__ = ["among", "list_components", "record"]


def among(choices: tuple[str, ...]) -> Any:
    """Completes one of these, the last of several separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + choice for choice in choices if choice.startswith(last)]

    return complete


def list_components(
    kind: Annotated[str | None, typer.Option(help="One of: " + ", ".join(KINDS), autocompletion=among(KINDS))] = None,
    encoder: Annotated[
        str | None, typer.Option(help="One of: " + ", ".join(FAMILIES), autocompletion=among(FAMILIES))
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="Columns of the data, such as anchor,positive", autocompletion=among(INPUTS)),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Labels of the data", autocompletion=among(LABELS))] = None,
    provider: Annotated[str | None, typer.Option(help="A distribution")] = None,
    status: Annotated[
        str | None, typer.Option(help="One of: " + ", ".join(STATUSES), autocompletion=among(STATUSES))
    ] = None,
    search: Annotated[str | None, typer.Option(help="Part of a name or summary; * and ? are wildcards")] = None,
    load: Annotated[bool, typer.Option("--load", help="Also components that plugins generate when run")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is wrong")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
) -> None:
    """List losses, wrappers, regularizers, weightings, similarities and encoders."""
    trouble: list[Problem] = []
    if load:
        from losskit.hooks import generate

        trouble = generate()
    specs = find(
        kind=kind,
        encoder=encoder,
        inputs=inputs.replace(",", " ").split() if inputs is not None else None,
        labels=labels,
        provider=provider,
        status=status,
        search=search,
    )
    trouble = [*problems(), *trouble]
    if as_json:
        write_json({"components": [record(spec) for spec in specs], "problems": [item.to_dict() for item in trouble]})
    else:
        _write(specs)
        for problem in trouble:
            say(problem)
    if strict and any(problem.status != "blocked" for problem in trouble):
        raise typer.Exit(1)
    if not specs:
        say("nothing matched")
        raise typer.Exit(4)


def record(spec: Spec) -> dict[str, Any]:
    """A component as `list --json` shows it."""
    card = spec.card
    return {
        "kind": spec.kind,
        "name": spec.name,
        "class": spec.class_name,
        "target": spec.target,
        "provider": spec.provider,
        "version": spec.version,
        "builtin": spec.builtin,
        "status": spec.status,
        "summary": spec.summary,
        "formats": [{"inputs": list(item.inputs), "labels": item.labels} for item in (card.formats if card else ())],
        "encoders": list(card.encoders) if card else [],
        "options": {
            option.name: {
                "type": option.type,
                "default": option.default,
                "required": option.required,
                "choices": list(option.choices),
            }
            for option in spec.options
        },
    }


def _write(specs: list[Spec]) -> None:
    """One line per component and format."""
    rows = []
    for spec in specs:
        formats = [(" ".join(item.inputs), item.labels) for item in spec.card.formats] if spec.card else []
        encoders = " ".join(spec.card.encoders) if spec.card else ""
        for inputs, labels in formats or [("", "")]:
            rows.append([spec.kind, spec.name, inputs, labels, encoders, spec.provider, spec.status])
    if rows:
        write_table(["kind", "name", "inputs", "labels", "encoders", "provider", "status"], rows, sections=True)
