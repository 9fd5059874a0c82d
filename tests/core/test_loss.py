"""The base class: what happens between `forward` and `compute`."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from losskit import Card, Direct, Format, GradCache, Loss, LossError, NotFoundError, Output, Wrapper, build
from losskit.clock import Clock
from losskit.further import columns_read
from losskit.shares import weighted_mean


class Model(nn.Module):
    """Returns the features' own vectors, scaled by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.device = torch.device("cpu")

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"] * self.factor}


class Pull(Loss):
    """Squared distance of two columns, with noise, a schedule, a parameter and a memory."""

    card = Card(formats=[Format(inputs=["anchor", "positive", "negative*"])], encoders=["dense"], stochastic=True)
    uses_weights: ClassVar = True

    def __init__(self, model: Any = None, power: float = 2.0, *, execution: Any = None) -> None:
        super().__init__(model, execution=execution)
        self.power = power
        self.temperature = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((0, 3), dtype=torch.float64))

    def draw(self, generator: torch.Generator, sizes: Any) -> Tensor:
        return torch.rand(sizes[0], generator=generator, dtype=torch.float64)

    def observe(self, columns: list[Output], labels: Tensor | None) -> Any:
        self.seen = torch.cat([self.seen, columns[0].embedding.detach()])[-4:]
        return columns, labels

    def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
        distance = (columns[0][rows].embedding - columns[1][rows].embedding).abs().pow(self.power).sum(1)
        weight = columns[0].parts.get("weight")
        distance = distance if weight is None else distance * weight[rows]
        return (distance * (1 + self.drawn[rows])).mean() * self.temperature


class Halved(Wrapper):
    """Half of a loss."""

    def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
        return self.loss.compute(columns, labels, rows) / 2


def columns(count: int = 2, rows: int = 5) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"vectors": torch.rand(rows, 3, generator=generator, dtype=torch.float64)} for _ in range(count)]


