"""Laws of several processes and of trainers: each finds what is planted, and nothing in what is sound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import system_defects as planted
from torch import nn

import losskit
from losskit.spec import load_target
from losskit.testing import Subject, subjects
from losskit.testing.law import Law
from losskit.testing.plain import plain_subjects
from losskit.testing.system_laws import processes, training, training_sentence_transformers
from losskit.testing.trainers import rows_of
from losskit.validation.report import Check

several = [pytest.mark.multiprocess, pytest.mark.slow]
slow = pytest.mark.slow
quick = pytest.mark.quick


def of(cls: type) -> Subject:
    """A subject of a loss, of a plain module or of a regularizer."""
    if cls is planted.ScaledRegularizer:
        return Subject(cls, "regularizer")
    return subjects(cls)[0] if issubclass(cls, losskit.Loss) else plain_subjects(cls)[0]


def require_found(check: Check, law: Law, words: str) -> None:
    assert check.status == "failed", check
    assert check.id == law.id
    assert words in f"{check.message}, expected {check.expected}, got {check.got}"
    assert check.cause == law.cause != ""
    assert check.level == "full"


@pytest.mark.parametrize(
    "cls",
    [
        pytest.param(planted.Sound, marks=[*several, quick]),
        pytest.param(planted.Counts, marks=several),
        pytest.param(planted.PlainGathers, marks=[*several, quick]),
    ],
    ids=lambda cls: cls.__name__,
)
def test_sound_losses_are_the_same_in_two_processes(cls: type) -> None:
    assert processes(of(cls)).status == "passed", processes(of(cls))


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        pytest.param(planted.PlainGathersDetached, "beside one with all rows: the gradient differs", marks=quick),
        (planted.PlainSums, "beside one with all rows: the value differs"),
        (planted.PlainKnowsRank, "beside its rows alone: the value differs"),
        (planted.GathersItself, "Direct(gather=False) on 3 and 3 rows of anchor, positive, beside one with all rows"),
        pytest.param(planted.TimesProcesses, "beside its rows alone: the value differs", marks=quick),
        (planted.ScaledRegularizer, "beside its rows alone: the value differs"),
        (planted.CountsOwnRows, "the value differs"),
        (planted.FailsThere, "process 1: ValueError: no second process, please"),
        (planted.Exits, "ends with exit code 3, expected an answer, got none"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_find(cls: type, words: str) -> None:
    require_found(processes(of(cls)), processes, words)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_that_wait_for_each_other_are_found_and_the_next_are_served() -> None:
    check = processes(of(planted.PlainCounts))
    require_found(check, processes, "expected as many collective calls in each process")
    assert "no answer within 15 seconds: the processes wait for each other" in check.message
    assert processes(of(planted.Sound)).status == "passed"


@pytest.mark.multiprocess
@pytest.mark.slow
def test_classes_of_files_reach_the_processes(tmp_path: Path) -> None:
    file = tmp_path / "strange.py"
    file.write_text(Path(planted.__file__).read_text(), encoding="utf-8")
    assert processes(of(load_target(f"{file}:Sound"))).status == "passed"
    require_found(processes(of(load_target(f"{file}:TimesProcesses"))), processes, "the value differs")


def test_a_single_row_is_no_matter_of_two_processes() -> None:
    check = processes(Subject(planted.Sound, rows=1))
    assert (check.status, check.message) == ("not_applicable", "a single row cannot be shared by two processes")


def test_what_cannot_be_pickled_is_skipped_and_says_so() -> None:
    check = processes(Subject(lambda model: planted.Sound(model)))
    assert check.status == "skipped"
    assert check.message.startswith("it cannot be sent to other processes: ")


@pytest.mark.multiprocess
@pytest.mark.slow
def test_what_another_process_cannot_import_is_skipped_and_says_so() -> None:
    program = (
        "from losskit.testing import Subject; from losskit.testing.system_laws import processes\n"
        "from losskit.losses import CoSENTLoss\n"
        "class Here(CoSENTLoss): pass\n"
        "found = processes(Subject(Here)); print(found.status, found.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("skipped it cannot be read in other processes: AttributeError")


@slow
@pytest.mark.parametrize(
    ("law", "cls"),
    [
        pytest.param(training, planted.Sound, marks=quick),
        (training, planted.Counts),
        (training, planted.PlainGathers),
        pytest.param(training_sentence_transformers, planted.Sound, marks=quick),
        (training_sentence_transformers, planted.Counts),
        (training_sentence_transformers, planted.PlainGathers),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_sound_losses_train(law: Law, cls: type) -> None:
    found = law(of(cls))
    assert found.status == "passed", found


TRAINED = {
    planted.LeavesEvaluation: "step 1 leaves the model in evaluation, expected all modules in training, got itself",
    planted.Idle: "4 steps leave offset, which the loss owns, as it was, expected a parameter that moves",
    planted.Forgets: "resumed after step 2 from a checkpoint, the training ends elsewhere than without a break",
    planted.Rises: "4 steps do not lower the loss of their batch, expected below ",
    planted.Detaches: "4 steps leave the model as it was, expected parameters that move, got none",
}


@slow
@pytest.mark.parametrize("law", [training, training_sentence_transformers], ids=str)
@pytest.mark.parametrize("cls", TRAINED, ids=lambda cls: cls.__name__)
def test_trainings_find(law: Law, cls: type) -> None:
    require_found(law(of(cls)), law, TRAINED[cls])


@slow
def test_what_the_trainer_of_sentence_transformers_does_not_bring_is_found() -> None:
    assert training(of(planted.PlainReadsWords)).status == "passed"
    require_found(
        training_sentence_transformers(of(planted.PlainReadsWords)), training_sentence_transformers, "'words'"
    )


@slow
@quick
def test_a_built_in_of_each_family_trains_in_both() -> None:
    names = {
        "dense": "softmax",
        "sparse": "csr-reconstruction",
        "multi-vector": "margin-mse",
        "cross-encoder": "lambda",
    }
    for family, name in names.items():
        options = {"num_labels": 3} if name == "softmax" else {}
        for law in (training, training_sentence_transformers):
            for subject in subjects(Built(name, options), families=[family]):
                assert law(subject).fine, (law.id, name, law(subject))


BUILT = {"dense": "softmax", "sparse": "csr-reconstruction", "multi-vector": "margin-mse", "cross-encoder": "lambda"}


class Built:
    """Makes a registered loss from its name."""

    def __init__(self, name: str, options: dict[str, int]) -> None:
        self.name, self.options = name, options

    def __call__(self, model: nn.Module) -> nn.Module:
        return losskit.build({"name": self.name, **self.options}, model)


def test_what_sentence_transformers_cannot_give_does_not_apply() -> None:
    lists = Subject(losskit.losses.ListNetLoss, form=losskit.Format(["query", "documents"], labels="scores"))
    for subject, reason in (
        (lists, "that trainer does not tokenise lists of texts"),
        (Subject(planted.Sound, weights=True), "that trainer has no sample weights"),
    ):
        check = training_sentence_transformers(subject)
        assert (check.status, check.message) == ("not_applicable", reason)


def test_rows_name_repeated_columns_by_number() -> None:
    batch = Subject(losskit.losses.ListNetLoss, negatives=2, weights=True, form=FORM).batch
    rows = rows_of(batch)
    assert len(rows) == batch.rows
    assert list(rows[0]) == ["query", "positive", "negative_1", "negative_2", "label", "weight"]
    assert rows[2]["negative_1"] == batch.columns[2][2]
    assert rows[2]["label"] == batch.labels[2].tolist()


FORM = losskit.Format(["query", "positive", "negative*"], labels="scores")
