"""Wrappers: losses around losses, one file each."""
