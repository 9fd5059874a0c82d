"""Two gloo processes: gradients of gathered losses are those of one process on the joined batch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from matrix import COMBINATIONS, Combination
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from losskit import Direct, Execution, GradCache, LossError, build
from losskit.testing import ToyEncoder

pytestmark = pytest.mark.multiprocess

VOCABULARY, WIDTH, ROWS = 40, 6, (3, 5)


class Encoder(nn.Module):
    """Averages token embeddings; a dict goes in and a dict comes out."""

    dimension, normalized = WIDTH, False

    def __init__(self, family: str = "dense") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.family = family
        self.embed = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
        self.mix = nn.Linear(WIDTH, 1 if family == "cross-encoder" else WIDTH, dtype=torch.float64)
        self.register_buffer("forwards", torch.zeros(()))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = features["attention_mask"]
        hidden = (self.embed(features["input_ids"]) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        key = "scores" if self.family == "cross-encoder" else "sentence_embedding"
        return {key: self.mix(hidden.tanh())}


def column(rows: int, width: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    ids = torch.randint(0, VOCABULARY, (rows, width), generator=generator)
    return {"input_ids": ids, "attention_mask": (torch.arange(width) < lengths[:, None]).long()}


def part(features: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {key: value[rows] for key, value in features.items()}


MNRL = {"name": "multiple-negatives-ranking", "scale": 5.0}
ALL = {"directions": ["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]}
CASES: dict[str, tuple[Any, int, Tensor | None]] = {
    "pairs": (MNRL, 2, None),
    "one negative": (MNRL | ALL, 3, None),
    "three negatives": (MNRL, 5, None),
    "hard negatives": (MNRL | {"hardness_mode": "hard_negatives", "hardness_strength": 2.0}, 3, None),
    "matryoshka": ({"name": "matryoshka", "dims": [6, 3], "loss": MNRL}, 2, None),
    "cosent": ("cosent", 2, torch.tensor([0.1, 0.9, 0.3, 0.3, 0.7, 1.0, 0.0, 0.5], dtype=torch.float64)),
    "sum": (
        {"name": "weighted-sum", "losses": {"a": MNRL, "b": "cosent"}, "weights": {"a": 0.5}},
        2,
        torch.tensor([0.1, 0.9, 0.3, 0.3, 0.7, 1.0, 0.0, 0.5], dtype=torch.float64),
    ),
    "list-net": ({"name": "list-net", "scale": 5.0}, 4, torch.rand(8, 3, dtype=torch.float64)),
}
EXECUTIONS: list[Execution] = [Direct(), Direct(tokens=20), Direct(rows=2), GradCache(mini_batch_size=2)]


def joined(case: str) -> tuple[list[dict[str, Any]], Tensor | None]:
    _, columns, labels = CASES[case]
    # Columns of unlike width, so that ranks need different numbers of forwards.
    return [column(sum(ROWS), 5 + 4 * seed, seed) for seed in range(columns)], labels


def gradients(value: Any, module: nn.Module) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    (sum(value.values()) if isinstance(value, dict) else value).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def expected(case: str) -> dict[str, Tensor]:
    model = Encoder()
    features, labels = joined(case)
    return gradients(build(CASES[case][0], model)(features, labels), model)


def gathered(rank: int) -> dict[str, Any]:
    """Of every case, execution and way of wrapping: the gradients on this rank, and how often they were reduced."""
    rows = slice(0, ROWS[0]) if rank == 0 else slice(ROWS[0], sum(ROWS))
    found = {}
    for case, (expression, _, _) in CASES.items():
        features, labels = joined(case)
        own = [part(each, rows) for each in features]
        own_labels = None if labels is None else labels[rows]
        for execution in EXECUTIONS:
            execution = type(execution)(**{**vars(execution), "gather": True})
            for wrapped in ("loss", "model"):
                model = Encoder()
                loss = build(expression, model, execution=execution)
                if wrapped == "loss":
                    called: nn.Module = DistributedDataParallel(loss, bucket_cap_mb=1)
                    reduced = called
                else:
                    reduced = DistributedDataParallel(model, bucket_cap_mb=1)
                    replace_model(loss, reduced)
                    called = loss
                counts = counted(reduced)
                value = called(own, own_labels)
                found[case, repr(execution), wrapped] = gradients(value, model), list(counts)
    return found


def replace_model(loss: nn.Module, wrapper: nn.Module) -> None:
    """What the incumbent's trainers do: replace every child named `model`."""
    for name, child in loss.named_children():
        if name == "model":
            loss.model = wrapper
        else:
            replace_model(child, wrapper)