def test_draws_follow_the_clock_and_nothing_else() -> None:
    loss = Pull(Model())
    state = torch.get_rng_state()
    values = {}
    for step in (0, 1):
        loss.set_clock(Clock(seed=3, step=step))
        values[step] = [loss(columns()).item() for _ in range(2)]  # two micro-batches
    assert len({*values[0], *values[1]}) == 4
    again = Pull(Model())
    again.set_clock(Clock(seed=3, step=1))
    assert [again(columns()).item() for _ in range(2)] == values[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_draws_are_fixed() -> None:
    loss = Pull(Model())
    loss.model.eval()
    values = set()
    for step in (0, 5):
        loss.set_clock(Clock(step=step))
        values |= {loss(columns()).item() for _ in range(2)}
    assert len(values) == 1


def test_components_draw_differently_by_path() -> None:
    model = Model()
    pair = build({"name": "weighted-sum", "losses": {"a": "cosent"}}, model)
    pair.losses["a"], pair.losses["b"] = Pull(model), Pull(model)
    pair(columns())
    assert not torch.equal(pair.losses["a"].drawn, pair.losses["b"].drawn)


def test_training_is_read_off_the_model_not_the_loss() -> None:
    loss = Pull(Model())
    loss.model.eval()
    assert loss.training
    loss(columns())
    assert loss.seen.shape[0] == 0  # nothing observed
    loss.model.train()
    loss.eval()
    loss.model.train()
    loss(columns())
    assert loss.seen.shape[0] == 4
    with torch.no_grad():
        loss(columns(rows=1))
    assert loss.seen.shape[0] == 4


def test_progress_must_be_set_in_training() -> None:
    class Scheduled(Pull):
        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            return super().compute(columns, labels, rows) * self.progress

    loss = Halved(None, Scheduled(None))
    loss.model = loss.loss.model = Model()
    with pytest.raises(LossError, match=r"Scheduled.progress: .*losskit.ProgressCallback"):
        loss(columns())
    loss.set_clock(Clock(progress=0.0))
    assert loss(columns()).item() == 0.0
    loss.model.eval()
    assert loss(columns()).item() > 0.0  # schedules stand at their final values


def test_owned_state_is_all_but_the_models() -> None:
    model = Model()
    loss = Halved(model, Pull(model))
    assert set(loss.owned_state()) == {"loss.temperature", "loss.seen"}
    loss(columns())
    loss.loss.temperature.data.fill_(3.0)
    fresh = Halved(model, Pull(model))
    fresh.load_owned_state(loss.owned_state())
    assert fresh.loss.temperature.item() == 3.0
    assert torch.equal(fresh.loss.seen, loss.loss.seen)  # a buffer that has grown
    with pytest.raises(LossError, match=r"saved state of Halved: expected .*'loss.temperature'.* got \['other'\]"):
        fresh.load_owned_state({"other": torch.zeros(1)})
    with pytest.raises(LossError, match=r"saved loss.temperature of Halved: expected shape \[\], got \[2\]"):
        fresh.load_owned_state({**loss.owned_state(), "loss.temperature": torch.zeros(2)})


def test_one_execution_rules_the_tree() -> None:
    model = Model()
    inner = Pull(model, execution=GradCache(mini_batch_size=2))
    outer = Halved(model, inner)
    assert outer.execution == inner.execution == GradCache(mini_batch_size=2)
    outer.execution = Direct(rows=3)
    assert inner.execution == Direct(rows=3)
    with pytest.raises(LossError, match=r"Halved.execution: expected one value .* got Direct\(.* and GradCache"):
        Halved(model, Pull(model, execution=GradCache()), execution=Direct())


def test_wrappers_refuse_other_models_and_other_things() -> None:
    with pytest.raises(LossError, match=r"Halved.loss: expected the model that the wrapper has, got another model"):
        Halved(Model(), Pull(Model()))
    with pytest.raises(LossError, match=r"Halved.loss: expected a losskit.Loss, got Linear"):
        Halved(None, nn.Linear(2, 2))


def test_configuration_round_trips_and_names_what_is_not_stored() -> None:
    expression = {
        "name": "matryoshka",
        "dims": [4, 2],
        "loss": {"name": "multiple-negatives-ranking", "scale": 5.0, "similarity": "dot"},
    }
    loss = build(expression, None)
    config = loss.get_config_dict()
    assert config["dims"] == [4, 2]
    assert config["loss"]["name"] == "multiple-negatives-ranking"
    assert build({"name": "matryoshka", **config}, None).get_config_dict() == config

    class Forgets(Loss):
        def __init__(self, model: Any = None, margin: float = 1.0, *, execution: Any = None) -> None:
            super().__init__(model, execution=execution)

    with pytest.raises(LossError, match=r"Forgets.__init__: .*own name, got no attribute margin"):
        Forgets().get_config_dict()


def test_pickles_with_model_and_state() -> None:
    expression = {"name": "matryoshka", "dims": [3, 2], "normalize": True, "loss": "multiple-negatives-ranking"}
    loss = build(expression, Model())
    loss.observers.append(lambda *_: None)
    before = loss(columns())
    again = pickle.loads(pickle.dumps(loss))
    after = again(columns())
    assert {key: value.item() for key, value in before.items()} == {key: value.item() for key, value in after.items()}
    assert again.observers == []


@pytest.mark.parametrize(
    ("name", "count", "labels", "message"),
    [
        ("multiple-negatives-ranking", 1, None, r"columns \(anchor, positive, negative\*\), got 1 columns"),
        ("cosent", 3, torch.rand(5), r"columns \(text, text\), got 3 columns. Fix: drop the columns"),
        ("cosent", 2, None, r"labels for CoSENTLoss: expected score, got none"),
        ("cosent", 2, torch.rand(4), r"labels for CoSENTLoss: expected score of shape \[5\] or \[5, 1\], got \[4\]"),
        ("multiple-negatives-ranking", 2, torch.rand(5), r"labels for MultipleNegativesRankingLoss: expected none"),
        ("list-net", 3, torch.rand(5, 3), r"expected scores of shape \[10\] or \[5, 2\], got \[5, 3\]"),
    ],
)
def test_batches_that_do_not_fit_are_refused(name: str, count: int, labels: Tensor | None, message: str) -> None:
    with pytest.raises(LossError, match=message):
        build(name, Model())(columns(count), labels)


def test_refuses_the_features_of_one_column_outside_a_list() -> None:
    with pytest.raises(LossError, match=r"the batch: expected a list of columns, got one dict. Fix: put it in a list"):
        build("global-orthogonal-regularization", Model())(columns()[0])


def test_columns_of_unlike_length_are_refused() -> None:
    uneven = [columns(rows=5)[0], columns(rows=4)[1]]
    with pytest.raises(LossError, match=r"as many rows in every column, got \[5, 4\]"):
        build("multiple-negatives-ranking", Model(), execution=Direct(merge=False))(uneven)


def test_sample_weights_are_used_or_refused() -> None:
    inputs = columns()
    loss = Pull(Model())
    weight = torch.tensor([0.0, 1.0, 0.0, 0.0, 2.0], dtype=torch.float64)
    weighted = loss([inputs[0] | {"weight": weight}, inputs[1]])
    distance = (inputs[0]["vectors"] - inputs[1]["vectors"]).square().sum(1) * (1 + loss.drawn)
    assert weighted.item() == pytest.approx((distance * weight).mean().item())
    with pytest.raises(LossError, match=r"sample weights for CoSENTLoss: expected none"):
        build("cosent", Model())([inputs[0] | {"weight": weight}, inputs[1]], torch.rand(5))


def test_no_type_error_leaves_forward() -> None:
    class Breaks(Pull):
        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            raise TypeError("unsupported operand")

    with pytest.raises(LossError, match=r"Breaks on this batch: got TypeError: unsupported operand"):
        Breaks(Model())(columns())


def test_slices_of_rows_equal_the_whole_and_free_what_they_held() -> None:
    inputs = columns(rows=7)
    results = []
    for rows in (None, 3):
        model = Model()
        loss = Pull(model, execution=Direct(rows=rows))
        value = loss(inputs)
        value.backward()
        results.append((value.item(), model.factor.grad.item(), loss.temperature.grad.item()))
    assert results[0] == pytest.approx(results[1], rel=1e-12)


def test_unknown_attributes_of_a_plain_model_are_named() -> None:
    loss = build("multiple-negatives-ranking", Model())
    assert loss.encoder.family == "dense"
    assert loss.encoder.dimension is None
    with pytest.raises(
        LossError, match=r"Model.normalized: expected an attribute of the model.* Fix: set model.normalized"
    ):
        build({"name": "matryoshka", "dims": [2], "loss": "multiple-negatives-ranking"}, Model())(columns())
    model = Model()
    model.normalized, model.dimension = False, 3
    with pytest.raises(LossError, match=r"MatryoshkaLoss.dims: expected at most the encoder's 3, got 4"):
        build({"name": "matryoshka", "dims": [4], "loss": "multiple-negatives-ranking"}, model)


def test_a_model_that_returns_something_else_is_named() -> None:
    class Wrong(Model):
        def forward(self, features: dict[str, Tensor]) -> Any:
            return {"vectors": features["vectors"]}

    with pytest.raises(LossError, match=r"Wrong.forward: expected sentence_embedding, .* got \['vectors'\]"):
        build("multiple-negatives-ranking", Wrong())(columns())


def test_observers_see_detached_columns_in_training_only() -> None:
    seen: list[Any] = []
    loss = build("multiple-negatives-ranking", Model())
    loss.observers.append(lambda columns, labels, rows: seen.append((columns, rows)))
    loss(columns())
    loss.model.eval()
    loss(columns())
    assert len(seen) == 1
    assert not seen[0][0][0].embedding.requires_grad
    assert seen[0][1] == slice(0, 5)


class Words(nn.Module):
    """A frozen encoder with a vocabulary of its own: the number of letters, and dropout that must not show."""

    family, similarity, dimension, normalized = "dense", "dot", 1, False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.dropout = nn.Dropout(0.9)

    def preprocess(self, texts: Any, *, role: str = "text", prompt: str | None = None) -> dict[str, Tensor]:
        return {"length": torch.tensor([[float(len(text))] for text in texts], dtype=torch.float64)}

    def forward(self, features: dict[str, Tensor], needs: Any = ()) -> Output:
        return Output(self.dropout(features["length"] * self.weight))

    encode = save = load = adapt = preprocess


class Guided(Loss):
    """Reads the embeddings of column 0, a guide's of column 1, and a tower's of both."""

    card = Card(
        formats=[Format(inputs=["text", "text"])],
        encoders=["dense"],
        reads={"model": [0], "guide": [1], "tower": None},
    )

    def __init__(self, model: Any, guide: Any, tower: Any, *, execution: Any = None) -> None:
        super().__init__(model, execution=execution)
        self.frozen = {"guide": guide}
        self.towers = {"tower": tower}

    def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
        assert columns[1].embedding is None
        assert "guide" not in columns[0].parts
        guide = columns[1].parts["guide"].embedding
        towers = sum(column.parts["tower"].embedding.square().sum() for column in columns)
        return (columns[0].embedding * guide).sum() + towers


@pytest.mark.parametrize("execution", [Direct(), GradCache(mini_batch_size=2)], ids=["direct", "cached"])
def test_further_encoders_read_their_columns(execution: Any) -> None:
    model, guide, tower = Model(), Words().train(), Model()
    tower.factor.data.fill_(2.0)
    loss = Guided(model, guide, tower, execution=execution)
    assert loss.carries_texts
    assert set(loss.owned_state()) == {"tower.factor"}
    inputs = columns(rows=3)
    inputs[1]["texts"] = ["a", "bb", "cccc"]
    value = loss(inputs)
    lengths = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    a, b = (each["vectors"] for each in inputs)
    assert value.item() == pytest.approx(((a * lengths).sum() + 4 * (a.square().sum() + b.square().sum())).item())
    value.backward()
    assert guide.weight.grad is None
    assert guide.dropout.training
    assert model.factor.grad.item() == pytest.approx((a * lengths).sum().item())
    assert tower.factor.grad.item() == pytest.approx(4 * (a.square().sum() + b.square().sum()).item())


def test_a_frozen_encoder_without_texts_is_refused() -> None:
    with pytest.raises(LossError, match=r"the frozen encoder 'guide': expected texts .* has no method decode"):
        Guided(Model(), Words(), Model())(columns(rows=3))


class Vocabulary:
    def __init__(self, **ids: int) -> None:
        self.ids = ids

    def get_vocab(self) -> dict[str, int]:
        return self.ids


@pytest.mark.parametrize(
    ("vocabulary", "max_length", "reads"),
    [({"a": 0}, 8, True), ({"a": 0}, 4, False), ({"a": 1}, 8, False)],
    ids=["equal", "shorter", "other"],
)
def test_a_frozen_encoder_reads_the_tokens_of_an_equal_vocabulary(
    vocabulary: dict[str, int], max_length: int, reads: bool
) -> None:
    model, guide = Model(), Words()
    model.tokenizer, model.max_length = Vocabulary(a=0), 8
    guide.tokenizer, guide.max_length = Vocabulary(**vocabulary), max_length
    inputs = columns(rows=3)
    inputs[1]["length"] = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    with nullcontext() if reads else pytest.raises(LossError, match="texts that ride along"):
        found = Guided(model, guide, Model())(inputs)
        inputs[1]["texts"] = ["a", "bb", "cccc"]
        assert found.item() == Guided(model, Words(), Model())(inputs).item()


def test_encoders_of_a_tree_have_different_names() -> None:
    model = Model()
    losses = {key: Guided(model, Words(), Model()) for key in ("a", "b")}
    with pytest.raises(LossError, match=r"the encoder 'guide': expected one encoder of that name"):
        build({"name": "weighted-sum", "losses": {"a": "cosent"}}, model).__class__(model, losses)


def test_replacing_the_model_changes_the_encoder() -> None:
    loss = build("multiple-negatives-ranking", Model())
    first = loss.encoder
    assert loss.encoder is first
    loss.model = Model()
    assert loss.encoder is not first


def test_without_a_model_only_embeddings_are_taken() -> None:
    loss = build("multiple-negatives-ranking", None)
    assert loss.compute_loss_from_embeddings([torch.rand(3, 4), torch.rand(3, 4)]).item() > 0
    with pytest.raises(LossError, match=r"MultipleNegativesRankingLoss.model: expected an encoder, got None"):
        loss(columns())


@pytest.mark.parametrize(
    ("name", "rows", "labels", "reason"),
    [
        ("multiple-negatives-ranking", 1, None, "one row without negatives"),
        ("cosent", 4, torch.full((4,), 0.5), "all labels are equal"),
        ("list-net", 3, torch.rand(3), "every list has one document"),
    ],
)
def test_a_batch_that_teaches_nothing_warns_once_or_raises(
    name: str, rows: int, labels: Tensor | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    loss = build(name, model)
    for _ in range(2):
        value = loss(columns(rows=rows), labels)
    assert value.item() == 0.0
    value.backward()
    assert model.factor.grad.item() == 0.0
    assert sum(reason in message for message in caplog.messages) == 1
    loss.strict = True
    with pytest.raises(LossError, match=f"a batch that teaches nothing: {reason}"):
        loss(columns(rows=rows), labels)
    model.eval()
    loss(columns(rows=rows), labels)  # evaluation teaches nothing anyhow


def test_options_may_not_hide_what_losses_use() -> None:
    with pytest.raises(LossError, match=r"Hides.__init__: expected options by names .* got encoder, train"):

        class Hides(Loss):
            def __init__(self, model: Any, encoder: int, train: bool = True, *, execution: Any = None) -> None:
                super().__init__(model, execution=execution)


def test_cross_encoders_are_not_gathered() -> None:
    class Scores(Model):
        family = "cross-encoder"

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"scores": features["vectors"].sum(1) * self.factor}

    loss = build("list-net", Scores(), execution=Direct(gather=True))
    (pairs,) = columns(1, rows=4)
    with pytest.raises(LossError, match=r"ListNetLoss.execution: expected gather=False with a cross-encoder"):
        loss([pairs | {"lists": (2, 2)}], torch.rand(4))


VECTORS = torch.rand(3, 4)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (
            [VECTORS, VECTORS[:, :3]],
            r"embeddings for .*: expected one width and type, got shapes \[\[3, 4\], \[3, 3\]\]",
        ),
        ([VECTORS, VECTORS.double()], r"expected one width and type, got .* of \['float32', 'float64'\]"),
        ([VECTORS[0], VECTORS[0]], r"expected 2 axes from a dense encoder, got shapes \[\[4\], \[4\]\]"),
        ([VECTORS.long(), VECTORS.long()], r"expected floating numbers, got torch.int64"),
        ([VECTORS[:0], VECTORS[:0]], r"expected at least one row, got \[0, 0\]"),
    ],
)
def test_embeddings_of_the_wrong_shape_or_type_are_refused(embeddings: list[Tensor], message: str) -> None:
    with pytest.raises(LossError, match=message):
        build("multiple-negatives-ranking", None).compute_loss_from_embeddings(embeddings)


