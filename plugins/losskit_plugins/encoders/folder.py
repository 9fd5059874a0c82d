"""Model folders on disk: found, read as JSON, replaced as a whole."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from huggingface_hub import snapshot_download

from losskit.errors import ModelError

__all__ = ["inside", "locate", "read_json", "replacing", "require_safetensors", "write_json"]

Json = TypeVar("Json", dict[str, Any], list[Any])

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
DOWNLOADED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken")
SKIPPED = ("onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*")
PARTS_OF_A_MODEL = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "generation_config.json",
    "model*.safetensors",
    "model*.safetensors.index.json",
    "pytorch_model*",
    "adapter_*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "*processor_config.json",
    "onnx",
    "openvino",
    "router_config.json",
    "[0-9]_*",
    "[0-9][0-9]_*",
    "query_[0-9]_*",
    "document_[0-9]_*",
)
"""What a saved model consists of: replaced by the next one, while anything else in the folder stays."""


def locate(name: str | Path, *, code: bool = False) -> Path:
    """The folder of a model: the one of that name, or a copy of the hub's.

    Args:
        name: a folder, or a model name of the Hugging Face hub.
        code: fetch Python files too.

    Raises:
        ModelError: neither.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(str(name), expected="a model folder", got="a file")
    if not HUB_NAME.fullmatch(str(name)):
        raise ModelError(str(name), expected="a model folder", got="nothing there")
    patterns = [*DOWNLOADED, *(["*.py"] if code else [])]
    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns, ignore_patterns=list(SKIPPED)))
    except (OSError, ValueError) as error:
        raise ModelError(
            str(name),
            expected="a folder, or a model of the Hugging Face hub",
            got=f"no such folder, and from the hub: {_first_line(error)}",
            fix="check the name, the network and HF_HUB_OFFLINE",
        ) from error


def read_json(path: Path, kind: type[Json]) -> Json:
    """What a JSON file holds.

    Args:
        path: of the file.
        kind: dict or list.

    Raises:
        ModelError: it is missing, no JSON, or of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(str(path), expected="a file", got="nothing there") from error
    except (OSError, ValueError) as error:
        raise ModelError(str(path), expected="JSON", got=_first_line(error), fix="restore the file") from error
    if not isinstance(content, kind):
        raise ModelError(str(path), expected=f"a JSON {kind.__name__}", got=type(content).__name__)
    return content


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, **options), encoding="utf-8")


def inside(folder: Path, relative: str) -> Path:
    """A path inside a folder.

    Raises:
        ModelError: it leads out of it.
    """
    path = folder / relative
    if Path(relative).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"the module's path {relative!r} in {folder}", expected="a path inside the model folder")
    return path


def require_safetensors(folder: Path) -> None:
    """Refuse a folder without safetensors: pickled weights are never read.

    Raises:
        ModelError: says what is there instead.
    """
    if any(folder.glob("model*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    raise ModelError(
        str(folder),
        expected="weights in model.safetensors",
        got=f"{pickled[0]}, which is pickled and may run code when read" if pickled else "none",
        fix="write them anew with save_pretrained of transformers 5, where you trust the file" if pickled else "",
    )


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A new folder that takes the place of `path` when the block ends without an error.

    Files of the old folder that are no part of a model (a model card, logs, checkpoints) are kept.

    Raises:
        ModelError: it cannot be written; then `path` is as it was.
    """
    path = Path(path).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise ModelError(str(path), expected="a folder to write the model to", got="a file")
    mark = uuid4().hex[:12]
    made, old = path.with_name(f".{path.name}.{mark}.new"), path.with_name(f".{path.name}.{mark}.old")
    try:
        made.mkdir(parents=True)
        yield made
        _swap(made, path, old)
    except OSError as error:
        raise ModelError(str(path), expected="a folder that can be written", got=_first_line(error)) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _swap(made: Path, path: Path, old: Path) -> None:
    if not path.exists():
        made.rename(path)
        return
    path.rename(old)
    try:
        made.rename(path)
    except OSError:
        old.rename(path)
        raise
    for entry in old.iterdir():
        if not (path / entry.name).exists() and not any(fnmatch(entry.name, part) for part in PARTS_OF_A_MODEL):
            entry.rename(path / entry.name)
    shutil.rmtree(old)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
