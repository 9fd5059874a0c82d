from __future__ import annotations

from pathlib import Path

import pytest

import losskit
from losskit import GradCache, NotFoundError, PluginError, RecipeError, build, registry

TOY = """
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Literal

import losskit
from losskit import Card

if TYPE_CHECKING:
    from losskit import Loss, Similarity
    from somewhere import Unknown


class Colour(enum.Enum):
    RED = "red"


class Toy:
    card = Card()

    def __init__(
        self,
        model=None,
        scale: float = 1.0,
        count: int = 1,
        flag: bool = False,
        dims: tuple[int, ...] = (),
        per_size: dict[int, float] | None = None,
        mode: Literal["a", "b"] = "a",
        colour: Colour = Colour.RED,
        path: Path | None = None,
        function: Callable | None = None,
        anything=None,
        unknown: "Unknown" = None,
        similarity: "str | Similarity | None" = None,
        measure: losskit.Similarity | None = None,
        measures: Sequence[losskit.Similarity] = (),
        losses: "Mapping[str, Loss]" = {},
    ):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
        if scale < 0:
            raise ValueError("scale is negative")
"""


@pytest.fixture
def toy(site):
    site.add("lk-toy", points={"losses": {"toy": "lk_toy:Toy"}}, modules={"lk_toy.py": TOY})
    registry.refresh()
    return lambda model=None, **options: build({"name": "toy", **options}, model)


def test_a_name_alone_takes_the_defaults() -> None:
    loss = build("cosent")
    assert (type(loss).__name__, loss.scale) == ("CoSENTLoss", 20.0)
    assert loss.model is None
    assert type(build("similarity:dot", kind="similarity")).__name__ == "DotSimilarity"


def test_the_model_reaches_the_constructor(toy) -> None:
    model = object()
    assert build("toy", model).model is model
    with pytest.raises(RecipeError, match=r"^loss.model: "):
        build({"name": "toy", "model": 1}, model)


def test_options_are_checked_strictly_but_json_fills_types(toy) -> None:
    loss = toy(scale=2, dims=[1, 2], per_size={64: 1}, mode="b", colour="red", path="a/b", anything=[1], count=3)
    assert (loss.scale, loss.dims, loss.per_size, loss.mode) == (2.0, (1, 2), {64: 1.0}, "b")
    assert (loss.colour.name, loss.path, loss.anything, loss.count) == ("RED", Path("a/b"), [1], 3)
    assert toy(function=len).function is len


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scal": 1}, r"^loss.scal: expected an option of toy \(scale, count, .*\), got an unknown one. Fix: did you"),
        ({"zzz": 1}, r"^loss.zzz: .*Fix: remove it"),
        ({"execution": "direct"}, r"^loss.execution: "),
        ({"scale": "20"}, r"^loss.scale: expected a valid number, got '20'"),
        ({"scale": True}, r"^loss.scale: expected a valid number, got True"),
        ({"count": 2.5}, r"^loss.count: expected a valid integer"),
        ({"flag": "yes"}, r"^loss.flag: expected a valid boolean, got 'yes'"),
        ({"flag": 1}, r"^loss.flag: "),
        ({"dims": [1, "x"]}, r"^loss.dims.1: expected a valid integer, got 'x'"),
        ({"dims": 3}, r"^loss.dims: expected a valid array, got 3"),
        ({"mode": "c"}, r"^loss.mode: expected 'a' or 'b', got 'c'"),
        ({"function": "len"}, r"^loss.function: expected .*callable"),
        ({"similarity": 5}, r"^loss.similarity: expected a valid string, got 5$"),
        ({"scale": -1.0}, r"^loss \(toy\): got ValueError: scale is negative"),
    ],
)
def test_wrong_options_are_refused_with_their_path(toy, options, said) -> None:
    with pytest.raises(RecipeError, match=said):
        toy(**options)


@pytest.mark.parametrize("expression", [None, 3, {}, {"name": 3}, {"scale": 1}, ["cosent"]])
def test_what_is_no_expression_is_refused(expression) -> None:
    with pytest.raises(RecipeError, match=r"^loss: expected a name, or a mapping with 'name'"):
        build(expression)