def counted(wrapper: DistributedDataParallel) -> list[int]:
    """A list that grows by one with each reduction of a bucket."""
    counts: list[int] = []

    def hook(state, bucket):
        counts.append(bucket.index())
        work = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return work.then(lambda future: future.value()[0] / dist.get_world_size())

    wrapper.register_comm_hook(None, hook)
    return counts


def ungathered(rank: int) -> dict[str, Any]:
    """Each rank its own loss: DDP averages."""
    rows = slice(0, ROWS[0]) if rank == 0 else slice(ROWS[0], sum(ROWS))
    features, _ = joined("pairs")
    found = {}
    for execution in EXECUTIONS:
        for find_unused in (False, True):
            model = Encoder()
            model.extra = nn.Linear(2, 2, dtype=torch.float64)
            model.extra.requires_grad_(find_unused)
            wrapper = DistributedDataParallel(model, find_unused_parameters=find_unused)
            loss = build(MNRL, model, execution=execution)
            replace_model(loss, wrapper)
            own = [part(each, rows) for each in features]
            for _ in range(2):  # the reducer must be ready again
                found[repr(execution), find_unused] = gradients(loss(own), model)
            with wrapper.no_sync():
                first = gradients(loss(own), model)
            value = loss(own)
            value.backward()
            found[repr(execution), find_unused, "accumulated"] = {
                name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
            }
            found[repr(execution), find_unused, "own"] = first
    return found


def ragged(rank: int) -> dict[str, Any]:
    """List-net on ragged lists, and several positives per anchor."""
    lists = ((2, 4), (1, 3, 2))[rank]
    first = (0, 6)[rank]
    documents = part(column(12, 7, 1), slice(first, first + sum(lists)))
    queries = part(column(5, 9, 0), slice(0, 2) if rank == 0 else slice(2, 5))
    labels = torch.linspace(0, 2, 12, dtype=torch.float64)[first : first + sum(lists)]
    found = {}
    for name, expression, values in (("list-net", "list-net", labels), ("positives", MNRL, None)):
        for execution in (Direct(gather=True), GradCache(gather=True, mini_batch_size=2)):
            model = Encoder()
            loss = DistributedDataParallel(build(expression, model, execution=execution))
            inputs = [dict(queries), documents | {"lists": lists}]
            found[name, repr(execution)] = gradients(loss(inputs, values), model)
    return found


XTR = {"name": "xtr", "top_k": 7}
LATE: dict[str, tuple[Any, Tensor | None]] = {
    "maxsim": (MNRL | ALL, None),
    "retrieved": (MNRL | {"similarity": XTR}, None),
    "retrieved margins": ({"name": "margin-mse", "similarity": XTR}, torch.linspace(-1, 1, 8, dtype=torch.float64)),
}


def tokens(rows: slice) -> list[dict[str, Any]]:
    """Queries, documents and negatives, each as wide as its longest text."""
    cut = [part(column(sum(ROWS), width, width), rows) for width in (5, 14, 9)]
    longest = [int(each["attention_mask"].sum(1).max()) for each in cut]
    return [{key: value[:, :width] for key, value in each.items()} for each, width in zip(cut, longest, strict=True)]


def late(rank: int) -> dict[str, Any]:
    """Losses by late interaction, of texts that are not equally long on both ranks."""
    rows = slice(0, ROWS[0]) if rank == 0 else slice(ROWS[0], sum(ROWS))
    found = {}
    for case, (expression, labels) in LATE.items():
        own_labels = None if labels is None else labels[rows]
        for execution in (Direct(gather=True), Direct(gather=True, rows=2), GradCache(gather=True, mini_batch_size=2)):
            model = ToyEncoder("multi-vector", WIDTH, seed=0)
            del model.head  # which only a cross-encoder reads
            loss = DistributedDataParallel(build(expression, model, execution=execution))
            found[case, repr(execution)] = gradients(loss(tokens(rows), own_labels), model)
    return found


def _work(rank: int, task: Callable[[int], Any], folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE="2", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        torch.save(task(rank), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def on_two(task: Callable[[int], Any]) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_work, args=(task, folder), nprocs=2, start_method="fork")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(2)]


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], what: object) -> None:
    assert found.keys() == wanted.keys(), what
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() <= 1e-10 * gradient.abs().max().clamp(min=1e-3), (what, name)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # forked processes must not inherit a pool of threads
    yield
    torch.set_num_threads(before)


