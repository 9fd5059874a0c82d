"""The laws of the interface: sound components keep them, and a planted defect breaks the law that is meant for it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from losskit import Card, Format, Loss, ScoreLoss, losses
from losskit.spec import load_target
from losskit.testing import Subject, check, subjects
from losskit.testing.interface_laws import LAWS
from losskit.testing.plain import plain_subjects

IDS = ("protocol", "constructor", "model-child", "options", "returns", "refusals", "copies", "examples")
PAIRS = Format(["text", "text"], labels="score")


class Sound(Loss):
    """Cosines of pairs come near to their labels.

    >>> Sound(factor=3.0).factor
    3.0
    """

    card = Card(formats=[Format(["text", "text"], labels="score")], encoders=["dense", "multi-vector"])

    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.factor = factor
        self.shift = nn.Parameter(torch.rand((), dtype=torch.float64))

    def compute(self, columns, labels, rows):
        scores = self.pairwise(columns[0][rows], columns[1][rows])
        return (self.factor * scores + self.shift - labels.flatten()[rows]).square().mean()


class SoundScores(ScoreLoss):
    card = Card(formats=[Format(["query", "documents"], labels="scores")], encoders=["dense", "cross-encoder"])

    def score(self, scores, labels, where):
        return {"base_loss": (scores - labels).masked_fill(~where, 0).square().mean()}


class Norms:
    card = Card(encoders=["dense"])

    def __init__(self, power: float = 2.0):
        self.power = power

    def __call__(self, queries, documents):
        return documents.embedding.norm(dim=-1).pow(self.power).mean()


class SoundDot:
    card = Card(encoders=["dense"])

    def __call__(self, a, b):
        return a.embedding @ b.embedding.T

    def pairwise(self, a, b):
        return (a.embedding * b.embedding).sum(-1)


class SoundPlain(nn.Module):
    """In the style of sentence-transformers."""

    def __init__(self, model, scale=2.0):
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, sentence_features, labels):
        a, b = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return self.scale * nn.functional.mse_loss(cosine_similarity(a, b), labels.view(-1))


def statuses(subject: Subject) -> dict[str, str]:
    return {each.id: each.status for each in check(subject, only=IDS)}


def broken(subject: Subject, law: str) -> str:
    """What the one law that fails says, beside those that cannot apply."""
    checks = {each.id: each for each in check(subject, only=IDS)}
    assert [each.id for each in checks.values() if each.status == "failed"] == [law]
    found = checks[law]
    assert found.level == "interface"
    assert found.expected
    assert found.cause
    return f"{found.message} | {found.expected} | {found.got}"


def test_these_are_the_laws() -> None:
    assert tuple(law.id for law in LAWS) == IDS
    assert {law.level for law in LAWS} == {"interface"}


@pytest.mark.parametrize("subject", [*subjects(Sound), *subjects(SoundScores)], ids=str)
def test_a_sound_loss_keeps_them(subject) -> None:
    assert set(statuses(subject).values()) <= {"passed", "not_applicable"}
    assert statuses(subject)["refusals"] == "passed"
    assert statuses(subject)["options"] == "passed"


@pytest.mark.parametrize(
    "subject", [Subject(Norms, "regularizer"), Subject(SoundDot, "similarity")], ids=["norms", "dot"]
)
def test_a_sound_component_keeps_them(subject) -> None:
    found = statuses(subject)
    assert {name: status for name, status in found.items() if status != "passed"} == {"examples": "not_applicable"}


@pytest.mark.parametrize("options", [{}, {"scale": 3.0}], ids=["default", "scaled"])
def test_a_sound_plain_module_keeps_them(options) -> None:
    (subject,) = plain_subjects(SoundPlain, options, [PAIRS])
    found = statuses(subject)
    assert {name for name, status in found.items() if status != "passed"} == {"options", "examples"}
    assert {found["options"], found["examples"]} == {"not_applicable"}


# Protocols


class SaysNothing(Sound):
    compute = Loss.compute


class LacksRows(Sound):
    def compute(self, columns, labels):
        return super().compute(columns, labels, slice(0, 6))


class LacksDrawn(Sound):
    def pairs(self, columns):
        return super().pairs(columns)


class NeedsByMethod(Sound):
    def fixed_dimension(self):
        return False


class ScoresWithoutWhere(SoundScores):
    def score(self, scores, labels):
        return (scores - labels).square().mean()


class LacksPairwise(SoundDot):
    pairwise = None


class TakesDocumentsOnly(Norms):
    def __call__(self, documents):
        return documents.embedding.norm()


class PlainWithoutLabels(SoundPlain):
    def forward(self, sentence_features):
        return super().forward(sentence_features, torch.zeros(6))


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (Subject(SaysNothing), "SaysNothing does not say what the loss is | a method compute"),
        (Subject(LacksRows), "LacksRows.compute: too many positional arguments | compute(columns, labels, rows)"),
        (Subject(LacksDrawn), "LacksDrawn.pairs: too many positional arguments | pairs(columns, drawn)"),
        (Subject(NeedsByMethod), "NeedsByMethod.fixed_dimension is a method | a property, or a value"),
        (Subject(ScoresWithoutWhere), "ScoresWithoutWhere.score: too many positional arguments"),
        (Subject(LacksPairwise, "similarity"), "LacksPairwise has no method pairwise | pairwise(a, b)"),
        (Subject(TakesDocumentsOnly, "regularizer"), "TakesDocumentsOnly.__call__: too many positional arguments"),
        (plain_subjects(PlainWithoutLabels, {}, [PAIRS])[0], "PlainWithoutLabels.forward: too many positional"),
    ],
    ids=lambda value: value.looked_at.__name__ if isinstance(value, Subject) else "",
)
def test_a_method_that_cannot_be_called_is_found(subject, message) -> None:
    (found,) = check(subject, only=["protocol"])
    assert found.status == "failed"
    assert f"{found.message} | {found.expected}".startswith(message)


# Construction


class Renames(Sound):
    def __init__(self, model=None, weight: float = 2.0, *, execution=None):
        super().__init__(model, weight, execution=execution)


class Computes(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, 2 * factor, execution=execution)


class TakesExecutionByPlace(Sound):
    def __init__(self, model=None, factor: float = 2.0, execution=None):
        super().__init__(model, factor, execution=execution)


class TakesModelSecond(Sound):
    def __init__(self, factor: Any = 2.0, model=None, *, execution=None):
        super().__init__(factor if model is None else model, 2.0, execution=execution)


class SharesDefault(Sound):
    def __init__(self, model=None, factors: list[float] = [1.0], *, execution=None):  # noqa: B006 - the defect
        super().__init__(model, execution=execution)
        self.factors = factors


class RunsModel(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        if model is not None:
            model(model.preprocess(["a text"]))


class EvaluatesModel(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        if model is not None:
            model.eval()


class HooksModel(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        if model is not None:
            model.register_forward_hook(print)
            del model._forward_hooks[next(iter(model._forward_hooks))]
            model.seen = 0


class RegularizesUnderAnotherName(Norms):
    def __init__(self, exponent: float = 2.0):
        super().__init__(exponent)


class PlainThatPatches(SoundPlain):
    def __init__(self, model):
        super().__init__(model)
        model.encode = lambda texts: None


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (Subject(Renames), "expected every argument stored under its own name"),
        (Subject(Computes), "the argument 'factor' is kept as something else | 2.0 | 4.0"),
        (Subject(TakesExecutionByPlace), "takes no execution by keyword | *, execution=None | a positional argument"),
        (Subject(TakesModelSecond), "does not take the model first | model | factor"),
        (Subject(SharesDefault), "all objects share the default of 'factors'"),
        (Subject(RunsModel), "the constructor runs the model | no forward | 1 forwards"),
        (Subject(EvaluatesModel), "the constructor changes the model | the model as it was | another training mode"),
        (Subject(HooksModel), "the constructor changes the model | the model as it was | another set of attributes"),
        (Subject(RegularizesUnderAnotherName, "regularizer"), "the argument 'exponent' is not kept under its own name"),
    ],
    ids=lambda value: value.looked_at.__name__ if isinstance(value, Subject) else "",
)
def test_a_constructor_that_does_more_or_less_is_found(subject, message) -> None:
    (found,) = check(subject, only=["constructor"])
    assert found.status == "failed"
    assert message in f"{found.message} | {found.expected} | {found.got}"


def test_a_class_is_as_it_was_after_its_constructor_was_watched() -> None:
    before = Sound.__init__, "__init__" in vars(Doubled)
    assert check(Subject(Sound), only=["constructor"])[0].status == "passed"
    assert check(Subject(Doubled), only=["constructor"])[0].status == "passed"
    assert (Sound.__init__, "__init__" in vars(Doubled)) == before


class Doubled(Sound):
    def compute(self, columns, labels, rows):
        return 2 * super().compute(columns, labels, rows)


# The model


class KeepsTwice(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        self.backbone = model


class PlainOfAnotherName(SoundPlain):
    def __init__(self, model):
        super().__init__(model)
        del self.model
        self.encoder = model

    def forward(self, sentence_features, labels):
        a, b = (self.encoder(features)["sentence_embedding"] for features in sentence_features)
        return nn.functional.mse_loss(cosine_similarity(a, b), labels.view(-1))


class PlainInList(PlainOfAnotherName):
    def __init__(self, model):
        super().__init__(model)
        del self.encoder
        self.__dict__["encoder"] = model


class Freezes(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        if model is not None:
            model.words.requires_grad_(False)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (Subject(KeepsTwice), "the model is kept a second time, where no trainer replaces it | self.model | backbone"),
        (
            plain_subjects(PlainOfAnotherName, {}, [PAIRS])[0],
            "no child of the name `model` | self.model = model | child",
        ),
        (
            plain_subjects(PlainInList, {}, [PAIRS])[0],
            "self.model = model | children none",
        ),
        (Subject(Freezes), "a parameter of the model no longer trains | all of them | words.weight"),
    ],
    ids=["twice", "another name", "unregistered", "frozen"],
)
def test_a_model_that_is_not_where_trainers_look_is_found(subject, message) -> None:
    (found,) = check(subject, only=["model-child"])
    assert found.status == "failed"
    assert message in f"{found.message} | {found.expected} | {found.got}"


# Options


class TakesAnything(Sound):
    def __init__(self, model=None, factor=2.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.factor = factor


class Crashes(Sound):
    def __init__(self, model=None, factor: Any = 2.0, *, execution=None):
        super().__init__(model, factor.real, execution=execution)


class RefusesItself(Sound):
    def __init__(self, model=None, factor=2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        if not isinstance(factor, float) or factor <= 0:
            raise ValueError(f"factor: expected a positive number, got {factor!r}")


def test_refuses_nothing_is_found() -> None:
    assert "the option 'factor' takes whatever it is given" in broken(Subject(TakesAnything), "options")


def test_refuses_by_a_crash_is_found() -> None:
    message = broken(Subject(Crashes), "options")
    assert "a wrong value of the option 'factor' ends in AttributeError" in message


def test_refuses_by_its_own_check_is_enough() -> None:
    assert statuses(Subject(RefusesItself))["options"] == "passed"


def test_a_class_inside_of_a_function_has_no_options_to_look_at() -> None:
    class Inside(Sound):
        pass

    (found,) = check(Subject(Inside), only=["options"])
    assert found.status == "not_applicable"
    assert "inside of a function" in found.message


# Values


class GivesRows(Sound):
    def compute(self, columns, labels, rows):
        return self.pairwise(columns[0][rows], columns[1][rows])


class GivesNumber(Sound):
    def compute(self, columns, labels, rows):
        return 1.0


class GivesConstant(Sound):
    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        return {"base_loss": value, "margin": value.detach()}


class NamesByNumbers(Sound):
    def compute(self, columns, labels, rows):
        return {0: super().compute(columns, labels, rows)}


class GivesNothing(Sound):
    def compute(self, columns, labels, rows):
        return {}


class GivesMoreInTraining(Sound):
    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        return {"a": value, "b": value} if torch.is_grad_enabled() else {"a": value}


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (GivesRows, "gives no scalar as the loss | a tensor without axes | shape [6]"),
        (GivesNumber, "gives no scalar as the loss | a tensor without axes | float"),
        (GivesConstant, "margin is not connected to the records | a gradient | a constant"),
        (NamesByNumbers, "gives a component that has no name | texts as keys | 0"),
        (GivesNothing, "gives nothing | a scalar, or a dict of scalars | an empty dict"),
        (GivesMoreInTraining, "without gradients it has other components | ['a', 'b'] | ['a']"),
    ],
)
def test_a_value_that_no_trainer_can_use_is_found(cls, message) -> None:
    (found,) = check(Subject(cls), only=["returns"])
    assert found.status == "failed"
    assert message in f"{found.message} | {found.expected} | {found.got}"


# Refusals


class Broadcasts(Sound):
    def compute(self, columns, labels, rows):
        return (self.factor * self.pairwise(columns[0][rows], columns[1][rows]) - labels[rows]).square().mean()


class TakesWhatComes(Sound):
    def _check(self, columns, labels):
        pass

    def compute(self, columns, labels, rows):
        scores = self.pairwise(columns[0], columns[1])
        return (scores - (0 if labels is None else labels.mean())).square().mean()


class PlainBroadcasts(SoundPlain):
    def forward(self, sentence_features, labels):
        a, b = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return (cosine_similarity(a, b) - labels).square().mean()


class PlainIgnoresLabels(SoundPlain):
    def forward(self, sentence_features, labels):
        a, b = (self.model(features)["sentence_embedding"] for features in sentence_features)
        return 1 - cosine_similarity(a, b).mean()


def test_refuses_labels_in_a_column_or_reads_them_as_one_per_row() -> None:
    message = "labels of shape [n, 1] are not read as one per row"
    (found,) = check(Subject(Broadcasts), only=["refusals"])
    assert found.status == "passed", "the base class reads them so"
    assert message in broken(plain_subjects(PlainBroadcasts, {}, [PAIRS])[0], "refusals")


def test_refuses_a_batch_that_does_not_fit() -> None:
    (found,) = check(Subject(TakesWhatComes), only=["refusals"])
    assert found.status == "failed"
    assert "columns" in found.message
    assert found.expected.startswith("an error that says")


class DropsColumns(nn.Module):
    """A plain loss that takes the first two columns, however many there are."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sentence_features, labels):
        a, b, *_ = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return (torch.cosine_similarity(a, b) - labels.reshape(-1)).square().mean()


