"""Denoising auto-encoder (TSDAE): a text is restored from the embedding of its damaged form."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError
from losskit.math import promoted

__all__ = ["DenoisingAutoEncoderLoss", "token_cross_entropy"]

IGNORED = -100


def token_cross_entropy(
    logits: Float[Tensor, "rows tokens vocabulary"],
    targets: Int[Tensor, "rows tokens"],
    where: Bool[Tensor, "rows tokens"],
) -> Float[Tensor, ""]:
    """mean over the tokens that count of log sum_v exp(x_v) - x_target; 0, connected, where none counts.

    >>> import torch
    >>> token_cross_entropy(torch.zeros(1, 2, 4), torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
    tensor(1.3863)
    """
    counted = targets.masked_fill(~where, IGNORED).flatten()
    total = cross_entropy(promoted(logits).flatten(0, 1), counted, ignore_index=IGNORED, reduction="sum")
    return total / where.sum().clamp(min=1)


class DenoisingAutoEncoderLoss(Loss):
    """Restores each text, token by token, from the embedding of its damaged form (TSDAE).

    The loss owns a decoder like the encoder's transformer, with cross attention to one token: the embedding. It has no
    dropout, so that what is compared is the encoder's doing.

    Args:
        model: an encoder around a transformer that can also decode.
        decoder: a folder or name from which the decoder's weights come, with the encoder's vocabulary; None: the
            encoder's own weights, and new ones for cross attention and the head.
        tie: whether encoder and decoder share the weights that both have; they stay those of the encoder.
        execution: how records come about.

    Raises:
        LossError: a model that is no transformer, or one that cannot decode with cross attention; a decoder of another
            vocabulary, width or architecture.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="none")],
        encoders=["dense"],
        needs=("input_ids",),
        reads={"model": [0]},
        fixed_dimension=True,
        memory="B V",
        formula="mean over tokens of -log p(x_k | x_1 ... x_k-1, embedding of the damaged text)",
        citation="""@inproceedings{wang2021tsdae,
  title = {{TSDAE}: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised Sentence Embedding
           Learning},
  author = {Wang, Kexin and Reimers, Nils and Gurevych, Iryna},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2021},
  year = {2021}
}""",
        requirements=[
            "Pairs of a damaged and the original text: the data transform delete-words makes them.",
            "A transformer that transformers can make a decoder with cross attention: bert, roberta, xlm-roberta, "
            "electra, camembert, gpt2; not distilbert, mpnet, albert, deberta, modernbert, llama.",
        ],
    )
    compares_rows = False

    def __init__(
        self,
        model: Any,
        decoder: str | None = None,
        tie: bool = True,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.decoder = decoder
        self.tie = tie
        transformer = getattr(self.encoder, "transformer", None)
        if not isinstance(transformer, PreTrainedModel):
            raise LossError(
                f"{type(self).__name__}.model",
                expected="an encoder around a model of transformers",
                got=type(self.model).__name__,
            )
        self.language_model = _decoder(transformer, decoder)
        self._check_widths(transformer)
        if decoder is None:
            self.language_model.base_model.load_state_dict(transformer.state_dict(), strict=False)
        if tie:
            _share(self.language_model, transformer)

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The number of tokens to restore: all but each text's first."""
        mask: Tensor = columns[1][rows].parts["input_ids"].mask
        return (mask.sum(1) - 1).clamp(min=0).sum()

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The mean over the tokens of the original texts `rows`."""
        memory = columns[0][rows].embedding
        tokens = columns[1][rows].parts["input_ids"].leading()
        ids, where = tokens.values, tokens.mask
        decoder = self.language_model
        # Padding follows the text, and causal attention sees none of it.
        made = decoder(
            input_ids=ids[:, :-1],
            encoder_hidden_states=memory[:, None].to(decoder.dtype),
            use_cache=False,
            return_dict=True,
        )
        return token_cross_entropy(made.logits, ids[:, 1:], where[:, 1:])

    def _check_widths(self, transformer: PreTrainedModel) -> None:
        decoder, own = self.language_model.config, transformer.config
        found = decoder.vocab_size, decoder.hidden_size
        wanted = own.vocab_size, self.encoder.dimension or own.hidden_size
        if found != wanted:
            raise LossError(
                f"{type(self).__name__}.decoder",
                expected=f"the encoder's vocabulary of {wanted[0]} and width {wanted[1]}",
                got=f"{found[0]} and {found[1]}",
                fix="choose a decoder with the encoder's tokenizer, and an encoder without projection",
            )


def _decoder(transformer: PreTrainedModel, source: str | None) -> PreTrainedModel:
    """A decoder with cross attention, where the transformer is and in its precision, without dropout."""
    config = copy.deepcopy(transformer.config) if source is None else _read(source, AutoConfig)
    config.is_decoder, config.add_cross_attention = True, True
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None or "encoder_hidden_states" not in inspect.signature(kind.forward).parameters:
        raise LossError(
            "the decoder of DenoisingAutoEncoderLoss",
            expected="a transformer with a decoder that has cross attention, such as bert, roberta or gpt2",
            got=config.model_type,
            fix="train such a model, or take contrastive-tension, which needs no decoder",
        )
    decoder: PreTrainedModel
    if source is None:
        decoder = AutoModelForCausalLM.from_config(config)
    else:
        decoder = _read(source, AutoModelForCausalLM, config=config, use_safetensors=True)
    for part in decoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return decoder.to(transformer.device, transformer.dtype)


def _read(source: str, kind: Any, **options: Any) -> Any:
    """What `kind` reads from a folder or by a name.

    Raises:
        LossError: there is none, or it is damaged.
    """
    try:
        return kind.from_pretrained(source, **options)
    except (OSError, ValueError, SafetensorError) as error:
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LossError(
            "DenoisingAutoEncoderLoss.decoder", expected=f"a model of transformers at {source}", got=got
        ) from error


def _share(decoder: PreTrainedModel, transformer: PreTrainedModel) -> None:
    """Let the decoder have the encoder's very parameters wherever it has some of the same name.

    Raises:
        LossError: they are of different architectures.
    """
    if decoder.config.model_type != transformer.config.model_type:
        raise LossError(
            "DenoisingAutoEncoderLoss.tie",
            expected=f"a decoder of the encoder's architecture, {transformer.config.model_type}",
            got=decoder.config.model_type,
            fix="set tie=False",
        )
    own = dict(transformer.named_parameters())
    for name, _ in list(decoder.base_model.named_parameters()):
        if name in own:
            path, _, attribute = name.rpartition(".")
            setattr(decoder.base_model.get_submodule(path), attribute, own[name])
    decoder.tie_weights()
