from __future__ import annotations

from pathlib import Path

import pytest

from losskit.errors import ModelError
from losskit_plugins.encoders.folder import inside, locate, read_json, replacing, require_safetensors


def test_a_folder_is_found_where_it_is(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert locate(str(tmp_path)) == tmp_path


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelError, match="expected a model folder, got a file"):
        locate(path)


def test_a_path_that_is_no_hub_name_is_just_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a model folder, got nothing there"):
        locate(tmp_path / "missing")


def test_a_hub_name_that_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as error:
        locate("nobody/no-such-model")
    assert str(error.value).startswith("nobody/no-such-model: expected a folder, or a model of the Hugging Face hub")
    assert "HF_HUB_OFFLINE" in str(error.value)


def test_a_hub_name_is_fetched_without_pickles_and_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def fetch(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr("losskit_plugins.encoders.folder.snapshot_download", fetch)
    assert locate("someone/plain") == locate("someone/code", code=True) == tmp_path
    assert "*.safetensors" in asked["someone/plain"]
    assert not {"*.py", "*.bin"} & set(asked["someone/plain"])
    assert set(asked["someone/code"]) - set(asked["someone/plain"]) == {"*.py"}


@pytest.mark.parametrize("content", ["", "{", '{"a": '])
def test_a_broken_json_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "modules.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"modules\.json: expected JSON"):
        read_json(path, dict)


def test_json_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[]")
    with pytest.raises(ModelError, match=r"config\.json: expected a JSON dict, got list"):
        read_json(path, dict)


@pytest.mark.parametrize("relative", ["../other", "/etc"])
def test_modules_lie_inside_the_model(tmp_path: Path, relative: str) -> None:
    with pytest.raises(ModelError, match="expected a path inside the model folder"):
        inside(tmp_path, relative)


def test_pickled_weights_are_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ModelError) as error:
        require_safetensors(tmp_path)
    assert "got pytorch_model.bin, which is pickled" in str(error.value)
    assert "Fix: write them anew with save_pretrained" in str(error.value)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected weights in model\.safetensors, got none$"):
        require_safetensors(tmp_path)


def test_replacing_makes_a_new_folder_and_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with replacing(path) as folder:
        (folder / "config.json").write_text("new")
        assert not path.exists()
    assert (path / "config.json").read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["b"]


def test_replacing_drops_the_old_model_and_keeps_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model"
    stale = ("pytorch_model.bin", "model-00001-of-00002.safetensors", "3_Dense/config.json", "onnx/model.onnx")
    kept = ("README.md", "metrics.json", "checkpoint-5/model.safetensors", "curves.png")
    for name in (*stale, *kept, "config.json"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("old")
    with replacing(path) as folder:
        (folder / "config.json").write_text("new")
        (folder / "metrics.json").write_text("new")
    assert not any((path / name).exists() for name in stale)
    assert (path / "checkpoint-5/model.safetensors").read_text() == "old"
    assert (path / "README.md").read_text() == "old"
    assert (path / "config.json").read_text() == (path / "metrics.json").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("old")

    def fail() -> None:
        with replacing(path) as folder:
            (folder / "config.json").write_text("new")
            raise KeyError("tokenizer")

    with pytest.raises(KeyError):
        fail()
    assert (path / "config.json").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_failing_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match="expected a folder that can be written, got No space left"),
        replacing(tmp_path / "model"),
    ):
        raise OSError("No space left on device")
    assert not any(tmp_path.iterdir())


def test_a_file_is_not_overwritten_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("mine")
    with pytest.raises(ModelError, match="expected a folder to write the model to, got a file"), replacing(path):
        pass
    assert path.read_text() == "mine"
