"""Similarities of records, one file each."""