def test_lists_must_cover_the_items() -> None:
    queries, documents = columns(rows=2)
    loss = build("list-net", Model())
    with pytest.raises(LossError, match=r"the lists of column 2 for ListNetLoss: expected lengths that sum to its 2"):
        loss([queries, documents | {"lists": (2, 1)}], torch.rand(3))


def test_weights_are_one_per_row() -> None:
    inputs = columns()
    inputs[0]["weight"] = torch.ones(6)
    with pytest.raises(LossError, match=r"sample weights for Pull: expected one per row, shape \[5\], got \[6\]"):
        Pull(Model())(inputs)


def test_an_encoder_of_another_family_is_refused_at_once() -> None:
    model = Model()
    model.family = "cross-encoder"
    with pytest.raises(
        LossError, match=r"CoSENTLoss.model: expected an encoder that is dense .* which is cross-encoder"
    ):
        build("cosent", model)


def test_an_unknown_similarity_is_refused_at_once() -> None:
    with pytest.raises(NotFoundError, match=r"no similarity is named 'cosin'. Fix: did you mean 'cosine'"):
        build({"name": "cosent", "similarity": "cosin"}, Model())


@pytest.mark.parametrize("labels", [["a", "b"], "ab", [None, None], [[0.0, 1.0], [[0.5], 1.0]], 3.0])
def test_labels_that_are_no_numbers(labels) -> None:
    message = "^labels for CoSENTLoss: expected a tensor, or numbers for each row, got .*Error: .*. Fix: convert them$"
    with pytest.raises(LossError, match=message):
        build("cosent").compute_loss_from_embeddings([torch.ones(2, 3), torch.ones(2, 3)], labels)
    with pytest.raises(LossError, match=message):
        build("cosent", Model())(columns(rows=2), labels)


