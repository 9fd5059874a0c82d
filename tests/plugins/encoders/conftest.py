"""Tiny transformers with random weights, and tokenizers trained on a few words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    MobileBertConfig,
    MobileBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

TEXTS = [
    "a cat sat on the mat",
    "dogs bark",
    "the quick brown fox jumps over the lazy dog while the cat sat on a mat and the dogs bark at the fox",
    "Fox",
    "lazy cats, lazy dogs and one quick fox",
]
SPECIAL = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return list(TEXTS)


@pytest.fixture(scope="session")
def pairs() -> list[tuple[str, str]]:
    return [(TEXTS[i], TEXTS[j]) for i, j in ((0, 1), (3, 2), (2, 0), (4, 4), (1, 3))]


@pytest.fixture(scope="session")
def word_piece() -> PreTrainedTokenizerBase:
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    trained.train_from_iterator(TEXTS, trainer)
    ids = [(token, trained.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=trained, model_max_length=24, model_input_names=names, **SPECIAL)


@pytest.fixture(scope="session")
def byte_pairs() -> PreTrainedTokenizerBase:
    """Like GPT-2's: no tokens around a text, and no padding token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    trained.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<|end|>", model_max_length=40)


def bert_config(vocabulary: int = 120, **options: object) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertConfig(vocab_size=vocabulary, max_position_embeddings=48, **sizes, **options)


ARCHITECTURES = {
    "bert": lambda: BertModel(bert_config()),
    "roberta": lambda: RobertaModel(
        RobertaConfig(
            vocab_size=120,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=50,
            pad_token_id=0,
        )
    ),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=120, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=48)
    ),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=48)),
    "masked-bert": lambda: BertForMaskedLM(bert_config()),
    "masked-distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=120, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=48)
    ),
    "masked-mobilebert": lambda: MobileBertForMaskedLM(  # whose logits are no product with its output embeddings
        MobileBertConfig(
            vocab_size=120,
            hidden_size=16,
            embedding_size=8,
            intra_bottleneck_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=48,
        )
    ),
    "classifier": lambda: BertForSequenceClassification(bert_config(num_labels=1)),
    "classifier3": lambda: BertForSequenceClassification(bert_config(num_labels=3)),
}


@pytest.fixture(scope="session")
def make_model() -> Callable[[str], PreTrainedModel]:
    """A transformer by the name of its architecture, the same each time, with weights that matter."""

    def make(name: str) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = ARCHITECTURES[name]()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture
def plain_folder(tmp_path: Path, make_model, word_piece, byte_pairs) -> Callable[[str], Path]:
    """A folder as transformers writes it."""

    def write(name: str) -> Path:
        folder = tmp_path / f"plain-{name}"
        make_model(name).save_pretrained(folder)
        (byte_pairs if name == "gpt2" else word_piece).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(scope="session")
def st() -> ModuleType:
    """sentence-transformers, which checks and is checked."""
    return pytest.importorskip("sentence_transformers", minversion="6.2")


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Change keys of a JSON file; None removes them."""

    def edit(path: Path, **changes: object) -> None:
        content = json.loads(path.read_text()) if path.exists() else {}
        content.update(changes)
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


ROLE_PROMPTS = {"query": "a quick cat: ", "document": "the lazy dog: "}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}


class Objects:
    """Tiny `SparseEncoder` and `MultiVectorEncoder` objects, the same each time."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, st: ModuleType) -> None:
        self.folder, self.tokenizer, self.st = folder, tokenizer, st
        torch.manual_seed(1)
        for name, kind in (("plain", BertModel), ("masked", BertForMaskedLM)):
            kind(bert_config(len(tokenizer), **NO_DROPOUT)).save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)

    def transformer(self, name: str = "plain", **options: Any) -> Any:
        return self.st.base.modules.Transformer(str(self.folder / name), **options)

    def splade(self) -> Any:
        return self.st.SparseEncoder(str(self.folder / "masked"), device="cpu", prompts=ROLE_PROMPTS)

    def inference_free(self) -> Any:
        modules = self.st.sparse_encoder.modules
        weights = torch.linspace(0.5, 2.0, len(self.tokenizer))
        router = self.st.base.modules.Router.for_query_document(
            [modules.SparseStaticEmbedding(self.tokenizer, weight=weights)],
            [self.transformer("masked", transformer_task="fill-mask"), modules.SpladePooling("max")],
        )
        return self.st.SparseEncoder(modules=[router], similarity_fn_name="dot", device="cpu")

    def csr(self, hidden: int = 24, k: int = 4, k_aux: int = 6) -> Any:
        modules = self.st.sparse_encoder.modules
        torch.manual_seed(2)
        code = modules.SparseAutoEncoder(16, hidden_dim=hidden, k=k, k_aux=k_aux)
        pooling = self.st.sentence_transformer.modules.Pooling(16)
        return self.st.SparseEncoder(modules=[self.transformer(), pooling, code], device="cpu")

    def multi_vector(self, attend: bool = False) -> Any:
        torch.manual_seed(3)
        expansion = {"strategy": "fixed", "length": 10, "attend": attend, "token": "[UNK]"}
        modules = self.st.base.modules
        names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        return self.st.MultiVectorEncoder(
            modules=[
                self.transformer(query_expansion=expansion),
                modules.Dense(16, 8, bias=False, activation_function=nn.Identity(), **names),
                self.st.multi_vector_encoder.modules.MultiVectorMask(["dogs", ","]),
                modules.Normalize(**names),
            ],
            prompts=ROLE_PROMPTS,
            device="cpu",
        )


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory, word_piece: PreTrainedTokenizerBase, st: ModuleType) -> Objects:
    return Objects(tmp_path_factory.mktemp("objects"), word_piece, st)
