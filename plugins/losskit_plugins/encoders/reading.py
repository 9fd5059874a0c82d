"""Reads model folders with transformers: quietly, and with its errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from losskit.errors import ModelError

__all__ = ["quiet", "reading"]


@contextmanager
def reading(folder: Path, wanted: str) -> Iterator[None]:
    """Turn what transformers raises over a folder into one line.

    Raises:
        ModelError: for the errors that a folder can cause.
    """
    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(str(folder), expected=wanted, got=line) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and reports of transformers off the terminal."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