@pytest.mark.quick
def test_gathered_losses_have_the_gradient_of_the_joined_batch() -> None:
    wanted = {case: expected(case) for case in CASES}
    for found in on_two(gathered):
        assert len(found) == len(CASES) * len(EXECUTIONS) * 2
        for (case, execution, wrapped), (gradient, reductions) in found.items():
            assert_same(gradient, wanted[case], (case, execution, wrapped))
            assert len(reductions) == len(set(reductions)), (case, execution, wrapped, "reduced more than once")


@pytest.mark.quick
def test_without_gathering_ddp_averages_the_ranks() -> None:
    features, _ = joined("pairs")
    model = Encoder()
    own = [
        gradients(build(MNRL, model)([part(each, rows) for each in features]), model)
        for rows in (slice(0, ROWS[0]), slice(ROWS[0], sum(ROWS)))
    ]
    mean = {name: (own[0][name] + own[1][name]) / 2 for name in own[0]}
    for rank, found in enumerate(on_two(ungathered)):
        for key, gradient in found.items():
            used = {name: value for name, value in gradient.items() if not name.startswith("extra")}
            if key[-1] == "own":
                assert_same(used, own[rank], key)
            elif key[-1] == "accumulated":
                # Under no_sync the rank's own gradient is kept, and reduced with the next.
                assert_same(used, {name: 2 * value for name, value in mean.items()}, key)
            else:
                assert_same(used, mean, key)


@pytest.mark.quick
def test_ragged_columns_are_gathered() -> None:
    lists = (2, 4, 1, 3, 2)
    documents, queries = column(12, 7, 1), column(5, 9, 0)
    labels = torch.linspace(0, 2, 12, dtype=torch.float64)
    wanted = {}
    for name, expression, values in (("list-net", "list-net", labels), ("positives", MNRL, None)):
        model = Encoder()
        wanted[name] = gradients(build(expression, model)([queries, documents | {"lists": lists}], values), model)
    for found in on_two(ragged):
        for (name, execution), gradient in found.items():
            assert_same(gradient, wanted[name], (name, execution))


@pytest.mark.quick
def test_late_interaction_is_gathered() -> None:
    wanted = {}
    for case, (expression, labels) in LATE.items():
        model = ToyEncoder("multi-vector", WIDTH, seed=0)
        wanted[case] = gradients(build(expression, model)(tokens(slice(0, sum(ROWS))), labels), model)
    for found in on_two(late):
        for (case, execution), gradient in found.items():
            assert_same(gradient, wanted[case], (case, execution))


@pytest.mark.quick
def test_fsdp_refuses_what_would_hang() -> None:
    def refused(rank: int) -> str:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        model = Encoder()
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        loss = build(MNRL, model, execution=GradCache())
        try:
            loss(joined("pairs")[0])
        except LossError as error:
            return str(error)
        return "nothing raised"

    for message in on_two(refused):
        assert message.startswith("GradCache with FSDP: expected one forward per column on every rank")


# A cross-encoder's pairs are formed before they are scored, so nothing is gathered with one.
WORKING = [each for each in COMBINATIONS if not each.refused and each.family != "cross-encoder"]
Found = tuple[float, dict[str, Tensor]]


def value_and_gradients(value: Any, loss: nn.Module) -> Found:
    total = sum(value.values()) if isinstance(value, dict) else value
    return float(total.detach()), gradients(value, loss)


def in_one_process(combination: Combination) -> list[Found]:
    """Of every kind of data that it takes."""
    loss = combination.build()
    batches = combination.batches(loss, sum(ROWS))
    return [value_and_gradients(loss(batch.features(loss), batch.flat_labels), loss) for batch in batches]


def of_the_list(
    combinations: list[Combination], executions: list[Execution], wanted: dict[str, list[Found]]
) -> Callable[[int], dict[tuple[str, str, int], Found]]:
    """What a rank finds: the loss, which owns parameters and towers, is wrapped as a whole."""

    def found(rank: int) -> dict[tuple[str, str, int], Found]:
        rows = range(ROWS[0]) if rank == 0 else range(ROWS[0], sum(ROWS))
        made = {}
        for combination in combinations:
            for execution in executions:
                loss = combination.build(execution)
                for number, batch in enumerate(combination.batches(loss, sum(ROWS))):
                    for name, parameter in loss.named_parameters():  # DDP waits for all that ask for gradients
                        parameter.requires_grad_(name in wanted[str(combination)][number][1])
                    part = batch.take(rows)
                    wrapper = DistributedDataParallel(loss)
                    value = wrapper(part.features(loss), part.flat_labels)
                    made[str(combination), repr(execution), number] = value_and_gradients(value, loss)
        return made

    return found


