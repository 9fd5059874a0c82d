"""Metrics of an encoder on evaluation data."""
