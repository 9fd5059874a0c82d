"""Mining: which documents of a corpus an encoder finds for queries, and what training makes of them."""

from .candidates import candidates, labelled_lists

__all__ = ["candidates", "labelled_lists"]
