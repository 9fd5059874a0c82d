"""What `losskit new` writes: a package for a component of each kind, or its one file, as text by path.

Every template ends in `.tmpl`, so that nothing here is imported, collected or linted as code of losskit. This package
imports nothing but jinja2, and writes nothing: `losskit_cli` asks, checks and writes.
"""

from .answers import LICENCES, Answers
from .rendering import package, single_file
from .shapes import SHAPES, Shape, default_shape, shape_like

__all__ = ["LICENCES", "SHAPES", "Answers", "Shape", "default_shape", "package", "shape_like", "single_file"]
