"""What is asked before a component is written, and the names that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from .rows import rows_of
from .shapes import Shape

__all__ = ["GROUPS", "LICENCES", "Answers"]

LICENCES = ("Apache-2.0", "MIT", "BSD-3-Clause")
"""SPDX identifiers of the licences whose text is at hand."""
GROUPS = {
    "loss": "losses",
    "wrapper": "wrappers",
    "regularizer": "regularizers",
    "weighting": "weightings",
    "similarity": "similarities",
    "encoder": "encoders",
}
"""The entry-point group of each kind, below `losskit.`."""
MODELS = {
    "dense": "sentence-transformers/all-MiniLM-L6-v2",
    "sparse": "distilbert/distilbert-base-uncased",
    "multi-vector": "sentence-transformers/all-MiniLM-L6-v2",
    "cross-encoder": "microsoft/MiniLM-L12-H384-uncased",
}
"""What the examples of a README begin with, for each family."""
THEIRS = {
    "dense": "SentenceTransformer",
    "sparse": "SparseEncoder",
    "multi-vector": "MultiVectorEncoder",
    "cross-encoder": "CrossEncoder",
}
"""The model of sentence-transformers for each family, whose trainer is named after it."""
_CLASSES = {"wrapper": "Loss"}
_FUNCTIONS = {
    "loss": "loss",
    "wrapper": "term",
    "regularizer": "penalty",
    "weighting": "weights",
    "similarity": "scores",
    "encoder": "vectors",
}


@dataclass(frozen=True)
class Answers:
    """A component that is to be written.

    Args:
        kind: "loss", "wrapper", "regularizer", "weighting", "similarity" or "encoder".
        name: kebab-case.
        shape: what it reads.
        encoders: families it works with; none for a weighting.
        summary: one sentence.
        author: a name.
        email: may be empty.
        licence: one of `LICENCES`.
        distribution: what is published.
        losskit: the range of losskit that it requires, such as ">=1.2,<2".

    >>> from losskit_templates import SHAPES
    >>> answers = Answers("loss", "my-margin", SHAPES["loss"]["in-batch"], ("dense",), "Keeps a margin.", "Ada")
    >>> answers.class_name, answers.function, answers.target
    ('MyMarginLoss', 'my_margin_loss', 'losskit_my_margin.my_margin:MyMarginLoss')
    """

    kind: str
    name: str
    shape: Shape
    encoders: tuple[str, ...] = ()
    summary: str = ""
    author: str = ""
    email: str = ""
    licence: str = LICENCES[0]
    distribution: str = ""
    losskit: str = ""

    @property
    def group(self) -> str:
        """The entry-point group, below `losskit.`."""
        return GROUPS[self.kind]

    @property
    def a_kind(self) -> str:
        """The kind with its article."""
        return f"{'an' if self.kind == 'encoder' else 'a'} {self.kind}"

    @property
    def module(self) -> str:
        """The module of the component: its name without the kind at the end."""
        return self.name.removesuffix(f"-{_suffix(self.kind).lower()}").replace("-", "_")

    @property
    def class_name(self) -> str:
        """The class."""
        words = self.module.split("_")
        return "".join(word[:1].upper() + word[1:] for word in words) + _suffix(self.kind)

    @property
    def function(self) -> str:
        """The pure function beside the class."""
        return f"{self.module}_{_FUNCTIONS[self.kind]}"

    @property
    def reference(self) -> str:
        """The same in loops."""
        return f"{self.module}_reference"

    @property
    def project(self) -> str:
        """The distribution's name."""
        return self.distribution or f"losskit-{self.name}"

    @property
    def package(self) -> str:
        """The package that is imported."""
        return self.project.lower().replace("-", "_").replace(".", "_")

    @property
    def target(self) -> str:
        """What the entry point names."""
        return f"{self.package}.{self.module}:{self.class_name}"

    def context(self) -> dict[str, Any]:
        """Everything that templates may name."""
        stated = {item.name: getattr(self, item.name) for item in fields(self)}
        derived = ("a_kind", "group", "module", "class_name", "function", "reference", "project", "package", "target")
        fixed = {"models": MODELS, "theirs": THEIRS, "rows": rows_of(self.shape)}
        return {**stated, **{name: getattr(self, name) for name in derived}, **fixed}


def _suffix(kind: str) -> str:
    return _CLASSES.get(kind, kind.capitalize())
