"""Running a plan: in one autograd graph, or cached and again in the backward."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import LossError
from ..math.once import differentiable_once
from ..modes import in_modes, modes_of
from ..output import Output
from ..protocols import Encoder, Features
from .plan import Chunk, assemble, chunk_features, make_plan, separately
from .values import Execution, GradCache

__all__ = ["encode"]


def encode(
    encoder: Encoder, module: nn.Module | None, columns: Sequence[Features], execution: Execution, needs: Sequence[str]
) -> list[Output]:
    """The records of all columns.

    Args:
        encoder: what encodes a batch of features.
        module: the module whose parameters are trained, as the loss holds it: possibly wrapped for
            distributed training. None where nothing is trained.
        columns: the features of each column.
        execution: how.
        needs: what the loss reads beyond embeddings.

    Raises:
        LossError: features that cannot be cut, or a module that this execution cannot serve.
    """
    if module is not None and _is_sharded(module):
        _refuse_for_sharded(execution)
        plan = separately(len(columns))
    else:
        plan = make_plan(encoder, columns, execution)
    plain = uncompiled(module)
    reducer = _Reducer(plain) if isinstance(plain, DistributedDataParallel) else None
    if isinstance(execution, GradCache) and torch.is_grad_enabled():
        outputs = _run_cached(_Replay(encoder, inner_module(module), columns, plan, needs))
    else:
        outputs = [encoder(chunk_features(encoder, columns, chunk), needs) for chunk in plan]
    return assemble(encoder, columns, plan, outputs if reducer is None else reducer.prepared(outputs))


def inner_module(module: nn.Module | None) -> nn.Module | None:
    """The module inside a DistributedDataParallel, and inside what torch.compile made of either."""
    plain: nn.Module | None = uncompiled(module)
    if not isinstance(plain, DistributedDataParallel):
        return plain
    inside: nn.Module = uncompiled(plain.module)
    return inside


def uncompiled(module: Any) -> Any:
    """What torch.compile was given; anything else is given back."""
    # Not imported for it: without compiling, that takes seconds for nothing.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return module._orig_mod if dynamo is not None and isinstance(module, dynamo.OptimizedModule) else module


class _Reducer:
    """What `DistributedDataParallel.forward` does around its module, around any number of forwards.

    Ranks plan their forwards by themselves, and calling the wrapper broadcasts buffers at each: so the module
    inside is called, and the reducer is prepared once, with the records.
    """

    def __init__(self, wrapper: DistributedDataParallel) -> None:
        self.wrapper = wrapper
        wrapper._pre_forward()

    def prepared(self, outputs: Sequence[Output]) -> list[Output]:
        """The same records, known to the reducer."""
        tensors = [tensor for output in outputs for tensor in output.tensors()]
        rest = iter(self.wrapper._post_forward(tensors))
        return [output.with_tensors([next(rest) for _ in output.tensors()]) for output in outputs]


def _is_sharded(module: nn.Module) -> bool:
    if not (dist.is_available() and dist.is_initialized()):
        return False  # nothing is sharded without processes, and looking takes time
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(part, FullyShardedDataParallel | FSDPModule) for part in module.modules())


def _refuse_for_sharded(execution: Execution) -> None:
    if isinstance(execution, GradCache) or getattr(execution, "tokens", None) is not None:
        raise LossError(
            f"{type(execution).__name__} with FSDP",
            expected="one forward per column on every rank",
            got="a number of forwards that depends on the rank's batch",
            fix="use Direct() with FSDP, or DistributedDataParallel",
        )


@dataclass
class _Replay:
    """One batch of forwards, to be run without gradients now and with gradients later."""

    encoder: Encoder
    module: nn.Module | None
    columns: Sequence[Features]
    plan: Sequence[Chunk]
    needs: Sequence[str]
    states: list[_RandomState] = field(default_factory=list)
    records: list[Output] = field(default_factory=list)
    modes: dict[nn.Module, bool] = field(default_factory=dict)
    forwards: dict[nn.Module, Any] = field(default_factory=dict)
    autocasts: list[tuple[str, torch.dtype, bool]] = field(default_factory=list)
    buffers: list[_Buffer] = field(default_factory=list)
    to_leaves: bool = False
    """Whether gradients go to leaves that the encoder alone knows: it registers no parameters."""

    def inputs(self) -> list[Tensor]:
        """Everything that gradients may flow to: trained parameters, and features that ask for them."""
        parameters = [] if self.module is None else [p for p in self.module.parameters() if p.requires_grad]
        values = [v for features in self.columns for v in features.values() if isinstance(v, Tensor)]
        found = [*parameters, *(value for value in values if value.requires_grad)]
        self.to_leaves = not found and (self.module is None or next(self.module.parameters(), None) is None)
        # What asks for gradients makes the records ask for them, so that there is a second pass.
        return [torch.zeros((), requires_grad=True)] if self.to_leaves else found

    def first(self) -> list[Output]:
        """Without gradients, noting all that the second pass needs."""
        devices = {v.device for features in self.columns for v in features.values() if isinstance(v, Tensor)}
        self.buffers = [] if self.module is None else [_Buffer.now(each) for each in self.module.buffers()]
        self.modes = modes_of(self.module)
        self.forwards = {part: part.__dict__.get("forward") for part in self.modes}
        self.autocasts = [_autocast_state(kind) for kind in sorted({device.type for device in devices} | {"cpu"})]
        for chunk in self.plan:
            self.states.append(_RandomState.now(devices))
            self.records.append(self._forward(chunk))
        # Autocast keeps weights it has cast; those cast without gradients must not serve the second pass.
        torch.clear_autocast_cache()
        if len(self.plan) > 1 and not all(each.tensor.is_floating_point() for each in self.buffers if each.changed):
            raise self._counts_forwards()
        return self.records

    def second(self, gradients: Sequence[Sequence[Tensor | None]], inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of the inputs, mini-batch by mini-batch, given those of the records' tensors."""
        if any(part.__dict__.get("forward") is not forward for part, forward in self.forwards.items()):
            raise LossError(
                "GradCache under a wrapper that replaces the model's forward",
                expected="the forward of the first pass in the second",
                got="another",
                fix="use Direct() under the incumbent's wrappers, or losskit's wrappers",
            )
        totals: list[Tensor | None] = [None] * len(inputs)
        with _RandomState.restored(self.states), self._as_before():
            for chunk, state, upstream in zip(self.plan, self.states, gradients, strict=True):
                if all(gradient is None for gradient in upstream):
                    continue
                state.apply()
                for index, gradient in enumerate(self._pull(chunk, upstream, inputs)):
                    totals[index] = _added(totals[index], gradient)
        return totals

    def _counts_forwards(self) -> LossError:
        assert self.module is not None
        changed = {id(e.tensor) for e in self.buffers if e.changed and not e.tensor.is_floating_point()}
        names = [name for name, buffer in self.module.named_buffers() if id(buffer) in changed]
        return LossError(
            f"GradCache with the buffer {', '.join(names)}",
            expected="buffers that do not count forwards",
            got=f"one that {len(self.plan)} mini-batches of a step have counted",
            fix="use Direct(merge=False), or freeze what counts",
        )

    def _forward(self, chunk: Chunk) -> Output:
        return self.encoder(chunk_features(self.encoder, self.columns, chunk), self.needs)

    def _pull(
        self, chunk: Chunk, upstream: Sequence[Tensor | None], inputs: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        with torch.enable_grad():
            tensors = self._forward(chunk).tensors()
            pairs = [
                (tensor, gradient)
                for tensor, gradient in zip(tensors, upstream, strict=True)
                if gradient is not None and tensor.requires_grad
            ]
        if not pairs:
            return [None] * len(inputs)
        outputs, grad_outputs = zip(*pairs, strict=True)
        try:
            if self.to_leaves:
                torch.autograd.backward(outputs, grad_outputs)
                return [None] * len(inputs)
            return torch.autograd.grad(outputs, inputs, grad_outputs, allow_unused=True)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise LossError(
                "GradCache with reentrant gradient checkpointing",
                expected="checkpointing with use_reentrant=False",
                fix="model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False})",
            ) from error

    @contextlib.contextmanager
    def _as_before(self) -> Iterator[None]:
        """Autocast, train mode and buffers as the first pass found them; buffers afterwards as they are now."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_as_found(self.buffers))
            for kind, dtype, enabled in self.autocasts:
                stack.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            stack.enter_context(in_modes(self.modes))
            yield


@dataclass(frozen=True)
class _Buffer:
    """A buffer, and what a pass found in it: its counts may change before the second pass, by the pass or a loss."""

    tensor: Tensor
    found: Tensor
    version: int

    @classmethod
    def now(cls, tensor: Tensor) -> _Buffer:
        return cls(tensor, tensor.clone(), tensor._version)

    @property
    def changed(self) -> bool:
        return self.tensor._version != self.version


@contextlib.contextmanager
def _as_found(buffers: Sequence[_Buffer]) -> Iterator[None]:
    """Buffers that have changed since they were noted as they were then; afterwards as they are now."""
    changed = [each for each in buffers if each.changed]
    now = [each.tensor.clone() for each in changed]
    try:
        _write(changed, [each.found for each in changed])
        yield
    finally:
        _write(changed, now)


@torch.no_grad()
def _write(buffers: Sequence[_Buffer], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.tensor.copy_(value)


def _run_cached(replay: _Replay) -> list[Output]:
    tensors = _CachedForward.apply(replay, *replay.inputs())  # type: ignore[no-untyped-call]
    rest = iter(tensors)
    outputs = [record.with_tensors([next(rest) for _ in record.tensors()]) for record in replay.records]
    replay.records = []
    return outputs


class _CachedForward(torch.autograd.Function):
    """The encoders as one node of the graph: from parameters to records."""

    @staticmethod
    def forward(ctx: Any, replay: _Replay, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        records = replay.first()
        ctx.replay = replay
        ctx.counts = [len(record.tensors()) for record in records]
        ctx.save_for_backward(*inputs)
        # A record may hold a tensor of the features as it is: hand out another, so that theirs gets no history.
        tensors = tuple(tensor.detach() for record in records for tensor in record.tensors())
        ctx.mark_non_differentiable(*(tensor for tensor in tensors if not tensor.is_floating_point()))
        return tensors

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        rest = iter(gradients)
        per_chunk = [[next(rest) for _ in range(size)] for size in ctx.counts]
        return None, *ctx.replay.second(per_chunk, ctx.saved_tensors)


@dataclass(frozen=True)
class _RandomState:
    """The global random state of the CPU and of some accelerators."""

    cpu: Tensor
    devices: dict[torch.device, Tensor]

    @classmethod
    def now(cls, devices: set[torch.device]) -> _RandomState:
        accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
        return cls(torch.get_rng_state(), {d: torch.get_device_module(d).get_rng_state(d) for d in accelerators})

    def apply(self) -> None:
        torch.set_rng_state(self.cpu)
        for device, state in self.devices.items():
            torch.get_device_module(device).set_rng_state(state, device)

    @staticmethod
    @contextlib.contextmanager
    def restored(states: Sequence[_RandomState]) -> Iterator[None]:
        before = _RandomState.now(set(states[0].devices) if states else set())
        try:
            yield
        finally:
            before.apply()


def _autocast_state(kind: str) -> tuple[str, torch.dtype, bool]:
    return kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)


def _added(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    if total is None or gradient is None:
        return gradient if total is None else total
    return total + gradient
