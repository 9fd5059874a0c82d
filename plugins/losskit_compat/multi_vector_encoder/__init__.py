"""The incumbent's family of multi-vector encoders."""
