"""Metrics of an encoder on evaluation data: spearman, ndcg@10, ndcg-exp@10, mrr@10, recall@10, accuracy.

Of a sparse one also active-dims-query and active-dims-document (active-dims-text where texts have no role), flops and
sparsity.
"""

from .classed_texts import ClassedTexts
from .evaluate import GROUPS, Task, evaluate, read_evaluation
from .pairs import Pairs
from .ranked_lists import RankedLists
from .retrieval import Retrieval
from .scored_pairs import ScoredPairs

__all__ = [
    "GROUPS",
    "ClassedTexts",
    "Pairs",
    "RankedLists",
    "Retrieval",
    "ScoredPairs",
    "Task",
    "evaluate",
    "read_evaluation",
]
