"""The sentence-transformers 6.2 layout of a model folder: which files say what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from losskit.errors import ModelError

from .folder import inside, read_json, write_json
from .prompts import Prompts

__all__ = [
    "TYPES",
    "Settings",
    "Stage",
    "TransformerSettings",
    "kind_of",
    "read_stages",
    "refuse_unknown",
    "write_stages",
]

FORMAT_VERSION = "6.2.0"
PACKAGE = "sentence_transformers."
SPARSE = f"{PACKAGE}sparse_encoder.modules"
TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
    "Router": "sentence_transformers.base.modules.router.Router",
    "SpladePooling": f"{SPARSE}.splade_pooling.SpladePooling",
    "SparseStaticEmbedding": f"{SPARSE}.sparse_static_embedding.SparseStaticEmbedding",
    "SparseAutoEncoder": f"{SPARSE}.sparse_auto_encoder.SparseAutoEncoder",
    "StaticEmbedding": "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding",
}
"""Names of module kinds as 6.2 writes them; folders of other versions use other paths to the same class names."""
OLD_NAMES = {"MLMTransformer": "Transformer"}
"""Classes that folders of versions before 5.4 name, and those that took their place."""
TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class Stage:
    """One entry of modules.json.

    Args:
        kind: class name of the module, a key of `TYPES`.
        folder: where its files are.
        label: how messages name it.
    """

    kind: str
    folder: Path
    label: str

    def config(self) -> dict[str, Any]:
        """Its config.json, or nothing where it has none."""
        path = self.folder / "config.json"
        return read_json(path, dict) if path.exists() else {}


def read_stages(folder: Path, kinds: Sequence[str]) -> list[Stage] | None:
    """The modules of a model folder in order, or None for a plain transformers folder.

    Args:
        folder: of the model.
        kinds: which the encoder can honour; the first of them stands at the start, once.

    Raises:
        ModelError: names the first one it cannot.
    """
    path = folder / "modules.json"
    if not path.exists():
        return None
    entries = read_json(path, list)
    stages = []
    try:
        for entry in entries:
            stages.append(_stage(folder, entry, kinds))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(str(path), expected="a list of modules with name, path and type", got=repr(error)) from error
    if not stages or stages[0].kind != kinds[0]:
        got = stages[0].label if stages else "no module"
        raise ModelError(str(path), expected=f"a {kinds[0]} as the first module", got=got)
    if len([stage for stage in stages if stage.kind == kinds[0]]) > 1:
        raise ModelError(str(path), expected=f"one {kinds[0]}", got="several")
    return stages


def _stage(folder: Path, entry: Mapping[str, Any], kinds: Sequence[str]) -> Stage:
    kind = kind_of(entry["type"])
    label = f"module {entry['name']!r} ({entry['type']})"
    if kind not in kinds:
        raise ModelError(
            f"{label} in {folder / 'modules.json'}",
            expected=f"one of {', '.join(kinds)} of sentence-transformers",
            fix="open it with the library that wrote it, and give that object to losskit as the model",
        )
    if entry.get("kwargs"):
        raise ModelError(f"{label} in {folder / 'modules.json'}", expected="no kwargs", got=repr(entry["kwargs"]))
    return Stage(kind, inside(folder, entry["path"]), label)


def kind_of(type_name: str) -> str:
    """The kind of a module, a key of `TYPES`, by the class that a folder names; the class itself where it is foreign.

    >>> kind_of("sentence_transformers.models.Pooling"), kind_of("mine.Pooling")
    ('Pooling', 'mine.Pooling')
    """
    name = type_name.rpartition(".")[2]
    return OLD_NAMES.get(name, name) if type_name.startswith(PACKAGE) else type_name


def write_stages(folder: Path, kinds: Sequence[str]) -> list[Stage]:
    """Write modules.json, and say where each module's files belong."""
    paths = ["" if index == 0 else f"{index}_{kind}" for index, kind in enumerate(kinds)]
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": TYPES[kind]}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write_json(folder / "modules.json", entries, indent=2)
    return [Stage(kind, folder / path, f"module {path}") for kind, path in zip(kinds, paths, strict=True)]


def refuse_unknown(config: Mapping[str, Any], known: Sequence[str], culprit: str) -> None:
    """Refuse settings that would be lost.

    Raises:
        ModelError: names the first of them.
    """
    for key in config:
        if key not in known:
            raise ModelError(
                f"{key!r} in {culprit}",
                expected=f"one of {', '.join(known)}",
                got=repr(config[key]),
                fix="open it with sentence-transformers and give that object to losskit as the model",
            )


