import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from losskit import Card, Format, Loss, LossError
from losskit.losses import MultipleNegativesRankingLoss
from losskit_plugins.training.callbacks import ProgressCallback


class Scheduled(Loss):
    """Pulls pairs to a similarity that it learns, more so as the training goes on."""

    card = Card(formats=[Format(["anchor", "positive"])], stochastic=True)

    def __init__(self, model):
        super().__init__(model)
        self.target = nn.Parameter(torch.tensor(0.2))
        self.moments = []

    def draw(self, generator, sizes):
        return torch.rand((), generator=generator)

    def compute(self, columns, labels, rows):
        self.moments.append((self.progress, self.drawn.item()))
        return (1 + self.progress) * (self.pairwise(columns[0][rows], columns[1][rows]) - self.target).square().mean()


class Foreign(nn.Module):
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss


def moment(tmp_path, step=0, steps=10):
    args = TrainingArguments(output_dir=str(tmp_path), seed=3, use_cpu=True, disable_tqdm=True)
    return args, TrainerState(global_step=step, max_steps=steps), TrainerControl()


def test_sets_seed_step_and_progress_of_every_loss(tmp_path, encoder):
    inner = Scheduled(encoder)
    ProgressCallback(Foreign(encoder, inner)).on_step_begin(*moment(tmp_path, step=4), model=encoder)
    assert (inner._moment.clock.seed, inner._moment.clock.step, inner._moment.clock.progress) == (3, 4, 0.4)


def test_without_a_loss_the_trained_module_is_it(tmp_path, encoder):
    loss = Scheduled(encoder)
    ProgressCallback().on_step_begin(*moment(tmp_path, step=5), model=loss)
    assert loss._moment.clock.progress == 0.5


def test_a_trainer_that_hides_the_loss_is_told_what_to_do(tmp_path, encoder):
    with pytest.raises(
        LossError, match=r"holds a loss of losskit, got TinyEncoder. Fix: hand the loss over: ProgressC"
    ):
        ProgressCallback().on_train_begin(*moment(tmp_path), model=encoder)


def test_saves_and_restores_what_the_loss_owns(tmp_path, encoder):
    loss, again = Scheduled(encoder), Scheduled(encoder)
    loss.target.data.fill_(0.75)
    (tmp_path / "checkpoint-4").mkdir()
    ProgressCallback(loss).on_save(*moment(tmp_path, step=4), model=encoder)
    assert list(load_file(tmp_path / "checkpoint-4" / "loss.safetensors")) == ["target"]
    ProgressCallback(again).on_train_begin(*moment(tmp_path, step=4), model=encoder)
    assert again.target.item() == 0.75


def test_losses_by_dataset_are_kept_apart(tmp_path, encoder):
    losses = {"a": Scheduled(encoder), "b": Scheduled(encoder)}
    losses["b"].target.data.fill_(0.5)
    (tmp_path / "checkpoint-1").mkdir()
    ProgressCallback(losses).on_save(*moment(tmp_path, step=1), model=encoder)
    assert load_file(tmp_path / "checkpoint-1" / "loss.safetensors")["b.target"] == 0.5


def test_a_loss_that_owns_nothing_leaves_no_file(tmp_path, encoder):
    (tmp_path / "checkpoint-1").mkdir()
    callback = ProgressCallback(MultipleNegativesRankingLoss(encoder))
    callback.on_save(*moment(tmp_path, step=1), model=encoder)
    callback.on_train_begin(*moment(tmp_path, step=1), model=encoder)
    assert not any((tmp_path / "checkpoint-1").iterdir())


def test_a_resumed_training_without_the_file_is_refused(tmp_path, encoder):
    with pytest.raises(
        LossError, match=r"the state of Scheduled: expected loss.safetensors in .*checkpoint-4, got no such"
    ):
        ProgressCallback(Scheduled(encoder)).on_train_begin(*moment(tmp_path, step=4), model=encoder)


def test_another_folder_may_be_named(tmp_path, encoder):
    loss, again = Scheduled(encoder), Scheduled(encoder)
    loss.target.data.fill_(0.25)
    (tmp_path / "checkpoint-2").mkdir()
    ProgressCallback(loss).on_save(*moment(tmp_path, step=2), model=encoder)
    other = moment(tmp_path / "elsewhere", step=2)
    ProgressCallback(again, checkpoint=tmp_path / "checkpoint-2").on_train_begin(*other, model=encoder)
    assert again.target.item() == 0.25


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_in_the_trainer_of_sentence_transformers_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import TrainerCallback

    from losskit_plugins.training.quickstart import write_inputs

    write_inputs(tmp_path)
    rows = Dataset.from_dict(
        {"anchor": [f"kettle {i}" for i in range(24)], "positive": [f"lamp {i}" for i in range(24)]}
    )

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = control.should_training_stop = state.global_step == 2

    def run(name, *callbacks, resume=None):
        torch.manual_seed(0)
        transformer = Transformer(str(tmp_path / "quickstart" / "encoder"))
        model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
        loss = Scheduled(model)
        args = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / name), num_train_epochs=1, per_device_train_batch_size=4, learning_rate=1e-2,
            save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=args, train_dataset=rows, loss=loss, callbacks=[ProgressCallback(loss), *callbacks]
        )
        trainer.train(resume_from_checkpoint=resume)
        return loss

    whole = run("whole")
    cut = run("cut", Stop())
    resumed = run("cut", resume=str(tmp_path / "cut" / "checkpoint-2"))
    assert [progress for progress, _ in whole.moments] == [step / 6 for step in range(6)]
    assert cut.moments + resumed.moments == whole.moments
    assert resumed.target.item() == whole.target.item()
