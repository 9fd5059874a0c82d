"""Denoising auto-encoder: the laws on a tiny transformer, the formula in loops, which models can decode."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from losskit import LossError, build
from losskit.batch import preprocess
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.losses.denoising_auto_encoder import DenoisingAutoEncoderLoss, token_cross_entropy

SIZE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
VOCABULARY = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, **{f"word{number}": 4 + number for number in range(40)}}
CONFIGS = {
    "bert": BertConfig(vocab_size=44, max_position_embeddings=32, **SIZE),
    "roberta": RobertaConfig(vocab_size=44, max_position_embeddings=34, pad_token_id=0, **SIZE),
    "gpt2": GPT2Config(vocab_size=44, n_embd=8, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2),
    "distilbert": DistilBertConfig(vocab_size=44, dim=8, n_layers=1, n_heads=2, hidden_dim=12),
    "llama": LlamaConfig(vocab_size=44, num_key_value_heads=2, pad_token_id=0, **SIZE),
}


def tokenizer(side="right"):
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=24, padding_side=side, **special)


def encoder(kind="bert", dropout=0.0, side="right", **options):
    """Tiny, in float64; what the laws ask of a loss's subject in place of the toy, which has no transformer."""
    config = CONFIGS[kind].__class__(
        **{**CONFIGS[kind].to_dict(), "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    )
    made = DenseEncoder(AutoModel.from_config(config), pooling="mean", tokenizer=tokenizer(side), **options)
    return made.double()


def on_a_transformer(toy, **options):
    return DenoisingAutoEncoderLoss(encoder(dropout=toy.dropout.p), **options)


SUBJECTS = [
    *subjects(on_a_transformer, families=["dense"]),
    *subjects(partial(on_a_transformer, tie=False), families=["dense"]),
]
TEXTS = [["word1 word3", "word5"], ["word1 word2 word3", "word5 word4 word6 word7"]]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=["tied", "untied"])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def test_cross_entropy_equals_the_formula_in_loops():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 0, 3], [2, 2, 0]])
    where = torch.tensor([[True, True, True], [True, False, False]])
    terms = []
    for i in range(2):
        for k in range(3):
            if where[i, k]:
                terms.append(sum(logits[i, k, v].exp() for v in range(4)).log() - logits[i, k, targets[i, k]])
    expected = differentiate(sum(terms) / len(terms), [logits])
    require_equal("loops", expected, differentiate(token_cross_entropy(logits, targets, where), [logits]))
    assert token_cross_entropy(logits, targets, torch.zeros_like(where)) == 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_restores_token_by_token_from_the_embedding(kind, tie):
    torch.manual_seed(0)
    model = encoder(kind)
    loss = DenoisingAutoEncoderLoss(model, tie=tie).eval()
    value = loss(preprocess(loss, TEXTS, inputs=["text", "text"]))
    terms = []
    for damaged, original in zip(*TEXTS, strict=True):
        memory = model(model.preprocess([damaged])).embedding[:, None]
        ids = model.preprocess([original])["input_ids"]
        for k in range(1, ids.shape[1]):
            # Each token from those before it alone: nothing behind it can be seen.
            logits = loss.language_model(input_ids=ids[:, :k], encoder_hidden_states=memory).logits[0, -1]
            terms.append(logits.logsumexp(0) - logits[ids[0, k]])
    inputs = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    expected = differentiate(sum(terms) / len(terms), inputs)
    require_equal("token by token", expected, differentiate(value, inputs))


def test_padding_on_the_left_changes_nothing():
    torch.manual_seed(0)
    model = encoder()
    loss = DenoisingAutoEncoderLoss(model)
    damaged = model.preprocess(TEXTS[0])
    right, left = (tokenizer(side)(TEXTS[1], padding=True, return_tensors="pt") for side in ("right", "left"))
    with torch.no_grad():
        torch.testing.assert_close(loss([damaged, dict(left)]), loss([damaged, dict(right)]))


def test_tied_weights_are_the_encoders_and_untied_begin_like_them():
    model = encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tied, untied = DenoisingAutoEncoderLoss(model), DenoisingAutoEncoderLoss(model, tie=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    own = dict(model.transformer.named_parameters())
    for loss in (tied, untied):
        of_decoder = dict(loss.language_model.base_model.named_parameters())
        both = own.keys() & of_decoder.keys()
        assert len(both) > 20
        assert all(torch.equal(own[name], of_decoder[name]) for name in both)
        assert all((own[name] is of_decoder[name]) == loss.tie for name in both)
        head = loss.language_model.get_output_embeddings().weight
        assert (head is own["embeddings.word_embeddings.weight"]) == loss.tie
    assert not any(part.p for part in tied.language_model.modules() if isinstance(part, nn.Dropout))


def test_a_decoder_from_a_folder_keeps_its_head(tmp_path):
    model = encoder()
    first = DenoisingAutoEncoderLoss(model)
    first.language_model.save_pretrained(tmp_path)
    again = build({"name": "denoising-auto-encoder", "decoder": str(tmp_path)}, model)
    assert again.get_config_dict() == {"decoder": str(tmp_path), "tie": True}
    for name, value in first.language_model.state_dict().items():
        torch.testing.assert_close(again.language_model.state_dict()[name], value)
    other = tmp_path / "other"
    AutoModel.from_config(BertConfig(vocab_size=50, max_position_embeddings=32, **SIZE)).save_pretrained(other)
    with pytest.raises(LossError, match=r"Loss.decoder: .* vocabulary of 44 and width 8, got 50 and 8"):
        DenoisingAutoEncoderLoss(model, str(other))
    roberta = encoder("roberta")
    with pytest.raises(LossError, match=r"Loss.tie: .* architecture, roberta, got bert\. Fix: set tie=False"):
        DenoisingAutoEncoderLoss(roberta, str(tmp_path))


@pytest.mark.parametrize("kind", ["distilbert", "llama"])
def test_models_without_such_a_decoder_are_refused_by_name(kind):
    with pytest.raises(LossError, match=rf"the decoder of DenoisingAutoEncoderLoss: .*, got {kind}\. Fix: "):
        DenoisingAutoEncoderLoss(encoder(kind))


def test_refuses_what_does_not_fit():
    with pytest.raises(
        LossError, match=r"DenoisingAutoEncoderLoss.model: expected an encoder around .*, got ToyEncoder"
    ):
        DenoisingAutoEncoderLoss(ToyEncoder())
    with pytest.raises(LossError, match=r"MatryoshkaLoss.loss: expected a loss that works at any size"):
        build({"name": "matryoshka", "dims": [4], "loss": "denoising-auto-encoder"}, encoder())


def test_a_decoder_that_cannot_be_read_is_named(tmp_path):
    model = encoder()
    with pytest.raises(LossError, match=rf"Loss.decoder: expected a model of transformers at {tmp_path}, got "):
        DenoisingAutoEncoderLoss(model, str(tmp_path))
    DenoisingAutoEncoderLoss(model).language_model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(LossError, match=rf"Loss.decoder: expected a model of transformers at {tmp_path}, got "):
        DenoisingAutoEncoderLoss(model, str(tmp_path))