@dataclass(frozen=True)
class Settings:
    """config_sentence_transformers.json: what concerns the model as a whole.

    Args:
        model_type: class of sentence-transformers that opens the folder.
        prompts: by name.
        own: the further keys of this type of model, such as `similarity_fn_name`.
        other: keys that mean nothing to losskit, kept as they are.
    """

    model_type: str
    prompts: Prompts = field(default_factory=Prompts)
    own: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, model_type: str, own: Sequence[str], defaults: Mapping[str, str]) -> Settings:
        """What a folder says; a plain transformers folder says nothing.

        Args:
            folder: of the model.
            model_type: that the encoder serves.
            own: names of the further keys it understands.
            defaults: prompts that every model of the type has.

        Raises:
            ModelError: the folder holds another type of model.
        """
        path = folder / "config_sentence_transformers.json"
        content = read_json(path, dict) if path.exists() else {}
        content.pop("__version__", None)
        plain = not (folder / "modules.json").exists()
        found = content.pop("model_type", model_type if plain else "SentenceTransformer")
        if found != model_type:
            raise ModelError(
                str(folder),
                expected=f"a {model_type}",
                got=f"model_type {found}",
                fix="use the encoder for that type; losskit.load(path) finds it",
            )
        prompts = _prompts(content.pop("prompts", None), content.pop("default_prompt_name", None), defaults, path)
        return cls(model_type, prompts, {key: content.pop(key, None) for key in own}, content)

    def write(self, folder: Path) -> None:
        """Write the file."""
        content = {
            **self.other,
            **self.own,
            "__version__": {
                "pytorch": torch.__version__,
                "sentence_transformers": FORMAT_VERSION,
                "transformers": transformers.__version__,
            },
            "default_prompt_name": self.prompts.default,
            "model_type": self.model_type,
            "prompts": dict(self.prompts.texts),
        }
        write_json(folder / "config_sentence_transformers.json", content, indent=2, sort_keys=True)


def _prompts(texts: Any, default: Any, defaults: Mapping[str, str], path: Path) -> Prompts:
    """The prompts of a folder over those that every model of its type has."""
    given = {} if texts is None else texts
    if not isinstance(given, dict) or not all(isinstance(text, str | None) for text in given.values()):
        raise ModelError(f"'prompts' in {path}", expected="texts by name", got=repr(texts))
    known = {**defaults, **{name: text or "" for name, text in given.items()}}
    if default is not None and default not in known:
        expected = f"the name of one of the prompts, {', '.join(known)}"
        raise ModelError(f"'default_prompt_name' in {path}", expected=expected, got=repr(default))
    return Prompts(known, default)


@dataclass(frozen=True)
class TransformerSettings:
    """sentence_bert_config.json: how the transformer is run.

    Args:
        task: "feature-extraction" or "sequence-classification".
        output: field of the transformer's output that is read.
        name: what modules after it call that.
        max_seq_length: of folders before 5.4, which had it here; later it is the tokenizer's.
        lower_case: lower-case texts before tokenising.
        unpad: kept for sentence-transformers, whose flash attention it rules.
        own: the further keys that the encoder understands; those that are None are not written.
    """

    task: str
    output: str
    name: str
    max_seq_length: int | None = None
    lower_case: bool = False
    unpad: bool | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    def read(self, folder: Path) -> TransformerSettings:
        """What a folder says, given what the encoder can honour (`self`).

        Raises:
            ModelError: names a setting that it cannot.
        """
        path = next((folder / name for name in TRANSFORMER_FILES if (folder / name).exists()), None)
        if path is None:
            return self
        config = {key: value for key, value in read_json(path, dict).items() if value is not None}
        refuse_unknown(
            {key: value for key, value in config.items() if value != {}},
            (*self._content(), "max_seq_length", "do_lower_case", "unpad_inputs", *self.own),
            str(path),
        )
        for key, wanted in self._content().items():
            found = config.get(key, wanted)
            if found != wanted:
                raise ModelError(f"{key!r} in {path}", expected=repr(wanted), got=repr(found))
        length = config.get("max_seq_length")
        if length is not None and type(length) is not int:
            raise ModelError(f"'max_seq_length' in {path}", expected="a number of tokens", got=repr(length))
        return TransformerSettings(
            self.task,
            self.output,
            self.name,
            max_seq_length=length,
            lower_case=config.get("do_lower_case", False),
            unpad=config.get("unpad_inputs"),
            own={key: config.get(key) for key in self.own},
        )

    def write(self, folder: Path) -> None:
        """Write the file; length and case are the tokenizer's by now."""
        further = {"unpad_inputs": self.unpad, **self.own}
        content = self._content() | {key: value for key, value in further.items() if value is not None}
        write_json(folder / "sentence_bert_config.json", content, indent=4)

    def _content(self) -> dict[str, Any]:
        return {
            "transformer_task": self.task,
            "modality_config": {"text": {"method": "forward", "method_output_name": self.output}},
            "module_output_name": self.name,
        }
