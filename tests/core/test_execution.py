"""Executions: whatever the plan, the loss and its gradient are those of the plain way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from losskit import Direct, GradCache, Loss, LossError, Output, RecipeError, Tokens
from losskit.execution import from_config, to_config
from losskit.execution.plan import make_plan
from losskit.features import PerRow, can_share, join, take

VOCABULARY, WIDTH = 50, 6


class TinyEncoder(nn.Module):
    """Embeds tokens, averages them under the mask, and counts its forwards."""

    family, similarity, dimension, normalized = "dense", "cosine", WIDTH, False

    def __init__(self, dropout: float = 0.0, counts: bool = False) -> None:
        super().__init__()
        self.counts = counts
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
        self.mix = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("forwards", torch.zeros((), dtype=torch.long))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, features, needs: Sequence[str] = ()) -> Output:
        if self.counts and self.training:
            self.forwards += 1
        self.shapes.append(tuple(features["input_ids"].shape))
        mask = features["attention_mask"]
        hidden = self.dropout(self.embed(features["input_ids"]))
        layers = tuple((h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) for h in (hidden, hidden.tanh()))
        parts = {"input_ids": Tokens(features["input_ids"], mask.bool())} if "input_ids" in needs else {}
        if "extra" in needs:
            parts["extra"] = layers[0].sin()
        return Output(self.mix(layers[1]).tanh(), layers=layers if "layers" in needs else (), parts=parts)

    def preprocess(self, texts, *, role="text", prompt=None):
        raise NotImplementedError

    encode = save = load = adapt = preprocess


class Everything(Loss):
    """Reads embedding, layers and a part of every column, unevenly weighted."""

    def __init__(self, model=None, *, execution=None) -> None:
        super().__init__(model, execution=execution)

    needs = ("layers", "extra", "input_ids")

    def compute(self, columns, labels, rows) -> dict[str, Tensor]:
        a, b = columns[0], columns[-1]
        weight = torch.arange(1.0, a.tuples + 1, dtype=torch.float64)[:, None]
        tokens = sum(c.parts["input_ids"].values.sum() for c in columns)
        return {
            "embedding": ((a.embedding - b.embedding).square() * weight).mean() + 0 * tokens,
            "layers": (a.layers[0] * b.layers[1] * weight).mean(),
            "extra": (a.parts["extra"] * b.parts["extra"].exp() * weight).mean(),
        }


def features(rows: int, width: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (rows, width), generator=generator)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    mask = (torch.arange(width) < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def batch(*widths: int, rows: int = 7) -> list[dict[str, Tensor]]:
    return [features(rows, width, seed) for seed, width in enumerate(widths)]


def untrimmed(*widths: int) -> list[dict[str, Tensor]]:
    """Batches in which no padding is trimmed, so that dropout draws are those of the plain way."""
    inputs = batch(*widths)
    for each in inputs:
        each["attention_mask"][0] = 1
    return inputs


def run(model: nn.Module, inputs, execution, backward=True) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    value = torch.stack(list(Everything(model, execution=execution)(inputs).values())).sum()
    if backward:
        value.backward()
    return value.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(a, b, tolerance: float = 1e-10) -> None:
    assert abs(a[0] - b[0]) <= tolerance * max(1.0, abs(b[0]))
    assert a[1].keys() == b[1].keys()
    for name, gradient in a[1].items():
        assert (gradient - b[1][name]).abs().max() <= tolerance * b[1][name].abs().max().clamp(min=1.0), name


EXECUTIONS = [
    Direct(merge=True),
    Direct(tokens=16),
    Direct(tokens=1),
    GradCache(mini_batch_size=1),
    GradCache(mini_batch_size=3),
    GradCache(mini_batch_size=3, merge=False),
    GradCache(mini_batch_size=100),
    GradCache(mini_batch_tokens=16),
]


@pytest.mark.parametrize("execution", EXECUTIONS, ids=repr)
@pytest.mark.parametrize("widths", [(8, 8), (8, 20), (5, 5, 12)], ids=str)
def test_equals_plain_forwards(execution, widths) -> None:
    model = TinyEncoder()
    inputs = batch(*widths)
    assert_same(run(model, inputs, execution), run(model, inputs, Direct(merge=False)))


@pytest.mark.parametrize("execution", EXECUTIONS, ids=repr)
def test_leaves_features_as_they_are(execution) -> None:
    inputs = batch(8, 8)
    before = [{key: value.clone() for key, value in each.items()} for each in inputs]
    run(TinyEncoder(), inputs, execution)
    for old, new in zip(before, inputs, strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


def test_merges_columns_of_like_width_only() -> None:
    model = TinyEncoder()
    run(model, batch(20, 21, 40), Direct())
    assert sorted(model.shapes) == [(7, 40), (14, 21)]


def test_packs_by_padded_tokens() -> None:
    model, inputs = TinyEncoder(), batch(30, 12)
    run(model, inputs, Direct(tokens=40))
    assert sum(rows for rows, _ in model.shapes) == 14
    assert all(rows * width <= 40 for rows, width in model.shapes)
    padded = sum(rows * width for rows, width in model.shapes)
    assert padded < sum(each["input_ids"].numel() for each in inputs)


def test_a_text_longer_than_the_budget_goes_alone() -> None:
    model, inputs = TinyEncoder(), batch(30)
    inputs[0]["attention_mask"][3] = 1
    run(model, [*inputs, *inputs], Direct(tokens=8))
    assert (1, 30) in model.shapes


def test_mini_batches_are_bounded_and_trimmed() -> None:
    model, inputs = TinyEncoder(), batch(30, 30, rows=5)
    for each in inputs:
        each["attention_mask"][:, 10:] = 0
        each["attention_mask"][:, 0] = 1
    run(model, inputs, GradCache(mini_batch_size=4))
    assert all(rows <= 4 and width <= 10 for rows, width in model.shapes)


def cached_by_hand(model, inputs, size: int) -> Tensor:
    """An ordinary backward through the same mini-batches in the same order."""
    columns = []
    for each in inputs:
        pieces = [
            model(take(model, each, slice(start, start + size)), ("layers", "extra", "input_ids"))
            for start in range(0, 7, size)
        ]
        columns.append(Output.cat(pieces))
    return torch.stack(list(Everything(model).compute(columns, None, slice(0, 7)).values())).sum()


def test_replays_dropout() -> None:
    model, inputs = TinyEncoder(dropout=0.3), batch(8, 20)
    torch.manual_seed(5)
    cached = run(model, inputs, GradCache(mini_batch_size=3, merge=False))
    after = torch.get_rng_state()
    model.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    value = cached_by_hand(model, inputs, 3)
    assert torch.equal(torch.get_rng_state(), after)
    value.backward()
    plain = value.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert_same(cached, plain)


def test_two_forwards_before_one_backward() -> None:
    model, first, second = TinyEncoder(dropout=0.2), untrimmed(8, 8), untrimmed(9, 12)
    results = []
    for execution in (GradCache(mini_batch_size=7, merge=False), Direct(merge=False)):
        model.zero_grad(set_to_none=True)
        torch.manual_seed(3)
        loss = Everything(model, execution=execution)
        total = sum(sum(loss(inputs).values()) for inputs in (first, second))
        total.backward()
        results.append((total.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    # One mini-batch a column: the same draws of dropout as the plain way.
    assert_same(*results)


def test_accumulates_and_backpropagates_twice() -> None:
    model, inputs = TinyEncoder(), batch(8, 8)
    plain = run(model, inputs, Direct())
    model.zero_grad(set_to_none=True)
    loss = Everything(model, execution=GradCache(mini_batch_size=2))
    value = sum(loss(inputs).values()) / 4
    for _ in range(2):
        value.backward(retain_graph=True)
    (sum(loss(inputs).values()) / 2).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert_same((plain[0], gradients), plain)


def test_grad_scaler() -> None:
    model, inputs = TinyEncoder().float(), batch(8, 8)
    plain = run(model, inputs, Direct())
    model.zero_grad(set_to_none=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    value = sum(Everything(model, execution=GradCache(mini_batch_size=2))(inputs).values())
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert_same((value.detach(), gradients), plain, tolerance=1e-5)


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside autocast", "backward outside"])
def test_autocast(inside: bool) -> None:
    model, inputs = TinyEncoder().float(), untrimmed(8, 8)
    results = []
    for execution in (GradCache(mini_batch_size=7, merge=False), Direct(merge=False)):
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = sum(Everything(model, execution=execution)(inputs).values())
            if inside:
                value.backward()
        if not inside:
            value.backward()
        assert model.mix.weight.grad.abs().max() > 0.1
        results.append((value.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    # The plain way adds the columns' gradients in bfloat16, the cached one in float32.
    assert_same(*results, tolerance=2e-3)


def test_no_grad_runs_each_forward_once() -> None:
    model, inputs = TinyEncoder(), batch(8, 8)
    with torch.no_grad():
        value, gradients = run(model, inputs, GradCache(mini_batch_size=7, merge=False), backward=False)
    assert not gradients
    assert not value.requires_grad
    assert len(model.shapes) == 2


def test_frozen_parts_get_no_gradient() -> None:
    model, inputs = TinyEncoder(), batch(8, 8)
    model.embed.requires_grad_(False)
    cached = run(model, inputs, GradCache(mini_batch_size=3))
    assert "embed.weight" not in cached[1]
    assert_same(cached, run(model, inputs, Direct()))


def test_an_unused_parameter_keeps_no_gradient() -> None:
    model = TinyEncoder()
    run(model, batch(8, 8), GradCache(mini_batch_size=3))
    assert model.unused.grad is None


class Square(Loss):
    def __init__(self, model, *, execution=None):
        super().__init__(model, execution=execution)

    def compute(self, columns, labels, rows):
        return columns[0].embedding.square().sum()


def test_gradients_reach_features_that_ask_for_them() -> None:
    class Passes(nn.Module):
        def forward(self, features):
            return {"sentence_embedding": features["embedding"] * 2}

    values = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    Square(Passes(), execution=GradCache(mini_batch_size=2))([{"embedding": values}]).backward()
    assert torch.allclose(values.grad, 8 * values.detach())


class Unregistered(nn.Module):
    """Keeps its weight where no optimizer finds it by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [torch.tensor([2.0], dtype=torch.float64, requires_grad=True)]

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"] * self.hidden[0]}


