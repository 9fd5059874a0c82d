"""The incumbent's family of sparse encoders."""
