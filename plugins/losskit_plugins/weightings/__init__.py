"""Weightings of document pairs, one file each."""