def test_labels_of_lists_in_every_form() -> None:
    queries, documents = columns(rows=2)
    documents = {"vectors": torch.cat([documents["vectors"]] * 2), "lists": (2, 2)}
    loss = build("list-net", Model())
    values = [
        loss([queries, documents], labels).item()
        for labels in (
            torch.tensor([1.0, 0.0, 0.5, 2.0]),
            torch.tensor([[1.0, 0.0], [0.5, 2.0]]),
            [torch.tensor([1.0, 0.0]), torch.tensor([0.5, 2.0])],
            [[1.0, 0.0], [0.5, 2.0]],
        )
    ]
    assert len(set(values)) == 1


@pytest.mark.parametrize(
    ("name", "labels", "wanted"),
    [
        ("list-net", [[1.0], [0.0, 0.5, 2.0, 1.0]], r"as it has documents, \[3, 2\], got \[1, 4\]"),
        ("list-net", [1.0, 0.0, 0.5, 2.0, 1.0], r"as it has documents, \[3, 2\], got \[1, 1, 1, 1, 1\]"),
        ("margin-mse", [[1.0], [0.0, 0.5]], r"as it has negatives, \[2, 1\], got \[1, 2\]"),
    ],
)
def test_labels_of_one_row_are_not_taken_for_those_of_another(name, labels, wanted) -> None:
    queries, documents = columns(rows=2)
    documents = {"vectors": torch.cat([documents["vectors"]] * 3)[:5], "lists": (3, 2)}
    loss = build(name, Model())
    with pytest.raises(LossError, match=f"^labels for {type(loss).__name__}: expected as many for each row {wanted}"):
        loss([queries, documents], labels)


