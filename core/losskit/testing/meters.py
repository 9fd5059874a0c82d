"""Modes that watch the operations of a call: what memory and work they take, and what they read on the host."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["HostReads", "Meter"]


class Meter(TorchDispatchMode):
    """Counts bytes that are made and still alive, at most and now, and the numbers that operations go through.

    Storages are counted once, however many views they have; what was there before does not count.

    >>> with Meter() as meter:
    ...     kept = torch.ones(4).add(1).view(2, 2)
    >>> meter.peak, meter.alive, meter.calls
    (32, 16, 3)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = self.work = self.calls = 0
        self._known: dict[int, weakref.ReferenceType[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = list(_tensors((args, kwargs)))
        for tensor in inputs:
            self._count(tensor, 0)
        made = func(*args, **kwargs)
        outputs = list(_tensors(made))
        for tensor in outputs:
            self._count(tensor, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.alive)
        self.calls += 1
        if not func.is_view:
            products = flop_registry.get(func.overloadpacket)
            self.work += max((tensor.numel() for tensor in (*inputs, *outputs)), default=0)
            self.work += 0 if products is None else products(*args, **kwargs, out_val=made)
        return made

    def _count(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return

        def freed(_: Any) -> None:
            del self._known[key]
            self.alive -= size

        self._known[key] = weakref.ref(storage, freed)
        self.alive += size


class HostReads(TorchFunctionMode):
    """Notes where values of some tensors, or what follows from them, are read on the host.

    The tensors say that they stand elsewhere, so what is read on the CPU alone, where it costs nothing, is not read.

    Args:
        tensors: that would be on a device.
        file: the component's; the place is the innermost line there, else the innermost outside of torch.

    >>> with HostReads([x := torch.ones(2)]) as reads:
    ...     _ = (2 * x).sum().item(), x.is_cpu and x.tolist(), torch.zeros(1).item()
    >>> list(reads.found.values())
    ['aten._local_scalar_dense']
    """

    def __init__(self, tensors: Iterable[Tensor], file: str | None = None) -> None:
        super().__init__()
        self.file = file
        self.found: dict[tuple[str, int], str] = {}
        self.first: TracebackType | None = None
        self._away: dict[int, weakref.ReferenceType[Any]] = {}
        self._operations = _Operations(self)
        for tensor in tensors:
            self.send(tensor)

    def __enter__(self) -> HostReads:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._operations.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._operations.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ATTRIBUTES and self.holds(args[0]):
            return _ATTRIBUTES[func]
        if func in _METHODS and self.holds(args[0]) and _to_host(func, args, kwargs or {}):
            self.note(f"Tensor.{func.__name__}")
        return func(*map(_here, args), **{key: _here(value) for key, value in (kwargs or {}).items()})

    def holds(self, tensor: Tensor) -> bool:
        """Whether it would be on the device."""
        with torch._C.DisableTorchFunction():
            return id(tensor.untyped_storage()) in self._away

    def send(self, tensor: Tensor) -> None:
        """Have a tensor on the device."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        key = id(storage)
        if key not in self._away:
            self._away[key] = weakref.ref(storage, lambda _: self._away.pop(key))

    def note(self, what: str) -> None:
        """Take down a read that happens now."""
        frame = self._frame()
        if self.first is None:
            self.first = TracebackType(None, frame, frame.f_lasti, frame.f_lineno)
        self.found.setdefault((frame.f_code.co_filename, frame.f_lineno), what)

    def _frame(self) -> FrameType:
        around = [frame for frame in _frames() if not _of_torch(frame)]
        own = [frame for frame in around if frame.f_code.co_filename == self.file]
        return (own or around)[0]


class _Operations(TorchDispatchMode):
    """Follows what is on the device through operations."""

    def __init__(self, reads: HostReads) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        away = any(map(self.reads.holds, _tensors((args, kwargs))))
        if away and _waits(func, args):
            self.reads.note(str(func.overloadpacket))
        made = func(*args, **(kwargs or {}))
        if away:
            for tensor in _tensors(made):
                self.reads.send(tensor)
        return made


HERE, ELSEWHERE = torch.device("cpu"), torch.device("meta")
_ATTRIBUTES: dict[Any, Any] = {
    Tensor.device.__get__: ELSEWHERE,
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
    Tensor.is_meta.__get__: True,  # type: ignore[attr-defined]
}
_METHODS: tuple[Callable[..., Any], ...] = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.to)
"""What reads a tensor on the CPU without an operation, or may."""


def _to_host(func: Any, args: Any, kwargs: Any) -> bool:
    return func is not Tensor.to or any(place in (HERE, "cpu") for place in _devices((*args[1:], *kwargs.values())))


def _here(value: Any) -> Any:
    """There is no such device: what is made there is made here."""
    return HERE if isinstance(value, torch.device) and value == ELSEWHERE else value


def _devices(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, torch.device | str)]


aten = torch.ops.aten
_SIZES: tuple[Any, ...] = (
    aten._local_scalar_dense,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
)
"""Operations whose result, or the size of it, the host must wait for."""
_WRITES = (aten.index_put, aten.index_put_, aten._index_put_impl_)


def _waits(func: Any, args: Any) -> bool:
    packet = func.overloadpacket
    if packet in _SIZES:
        return True
    if packet is aten.repeat_interleave:
        return bool(func is aten.repeat_interleave.Tensor)
    if packet is not aten.index and packet not in _WRITES:
        return False
    masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return masked and (packet is aten.index or args[2].numel() != 1)  # a single number is filled in under the mask


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Those in nested lists, tuples and dicts, which is all that operations take and give."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _tensors(each)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _frames() -> Iterator[FrameType]:
    """From the innermost on, without those of this file."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


_TORCH = str(Path(torch.__file__).parent)


def _of_torch(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_TORCH)