def require_the_joined_batch(combinations: list[Combination], executions: list[Execution]) -> None:
    wanted = {str(each): in_one_process(each) for each in combinations}
    first, second = on_two(of_the_list(combinations, executions, wanted))
    assert len(first) == len(second) == len(executions) * sum(map(len, wanted.values()))
    for (name, execution, number), (value, gradient) in first.items():
        joined, joined_gradient = wanted[name][number]
        other, other_gradient = second[name, execution, number]
        what = name, execution, number
        assert (value + other) / 2 == pytest.approx(joined, rel=1e-10), what
        assert_same(gradient, joined_gradient, what)
        assert_same(other_gradient, joined_gradient, what)


@pytest.mark.quick
def test_every_loss_has_the_gradient_of_the_joined_batch() -> None:
    require_the_joined_batch([each for each in WORKING if not each.wrapper], [Direct(gather=True)])


def test_every_loss_under_every_wrapper_and_cached_has_the_gradient_of_the_joined_batch() -> None:
    require_the_joined_batch(WORKING, [Direct(gather=True, rows=2), GradCache(gather=True, mini_batch_size=2)])


SPLADE = {
    "name": "splade",
    "document_regularizer_weight": 0.3,
    "query_regularizer_weight": 0.2,
    "joint_regularizer_weight": 0.1,
    "loss": "multiple-negatives-ranking",
}
COUNTING = {"document_regularizer": {"name": "df-flops", "alpha": 0.3}, "document_active": 2, "query_active": 2}


def sparse_features(rows: slice) -> list[dict[str, Any]]:
    texts = [[f"{role}{row} word{row % 3} word{column}" for row in range(8)] for column, role in enumerate("qdn")]
    return [ToyEncoder("sparse", seed=0).preprocess(column[rows]) for column in texts]


def penalized(options: dict[str, Any], execution: Execution, rows: slice) -> tuple[Any, Any, dict[str, Tensor]]:
    """After two training forwards: the last value and gradient, and what is kept."""
    model = ToyEncoder("sparse", seed=0)
    model.head.requires_grad_(False)  # DDP waits for all that ask for gradients
    loss = build(SPLADE | options, model, execution=execution)
    called = DistributedDataParallel(loss) if dist.is_initialized() else loss
    for _ in range(2):
        value = called(sparse_features(rows))
    components = {name: float(each.detach()) for name, each in value.items()}
    return components, gradients(value, model), {key: each.clone() for key, each in loss.owned_state().items()}


@pytest.mark.quick
@pytest.mark.parametrize("options", [{}, COUNTING], ids=["penalties", "counting"])
def test_gathered_penalties_are_those_of_the_joined_batch(options: dict[str, Any]) -> None:
    wanted, gradient, kept = penalized(options, Direct(), slice(0, 8))
    for execution in (Direct(gather=True), Direct(gather=True, rows=2), GradCache(gather=True, mini_batch_size=2)):
        ranks = on_two(lambda rank, e=execution: penalized(options, e, (slice(0, 3), slice(3, 8))[rank]))  # type: ignore[misc]
        for found, found_gradient, found_kept in ranks:
            assert_same(found_gradient, gradient, execution)
            assert found.keys() == wanted.keys()
            assert found_kept.keys() == kept.keys()
            for key, value in kept.items():
                torch.testing.assert_close(found_kept[key], value)
        for key, value in wanted.items():
            assert sum(found[key] for found, _, _ in ranks) / 2 == pytest.approx(value, rel=1e-6), key


@pytest.mark.quick
def test_without_gathering_penalties_are_averaged_as_losses_are() -> None:
    parts = slice(0, 3), slice(3, 8)
    own = [penalized({}, Direct(), rows)[1] for rows in parts]
    mean = {name: (own[0][name] + own[1][name]) / 2 for name in own[0]}
    for _, found, _ in on_two(lambda rank: penalized({}, Direct(), parts[rank])):
        assert_same(found, mean, "the mean of the ranks")


@pytest.mark.quick
@pytest.mark.parametrize("option", COUNTING)
def test_refuses_to_count_terms_on_each_rank_alone(option: str) -> None:
    def refused(rank: int) -> str:
        try:
            penalized({option: COUNTING[option]}, Direct(), slice(0, 3))
        except LossError as error:
            return str(error)
        return "nothing raised"

    for message in on_two(refused):
        assert message.startswith("SpladeLoss in several processes: expected execution with gather=True")
