"""Laws of an accelerator: what they compare is tried on the CPU, and on a CUDA device where there is one."""

from __future__ import annotations

import pytest
import torch

from losskit import Card, Format, Loss, losses
from losskit.testing import Subject, Violation
from losskit.testing.device_laws import LAWS, gpu_half, gpu_parity, gpu_sync
from losskit.testing.device_laws import require_half as half
from losskit.testing.device_laws import require_no_waiting as no_waiting
from losskit.testing.device_laws import require_parity as parity

CPU = torch.device("cpu")


class Sound(Loss):
    """The mean squared difference of a scaled cosine and 1."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"])

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.scale = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def compute(self, columns, labels, rows):
        return (self.scale * self.pairwise(columns[0][rows], columns[1][rows]) - 1).square().mean()


class Elsewhere(Sound):
    """Another value on the second device: here, of the second loss that is built."""

    built = 0

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        Elsewhere.built += 1
        self.factor = Elsewhere.built

    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * self.factor


class StaysHalf(Sound):
    """Sums up squares in the type of the records."""

    def compute(self, columns, labels, rows):
        a, b = columns[0][rows].embedding, columns[1][rows].embedding
        return (1000 * (a - b).square().sum(1)).sin().mean()


class Waits(Sound):
    """Reads the first entry of its records."""

    def compute(self, columns, labels, rows):
        factor = 2.0 if columns[0].embedding[0, 0].item() > 0 else 1.0
        return super().compute(columns, labels, rows) * factor


class Operations(torch.utils._python_dispatch.TorchDispatchMode):
    """Raises at the operation by which a host reads a value, in the mode "error"."""

    def __init__(self) -> None:
        super().__init__()
        self.mode, self.modes = "default", []

    def set_mode(self, mode: str) -> None:
        self.mode = mode
        self.modes.append(mode)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.mode == "error" and func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("called a synchronizing operation")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_without_a_device_they_are_skipped_and_say_why(law, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check = law(Subject(Sound))
    assert (check.status, check.message, check.level) == ("skipped", "this machine has no CUDA device", "gpu")


@pytest.mark.parametrize("make", [Sound, losses.MultipleNegativesRankingLoss, losses.CoSENTLoss])
def test_sound_losses_are_the_same_on_another_device(make) -> None:
    parity(Subject(make), CPU)
    half(Subject(make), CPU)
    operations = Operations()
    with operations:
        no_waiting(Subject(make), CPU, operations.set_mode)
    assert operations.mode == "default"
    assert operations.modes.count("error") > 10


def test_another_value_is_found(monkeypatch) -> None:
    monkeypatch.setattr(Elsewhere, "built", 0)
    with pytest.raises(Violation, match="on cpu beside the CPU: the value differs"):
        parity(Subject(Elsewhere), CPU)


def test_sums_in_half_precision_are_found() -> None:
    with pytest.raises(Violation, match=r"records in torch\.bfloat16 on cpu: the gradient differs"):
        half(Subject(StaysHalf), CPU)


def test_a_read_of_a_value_is_found_and_nothing_outside_of_operations_is_refused() -> None:
    operations = Operations()
    with operations, pytest.raises(RuntimeError, match="called a synchronizing operation"):
        no_waiting(Subject(Waits), CPU, operations.set_mode)
    assert operations.mode == "default"


@pytest.mark.gpu
@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("make", [Sound, losses.MultipleNegativesRankingLoss, losses.CoSENTLoss])
def test_sound_losses_keep_them(law, make) -> None:
    assert law(Subject(make)).status == "passed", law(Subject(make))


@pytest.mark.gpu
def test_defects_are_found_there() -> None:
    for law, make, words in (
        (gpu_sync, Waits, "synchronizing"),
        (gpu_half, StaysHalf, "the gradient differs"),
        (gpu_parity, Elsewhere, "differs"),
    ):
        check = law(Subject(make))
        assert check.status == "failed"
        assert words in check.message
