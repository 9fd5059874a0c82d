"""The multi-vector encoder: a transformer, a projection of its tokens, and a mask of those that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from losskit.card import Card
from losskit.errors import ModelError, RecipeError
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .adapters import MultiVectorEncoderView
from .adapters.multi_vector import SIMILARITIES
from .backbone import hidden_size, last_hidden_state, requested_parts
from .dense_parts import place_name
from .head import Normalization, width_after
from .multi_vector_parts import MODEL_TYPE, gather_multi_vector_parts
from .options import check_choice, check_positive
from .query_expansion import QueryExpansion
from .transformer_encoder import Module, TransformerEncoder

__all__ = ["MultiVectorEncoder"]

WRITTEN = {ours: theirs for theirs, ours in SIMILARITIES.items()}
"""What folders call a similarity."""


class MultiVectorEncoder(TransformerEncoder):
    """One vector per token, as ColBERT: a transformer, a projection of its tokens, normalisation.

    Which tokens count is settled where texts are tokenised: those of the text without a skip list, and of a query also
    the tokens by which it is expanded. Options that are None are what the model folder says.

    Args:
        model: a folder (of sentence-transformers or transformers), a name of the Hugging Face hub, or a
            transformers model. All but a multi-vector one get a new projection; the pooling of a dense encoder is left
            out, its projection kept.
        dimension: of a new projection; 128.
        prompts: put before texts, by role ("query", "document") or any other name; added to the folder's.
        query_length: the most tokens of a query; None: as of any text.
        document_length: the most tokens of a document; None: as of any text.
        query_expansion: fills queries up with mask tokens that are compared too: a mapping with `length` (32),
            `strategy` ("fixed", so many; or "min", at least so many), `attend` (false: tokens of the text do not see
            them) and `token`; true for these defaults, false for none.
        skiplist_words: tokens of documents that do not count, such as punctuation.
        similarity: what the vectors are meant to be compared by; "maxsim" where the folder is silent.
        max_length: the most tokens of a text.
        tokenizer: of a transformers model given as `model`; copied.
        trust_remote_code: run code that the model folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.
        RecipeError: options that contradict each other or the folder.
    """

    card = Card(
        encoders=["multi-vector"],
        formula="normalize(W transformer(text)_t) for every token t that counts",
        citation="""@inproceedings{khattab2020colbert,
    title = {{ColBERT}: Efficient and Effective Passage Search via Contextualized Late Interaction over {BERT}},
    author = {Khattab, Omar and Zaharia, Matei},
    booktitle = {Proceedings of the 43rd International ACM SIGIR Conference},
    year = {2020},
    url = {https://arxiv.org/abs/2004.12832}
}""",
    )
    family = "multi-vector"

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        dimension: int | None = None,
        prompts: Mapping[str, str] | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
        query_expansion: Mapping[str, Any] | bool | None = None,
        skiplist_words: Sequence[str] | None = None,
        similarity: Literal["maxsim", "mean-maxsim"] | None = None,
        max_length: int | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        words = None if skiplist_words is None else list(skiplist_words)
        options = {
            "model": model,
            "dimension": dimension,
            "prompts": prompts,
            "query_length": query_length,
            "document_length": document_length,
            "query_expansion": query_expansion,
            "skiplist_words": words,
            "similarity": similarity,
            "max_length": max_length,
        }
        check_choice("similarity", similarity, tuple(WRITTEN))
        for option in ("dimension", "query_length", "document_length"):
            check_positive(option, options[option])
        parts = gather_multi_vector_parts(model, tokenizer, dimension, max_length, words, trust_remote_code)
        run = _with_options(parts.run.own, query_length, document_length, query_expansion)
        super().__init__(
            parts.transformer, parts.tokenizer, parts.settings, replace(parts.run, own=run), prompts, options
        )
        self.steps = nn.ModuleList(parts.steps)
        self.mask, self._mask_at = parts.mask, parts.mask_at
        self.query_length: int | None = run["query_length"]
        self.document_length: int | None = run["document_length"]
        self.query_expansion = QueryExpansion(**run["query_expansion"]) if run["query_expansion"] else None
        self._check_lengths()
        self._check_expansion()
        self.similarity = similarity or _named(parts.settings.own.get("similarity_fn_name") or "maxsim")
        self.dimension = width_after(parts.steps, hidden_size(parts.transformer.config), "token embeddings")
        weight = next(self.transformer.parameters())
        self.steps.to(weight.device, weight.dtype)

    @property
    def normalized(self) -> bool:
        """Whether the last step scales vectors to unit length."""
        return len(self.steps) > 0 and isinstance(self.steps[-1], Normalization)

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts, each after its prompt; queries are expanded.

        Args:
            texts: n of them.
            role: "text", "query", "document", or the name of one of the prompts.
            prompt: instead of the role's; "" means none.

        Returns:
            Tensors [n, t], `scoring_mask` among them: True at the tokens that count.
        """
        before = self.prompts.resolve(role, prompt)
        items = [before + text for text in self._checked(texts)]
        limit = {"query": self.query_length, "document": self.document_length}.get(role)
        if role == "query" and self.query_expansion is not None:
            tokens, filled = self.query_expansion(self.tokenizer, items, limit)
        else:
            tokens = self.tokenizer(items, max_length=limit)
            filled = torch.zeros_like(tokens["attention_mask"], dtype=torch.bool)
        present = tokens["attention_mask"].bool() | filled
        features = {name: tokens[name] for name in self._inputs if name in tokens}
        return {**features, "scoring_mask": self.mask(tokens["input_ids"], present, role)}

    def lengths(self, features: Features) -> list[int]:
        """Per text how many leading positions matter: to the transformer, or because they count."""
        matters = features["attention_mask"].bool() | self._scoring(features)
        positions = torch.arange(1, matters.shape[1] + 1, device=matters.device)
        last: list[int] = (matters * positions).amax(dim=1).tolist()
        return last

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed the tokens of n texts; those that do not count are zeros.

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: "input_ids".
        """
        parts = requested_parts(features, needs, self.padding)
        vectors = last_hidden_state(self._called(features), self.transformer)
        for step in self.steps:
            vectors = step(vectors)
        mask = self._scoring(features)
        return Output(vectors.masked_fill(~mask.unsqueeze(-1), 0), mask, parts=parts)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a `MultiVectorEncoder`; None for anything else."""
        return MultiVectorEncoderView.adapt(model)

    def _scoring(self, features: Features) -> Tensor:
        """Which tokens count; those that another encoder tokenised count as those of a document."""
        if "scoring_mask" in features:
            mask: Tensor = features["scoring_mask"]
            return mask
        return self.mask(features["input_ids"], features["attention_mask"].bool(), "text")

    def _results(self, record: Output) -> Sequence[NDArray[np.float32]]:
        """The vectors [tokens, dimension] of each text."""
        assert record.embedding is not None
        assert record.mask is not None
        vectors, mask = record.embedding.float().cpu(), record.mask.cpu()
        return [own[counted].numpy() for own, counted in zip(vectors, mask, strict=True)]

    def _collected(self, results: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """An array per text."""
        return list(results)

    def _own_settings(self) -> tuple[str, Mapping[str, Any]]:
        return MODEL_TYPE, {"similarity_fn_name": WRITTEN[self.similarity]}

    def _modules_after(self) -> Sequence[Module]:
        modules: list[Module] = [
            (step.kind, partial(step.write, values=place_name(tokens=True))) for step in self.steps
        ]
        modules.insert(self._mask_at, (self.mask.kind, self.mask.write))
        return modules

    def _check_lengths(self) -> None:
        expanded = None if self.query_expansion is None else self.query_expansion.length
        lengths = {"query_length": self.query_length, "document_length": self.document_length}
        for name, length in {**lengths, "query_expansion.length": expanded}.items():
            if length is not None:
                self.tokenizer.check_length(name, length)

    def _check_expansion(self) -> None:
        """What fills queries up must be a token, reach the transformer's outputs, and fit the length of queries."""
        expansion = self.query_expansion
        if expansion is None:
            return
        expansion.token_id(self.tokenizer)
        if self.query_length is not None and self.query_length < expansion.length:
            expected = f"{expansion.length} tokens or more, as expanded queries have"
            raise RecipeError("query_length", expected=expected, got=str(self.query_length))
        attention = getattr(self.transformer.config, "_attn_implementation", None) or ""
        if not expansion.attend and attention.startswith("flash_attention"):
            raise ModelError(
                "query_expansion", expected="attention that keeps positions which nothing attends to", got=attention,
                fix="load the transformer with attn_implementation='sdpa', or set attend",
            )  # fmt: skip


def _with_options(
    folder: Mapping[str, Any],
    query_length: int | None,
    document_length: int | None,
    query_expansion: Mapping[str, Any] | bool | None,
) -> dict[str, Any]:
    """The folder's lengths and expansion, checked, under the options."""
    run = dict(folder)
    for name, option in (("query_length", query_length), ("document_length", document_length)):
        check_positive(f"{name!r} of the model folder", run[name], ModelError)
        run[name] = run[name] if option is None else option
    expansion = QueryExpansion.read(run["query_expansion"], "'query_expansion' of the model folder", ModelError)
    if query_expansion is not None:
        expansion = QueryExpansion.read(query_expansion, "query_expansion", RecipeError)
    return {**run, "query_expansion": None if expansion is None else expansion.config()}


def _named(theirs: str) -> str:
    """Our name of a similarity."""
    if theirs in WRITTEN.values():
        return SIMILARITIES[theirs]
    expected = f"one of {', '.join(SIMILARITIES)}"
    raise ModelError("similarity_fn_name of the model", expected=expected, got=repr(theirs))
