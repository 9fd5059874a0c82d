from dataclasses import fields

import pytest
from transformers import TrainingArguments

from losskit import RecipeError
from losskit.recipe import Training
from losskit_plugins.training.options import check_training, known_arguments, training_arguments


def test_names_read_from_source_are_those_of_the_class():
    assert known_arguments().keys() == {item.name for item in fields(TrainingArguments) if item.init}


def test_short_names_and_defaults(tmp_path):
    args = training_arguments(Training(epochs=2, batch_size=32, warmup=0.25, log_every=3, seed=4), tmp_path)
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.warmup_steps) == (2.0, 32, 0.25)
    assert (args.logging_steps, args.seed, args.report_to) == (3, 4, [])
    assert (args.eval_strategy, args.save_strategy, args.save_total_limit) == ("no", "epoch", 1)


def test_steps_between_evaluations_and_checkpoints(tmp_path):
    args = training_arguments(Training(eval_every=5, save_every=7), tmp_path)
    assert (args.eval_strategy, args.eval_steps, args.save_strategy, args.save_steps) == ("steps", 5, "steps", 7)


def test_arguments_of_transformers_by_their_own_names(tmp_path):
    args = training_arguments(Training(bf16=True, save_strategy="no", gradient_accumulation_steps=2), tmp_path)
    assert (args.bf16, args.save_strategy, args.gradient_accumulation_steps) == (True, "no", 2)


def test_a_batch_is_shared_by_all_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match=r"training.batch_size: expected a multiple of 3.*, got 64"):
        check_training(Training(batch_size=64))


def test_unknown_options_are_refused():
    with pytest.raises(RecipeError, match=r"training.learning_rat: unknown; did you mean 'learning_rate'"):
        check_training(Training(learning_rat=1.0))


def test_what_transformers_refuses_is_one_line(tmp_path):
    with pytest.raises(RecipeError, match=r"^training: expected arguments that transformers accepts, got .*optim"):
        training_arguments(Training(optim="no-such-optimizer"), tmp_path)


@pytest.mark.parametrize(
    ("services", "said"), [("wandb", "WandbCallback requires wandb"), (["no-such"], "no-such is not supported")]
)
def test_reports_to_what_is_not_installed_are_refused(services, said, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.integration_utils.is_wandb_available", lambda: False)
    with pytest.raises(
        RecipeError, match=rf"^training.report_to: expected services whose packages are .*, got .*{said}"
    ):
        training_arguments(Training(report_to=services), tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bf16", "maybe", "training.bf16: expected bool, got 'maybe'"),
        ("gradient_accumulation_steps", 2.5, "training.gradient_accumulation_steps: expected int, got 2.5"),
        ("gradient_accumulation_steps", True, "training.gradient_accumulation_steps: expected int, got True"),
        ("gradient_accumulation_steps", 0, "training.gradient_accumulation_steps: expected a positive integer, got 0"),
        ("per_device_train_batch_size", 0, "training.per_device_train_batch_size: expected a positive integer, got 0"),
        ("save_total_limit", "all", "training.save_total_limit: expected int or None, got 'all'"),
    ],
)
def test_values_of_transformers_options_are_checked(name, value, message):
    with pytest.raises(RecipeError) as caught:
        check_training(Training(**{name: value}))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "options", [{"adam_beta1": 1}, {"report_to": ["none"]}, {"optim": "adafactor"}, {"data_seed": None}]
)
def test_values_that_transformers_takes_are_left_to_it(options):
    check_training(Training(**options))


@pytest.mark.parametrize("options", [{"eval_every": 2}, {"eval_strategy": "epoch"}, {"eval_steps": 2}])
def test_evaluations_need_data(options):
    check_training(Training(**options))
    with pytest.raises(RecipeError, match=r"evaluations while it runs: expected data.eval to evaluate on, got none"):
        check_training(Training(**options), evaluates=False)
    check_training(Training(eval_strategy="no"), evaluates=False)
