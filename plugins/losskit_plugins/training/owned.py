"""What a training keeps of a loss beside its encoder: where it stands, and what it owns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losskit import Loss
from losskit.clock import Clock
from losskit.errors import LossError

__all__ = ["LOSS_FILE", "load_owned", "outermost", "owned_state", "save_owned", "set_clock"]

LOSS_FILE = "loss.safetensors"


def outermost(module: nn.Module) -> Iterator[Loss]:
    """The losses of ours in a module that no other loss of ours wraps."""
    if isinstance(module, Loss):
        yield module
        return
    for child in module.children():
        yield from outermost(child)


def set_clock(module: nn.Module, *, seed: int, step: int, steps: int) -> None:
    """Tell every loss in a module where the training stands.

    Args:
        module: a loss, or a foreign module around losses.
        seed: of the run.
        step: optimizer steps done.
        steps: optimizer steps in all.
    """
    clock = Clock(seed=seed, step=step, progress=min(1.0, step / steps) if steps > 0 else None)
    for loss in outermost(module):
        loss.set_clock(clock)


def owned_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a loss without those of the trained encoder, its child `model`.

    >>> plain = nn.ModuleDict({"model": nn.Linear(2, 2), "head": nn.Linear(2, 1, bias=False)})
    >>> list(owned_state(plain))
    ['head.weight']
    """
    if isinstance(module, Loss):
        return module.owned_state()
    return {name: value for name, value in module.state_dict().items() if "model" not in name.split(".")}


def save_owned(module: nn.Module, folder: Path) -> None:
    """Write `loss.safetensors` into a folder if the loss owns anything."""
    state = owned_state(module)
    if state:
        # Tied tensors and views are refused by safetensors: each name gets its own memory.
        save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, folder / LOSS_FILE)


def load_owned(module: nn.Module, folder: Path) -> None:
    """Take back what `save_owned` wrote.

    Raises:
        LossError: the loss owns parameters or buffers, and the folder has not these.
    """
    own, file = owned_state(module), folder / LOSS_FILE
    if not own and not file.exists():
        return
    if not file.exists():
        raise LossError(
            f"the state of {type(module).__name__}", expected=f"{LOSS_FILE} in {folder}", got="no such file",
            fix="resume from a checkpoint that losskit.Trainer or losskit.ProgressCallback has written",
        )  # fmt: skip
    state = load_file(file)
    if isinstance(module, Loss):
        module.load_owned_state(state)
        return
    if own.keys() != state.keys():
        raise LossError(f"{file}", expected=f"the tensors {sorted(own)}", got=f"{sorted(state)}")
    module.load_state_dict(state, strict=False)
