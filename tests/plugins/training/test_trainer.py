import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from losskit import Card, DataError, Format, Loss, LossError, build
from losskit.losses import MultipleNegativesRankingLoss
from losskit_plugins.training.trainer import Trainer, needs_classes, needs_distinct_texts


class ScaledLoss(Loss):
    """Owns a parameter and a buffer, draws, follows a schedule, and has components."""

    card = Card(formats=[Format(["anchor", "positive"])], row_wise=True, stochastic=True)

    def __init__(self, model, sometimes=False):
        super().__init__(model)
        self.sometimes = sometimes
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros(()))
        self.moments = []

    def draw(self, generator, sizes):
        return torch.rand((), generator=generator)

    def observe(self, columns, labels):
        self.seen += 1
        return columns, labels

    def compute(self, columns, labels, rows):
        self.moments.append((self.progress, float(self.drawn)))
        distance = (self.pairwise(columns[0][rows], columns[1][rows]) - self.weight).square().mean()
        values = {"distance": distance, "drawn": self.drawn * self.weight.square()}
        if self.sometimes and len(self.moments) % 2:
            values["odd"] = distance * 0 + 3.0
        return values


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = True
            control.should_training_stop = True


class Record(TrainerCallback):
    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.logs.append(dict(logs))


def arguments(folder, **given):
    defaults = {
        "num_train_epochs": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "save_strategy": "no",
        "logging_steps": 1, "disable_tqdm": True, "use_cpu": True, "seed": 5,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **(defaults | given))


@pytest.fixture
def trainer(make_encoder, collate, pairs, tmp_path):
    def make(make_loss=MultipleNegativesRankingLoss, dropout=0.0, callbacks=(), folder=tmp_path, **given):
        options = {name: given.pop(name) for name in ("evaluation", "batch_sampler") if name in given}
        encoder = make_encoder(dropout)
        return Trainer(
            loss=make_loss(encoder), train_dataset=pairs, args=arguments(folder, **given),
            collator=collate(MultipleNegativesRankingLoss(encoder)), callbacks=callbacks, **options,
        )  # fmt: skip

    return make


def state(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_training_lowers_the_loss_and_prints_nothing(trainer, capsys):
    record = Record()
    trainer(callbacks=[record]).train()
    losses = [logs["loss"] for logs in record.logs if "loss" in logs]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("batch_sampler", ["no-duplicates", "random"])
@pytest.mark.parametrize("stop", [3, 5, 7])
def test_resumed_equals_uninterrupted_exactly(trainer, tmp_path, batch_sampler, stop):
    given = {"make_loss": ScaledLoss, "dropout": 0.3, "batch_sampler": batch_sampler, "gradient_accumulation_steps": 1}
    whole = trainer(folder=tmp_path / "whole", **given)
    whole.train()
    trainer(folder=tmp_path / "cut", callbacks=[StopAt(stop)], **given).train()
    resumed = trainer(folder=tmp_path / "cut", **given)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{stop}"))
    assert resumed.state.global_step == whole.state.global_step == 15
    assert resumed.model.moments == whole.model.moments[stop:]
    assert resumed.totals.steps == whole.totals.steps == 15
    assert resumed.totals.mean_loss == pytest.approx(whole.totals.mean_loss)
    assert_same(state(resumed), state(whole))


def test_a_checkpoint_is_a_model_folder_with_the_loss_and_no_pickled_arguments(trainer, tmp_path, make_encoder):
    made = trainer(ScaledLoss, callbacks=[StopAt(2)])
    made.train()
    folder = tmp_path / "checkpoint-2"
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors", "loss.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json",
    }  # fmt: skip
    assert_same(load_file(folder / "loss.safetensors"), {"weight": made.model.weight.data, "seen": made.model.seen})
    assert_same(make_encoder.load(folder).state_dict(), made.encoder.state_dict())


def test_a_checkpoint_without_the_loss_is_refused(trainer, tmp_path):
    trainer(ScaledLoss, callbacks=[StopAt(2)]).train()
    (tmp_path / "checkpoint-2" / "loss.safetensors").unlink()
    with pytest.raises(
        LossError, match=r"state of ScaledLoss: expected loss.safetensors in .*checkpoint-2, got no such"
    ):
        trainer(ScaledLoss).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_what_the_loss_owns_is_optimised_and_clipped(trainer):
    seen = []

    class Norms(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            assert model.weight.grad is not None
            seen.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))

    made = trainer(ScaledLoss, callbacks=[Norms()], max_grad_norm=0.01)
    made.train()
    assert made.model.weight.item() != 1.0
    assert max(seen) <= 0.01 * (1 + 1e-3)


