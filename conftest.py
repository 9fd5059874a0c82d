"""What holds for every test and doctest: no network, and no more threads than the tests need."""

import os

# Before torch, tokenizers and huggingface_hub are imported, for they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