def test_labels_of_a_missing_row_are_not_taken_for_those_of_negatives() -> None:
    queries, documents = columns(rows=2)
    documents = {"vectors": torch.cat([documents["vectors"]] * 3)[:5], "lists": (3, 2)}
    with pytest.raises(LossError, match=r"^labels for ListNetLoss: expected scores of shape \[5\], got \[3\]"):
        build("list-net", Model())([queries, documents], [[1.0, 0.0, 0.5]])


def test_a_similarity_that_is_a_module_is_used_and_trained() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))

        def forward(self, a: Output, b: Output) -> Tensor:
            return (a.embedding * self.weight) @ b.embedding.T

        def pairwise(self, a: Output, b: Output) -> Tensor:
            return (a.embedding * self.weight * b.embedding).sum(-1)

    class Near(Loss):
        card = Card(formats=[Format(inputs=["text", "text"])], encoders=["dense"])

        def __init__(self, model: Any = None, similarity: Any = None) -> None:
            super().__init__(model)
            self.similarity = similarity

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            return self.pairwise(columns[0][rows], columns[1][rows]).mean()

    learned = Learned()
    loss = Near(Model(), learned)
    assert loss.similarity is loss.scorer is learned
    assert set(loss.owned_state()) == {"similarity.weight"}
    inputs = columns(rows=3)
    value = loss(inputs)
    a, b = (each["vectors"] for each in inputs)
    assert value.item() == pytest.approx((2 * a * b).sum(1).mean().item())
    value.backward()
    torch.testing.assert_close(learned.weight.grad, (a * b).mean(0))
    assert "Learned" in loss.get_config_dict()["similarity"]


