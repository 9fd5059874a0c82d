"""Softmax, embedding distillation, contrastive tension and TSDAE beside sentence-transformers 6.2, in float64."""

from __future__ import annotations

import tempfile
from itertools import product

import pytest
import torch
from parity import DIM, TEXTS, Stub, one_zero_vector, require_as_near, require_different
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from losskit.testing import differentiate, require_equal
from losskit_plugins.losses.contrastive_tension import ContrastiveTensionLoss
from losskit_plugins.losses.contrastive_tension_in_batch_negatives import ContrastiveTensionLossInBatchNegatives
from losskit_plugins.losses.denoising_auto_encoder import DenoisingAutoEncoderLoss
from losskit_plugins.losses.embed_distill import EmbedDistillLoss
from losskit_plugins.losses.mse import MSELoss
from losskit_plugins.losses.softmax import SoftmaxLoss

library = pytest.importorskip("sentence_transformers")
original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
util = pytest.importorskip("sentence_transformers.util")

CLASSES = torch.tensor([2, 0, 1, 1])
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]], dtype=torch.float64)


def features(model, columns):
    return [model.preprocess(column) for column in TEXTS[:columns]]


def both(theirs, ours, model, columns, labels=None):
    """Value and gradients by the model's parameters and those that follow, which both have in the same order."""
    found = []
    for loss in (theirs, ours):
        owned = [parameter for name, parameter in loss.named_parameters() if not name.startswith("model.")]
        found.append(differentiate(loss(features(model, columns), labels), [*model.parameters(), *owned]))
    return found


@pytest.mark.parametrize("picks", [picks for picks in product((False, True), repeat=3) if any(picks)], ids=str)
@pytest.mark.parametrize("labels", [CLASSES, SOFT], ids=["classes", "distributions"])
def test_softmax(picks, labels):
    vectors, difference, products = picks
    chosen = ("a", "b") * vectors + ("difference",) * difference + ("product",) * products
    model = Stub()
    theirs = original.SoftmaxLoss(model, DIM, 3, *picks).double()
    ours = SoftmaxLoss(model, 3, chosen)
    ours.classifier.load_state_dict(theirs.classifier.state_dict())
    require_equal("softmax", *both(theirs, ours, model, 2, labels))


@pytest.mark.parametrize("distance", ["cosine", "mse", "l2"])
@pytest.mark.parametrize("shape", [(1, (4, DIM)), (3, (4, DIM)), (3, (4, 3, DIM))], ids=["one", "shared", "each"])
@pytest.mark.parametrize("projection", [None, 5])
def test_embed_distill(distance, shape, projection):
    columns, size = shape
    labels = torch.randn(*size[:-1], projection or DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Stub()
    theirs = original.EmbedDistillLoss(model, distance, projection).double()
    ours = EmbedDistillLoss(model, distance, projection)
    if projection:
        ours.projection_layer.load_state_dict(theirs.projection.state_dict())
    require_equal(distance, *both(theirs, ours, model, columns, labels))
    if distance == "mse" and projection is None:
        require_equal("by its own name", *both(original.MSELoss(model), MSELoss(model), model, columns, labels))


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0, 0, 1])], ids=["tokens", "labels"])
def test_contrastive_tension(labels):
    model = Stub()
    theirs, ours = original.ContrastiveTensionLoss(model), ContrastiveTensionLoss(model)
    with torch.no_grad():
        for tower in (theirs.model1, ours.towers["tower"]):
            tower.toy.first.weight.mul_(1.5)
    columns = [TEXTS[0], [TEXTS[0][0], TEXTS[1][1], TEXTS[0][2], "a longer text of more words"]]
    found = [
        differentiate(
            loss([model.preprocess(column) for column in columns], labels), [*model.parameters(), *tower.parameters()]
        )
        for loss, tower in ((theirs, theirs.model1), (ours, ours.towers["tower"]))
    ]
    require_equal("contrastive tension", *found)


@pytest.mark.parametrize(("name", "scale"), [("cosine", 20.0), ("dot", 1.0)])
def test_contrastive_tension_in_batch_negatives(name, scale):
    model = Stub()
    function = {"cosine": util.cos_sim, "dot": util.dot_score}[name]
    theirs = original.ContrastiveTensionLossInBatchNegatives(model, scale, function).double()
    ours = ContrastiveTensionLossInBatchNegatives(model, scale, name)
    with torch.no_grad():
        for tower in (theirs.model1, ours.towers["tower"]):
            tower.toy.first.weight.mul_(1.5)
    # The original's logarithm of the scale begins in float32.
    theirs.logit_scale.data.copy_(ours.logit_scale.data)
    found = [
        differentiate(loss(features(model, 1), None), [*model.parameters(), *tower.parameters(), loss.logit_scale])
        for loss, tower in ((theirs, theirs.model1), (ours, ours.towers["tower"]))
    ]
    require_equal(name, *found)


