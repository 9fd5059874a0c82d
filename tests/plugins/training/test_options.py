from dataclasses import fields

import pytest
from transformers import TrainingArguments

from losskit import RecipeError
from losskit.recipe import Training
from losskit_plugins.training.options import check_training, known_arguments, training_arguments


def test_names_read_from_source_are_those_of_the_class():
    assert known_arguments() == {item.name for item in fields(TrainingArguments) if item.init}


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