class Drawn(Loss):
    """The mean of one drawn power of the vectors."""

    card = Card(formats=[Format(inputs=["text"])], encoders=["dense"], stochastic=True)

    def draw(self, generator: torch.Generator, sizes: Any) -> int:
        return int(torch.randint(1, 9, (), generator=generator))

    def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
        return columns[0].embedding[rows].abs().pow(self.drawn).sum(1).mean()


def test_slices_are_made_again_with_the_draws_of_their_forward() -> None:
    """Two forwards before one backward: the second's draws are not the first's."""
    gradients = []
    for execution in (Direct(), Direct(rows=2)):
        model = Model()
        loss = Drawn(model, execution=execution)
        inputs = columns(rows=5)[:1]
        first, powers = loss(inputs), [loss.drawn]
        total = first + loss(inputs)
        powers.append(loss.drawn)
        assert powers[0] != powers[1]
        total.backward()
        assert loss.drawn == powers[1]
        gradients.append(model.factor.grad.item())
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-12)


def test_a_denominator_without_the_components_name_is_refused() -> None:
    class Named(Drawn):
        def denominator(self, columns: Any, labels: Tensor | None, rows: slice) -> Any:
            return {"other": torch.tensor(1.0)}

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Any:
            return {"part/name": super().compute(columns, labels, rows)}

    with pytest.raises(LossError, match=r"expected the key 'part/name', as compute gives it, got keys \['other'\]"):
        Named(Model(), execution=Direct(rows=2))(columns(rows=5)[:1])


