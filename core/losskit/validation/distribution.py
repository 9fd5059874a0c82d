"""The check of a distribution's metadata: what installers, resolvers and type checkers read of a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from .. import __version__
from ..cache import Cache
from ..policy import BUILTIN, normalize
from ..source import Sources, UnreadableError
from ..spec import Spec
from .findings import NotApplicable, Violation

__all__ = ["packaging"]

BOUNDED = ("<", "<=", "~=", "==", "===")
"""Operators that keep out versions of losskit which are not yet known."""


def packaging(spec: Spec) -> Iterator[Violation]:
    """The distribution bounds losskit, leaves torch free, and says what it is, for whom and under which licence."""
    if not spec.provider:
        raise NotApplicable("no distribution registers it")
    distribution = metadata.distribution(spec.provider)
    headers = distribution.metadata
    file = _metadata_file(distribution)
    for message, expected, got in (
        *(() if normalize(spec.provider) == BUILTIN else _requirement_on_losskit(distribution)),
        *_pinned_torch(distribution),
        *_headers(headers),
    ):
        yield Violation(f"{spec.provider}: {message}", expected, got, file=file)
    if not _typed(spec):
        message = f"{spec.provider}: its package has no py.typed, so type checkers ignore its annotations"
        yield Violation(message, "a file py.typed in the package", "none", file=file)


_Flaw = tuple[str, str, str]


def _requirements(distribution: metadata.Distribution) -> Iterator[Requirement]:
    """What it requires here without extras; what cannot be read is the entry point's affair."""
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _requirement_on_losskit(distribution: metadata.Distribution) -> Iterator[_Flaw]:
    expected = f"losskit with a range that holds {__version__}, such as losskit~={_series(__version__)}"
    found = [each for each in _requirements(distribution) if normalize(each.name) == BUILTIN]
    if not found:
        yield "it does not require losskit", expected, "no such requirement"
    for requirement in found:
        if requirement.url:
            continue  # one version and no other
        if not requirement.specifier.contains(__version__, prereleases=True):
            yield "it requires another losskit than this", expected, str(requirement)
        if not any(each.operator in BOUNDED for each in requirement.specifier):
            yield "its requirement on losskit has no upper bound", expected, str(requirement)


def _series(version: str) -> str:
    """The first two numbers of a version.

    >>> _series("1.2.3")
    '1.2'
    """
    return ".".join(version.split(".")[:2])


def _pinned_torch(distribution: metadata.Distribution) -> Iterator[_Flaw]:
    for requirement in _requirements(distribution):
        for each in requirement.specifier if normalize(requirement.name) == "torch" else ():
            if each.operator == "===" or (each.operator == "==" and not each.version.endswith(".*")):
                yield "it allows a single version of torch", "a range, such as torch>=2.6", str(requirement)


def _headers(headers: metadata.PackageMetadata) -> Iterator[_Flaw]:
    licences = ("License-Expression", "License", "License-File")
    classified = any(each.startswith("License ::") for each in headers.get_all("Classifier") or ())
    if not _said(headers, "Summary"):
        yield "its metadata have no summary", "a description in pyproject.toml", "nothing"
    if not classified and not any(_said(headers, each) for each in licences):
        yield "its metadata name no licence", "a license in pyproject.toml", "nothing"
    if not _said(headers, "Requires-Python"):
        yield "its metadata do not say which Python it needs", "requires-python in pyproject.toml", "nothing"


def _said(headers: metadata.PackageMetadata, name: str) -> bool:
    text = (headers.get_all(name) or [""])[0].strip()
    return text not in ("", "UNKNOWN")


def _typed(spec: Spec) -> bool:
    """Whether one of the packages around the class has the marker; a lone module cannot have it."""
    sources = Sources(Cache())
    parts = spec.target.partition(":")[0].split(".")
    try:
        around = [sources.locate(".".join(parts[:count])) for count in range(1, len(parts) + 1)]
    except UnreadableError:
        return True  # the entry point's affair
    folders = [folder for each in around for folder in each.submodule_search_locations or ()]
    return not folders or any(_there(Path(folder, "py.typed")) for folder in folders)


def _there(file: Path) -> bool:
    """Whether a file exists, in a folder or in an archive."""
    archive = next((parent for parent in file.parents if parent.is_file()), None)
    if archive is None:
        return file.is_file()
    from zipfile import ZipFile

    with ZipFile(archive) as opened:
        return file.relative_to(archive).as_posix() in opened.namelist()


def _metadata_file(distribution: metadata.Distribution) -> str | None:
    named = (each for each in distribution.files or () if each.name in ("METADATA", "PKG-INFO"))
    return next((str(distribution.locate_file(each)) for each in named), None)
