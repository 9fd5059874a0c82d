"""The incumbent's dense family."""