def test_clock_follows_the_steps_and_micro_batches_draw_afresh(trainer):
    made = trainer(ScaledLoss, gradient_accumulation_steps=2, num_train_epochs=1)
    made.train()
    progress, drawn = zip(*made.model.moments, strict=True)
    assert progress == (0, 0, 1 / 3, 1 / 3, 2 / 3)
    assert len(set(drawn)) == 5


def test_accumulation_is_the_mean_over_micro_batches(trainer, pairs):
    class Plain(nn.Module):
        """Its gradient by w is the mean of the first column's lengths."""

        def __init__(self, model):
            super().__init__()
            self.model, self.w = model, nn.Parameter(torch.tensor(0.0))

        def forward(self, sentence_features, labels=None):
            lengths.append(float(sentence_features[0]["input_ids"].float().mean()))
            return self.w * lengths[-1]

    lengths = []
    grads = []

    class Grads(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            grads.append(float(model.w.grad))

    made = trainer(
        Plain,
        callbacks=[Grads()],
        gradient_accumulation_steps=3,
        num_train_epochs=1,
        max_grad_norm=0.0,
        batch_sampler="random",
    )
    made.train()
    a, b, c, d, e = lengths
    assert grads == [pytest.approx((a + b + c) / 3), pytest.approx((d + e) / 2)]


def test_components_are_logged_by_name_and_averaged_over_their_steps(trainer):
    record = Record()
    made = trainer(lambda encoder: ScaledLoss(encoder, sometimes=True), callbacks=[record], logging_steps=5)
    made.train()
    first = next(logs for logs in record.logs if "loss" in logs)
    assert first["odd"] == 3.0
    drawn = [value for _, value in made.model.moments[:5]]
    assert 0.5 * sum(drawn) / 5 < first["drawn"] < 1.5 * sum(drawn) / 5
    assert first["loss"] == pytest.approx(first["distance"] + first["drawn"] + 3 * 3.0 / 5, rel=1e-5)


def test_diagnostics_and_gradient_norm_are_logged(trainer):
    record = Record()
    trainer(callbacks=[record], num_train_epochs=1).train()
    for logs in (logs for logs in record.logs if "loss" in logs):
        assert -1 <= logs["mean_negative_similarity"] <= 1
        assert -1 <= logs["mean_positive_similarity"] <= 1
        assert 1 <= logs["effective_negatives"] <= 7
        assert logs["grad_norm"] > 0


def test_a_loss_that_is_not_finite_names_step_and_component(trainer):
    class Breaks(ScaledLoss):
        def compute(self, columns, labels, rows):
            values = super().compute(columns, labels, rows)
            return values | {"drawn": values["drawn"] / (0.0 if len(self.moments) == 3 else 1.0)}

    with pytest.raises(LossError, match=r"Breaks at step 3: expected a finite value, got inf in drawn"):
        trainer(Breaks).train()


def test_evaluation_is_logged_under_its_names_and_gets_the_encoder(trainer):
    record, asked = Record(), []

    def evaluation(encoder):
        asked.append(encoder)
        return {"ndcg@10": 0.5}

    made = trainer(callbacks=[record], evaluation=evaluation, eval_strategy="epoch", num_train_epochs=2)
    made.train()
    found = [logs for logs in record.logs if any(name.startswith("eval_") for name in logs)]
    assert [{name: value for name, value in logs.items() if name != "epoch"} for logs in found] == [
        {"eval_ndcg@10": 0.5}
    ] * 2
    assert asked == [made.encoder] * 2


def test_the_best_checkpoint_comes_back(trainer, tmp_path):
    values = iter([0.3, 0.9, 0.1])
    made = trainer(
        ScaledLoss, evaluation=lambda encoder: {"mrr@10": next(values)}, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="mrr@10",
    )  # fmt: skip
    made.train()
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-10")
    assert torch.equal(made.model.weight.data, load_file(tmp_path / "checkpoint-10" / "loss.safetensors")["weight"])


def test_batches_hold_no_text_twice_where_rows_are_each_others_negatives(trainer, pairs):
    pairs[:] = [{"anchor": f"a{i}", "positive": f"same{i % 9}"} for i in range(36)]
    made = trainer()
    for batch in made.get_train_dataloader():
        rows = batch["inputs"][1]["input_ids"][:, 0].tolist()
        assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    ("labels", "row_wise", "expected"), [("none", True, True), ("score", True, False), ("none", False, False)]
)
def test_rule_of_the_batch_sampler(labels, row_wise, expected):
    class Any(Loss):
        card = Card(formats=[Format(["text", "text"], labels=labels)], row_wise=row_wise)

    assert needs_distinct_texts(Any(None)) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("mse", False),
        ({"name": "mse", "teacher": "losskit.testing.toys:ToyEncoder"}, False),
        ("contrastive-tension", False),
        ("contrastive-tension-in-batch-negatives", True),
        ({"name": "matryoshka", "dims": [2], "loss": "multiple-negatives-ranking"}, True),
    ],
    ids=str,
)
def test_distinct_texts_matter_where_rows_are_compared(expression, expected):
    assert needs_distinct_texts(build(expression)) is expected


