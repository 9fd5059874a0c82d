"""Makes a masked-language model, as the encoder splade starts from, of an embedding model and a corpus.

python docs/recipes/masked_language_model.py DATA OUT MODEL

DATA is a BEIR folder, whose corpus is read; OUT where the model goes; MODEL the folder of all-MiniLM-L6-v2. Its
transformer is kept, its word embeddings serve as the output embeddings, and the linear layer between them starts as the
identity; all are trained to fill in words of the corpus that are masked.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from losskit_plugins.data.beir import read_collection

TOKENS = 64
SEED = 0


def untrained(folder: str) -> BertForMaskedLM:
    """The transformer with a head whose linear layer hands its states on, to be compared with the word embeddings."""
    model: BertForMaskedLM = BertForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        dense = model.cls.predictions.transform.dense
        dense.weight.copy_(torch.eye(dense.in_features))
        dense.bias.zero_()
        model.cls.predictions.bias.zero_()
    return model


def main(data: str, out: str, folder: str) -> None:
    """Make and train it."""
    set_seed(SEED)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    corpus = list(read_collection(Path(data), "train").corpus.values())
    rows = Dataset.from_dict(dict(tokenizer(corpus, truncation=True, max_length=TOKENS)))
    model = untrained(folder)
    arguments = TrainingArguments(
        output_dir=f"{out}.training",
        num_train_epochs=2,
        per_device_train_batch_size=16,
        learning_rate=3e-4,
        warmup_steps=0.1,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=20,
        save_strategy="no",
        report_to="none",
        seed=SEED,
    )
    Trainer(model, arguments, DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3), rows).train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
