"""The incumbent's cross-encoder family."""
