"""The registry answers to the incumbent's class names, or says what to write."""

from __future__ import annotations

import pytest

from losskit import NotFoundError, get

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")

BARE = sorted(name for name in original.__all__ if name.endswith("Loss") and not name.startswith("Cached"))
CACHED = sorted(name for name in original.__all__ if name.startswith("Cached"))


@pytest.mark.parametrize("name", BARE)
def test_a_bare_class_name_is_the_dense_loss(name):
    spec = get("loss", name)
    assert (spec.class_name, spec.builtin) == (name, True)


@pytest.mark.parametrize("name", CACHED)
def test_a_cached_class_name_says_what_to_write(name):
    expected = get("loss", name.removeprefix("Cached")).name
    with pytest.raises(NotFoundError, match=f"write {expected} with execution {{name: grad-cache"):
        get("loss", name)


def test_the_command_line_says_it_too(losskit):
    result = losskit("show", "CachedMultipleNegativesRankingLoss")
    assert result.returncode == 2
    assert "write multiple-negatives-ranking with execution {name: grad-cache, mini_batch_size: 32}" in result.stderr
    assert "loss cosent" in losskit("show", "CoSENTLoss").stdout


OF_PAIRS = pytest.importorskip("sentence_transformers.cross_encoder.losses")
SHARED = {"MSELoss": "mse", "MarginMSELoss": "margin-mse", "MultipleNegativesRankingLoss": "multiple-negatives-ranking"}


@pytest.mark.parametrize(
    "name", sorted(name for name in OF_PAIRS.__all__ if name.endswith("Loss") and name not in CACHED)
)
def test_class_names_of_cross_encoder_losses_are_found_unless_a_dense_one_has_them(name):
    spec = get("loss", name)
    assert (spec.class_name, spec.builtin) == (name, True)
    assert spec.name == SHARED.get(name, spec.name)
    assert ("cross-encoder" in spec.card.encoders) == (name not in ("MSELoss", "MultipleNegativesRankingLoss"))


FAMILIES = ("sparse_encoder", "multi_vector_encoder")
OF_FAMILIES = [
    name
    for family in FAMILIES
    for name in sorted(pytest.importorskip(f"sentence_transformers.{family}.losses").__all__)
    if name != "FlopsLoss"  # which is a regularizer
]


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_class_names_of_sparse_and_multi_vector_losses_are_found_or_say_what_to_write(name):
    bare = name.removeprefix("Cached").removeprefix("Sparse").removeprefix("MultiVector")
    expected = get("loss", bare)
    assert {"sparse", "multi-vector"} & {*expected.card.encoders}
    if bare == name:
        assert expected.class_name == name
        return
    with pytest.raises(NotFoundError, match=f"write {expected.name}( |;)"):
        get("loss", name)