def test_refuses_no_column_less_than_it_is_given() -> None:
    message = broken(plain_subjects(DropsColumns, {}, [PAIRS])[0], "refusals")
    assert "3 columns instead of 2: the last one is dropped in silence" in message


def test_refuses_to_go_without_labels() -> None:
    message = broken(plain_subjects(PlainIgnoresLabels, {}, [PAIRS])[0], "refusals")
    assert "no labels: the loss gives a number" in message


# Copies


class HoldsLock(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        self.lock = threading.Lock()


class CopiesItself(Sound):
    def __deepcopy__(self, memo):
        return self


class ReadsThroughClosure(Sound):
    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, factor, execution=execution)
        self.read = lambda columns: model.second.weight.sum() * columns

    def compute(self, columns, labels, rows):
        return self.read(self.pairwise(columns[0][rows].map(torch.Tensor.detach), columns[1][rows])).mean()

    @property
    def encoder(self):
        return self.view(self.read.__closure__[0].cell_contents) if self.model is not None else super().encoder


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (HoldsLock, "cannot pickle '_thread.lock' object"),
        (CopiesItself, "the value differs"),
    ],
)
def test_a_copy_that_is_none_is_found(cls, message) -> None:
    assert message in broken(Subject(cls), "copies")


def test_a_copy_that_reads_its_original_is_found() -> None:
    (found,) = check(Subject(ReadsThroughClosure), only=["copies"])
    assert found.status == "failed"