class SortedLoss(Loss):
    """Reads the class of single texts, as the batch-triplet losses do."""

    card = Card(formats=[Format(["text"], labels="class")])

    def compute(self, columns, labels, rows):
        return columns[0].embedding[rows].square().mean()


def test_batches_hold_several_texts_of_a_class_where_texts_are_compared_by_classes(make_encoder, tmp_path):
    rows = [{"text": f"a{i}", "label": i % 7} for i in range(56)]
    for given, expected in (({}, {4}), ({"samples_per_class": 2}, {2})):
        made = Trainer(make_encoder(), SortedLoss(), rows, arguments(tmp_path), **given)
        for batch in made.get_train_dataloader():
            assert set(batch["labels"].bincount().tolist()) - {0} == expected
    assert needs_classes(made.model)
    assert not needs_classes(MultipleNegativesRankingLoss())
    names = [{"text": f"a{i}", "class": i % 7} for i in range(56)]
    with pytest.raises(DataError, match="expected a column of classes, called label, got columns text, class"):
        Trainer(make_encoder(), SortedLoss(), names, arguments(tmp_path)).get_train_dataloader()


def test_bf16_trains(trainer):
    made = trainer(bf16=True, num_train_epochs=1)
    before = state(made)
    made.train()
    assert not torch.equal(before["model.words.weight"], state(made)["model.words.weight"])
    assert made.model.model.words.weight.dtype == torch.float32


def test_model_and_loss_must_belong_together(make_encoder, pairs, tmp_path):
    encoder = make_encoder()
    with pytest.raises(LossError, match=r"Trainer\.loss: expected a loss, got NoneType"):
        Trainer(encoder)
    with pytest.raises(LossError, match=r"expected the model of MultipleNegativesRankingLoss, got another one"):
        Trainer(make_encoder(), MultipleNegativesRankingLoss(encoder), pairs, arguments(tmp_path))
    assert Trainer(encoder, MultipleNegativesRankingLoss(None), pairs, arguments(tmp_path)).encoder is encoder


@pytest.mark.parametrize(("name", "value"), [("label_smoothing_factor", 0.1), ("neftune_noise_alpha", 5.0)])
def test_arguments_that_cannot_hold_are_refused_by_name(trainer, name, value):
    with pytest.raises(LossError, match=f"training argument {name}: expected it left out, got {value}"):
        trainer(**{name: value})


def test_the_users_arguments_are_left_alone(make_encoder, collate, pairs, tmp_path):
    args = arguments(tmp_path)
    loss = MultipleNegativesRankingLoss(make_encoder())
    Trainer(loss=loss, train_dataset=pairs, args=args, collator=collate(loss))
    assert args.logging_nan_inf_filter is True


def test_an_unknown_batch_sampler_is_refused(trainer):
    with pytest.raises(LossError, match="batch_sampler: expected auto, no-duplicates, classes or random, got 'rnd'"):
        trainer(batch_sampler="rnd").train()


def test_log_history_is_json(trainer, tmp_path):
    trainer(callbacks=[StopAt(2)]).train()
    saved = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert saved["log_history"][0]["step"] == 1