def test_the_rest_of_the_components_may_share_a_denominator() -> None:
    weights = [{"": 1, "part": 3}, {"": 3, "part": 1}]
    values = [dict.fromkeys(("part/name", "other", "other/name"), torch.tensor(value)) for value in (0.0, 8.0)]
    found = {key: value.item() for key, value in weighted_mean(values, weights).items()}
    assert found == {"part/name": 2.0, "other": 6.0, "other/name": 6.0}


def test_owned_state_holds_what_two_parts_share() -> None:
    loss = Pull(Model())
    loss.again = loss.temperature
    state = {key: value + 1 for key, value in loss.owned_state().items()}
    loss.load_owned_state(state)
    assert loss.again is loss.temperature
    assert loss.temperature.item() == 2.0


def test_a_foreign_model_serves_as_frozen_encoder() -> None:
    """It needs no methods beyond a tokeniser: it is seen as any model is."""

    class Foreign(nn.Module):
        def preprocess(self, texts: Any) -> dict[str, Tensor]:
            return {"length": torch.tensor([[float(len(text))] for text in texts], dtype=torch.float64)}

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": features["length"]}

    class Guide(Loss):
        card = Card(formats=[Format(inputs=["text", "text"])], encoders=["dense"], reads={"guide": None})

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            return sum((c.embedding * c.parts["guide"].embedding).sum() for c in columns)

    loss = Guide(Model())
    loss.frozen = {"guide": Foreign()}
    inputs = columns(rows=3)
    for features in inputs[:2]:
        features["texts"] = ["a", "bb", "cccc"]
    lengths = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    expected = sum((features["vectors"] * lengths).sum() for features in inputs[:2])
    assert loss(inputs[:2]).item() == pytest.approx(expected.item())


def test_further_encoders_may_come_and_go_between_forwards() -> None:
    class Guide(Loss):
        card = Card(formats=[Format(inputs=["text"])], encoders=["dense"], reads={"guide": None, "tower": None})

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            return torch.tensor(len(columns[0].parts))

    loss = Guide(Model())
    inputs = [columns(rows=3)[0] | {"texts": ["a", "bb", "cccc"]}]
    found = [loss(inputs).item()]
    for frozen, towers in (({"guide": Words()}, {}), ({"guide": Words()}, {"tower": Model()}), ({}, {})):
        loss.frozen, loss.towers = frozen, towers
        found.append(loss(inputs).item())
    assert found == [0, 1, 2, 0]


def test_a_dict_model_gives_what_a_loss_needs() -> None:
    class Layered(Model):
        def forward(self, features: dict[str, Tensor]) -> dict[str, Any]:
            made = super().forward(features)
            return {**made, "layers": [made["sentence_embedding"], 2 * made["sentence_embedding"]]}

    class Reading(Loss):
        card = Card(formats=[Format(inputs=["text"])], encoders=["dense"], needs=("layers", "input_ids"))

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            assert columns[0].parts["input_ids"].mask.dtype == torch.bool
            return columns[0].layers[1].sum()

    features = columns(rows=3)[0]
    ids = torch.ones((3, 2), dtype=torch.long)
    value = Reading(Layered())([{**features, "input_ids": ids, "attention_mask": ids}])
    assert value.item() == pytest.approx(2 * features["vectors"].sum().item())


def test_a_compiled_model_is_called_compiled_and_seen_as_it_was() -> None:
    from losskit.testing import ToyEncoder

    toy = ToyEncoder()
    calls = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(len(inputs))
        return graph.forward

    compiled = torch.compile(toy, backend=backend)
    loss = Drawn(compiled)
    assert (loss.encoder.family, loss.encoder.dimension) == (toy.family, toy.dimension)
    features = toy.preprocess(["one text", "another"])
    assert loss.encoder(dict(features), ("layers",)).layers
    assert not calls
    torch.testing.assert_close(loss.encoder(dict(features)).embedding, toy(features).embedding)
    assert calls


