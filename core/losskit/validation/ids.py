"""The ids of all checks, by level; a test compares them with the checks there are."""

from __future__ import annotations

__all__ = ["CHECKS", "HOOKS"]

_BY_LEVEL = {
    "static": "entry-point card docstring citation packaging source",
    "interface": """
        import protocol constructor model-child options returns refusals copies examples
        encoder-protocol encoder-adapt encoder-config
    """,
    "numeric": """
        additivity masking degenerate half-precision meta executions dropout order padding untouched config pickled
        owned-state diagonal transform weights of-lists-alone identity gradient inputs-used labels-used direction
        weights-used stochastic fixed-dimension needs reads repeatable instances kept-graphs default-dtype
        float32 layout nan extreme-options batch-size growth host-sync leak
        encoder-records encode encoder-padding encoder-take-join encoder-roles encoder-gradient encoder-modes
        encoder-saved encoder-pickled encoder-in-a-loss
    """,
    "full": "compiles processes training training-sentence-transformers",
    "gpu": "gpu-parity gpu-sync gpu-half",
}
CHECKS = frozenset(check for checks in _BY_LEVEL.values() for check in checks.split())
HOOKS = "hooks"
"""What is under way, behind the name of a distribution, while that is asked for further checks."""
