"""Validation of a component in processes of its own, level by level; free of torch itself."""
