"""Encoders: what turns texts into records, in the model folder format of sentence-transformers 6.2."""