# Examples


SHOWN = """
from losskit import Loss

class ShowsWrong(Loss):
    '''Shows another number.

    >>> 1 + 1
    3
    '''

class ShowsError(Loss):
    '''Shows what raises.

    >>> Loss().no_such_attribute
    '''

class ShowsFile(Loss):
    '''Shows what needs a file.

    >>> open("/no/such/file").read()
    'text'
    '''
"""


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("ShowsWrong", "failed", "the example `1 + 1` of ShowsWrong gives something else"),
        ("ShowsError", "failed", "the example `Loss().no_such_attribute` of ShowsError gives something else"),
        ("ShowsFile", "skipped", "needs what is not here: FileNotFoundError"),
    ],
)
def test_an_example_that_does_not_hold_is_found(home, name, status, message) -> None:
    file = home / "shown.py"
    file.write_text(SHOWN)
    (found,) = check(Subject(load_target(f"{file}:{name}")), only=["examples"])
    assert found.status == status
    assert message in found.message
    if status == "failed":
        assert found.file == str(file)
        assert SHOWN.splitlines()[found.line - 1].startswith("    >>> ")


def test_examples_of_functions_beside_a_class_are_run() -> None:
    (found,) = check(Subject(losses.CosineSimilarityLoss), only=["examples"])
    assert found.status == "not_applicable"
    (found,) = check(Subject(losses.CoSENTLoss), only=["examples"])
    assert found.status == "passed"
