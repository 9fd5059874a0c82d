"""The README.md of a trained model, with front matter for the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from losskit import Encoder, Loss
from losskit.recipe import Recipe

from .run import rows_of_metrics

__all__ = ["model_card"]

INCUMBENT = {
    "dense": "SentenceTransformer",
    "sparse": "SparseEncoder",
    "multi-vector": "MultiVectorEncoder",
    "cross-encoder": "CrossEncoder",
}
USAGE = {
    "dense": 'embeddings = model.encode(["How do I clean a kettle?", "Boil vinegar in it."])',
    "sparse": 'embeddings = model.encode(["How do I clean a kettle?", "Boil vinegar in it."])',
    "multi-vector": 'embeddings = model.encode(["How do I clean a kettle?"], role="query")',
    "cross-encoder": 'scores = model.encode([("How do I clean a kettle?", "Boil vinegar in it.")])',
}
TASKS = {"dense": "sentence-similarity", "cross-encoder": "text-ranking"}


def model_card(
    *,
    name: str,
    encoder: Encoder,
    loss: Any,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    incumbent: bool = True,
) -> str:
    """A model card in Markdown.

    Args:
        name: of the model's folder.
        encoder: what was trained.
        loss: what it was trained with.
        recipe: filled in.
        metrics: as in metrics.json.
        provenance: as in provenance.json.
        incumbent: whether sentence-transformers opens the folder.
    """
    losses = [type(each).__name__ for _, each in loss.tree()] if isinstance(loss, Loss) else [type(loss).__name__]
    family = encoder.family
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_template()).render(
        front_matter=_front_matter(family, losses, recipe, incumbent),
        title=name,
        summary=_summary(encoder, losses, recipe, incumbent),
        usage=getattr(encoder, "usage", USAGE[family]),
        incumbent=INCUMBENT[family] if incumbent else "",
        metrics=rows_of_metrics(metrics["before"], metrics["after"]),
        train=metrics["train"],
        data=[(part, each["rows"], file) for part, each in provenance["data"].items() for file in each["files"]],
        recipe=fenced("yaml", recipe.to_yaml()),
        versions=", ".join(f"{package} {version}" for package, version in provenance["versions"].items()),
        components=provenance["components"],
        citation=fenced("bibtex", loss.citation) if isinstance(loss, Loss) and loss.citation else "",
    )


def fenced(language: str, text: str) -> str:
    """A block of code in Markdown, which nothing in it can end.

    >>> print(fenced("yaml", "a: 1"))
    ```yaml
    a: 1
    ```
    """
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    lines = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in text.rstrip().split("\n")]
    return "\n".join([f"{fence}{language}", *lines, fence])


def _template() -> str:
    return files("losskit_plugins.training").joinpath("model_card.md.jinja").read_text(encoding="utf-8")


def _front_matter(family: str, losses: list[str], recipe: Recipe, incumbent: bool) -> str:
    base = _base(recipe)
    tags = ["losskit", family, *(f"loss:{name}" for name in losses)]
    entries: dict[str, Any] = {"library_name": "losskit", "tags": tags}
    if incumbent:
        entries = {
            "library_name": "sentence-transformers",
            "pipeline_tag": TASKS.get(family, "feature-extraction"),
            "tags": ["sentence-transformers", *tags],
        }
    # The hub shows where a model comes from, if the name can be one of the hub's and not a folder's.
    if base is not None and base.count("/") == 1 and not Path(base).exists() and not base.startswith((".", "/")):
        entries["base_model"] = base
    return yaml.safe_dump(entries, sort_keys=False)


def _summary(encoder: Encoder, losses: list[str], recipe: Recipe, incumbent: bool) -> str:
    family, dimension = encoder.family, encoder.dimension
    kind = "cross-encoder" if family == "cross-encoder" else f"{family} text encoder"
    if not incumbent:
        kind = f"model of class `{type(encoder).__name__}`"
    width = f" of {dimension} dimensions" if dimension is not None and family != "cross-encoder" else ""
    wrapped = " around ".join(f"`{name}`" for name in losses)
    start = f" from `{base}`" if (base := _base(recipe)) else ""
    return f"A {kind}{width}, trained{start} with {wrapped}."


def _base(recipe: Recipe) -> str | None:
    """The model that training started from."""
    base = recipe.encoder.get("model") if isinstance(recipe.encoder, dict) else None
    return base if isinstance(base, str) else None
