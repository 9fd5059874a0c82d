from __future__ import annotations

import pytest
import torch
from torch import nn

from losskit.errors import DataError, RecipeError
from losskit_plugins.encoders.inference import check_pairs, check_texts, evaluating, in_batches


def test_results_come_in_the_order_of_the_items_whatever_the_batches() -> None:
    seen: list[list[str]] = []

    def run(batch: list[str]) -> torch.Tensor:
        seen.append(batch)
        return torch.tensor([float(len(text)) for text in batch])

    items = ["ccc", "a", "dddd", "bb", "a"]
    results = in_batches(items, run, length=len, batch_size=2, progress=False)
    assert [result.item() for result in results] == [3, 1, 4, 2, 1]
    assert seen == [["dddd", "ccc"], ["bb", "a"], ["a"]]


def test_progress_is_written_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    in_batches(["a"], lambda batch: torch.zeros(1), length=len, batch_size=1, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Encoding" in captured.err


def test_nothing_is_shown_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    in_batches(["a"], lambda batch: torch.zeros(1), length=len, batch_size=1, progress=False)
    assert capsys.readouterr() == ("", "")


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(RecipeError, match="batch_size: expected 1 or more, got 0"):
        in_batches(["a"], lambda batch: torch.zeros(1), length=len, batch_size=0, progress=False)


def test_every_part_returns_to_its_own_mode_even_after_an_error() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout())).train()
    module[1].eval()

    def fail() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            assert torch.is_inference_mode_enabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [part.training for part in module.modules()] == [True, True, False, False]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("abc", "texts: expected a list of texts, got a single one. Fix: put it in a list"),
        (["a", None], "text 2 of 2: expected a string, got None"),
        ([3.5], "text 1 of 1: expected a string, got 3.5"),
    ],
)
def test_what_is_no_text_is_named(texts: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        check_texts(texts)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("abc", "pairs: expected a list of (query, document), got a single text"),
        (["ab"], "pair 1 of 1: expected (query, document), both strings, got 'ab'"),
        ([("a", "b"), ("a",)], "pair 2 of 2: expected (query, document), both strings, got ('a',)"),
        ([("a", None)], "pair 1 of 1: expected (query, document), both strings, got ('a', None)"),
        ([None], "pair 1 of 1: expected (query, document), both strings, got None"),
    ],
)
def test_what_is_no_pair_is_named(pairs: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        check_pairs(pairs)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_pairs_may_be_lists() -> None:
    assert check_pairs([["a", "b"]]) == [("a", "b")]