def test_components_are_built_where_annotations_take_them(toy) -> None:
    dot = build("dot", kind="similarity")
    loss = toy(measure="cosine", measures=["dot", {"name": "euclidean"}, dot], similarity="cosine")
    assert type(loss.measure).__name__ == "CosineSimilarity"
    assert [type(item).__name__ for item in loss.measures] == ["DotSimilarity", "EuclideanSimilarity", "DotSimilarity"]
    assert loss.measures[2] is dot
    assert loss.similarity == "cosine"
    assert toy(similarity=dot).similarity is dot


def test_inner_losses_get_the_same_model_also_through_type_checking_imports(toy) -> None:
    model = object()
    inner = toy(model, losses={"one": {"name": "toy", "scale": 3}, "two": "toy"}).losses
    assert (inner["one"].scale, inner["one"].model is model, inner["two"].model is model) == (3.0, True, True)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ({"name": "matryoshka", "dims": [2], "loss": {"name": "cosent", "scal": 1}}, r"^loss.loss.scal: "),
        ({"name": "weighted-sum", "losses": {"a": {"name": "cosent", "scale": "x"}}}, r"^loss.losses.a.scale: "),
        ({"name": "matryoshka", "loss": "cosent"}, r"^loss.dims: expected a value, got none. Fix: matryoshka needs it"),
    ],
)
def test_nested_options_are_named_by_their_whole_path(expression, said) -> None:
    with pytest.raises(RecipeError, match=said):
        build(expression)


def test_references_inside_are_resolved_like_others() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'cosent'"):
        build({"name": "matryoshka", "dims": [2], "loss": "cosnt"})


def test_a_component_that_does_not_load_is_a_plugin_error(site) -> None:
    source = "from losskit import Card\nclass Toy:\n    card = Card()\nraise RuntimeError('boom')\n"
    site.add("lk-a", points={"losses": {"toy": "lk_a:Toy"}}, modules={"lk_a.py": source})
    registry.refresh()
    with pytest.raises(PluginError, match=r"lk-a 1\.0"):
        build("toy")


def test_execution_goes_to_the_outermost_loss() -> None:
    expression = {"name": "matryoshka", "dims": [2], "loss": "cosent"}
    loss = build(expression, execution={"name": "grad-cache", "mini_batch_size": 4})
    assert loss.execution == GradCache(mini_batch_size=4)
    assert build(expression, execution=GradCache()).execution == GradCache()
    with pytest.raises(RecipeError, match=r"^execution.name: "):
        build("cosent", execution="cached")


def test_execution_for_what_takes_none_is_refused(toy) -> None:
    with pytest.raises(RecipeError, match="an execution, which toy does not take"):
        build("toy", execution="direct")


def test_an_encoders_model_is_an_option_of_its_own(site) -> None:
    source = "from losskit import Card\nclass Enc:\n    card = Card()\n    def __init__(self, model: str):"
    source += " self.model = model\n"
    site.add("lk-a", points={"encoders": {"enc": "lk_a:Enc"}}, modules={"lk_a.py": source})
    registry.refresh()
    assert build({"name": "enc", "model": "folder"}, kind="encoder").model == "folder"
    with pytest.raises(RecipeError, match=r"^encoder.model: expected a value, got none"):
        build("enc", kind="encoder")
    assert [option.name for option in registry.get("encoder", "enc").options] == ["model"]


def test_prompts_of_an_encoder_name_no_components(site) -> None:
    source = """
from collections.abc import Mapping
from losskit import Card, Similarity

class Mine:
    card = Card()
    def __init__(self, prompts: "Mapping[str, Similarity] | None" = None): self.prompts = prompts
"""
    modules = {"lk_enc.py": source, "lk_more.py": "class Other: ...\n"}
    site.add("lk-enc", points={"encoders": {"mine": "lk_enc:Mine"}}, modules=modules)
    registry.refresh()
    with pytest.raises(RecipeError, match=r"^encoder\.prompts\.query: .*got 'lk_more:Other'$"):
        build({"name": "mine", "prompts": {"query": "lk_more:Other"}}, kind="encoder")
    assert site.imported == {"lk_enc"}


def test_config_of_a_built_loss_builds_it_again() -> None:
    expression = {"name": "matryoshka", "dims": [4, 2], "loss": {"name": "cosent", "scale": 3.0}}
    loss = build(expression)
    assert losskit.registry.name_of(type(loss)) == "matryoshka"
    assert (loss.dims, loss.loss.scale) == ((4, 2), 3.0)
