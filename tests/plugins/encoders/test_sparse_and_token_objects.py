"""`SparseEncoder` and `MultiVectorEncoder` objects of sentence-transformers seen as encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from transformers import TrainingArguments

import losskit
from losskit import Direct, GradCache
from losskit.adapt import view
from losskit.batch import preprocess
from losskit.errors import LossError
from losskit.protocols import Encoder
from losskit_plugins.data.beir import Collection
from losskit_plugins.encoders.adapters import MultiVectorEncoderView, SparseEncoderView
from losskit_plugins.evaluation import Pairs, Retrieval, evaluate

from .conftest import TEXTS, Objects

KINDS = ["splade", "inference_free", "csr", "multi_vector"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def as_dense(vectors: Any) -> np.ndarray:
    return vectors.toarray() if isinstance(vectors, csr_array) else np.asarray(vectors)


@each_kind
def test_is_adopted(kind: str, objects: Objects) -> None:
    model = getattr(objects, kind)()
    seen = view(model)
    assert isinstance(seen, Encoder)
    assert seen.model is model
    expected = {
        "splade": ("sparse", "dot", len(objects.tokenizer), False),
        "inference_free": ("sparse", "dot", len(objects.tokenizer), False),
        "csr": ("sparse", "dot", 24, False), "multi_vector": ("multi-vector", "maxsim", 8, True),
    }[kind]  # fmt: skip
    assert (seen.family, seen.similarity, seen.dimension, seen.normalized) == expected
    loss = losskit.build("multiple-negatives-ranking", model)
    assert loss.model is model
    assert type(loss.encoder) is (MultiVectorEncoderView if kind == "multi_vector" else SparseEncoderView)


def test_the_mean_of_maxsim_has_another_name_there(objects: Objects) -> None:
    model = objects.multi_vector()
    model.similarity_fn_name = "meanmaxsim"
    assert view(model).similarity == "mean-maxsim"


@each_kind
def test_encodes_as_the_object_does(kind: str, objects: Objects, texts: list[str]) -> None:
    model = getattr(objects, kind)().train()
    seen = view(model)
    calls = {"query": model.encode_query, "document": model.encode_document}
    for role, call in calls.items():
        theirs, ours = call(texts), seen.encode(texts, role=role)
        assert len(theirs) == len(texts)
        for theirs_i, ours_i in zip(theirs, ours if isinstance(ours, list) else as_dense(ours), strict=True):
            expected = theirs_i.to_dense() if theirs_i.is_sparse else theirs_i
            np.testing.assert_allclose(ours_i, expected.numpy(), atol=1e-6)
    if kind != "inference_free":
        theirs, ours = model.encode(texts[0], prompt="mat: "), seen.encode(texts[:1], prompt="mat: ")
        expected = theirs.to_dense() if theirs.is_sparse else theirs
        np.testing.assert_allclose(ours[0] if isinstance(ours, list) else as_dense(ours)[0], expected, atol=1e-6)


@each_kind
def test_leaves_modes_as_they_were(kind: str, objects: Objects, texts: list[str]) -> None:
    model = getattr(objects, kind)().train()
    model[-1].eval()
    modes = [module.training for module in model.modules()]
    seen = view(model)
    seen.encode(texts, role="query")
    seen(seen.preprocess(texts, role="document"))
    assert [module.training for module in model.modules()] == modes


def test_nothing_is_encoded_to_nothing(objects: Objects) -> None:
    assert view(objects.splade()).encode([]).shape == (0, len(objects.tokenizer))
    assert view(objects.multi_vector()).encode([], role="query") == []


@each_kind
@pytest.mark.parametrize("role", ["query", "document"])
def test_forward_is_what_encode_gives(kind: str, role: str, objects: Objects, texts: list[str]) -> None:
    seen = view(getattr(objects, kind)().eval())
    features = seen.preprocess(texts, role=role)
    keys = dict(features)
    record = seen(features)
    assert features.keys() == keys.keys()
    expected = seen.encode(texts, role=role)
    if kind != "multi_vector":
        np.testing.assert_allclose(record.embedding.detach().numpy(), as_dense(expected), atol=1e-6)
        return
    for vectors, mask, each in zip(record.embedding.detach(), record.mask, expected, strict=True):
        np.testing.assert_allclose(vectors[mask].numpy(), each, atol=1e-6)
        assert not vectors[~mask].any()


@pytest.mark.parametrize("attend", [False, True])
def test_expanded_positions_count(attend: bool, objects: Objects, texts: list[str]) -> None:
    seen = view(objects.multi_vector(attend=attend))
    queries, documents = (seen.preprocess(texts, role=role) for role in ("query", "document"))
    assert (queries["task"], documents["task"]) == ("query", "document")
    real = documents["attention_mask"].sum(1).tolist()
    assert seen.lengths(documents) == real
    assert seen.lengths(queries) == [max(10, length) for length in seen(queries).mask.sum(1).tolist()]
    assert "task" not in seen.preprocess(texts)


def differentiated(loss: Any, model: Any, columns: list[list[str]]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    features = preprocess(loss, columns, inputs=["anchor", "positive"])
    value = loss(features, None)
    value = sum(value.values()) if isinstance(value, dict) else value
    value.backward()
    return value.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@each_kind
@pytest.mark.parametrize("execution", [Direct(tokens=30), GradCache(mini_batch_size=2)], ids=["tokens", "grad-cache"])
def test_executions_agree(kind: str, execution: Any, objects: Objects) -> None:
    model = getattr(objects, kind)().double().train()
    name = {"name": "csr", "loss": "multiple-negatives-ranking"} if kind == "csr" else "multiple-negatives-ranking"
    columns = [TEXTS, TEXTS[1:] + TEXTS[:1]]
    value, gradients = differentiated(losskit.build(name, model, execution=Direct(merge=False)), model, columns)
    assert max(gradient.abs().max() for gradient in gradients.values()) > 0
    if kind == "csr":
        model[2].stats_last_nonzero.zero_()
    found, others = differentiated(losskit.build(name, model, execution=execution), model, columns)
    assert found == pytest.approx(value, rel=1e-10)
    assert others.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, rtol=1e-8, atol=1e-10)


def test_roles_never_share_a_forward(objects: Objects) -> None:
    for kind, kept in (("inference_free", "task"), ("multi_vector", "task")):
        model = getattr(objects, kind)()
        loss = losskit.build("multiple-negatives-ranking", model, execution=Direct())
        tasks: list[str] = []
        model.register_forward_pre_hook(lambda module, args, tasks=tasks, kept=kept: tasks.append(args[0][kept]))
        loss(preprocess(loss, [TEXTS, TEXTS], inputs=["anchor", "positive"]), None)
        assert tasks == ["query", "document"]


PARTS = {
    "backbone": "sentence_embedding_backbone", "decoded_k": "decoded_embedding_k", "decoded_4k": "decoded_embedding_4k",
    "decoded_aux": "decoded_embedding_aux", "decoded_k_pre_bias": "decoded_embedding_k_pre_bias",
}  # fmt: skip


class TestAutoEncoder:
    def test_gives_its_reconstructions(self, objects: Objects, texts: list[str]) -> None:
        model = objects.csr().train()
        model[2].stats_last_nonzero.fill_(99)
        seen = view(model)
        features = seen.preprocess(texts)
        record = seen(features, [*PARTS, "input_ids"])
        expected = model.eval()(dict(features))
        assert expected["decoded_embedding_aux"].abs().max() > 0
        for part, key in PARTS.items():
            torch.testing.assert_close(record.parts[part], expected[key])
        assert record.parts["input_ids"].values.shape == features["input_ids"].shape
        assert set(seen(features, ["backbone"]).parts) == {"backbone"}

    def test_without_an_auxiliary_one(self, objects: Objects, texts: list[str]) -> None:
        seen = view(objects.csr(k_aux=0))
        assert set(seen(seen.preprocess(texts), list(PARTS)).parts) == {*PARTS} - {"decoded_aux"}

    def test_layers_stand_before_it(self, objects: Objects, texts: list[str]) -> None:
        seen = view(objects.csr().eval())
        record = seen(seen.preprocess(texts), ["layers"])
        assert len(record.layers) == 3
        torch.testing.assert_close(record.layers[-1], record.embedding)
        assert seen.auto_encoder.stats_last_nonzero.eq(0).all()

    def test_counts_steps_not_forwards(self, objects: Objects) -> None:
        for execution in (Direct(merge=False), Direct(), GradCache(mini_batch_size=2)):
            model = objects.csr().train()
            loss = losskit.build({"name": "csr", "loss": "multiple-negatives-ranking"}, model, execution=execution)
            columns = [TEXTS, TEXTS[1:] + TEXTS[:1]]
            codes = loss.encoder.encode(TEXTS, role="query").toarray()
            for step in (1, 2, 3):
                differentiated(loss, model, columns)
                expected = [1 if (codes[:, latent] > 1e-5).any() else step for latent in range(24)]
                assert model[2].stats_last_nonzero.tolist() == expected
            with torch.no_grad():
                loss(preprocess(loss, columns, inputs=["anchor", "positive"]), None)
            loss.model.eval()
            differentiated(loss, model, columns)
            assert model[2].stats_last_nonzero.tolist() == expected

    def test_refuses_more_latents_than_there_are(self, objects: Objects) -> None:
        with pytest.raises(LossError, match="k of the SparseAutoEncoder: expected at most a quarter of its 24 latents"):
            view(objects.csr(k=7))

    @pytest.mark.parametrize("kind", ["splade", "inference_free"])
    def test_refuses_reconstructions_of_a_model_without_one(
        self, kind: str, objects: Objects, texts: list[str]
    ) -> None:
        seen = view(getattr(objects, kind)())
        with pytest.raises(LossError, match="decoded_k of the SparseEncoder: expected a SparseAutoEncoder among its m"):
            seen(seen.preprocess(texts, role="document"), ["decoded_k"])


@pytest.mark.parametrize("kind", ["splade", "inference_free"])
def test_refuses_layers_of_terms(kind: str, objects: Objects, texts: list[str]) -> None:
    seen = view(getattr(objects, kind)())
    with pytest.raises(LossError, match="layers"):
        seen(seen.preprocess(texts, role="document"), ["layers"])


def test_refuses_layers_of_tokens(objects: Objects, texts: list[str]) -> None:
    seen = view(objects.multi_vector())
    with pytest.raises(LossError, match="needs of the loss: expected some of input_ids of this encoder, got 'layers'"):
        seen(seen.preprocess(texts), ["layers"])


@each_kind
def test_is_evaluated(kind: str, objects: Objects) -> None:
    seen = view(getattr(objects, kind)())
    found = evaluate(seen, Pairs(TEXTS, [[text] for text in TEXTS], [[]] * len(TEXTS)))
    if kind == "csr":
        assert found["active-dims-query"] == found["active-dims-document"]
        assert 0 < found["active-dims-query"] <= 4
    assert 0 < found["mrr@10"] <= 1


@each_kind
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_retrieval_is_measured_as_that_library_does(kind: str, objects: Objects) -> None:
    model = getattr(objects, kind)()
    corpus = {f"d{place}": text for place, text in enumerate(TEXTS)}
    queries = {"q1": "the cat", "q2": "a dog barks", "q3": "quick"}
    relevant = {"q1": {"d2", "d4"}, "q2": {"d1"}, "q3": {"d4"}}  # none that ties with another document
    family, name = ("multi_vector", "MultiVector") if kind == "multi_vector" else ("sparse", "Sparse")
    evaluation = import_module(f"sentence_transformers.{family}_encoder.evaluation")
    evaluator = getattr(evaluation, f"{name}InformationRetrievalEvaluator")(queries, corpus, relevant)
    theirs = {key.removeprefix("dot_").removeprefix("maxsim_"): value for key, value in evaluator(model).items()}
    judged = {query: dict.fromkeys(documents, 1) for query, documents in relevant.items()}
    ours = evaluate(view(model), Retrieval(Collection(corpus, queries, judged)))
    names = {name: name for name in ("ndcg@10", "mrr@10", "recall@10")}
    if kind != "multi_vector":
        names |= {"active-dims-query": "query_active_dims", "active-dims-document": "corpus_active_dims"}
        names |= {"flops": "avg_flops"}
        ratios = [theirs["query_sparsity_ratio"]] * 3 + [theirs["corpus_sparsity_ratio"]] * 5
        assert ours["sparsity"] == pytest.approx(np.mean(ratios), abs=1e-6)
    assert {name: ours[name] for name in names} == {
        name: pytest.approx(theirs[key], abs=1e-5) for name, key in names.items()
    }


@each_kind
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_learns_in_our_trainer(kind: str, objects: Objects, tmp_path: Path) -> None:
    model = getattr(objects, kind)()
    ranking = "multiple-negatives-ranking"
    name: Any = {
        "csr": {"name": "csr", "loss": ranking},
        "multi_vector": ranking,
    }.get(kind, {"name": "splade", "loss": ranking, "document_regularizer_weight": 1e-3})
    loss = losskit.build(name, model, execution=GradCache(mini_batch_size=3))
    rows = [{"anchor": f"{text} {word}", "positive": word} for text in TEXTS for word in ("cat", "dogs", "fox", "mat")]
    args = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, num_train_epochs=3, report_to="none",
        learning_rate=1e-3,
        save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    columns = [[row[name] for row in rows[:4]] for name in ("anchor", "positive")]
    before, _ = differentiated(loss, model, columns)
    data = Pairs([row["anchor"] for row in rows], [[row["positive"]] for row in rows], [[]] * len(rows))
    trainer = losskit.Trainer(loss=loss, train_dataset=rows, args=args, evaluation=partial(evaluate, data=data))
    trainer.train()
    assert loss.model is model
    after, _ = differentiated(loss, model, columns)
    assert after < before
    assert trainer.measure()["recall@10"] == 1.0


@each_kind
def test_is_saved_and_loaded(kind: str, objects: Objects, tmp_path: Path, texts: list[str]) -> None:
    seen = view(getattr(objects, kind)())
    seen.save(tmp_path / "m")
    again: Callable[..., Any] = type(seen).load(tmp_path / "m").encode
    for ours, theirs in zip(again(texts, role="document"), seen.encode(texts, role="document"), strict=True):
        np.testing.assert_allclose(as_dense(ours), as_dense(theirs), atol=1e-6)