@pytest.mark.parametrize("execution", [Direct(), GradCache(mini_batch_size=2)], ids=["direct", "cached"])
def test_gradients_reach_what_no_parameter_shows(execution) -> None:
    model = Unregistered()
    loss = Square(model, execution=execution)
    vectors = torch.arange(1.0, 6.0, dtype=torch.float64)[:, None]
    loss([{"vectors": vectors}]).backward()
    assert model.hidden[0].grad.item() == pytest.approx(2 * 2.0 * vectors.square().sum().item())


def test_replay_leaves_buffers_and_modes_as_the_first_pass_left_them() -> None:
    model, inputs = TinyEncoder(dropout=0.5, counts=True), batch(8, 8)
    value = sum(Everything(model, execution=GradCache(mini_batch_size=14))(inputs).values())
    assert model.forwards == 1
    model.eval()
    state = torch.get_rng_state()
    value.backward()
    assert model.forwards == 1
    assert not any(part.training for part in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_replay_finds_buffers_as_the_first_pass_found_them() -> None:
    class Reading(TinyEncoder):
        def forward(self, features, needs=()):
            output = super().forward(features, needs)
            return output.map_embedding(lambda embedding: embedding * (1 + self.forwards))

    class Counting(Everything):
        def observe(self, columns, labels):
            self.model.forwards += 1
            return columns, labels

    found = []
    for execution in (Direct(merge=False), GradCache(mini_batch_size=7)):
        torch.manual_seed(0)
        model, inputs = Reading(), batch(8, 8)
        sum(Counting(model, execution=execution)(inputs).values()).backward()
        assert model.forwards == 1
        found.append(model.mix.weight.grad)
    torch.testing.assert_close(found[1], found[0])


def test_a_buffer_that_counts_forwards_is_refused() -> None:
    model = TinyEncoder(counts=True)
    with pytest.raises(LossError, match=r"GradCache with the buffer forwards: .* that 2 mini-batches of a step"):
        Everything(model, execution=GradCache(mini_batch_size=7))(batch(8, 8))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing_is_refused_by_name() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(TinyEncoder):
        def forward(self, features, needs=()):
            output = super().forward(features, needs)
            return Output(
                checkpoint(torch.tanh, output.embedding, use_reentrant=True), None, output.layers, output.parts
            )

    value = sum(Everything(Checkpointed(), execution=GradCache(mini_batch_size=7))(batch(8, 8)).values())
    with pytest.raises(LossError, match=r"reentrant gradient checkpointing: expected .*use_reentrant=False"):
        value.backward()


def test_features_that_cannot_be_cut_are_refused_by_key() -> None:
    inputs = [{"input_ids": torch.arange(9), "offsets": torch.tensor([0, 4, 6])}] * 2
    with pytest.raises(LossError, match=r"feature 'offsets': expected one entry per item"):
        make_plan(TinyEncoder(), inputs, GradCache(mini_batch_size=2))
    assert len(make_plan(TinyEncoder(), inputs, Direct())) == 2  # whole columns are not cut


def test_prompts_and_other_metadata_keep_columns_apart() -> None:
    a, b = batch(8, 8)
    assert can_share(a | {"prompt_length": 2}, b | {"prompt_length": 2})
    assert not can_share(a | {"prompt_length": 2}, b | {"prompt_length": 3})
    assert not can_share(a | {"prompt_length": 2}, b)
    plan = make_plan(TinyEncoder(), [a | {"prompt_length": 2}, b], Direct(tokens=100))
    assert all(len({piece.column for piece in chunk}) == 1 for chunk in plan)


@pytest.mark.parametrize(
    ("value", "other", "together"),
    [
        ([1, ("a", None)], [1, ("a", None)], True),
        ([1, 2], [1, 3], False),
        ([1, 2], [1, 2, 3], False),
        (1, 1.0, False),
        ([torch.zeros(2)], [torch.zeros(2)], False),  # as left by another loss
        (np.zeros(2), np.zeros(2), False),
    ],
    ids=["nested", "values", "lengths", "types", "tensors", "arrays"],
)
def test_metadata_of_any_kind(value, other, together) -> None:
    a, b = batch(8, 8)
    assert can_share(a | {"extra": value}, b | {"extra": value})
    assert can_share(a | {"extra": value}, b | {"extra": other}) == together


def test_values_per_row_and_padding_of_the_encoder() -> None:
    class Padded(TinyEncoder):
        padding: ClassVar = {"input_ids": 9}

    a, b = batch(4, 6, rows=2)
    a["name"], b["name"] = PerRow(["a", "b"]), PerRow(["c", "d"])
    joined = join(Padded(), [a, b])
    assert joined["name"].values == ["a", "b", "c", "d"]
    assert joined["input_ids"][:2, 4:].eq(9).all()
    assert joined["attention_mask"][:2, 4:].eq(0).all()
    assert take(Padded(), joined, [3, 0])["name"].values == ["d", "a"]


def test_an_encoder_says_which_positions_count() -> None:
    class Expands(TinyEncoder):
        def lengths(self, features):
            return [features["input_ids"].shape[1]] * features["input_ids"].shape[0]

    (each,) = batch(8)
    each["attention_mask"][:, 2:] = 0
    assert take(Expands(), each, [0, 1])["input_ids"].shape == (2, 8)
    assert take(TinyEncoder(), each, [0, 1])["input_ids"].shape == (2, 2)


def test_executions_are_values() -> None:
    assert GradCache(mini_batch_size=8) == from_config({"name": "grad-cache", "mini_batch_size": 8})
    assert from_config(to_config(Direct(tokens=7, gather=True))) == Direct(tokens=7, gather=True)
    assert from_config("direct") == Direct()
    with pytest.raises(RecipeError, match=r"execution.name: expected direct or grad-cache, got 'cached'"):
        from_config("cached")
    with pytest.raises(RecipeError, match=r"execution.mini_batchsize: .*did you mean 'mini_batch_size'"):
        from_config({"name": "grad-cache", "mini_batchsize": 8})
    with pytest.raises(RecipeError, match=r"execution.tokens: expected a positive integer, got 0"):
        Direct(tokens=0)
    with pytest.raises(RecipeError, match=r"execution.gather: expected true or false, got 'yes'"):
        Direct(gather="yes")


def test_a_forward_that_is_replaced_in_between_is_refused() -> None:
    model = TinyEncoder()
    replaced = model.forward
    model.forward = lambda *given, **named: replaced(*given, **named)
    value = sum(Everything(model, execution=GradCache(mini_batch_size=7))(batch(8, 8)).values())
    del model.forward
    with pytest.raises(LossError, match=r"a wrapper that replaces the model's forward"):
        value.backward()


def test_features_that_are_no_items_are_left_alone() -> None:
    """Patches of images: as many as there are, whatever the number of items."""
    a = {"input_ids": torch.ones(2, 3), "patches": torch.ones(7, 4)}
    b = {"input_ids": torch.ones(2, 3), "patches": torch.ones(5, 4)}
    assert not can_share(a, b)
    assert can_share({"input_ids": torch.ones(2, 3)}, {"input_ids": torch.ones(2, 3)})


def test_an_encoder_that_cuts_but_does_not_count_is_told_what_it_lacks() -> None:
    class Bag(TinyEncoder):
        def take(self, features, rows):
            raise NotImplementedError

        join = take

    with pytest.raises(LossError, match=r"Bag.lengths: expected a method beside take and join"):
        make_plan(Bag(), [{"ids": torch.ones(5), "offsets": torch.tensor([0, 2])}], GradCache(mini_batch_size=2))


@pytest.mark.parametrize("places", [[-1], [0, -2], [], torch.tensor([2, -3])], ids=str)
def test_negative_places_count_from_the_last_list(places: Any) -> None:
    lists = ([0.0, 1.0], [2.0], [3.0, 4.0, 5.0])
    chosen = [lists[place] for place in places]
    part = Output(torch.arange(6.0), lists=(2, 1, 3))[places]
    assert part.lists == tuple(map(len, chosen))
    assert part.embedding.tolist() == [value for each in chosen for value in each]


def test_joining_records_keeps_the_parts_that_all_have() -> None:
    vectors = torch.ones(1, 2)
    a = Output(vectors, parts={"guide": Output(vectors), "both": vectors})
    b = Output(vectors, parts={"both": vectors})
    for joined in (Output.cat([a, b]), Output.cat([b, a])):
        assert set(joined.parts) == {"both"}
        assert joined.parts["both"].shape == (2, 2)


def test_refuses_sample_weights_that_are_no_tensor() -> None:
    vectors = torch.ones(1, 2)
    assert Output(vectors).weight is None
    with pytest.raises(LossError, match=r'Output.parts\["weight"\]: expected a tensor \[n\], got Output'):
        _ = Output(vectors, parts={"weight": Output(vectors)}).weight
