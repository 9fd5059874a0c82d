"""The incumbent's class names and constructors over the plugins.

`from losskit_compat.sentence_transformer.losses import MultipleNegativesRankingLoss` in place of the same import from
sentence_transformers; nothing here imports that library.
"""