def write_model(folder):
    """A tiny transformer on disk, which the original reads its decoder from."""
    special = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3}
    letters = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz", start=4)}
    words = Tokenizer(models.WordLevel({**special, **letters}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [("[CLS]", 1), ("[SEP]", 2)]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=24, **names).save_pretrained(folder)
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    drop = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=30, max_position_embeddings=32, **size, **drop)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("tiny"))


def denoising(folder, tie):
    model = library.SentenceTransformer(str(folder), device="cpu").double()
    options = {} if tie else {"decoder_name_or_path": str(folder)}
    theirs = original.DenoisingAutoEncoderLoss(model, tie_encoder_decoder=tie, **options).double()
    ours = DenoisingAutoEncoderLoss(model, tie=tie)
    ours.language_model.load_state_dict(theirs.decoder.state_dict())
    return model, theirs, ours


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_denoising_auto_encoder(tiny, tie):
    model, theirs, ours = denoising(tiny, tie)
    found = []
    for loss, decoder in ((theirs, theirs.decoder), (ours, ours.language_model)):
        parameters = {id(p): p for p in (*model.parameters(), *decoder.parameters())}.values()
        columns = [dict(model.preprocess(column)) for column in TEXTS[:2]]
        found.append(differentiate(loss(columns, None), [p for p in parameters if p.requires_grad]))
    require_equal("denoising", *found)


TARGETS = torch.randn(5, DIM, generator=torch.Generator().manual_seed(1))
PROBLEMS = [(original.MSELoss(None), MSELoss(), 1), (original.EmbedDistillLoss(None), EmbedDistillLoss(), 2)]


class Brought(torch.nn.Module):
    """The original's distillation takes a list of teachers' embeddings beside the students'."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def compute_loss_from_embeddings(self, columns, labels):
        return self.loss.compute_loss_from_embeddings(columns, [labels] * len(columns))


@pytest.mark.parametrize(("theirs", "ours", "columns"), PROBLEMS, ids=["mse", "embed-distill"])
def test_float32_is_as_near_to_the_truth(theirs, ours, columns):
    require_as_near(Brought(theirs), ours, columns, TARGETS)


# Deliberate differences: (class, case) -> the original and ours.


def tied_weights():
    """Whether the weights of an encoder trained before survive being tied."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder)

        def survive(make):
            model = library.SentenceTransformer(folder, device="cpu")
            weight = "embeddings.word_embeddings.weight"
            with torch.no_grad():
                model.transformers_model.get_parameter(weight).mul_(2)
            before = model.transformers_model.get_parameter(weight).detach().clone()
            make(model)
            return torch.equal(model.transformers_model.get_parameter(weight), before)

        seen = survive(original.DenoisingAutoEncoderLoss), survive(DenoisingAutoEncoderLoss)
    assert seen == (False, True)
    return lambda: seen[0], lambda: seen[1]


def ignored_class():
    model, labels = Stub(), torch.tensor([2, 0, -100, 1])
    theirs, ours = original.SoftmaxLoss(model, DIM, 3).double(), SoftmaxLoss(model, 3)
    return lambda: both(theirs, theirs, model, 2, labels)[0], lambda: both(ours, ours, model, 2, labels)[0]


def second_column():
    model = Stub()
    theirs = original.ContrastiveTensionLossInBatchNegatives(model).double()
    ours = ContrastiveTensionLossInBatchNegatives(model)
    return tuple(
        lambda loss=loss: differentiate(loss(features(model, 2), None), [*model.parameters()])
        for loss in (theirs, ours)
    )


DIFFERENCES = {
    ("ContrastiveTensionLossInBatchNegatives", "second-column"): second_column,
    ("DenoisingAutoEncoderLoss", "tied-weights"): tied_weights,
    ("EmbedDistillLoss", "zero-vectors"): lambda: one_zero_vector(
        Brought(original.EmbedDistillLoss(None)), EmbedDistillLoss(), 1, TARGETS
    ),
    ("SoftmaxLoss", "ignored-class"): ignored_class,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
