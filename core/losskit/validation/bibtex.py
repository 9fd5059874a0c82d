"""BibTeX, as far as it takes to see that it is some."""

from __future__ import annotations

import re

__all__ = ["BibtexError", "entries"]

_HEAD = re.compile(r"@(\w+)\s*\{")
_KEY = re.compile(r"\s*([^\s,{}\"#%'()=]+)\s*,")
_FIELD = re.compile(r"\s*([A-Za-z][\w-]*)\s*=\s*")
_WORD = re.compile(r"\w+")


class BibtexError(ValueError):
    """What is wrong with a text as BibTeX."""

    def __init__(self, message: str, expected: str, got: str) -> None:
        super().__init__(message)
        self.expected, self.got = expected, got


def entries(text: str) -> dict[str, dict[str, str]]:
    """The entries of a text by their keys, each with its fields.

    Raises:
        BibtexError: it has none, or one that does not parse.

    >>> entries("@misc{me, title = {A {B}}, year = 2026}")
    {'me': {'title': 'A {B}', 'year': '2026'}}
    """
    found: dict[str, dict[str, str]] = {}
    end = 0
    while (head := _HEAD.search(text, end)) is not None:
        stop = _closing(text, head.end() - 1)
        key, fields = _entry(text[head.end() : stop])
        if key in found:
            raise BibtexError(f"two entries have the key {key!r}", "keys that differ", repr(key))
        found[key] = fields
        end = stop + 1
    if not found:
        raise BibtexError("there is no entry", "@article{key, title = {...}, ...}", repr(text[:40]))
    if "}" in text[end:]:
        raise BibtexError("braces do not balance", "each { closed once", "a } too many")
    return found


def _closing(text: str, start: int) -> int:
    """The place of the brace that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise BibtexError("braces do not balance", "each { closed once", f"{depth} that stay open")


def _entry(body: str) -> tuple[str, dict[str, str]]:
    key = _KEY.match(body)
    if key is None:
        raise BibtexError("an entry has no key", "@type{key, ...}", repr(body.strip()[:40]))
    fields: dict[str, str] = {}
    place = key.end()
    while body[place:].strip():
        field = _FIELD.match(body, place)
        if field is None:
            raise BibtexError(f"entry {key[1]!r} does not go on with a field", "name = {value}", _near(body, place))
        fields[field[1].lower()], place = _value(body, field.end())
        place += len(body[place:]) - len(body[place:].lstrip())
        if body[place:] and body[place] != ",":
            raise BibtexError(f"a comma is missing in entry {key[1]!r}", f"one after {field[1]}", _near(body, place))
        place += 1
    if not fields:
        raise BibtexError(f"entry {key[1]!r} has no fields", "title = {...}, ...", "none")
    return key[1], fields


def _value(body: str, place: int) -> tuple[str, int]:
    """A value in braces or quotes, a word or a number, and where it ends."""
    if body[place : place + 1] == "{":
        stop = _closing(body, place)
        return body[place + 1 : stop], stop + 1
    if body[place : place + 1] == '"':
        stop = body.find('"', place + 1)
        if stop < 0:
            raise BibtexError("a quotation mark stays open", 'a closing "', _near(body, place))
        return body[place + 1 : stop], stop + 1
    word = _WORD.match(body, place)
    if word is None:
        raise BibtexError("a field has no value", "{...}, a number or a word", _near(body, place))
    return word[0], word.end()


def _near(body: str, place: int) -> str:
    return repr(" ".join(body[place : place + 40].split()))
