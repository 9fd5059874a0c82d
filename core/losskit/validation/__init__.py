"""Validation of components, level by level, in processes of their own; free of torch itself.

from losskit.validation import validate

report = validate("path/to/file.py:MyLoss", inputs=["anchor", "positive"])
assert report.fine, report.findings
"""

from .report import LEVELS, Check, Report
from .run import validate, validate_all
from .target import Target, all_targets, resolve

__all__ = ["LEVELS", "Check", "Report", "Target", "all_targets", "resolve", "validate", "validate_all"]