def test_weights_of_lists_are_those_of_their_items() -> None:
    class Weighted(Loss):
        card = Card(formats=[Format(inputs=["text"])], encoders=["dense"])
        uses_weights: ClassVar = True
        uses_lists: ClassVar = ("text",)

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            record = columns[0][rows]
            return (record.embedding * record.parts["weight"][:, None]).sum() / len(record.lists)

    features = {**columns(rows=5)[0], "lists": (2, 0, 3), "weight": torch.tensor([1.0, 7.0, 4.0])}
    vectors = features["vectors"]
    expected = ((vectors[:2].sum() + 4 * vectors[2:].sum()) / 3).item()
    for execution in (Direct(), Direct(rows=1), GradCache(mini_batch_size=2, rows=2)):
        assert Weighted(Model(), execution=execution)([dict(features)]).item() == pytest.approx(expected)


def test_data_parallel_is_refused() -> None:
    with pytest.raises(LossError, match=r"model in DataParallel: .* Fix: start with torchrun"):
        build("multiple-negatives-ranking", nn.DataParallel(Model()))


def test_further_encoders_count_as_stored() -> None:
    config = Guided(Model(), Words(), Model()).get_config_dict()
    assert config["guide"].endswith("Words")
    assert config["tower"].endswith("Model")


def test_an_encoder_that_says_how_it_is_built_stands_as_that_expression() -> None:
    from losskit.testing import ToyEncoder

    config = Guided(Model(), ToyEncoder(dimension=1, seed=3), Model()).get_config_dict()
    again = build(config["guide"], kind="encoder")
    assert torch.equal(again.words.weight, ToyEncoder(dimension=1, seed=3).words.weight)
    assert isinstance(Guided(Model(), ToyEncoder(), Model()).get_config_dict()["guide"], str)


def test_a_guide_reads_texts_in_the_role_of_their_column() -> None:
    from losskit.batch import preprocess

    class Prompted(Words):
        def preprocess(self, texts: Any, *, role: str = "text", prompt: str | None = None) -> dict[str, Tensor]:
            return super().preprocess([{"query": "12345", "document": "", "text": "1"}[role] + text for text in texts])

    class Reading(Loss):
        card = Card(formats=[Format(inputs=["anchor", "positive"])], encoders=["dense"], reads={"guide": None})

        def __init__(self, model: Any) -> None:
            super().__init__(model)
            self.frozen = {"guide": Prompted()}

        def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
            seen.append([column.parts["guide"].embedding.flatten().tolist() for column in columns])
            return columns[0].embedding.sum()

    seen: list[Any] = []
    loss = Reading(Words())
    features = preprocess(loss, [["a"], ["bb"]], inputs=["anchor", "positive"])
    loss(features)
    assert seen.pop() == [[6.0], [2.0]]
    for each in features:
        del each["texts_role"]
    loss(features)
    assert seen.pop() == [[2.0], [3.0]]


def test_a_negative_place_counts_from_the_last_column() -> None:
    class Ends(Pull):
        card = Card(formats=[Format(inputs=["text+"])], reads={"model": [-1], "tower": [0]})

    assert columns_read([Ends(Model())], "model", 3) == [2]
    assert columns_read([Ends(Model())], "model", 1) == columns_read([Ends(Model())], "tower", 1) == [0]


def test_token_ids_are_refused_where_there_are_none() -> None:
    class Reading(Pull):
        card = Card(formats=[Format(inputs=["text"])], needs=("input_ids",), reads={"model": []})

    with pytest.raises(LossError, match=r"needs of the loss: expected features with input_ids and attention_mask"):
        Reading(Model())(columns(rows=3)[:1])


def test_an_owned_layer_stands_where_the_model_is() -> None:
    loss = Pull(Model())
    loss.model.dimension = 4
    layer = loss.owned_linear(3, vectors=2)
    assert (layer.in_features, layer.out_features, layer.weight.dtype) == (8, 3, torch.float64)
    loss.model.bfloat16()
    assert loss.owned_linear(3).weight.dtype == torch.float32
    assert Pull(None).owned_linear(2, dimension=5).in_features == 5
    with pytest.raises(LossError, match=r"Pull.model: expected an encoder that knows the width .*, got None\. Fix"):
        Pull(None).owned_linear(2)


def test_an_owned_parameter_stands_where_the_model_is() -> None:
    loss = Pull(Model())
    owned = loss.owned_parameter(2, 3)
    assert (owned.tolist(), owned.dtype, owned.requires_grad) == ([[0.0] * 3] * 2, torch.float64, True)
    loss.model.bfloat16()
    assert loss.owned_parameter(1).dtype == torch.float32
    assert Pull(None).owned_parameter().shape == ()
