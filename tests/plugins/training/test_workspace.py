from pathlib import Path

import pytest

from losskit import RecipeError
from losskit_plugins.training.workspace import Workspace


def checkpoint(place, step, whole=True):
    folder = place / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    if whole:
        (folder / "trainer_state.json").write_text("{}")
    return folder


def filled(folder):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("old")
    return folder


def test_a_new_output_appears_whole(tmp_path):
    work = Workspace(tmp_path / "runs" / "a")
    work.check()
    assert not (tmp_path / "runs").exists()
    assert work.open() is None
    (work.folder / "metrics.json").write_text("new")
    assert not work.output.exists()
    work.finish()
    assert (work.output / "metrics.json").read_text() == "new"
    assert [path.name for path in work.output.parent.iterdir()] == ["a"]


def test_an_output_that_is_not_empty_is_refused_with_its_ways_out(tmp_path):
    filled(tmp_path / "a")
    with pytest.raises(
        RecipeError, match=r"a: expected a new or an empty folder, .*--force to replace it, or --resume"
    ):
        Workspace(tmp_path / "a").check()
    Workspace(tmp_path / "a", force=True).check()
    Workspace(tmp_path / "a", resume=True).check()
    Workspace(tmp_path / "a", replaceable=lambda run: True).check()


def test_an_empty_folder_is_a_new_output(tmp_path):
    (tmp_path / "a").mkdir()
    Workspace(tmp_path / "a").check()


def test_a_file_is_no_output(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(RecipeError, match="expected a folder, got a file"):
        Workspace(tmp_path / "a", force=True).check()


def test_resume_and_force_exclude_each_other(tmp_path):
    with pytest.raises(RecipeError, match="expected one of them, got both"):
        Workspace(tmp_path / "a", resume=True, force=True).check()


def test_an_unfinished_run_is_not_lost_unasked(tmp_path):
    checkpoint(tmp_path / "a.partial", 10)
    with pytest.raises(RecipeError, match=r"got one in .*a\.partial\. Fix: give --resume to go on with it, or --force"):
        Workspace(tmp_path / "a").check()


def test_force_starts_over(tmp_path):
    checkpoint(tmp_path / "a.partial", 10)
    assert Workspace(tmp_path / "a", force=True).open() is None
    assert not any((tmp_path / "a.partial").iterdir())


def test_resume_takes_the_last_checkpoint_that_is_whole(tmp_path):
    for step in (5, 10):
        checkpoint(tmp_path / "a.partial", step)
    checkpoint(tmp_path / "a.partial", 15, whole=False)
    checkpoint(tmp_path / "a.partial", "of-somebody")
    work = Workspace(tmp_path / "a", resume=True)
    assert work.open() == tmp_path / "a.partial" / "checkpoints" / "checkpoint-10"


def test_resume_of_nothing_starts_afresh(tmp_path):
    assert Workspace(tmp_path / "a", resume=True).open() is None


def test_resume_of_a_finished_run_trains_on_from_its_checkpoint(tmp_path):
    kept = checkpoint(filled(tmp_path / "a"), 7)
    work = Workspace(tmp_path / "a", resume=True)
    assert work.open() == kept
    assert work.earlier("metrics.json") == tmp_path / "a" / "metrics.json"
    (work.folder / "metrics.json").write_text("new")
    work.finish()
    assert (tmp_path / "a" / "metrics.json").read_text() == "new"


def test_a_finished_run_without_a_checkpoint_cannot_be_resumed(tmp_path):
    filled(tmp_path / "a")
    with pytest.raises(RecipeError, match="expected a run that kept a checkpoint, got a finished one without"):
        Workspace(tmp_path / "a", resume=True).open()


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="expected a place that can be written, got Not a directory"):
        Workspace(tmp_path / "file" / "a").open()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_nothing_but_checkpoints(tmp_path):
    work = Workspace(tmp_path / "runs" / "a")
    work.open()
    (work.folder / "recipe.yaml").touch()
    assert work.abandon() is None
    assert not (tmp_path / "runs").exists()
    work.open()
    checkpoint(work.folder, 3)
    assert work.abandon() == work.folder
    assert work.folder.exists()


@pytest.mark.parametrize("output", [".", "..", "/"])
def test_the_working_folder_is_no_output(tmp_path, monkeypatch, output):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(RecipeError, match="expected a folder of its own, got the working folder, or one around it"):
        Workspace(Path(output), force=True).check()


@pytest.mark.parametrize("options", [{"force": True}, {"resume": True}])
def test_what_a_run_is_made_from_is_not_replaced(tmp_path, options):
    data = filled(tmp_path / "a" / "data") / "metrics.json"
    work = Workspace(tmp_path / "a", **options)
    work.check([tmp_path / "elsewhere.csv", tmp_path / "a" / "not-there"])
    with pytest.raises(RecipeError, match=r"expected a folder without what the run is made from, got .*metrics\.json"):
        work.check([data])


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(tmp_path, there):
    if there:
        filled(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    work = Workspace(tmp_path / "link", force=True)
    work.check()
    with work:
        (work.folder / "metrics.json").write_text("new")
        work.finish()
    assert (tmp_path / "a" / "metrics.json").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


def test_an_unfinished_run_that_can_be_resumed_is_never_replaced_unasked(tmp_path):
    work = Workspace(tmp_path / "a", replaceable=lambda run: True)
    filled(work.folder)
    work.check()
    checkpoint(work.folder, 3)
    with pytest.raises(RecipeError, match=r"expected no unfinished run, .*--resume to go on with it"):
        work.check()
