from __future__ import annotations

import pytest

from losskit.errors import RecipeError
from losskit_plugins.encoders.prompts import Prompts

PROMPTS = Prompts({"query": "query: ", "document": "", "title": "title: "}, default="title")


@pytest.mark.parametrize(
    ("role", "prompt", "expected"),
    [
        ("query", None, "query: "),
        ("document", None, ""),
        ("text", None, "title: "),
        ("title", None, "title: "),
        ("query", "find: ", "find: "),
        ("query", "", ""),
        ("anything", "given: ", "given: "),
    ],
)
def test_the_given_prompt_then_the_role_then_the_default(role: str, prompt: str | None, expected: str) -> None:
    assert PROMPTS.resolve(role, prompt) == expected


def test_without_a_default_plain_texts_have_no_prompt() -> None:
    assert Prompts({"title": "title: "}).resolve("text", None) == ""


def test_a_role_that_is_no_prompt_lists_those_there_are() -> None:
    with pytest.raises(RecipeError) as error:
        PROMPTS.resolve("querry", None)
    assert str(error.value) == "role: expected one of text, query, document, title, got 'querry'"
