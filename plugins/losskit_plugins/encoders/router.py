"""Folders of models in which queries and documents take different ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losskit.errors import ModelError

from .folder import inside, read_json, write_json
from .layout import TYPES, Stage, kind_of

__all__ = ["Router"]

FILE = "router_config.json"

Routes = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Router:
    """The routes of a folder.

    Args:
        routes: the modules on each, by the role of texts.
        default: the route of texts of no role.
    """

    routes: Mapping[str, list[Stage]]
    default: str

    @classmethod
    def read(cls, folder: Path, kinds: Routes) -> Router:
        """The routes of a model folder.

        Args:
            folder: of the router.
            kinds: what the encoder can honour: the kinds of the modules on each route.

        Raises:
            ModelError: there are others.
        """
        path = folder / FILE
        config = read_json(path, dict)
        try:
            stages = {
                route: [Stage(kind_of(config["types"][name]), inside(folder, name), f"module {name}") for name in names]
                for route, names in config["structure"].items()
            }
            parameters = dict(config["parameters"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(str(path), expected="types, structure and parameters", got=repr(error)) from error
        found = {route: [stage.kind for stage in modules] for route, modules in stages.items()}
        if found != {route: list(modules) for route, modules in kinds.items()}:
            raise ModelError(
                str(path),
                expected=_shown(kinds),
                got=_shown(found),
                fix="open it with sentence-transformers and give that object to losskit as the model",
            )
        return cls(stages, _default(parameters, stages, path))

    @classmethod
    def write(cls, folder: Path, kinds: Routes, default: str) -> Router:
        """Describe routes in a model folder, and say where each module's files belong."""
        routes = {
            route: [
                Stage(kind, folder / f"{route}_{place}_{kind}", f"module {route}_{place}_{kind}")
                for place, kind in enumerate(modules)
            ]
            for route, modules in kinds.items()
        }
        content = {
            "types": {stage.folder.name: TYPES[stage.kind] for modules in routes.values() for stage in modules},
            "structure": {route: [stage.folder.name for stage in modules] for route, modules in routes.items()},
            "parameters": {"default_route": default, "allow_empty_key": True, "route_mappings": {}},
        }
        write_json(folder / FILE, content, indent=4)
        return cls(routes, default)


def _shown(routes: Routes) -> str:
    return "; ".join(f"{route}: {', '.join(modules)}" for route, modules in routes.items())


def _default(parameters: Mapping[str, Any], routes: Mapping[str, Any], path: Path) -> str:
    """The route of texts of no role: the first where none is named."""
    if parameters.get("route_mappings"):
        raise ModelError(f"'route_mappings' in {path}", expected="none", got=repr(parameters["route_mappings"]))
    default = parameters.get("default_route")
    if default is None:
        return next(iter(routes))
    if not isinstance(default, str) or default not in routes:
        raise ModelError(f"'default_route' in {path}", expected=f"one of {', '.join(routes)}", got=repr(default))
    return default
