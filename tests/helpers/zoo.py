"""The zoo of small losses: which data each is tried on, what is wrong with it, and the check meant for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ANY", "CORRECT", "DEFECTS", "FOLDER", "Defect", "given", "reference"]

FOLDER = Path(__file__).parents[1] / "validation" / "zoo"


@dataclass(frozen=True)
class Defect:
    """What is wrong with a component.

    Args:
        kind: of defect, in a few words.
        check: the id of the check that is meant for it.
        follows: ids of further checks that fail by the same defect; ANY: whatever calls it.
        level: the lowest that has the check.
    """

    kind: str
    check: str
    follows: tuple[str, ...] = ()
    level: str = "numeric"


ANY = ("*",)
SCORED = {"inputs": ("text", "text"), "labels": "score"}
CONTRASTED = {"inputs": ("anchor", "positive", "negative*")}
PAIRED = {"inputs": ("anchor", "positive")}
TRIPLETS = {"inputs": ("anchor", "positive", "negative")}
BINARY = {"inputs": ("text", "text"), "labels": "binary"}
CLASSES = {"inputs": ("text", "text"), "labels": "class"}
CROSS: Mapping[str, Any] = {"encoder": "cross-encoder"}

DATA: Mapping[str, Mapping[str, Any]] = {
    "plain_pairs": SCORED,
    "plain_contrastive": CONTRASTED,
    "plain_contrastive:RollsNegatives": PAIRED,
    "plain_contrastive:GathersWithoutGradient": PAIRED,
    "plain_labelled:Contrastive": BINARY,
    "plain_labelled:TurnsMargin": BINARY,
    "plain_labelled:PicksByMask": BINARY,
    "plain_labelled": TRIPLETS,
    "plain_labelled:Classifier": CLASSES,
    "plain_labelled:FreezesModel": CLASSES,
    "plain_labelled:LooksAtClasses": CLASSES,
    "plain_scores": {**SCORED, **CROSS},
    "plain_scores:BinaryCrossEntropy": {**BINARY, **CROSS},
    "plain_scores:UnstableSigmoid": {**BINARY, **CROSS},
    "plain_scores:IgnoresLabels": {**BINARY, **CROSS},
    "plain_scores:MarginMSE": {"inputs": ("query", "positive", "negative+"), "labels": "margins", **CROSS},
    "plain_scores:SwapsMargins": {"inputs": ("query", "positive", "negative+"), "labels": "margins", **CROSS},
    "plain_scores:InBatchScores": {"inputs": ("query", "positive", "negative+"), **CROSS},
    "squares": PAIRED,
}
"""What plain modules are tried on: by class, or by file for the others there."""


def reference(name: str) -> str:
    """The target of a specimen, "file:Class"."""
    file, _, cls = name.partition(":")
    return f"{FOLDER / file}.py:{cls}"


def given(name: str) -> dict[str, Any]:
    """What its validation is told about a specimen, which has no card."""
    file, _, _ = name.partition(":")
    return dict(DATA.get(name, DATA.get(file, {})))


CORRECT: tuple[str, ...] = (
    # plain modules
    "plain_pairs:CosineRegression",
    "plain_contrastive:InBatch",
    "plain_labelled:Contrastive",
    "plain_labelled:Triplet",
    "plain_labelled:Classifier",
    "plain_scores:BinaryCrossEntropy",
    "plain_scores:ScoreMSE",
    "plain_scores:MarginMSE",
    "plain_scores:InBatchScores",
    "squares:Squares",
    # losses on pairs, with sample weights, in terms, with a parameter
    "pairs:Regression",
    "pairs:Weighted",
    "pairs:InTerms",
    "pairs:OwnsFactor",
    # over the batch: held scores, tiles, classes
    "in_batch:InfoNCE",
    "in_batch:Tiled",
    "classes:ClassPairs",
    # stochastic, scheduled, with a memory
    "drawn:Noisy",
    "drawn:Scheduled",
    "drawn:Queue",
    # with a layer, of layers, of token ids, of token embeddings, on labels that are embeddings
    "owned:Classifier",
    "owned:Distances",
    "owned:Layers",
    "owned:CountsTokens",
    "owned:TokenMeans",
    "owned:TokenErrors",
    "owned:EmbeddingRegression",
    # listwise, regression of scores, pairwise within lists
    "lists:ListSoftmax",
    "lists:SquaredErrors",
    "lists:PairwiseLogistic",
    # other kinds
    "wrappers:Scaled",
    "small_kinds:MeanSquare",
    "small_kinds:Correlation",
    "small_kinds:GainSums",
    "encoders:BagOfWords",
)
"""What keeps every law."""

SLICES = ("additivity", "executions")
STATE = ("additivity", "half-precision", "executions", "default-dtype", "float32", "layout", "repeatable", "refusals")
"""What a value that changes from call to call breaks beside the law that is meant."""

DEFECTS: Mapping[str, Defect] = {
    # plain modules on pairs
    "plain_pairs:BroadcastsLabels": Defect("labels broadcast to all rows", "labels-used"),
    "plain_pairs:CountsLabels": Defect("labels of another shape accepted", "refusals"),
    "plain_pairs:WritesLabels": Defect("labels changed in place", "untouched", (*STATE, "copies", "order", "padding")),
    "plain_pairs:LeavesModelInEval": Defect("model left in evaluation mode", "untouched"),
    "plain_pairs:AddsGlobalNoise": Defect("global random state", "untouched"),
    "plain_pairs:SwallowsOptions": Defect("**kwargs of a plain module", "source"),
    "plain_pairs:HidesModel": Defect("model not registered", "model-child"),
    "plain_pairs:KeepsGraph": Defect("loss kept with its graph", "kept-graphs"),
    "plain_pairs:Leaks": Defect("a history that grows", "leak"),
    "plain_pairs:CountsSteps": Defect("hidden counter", "repeatable", STATE),
    "plain_pairs:Unreduced": Defect("no reduction", "returns", ANY),
    "plain_pairs:ReturnsPair": Defect("a tuple for a value", "returns", ANY),
    "plain_pairs:LabelsFirst": Defect("arguments in another order", "returns", ANY),
    "plain_pairs:SumsRows": Defect("sum for a mean", "batch-size"),
    "plain_pairs:RoundsScores": Defect("straight-through estimate", "gradient"),
    "plain_pairs:HidesNaN": Defect("hidden NaN", "nan"),
    # plain contrastive modules
    "plain_contrastive:UnstableSoftmax": Defect(
        "unstable softmax in float32", "float32", ("half-precision", "default-dtype")
    ),
    "plain_contrastive:DetachesNegatives": Defect("detached negatives", "inputs-used", ("gradient",)),
    "plain_contrastive:IgnoresNegatives": Defect("ignored negatives", "inputs-used"),
    "plain_contrastive:IgnoresFurtherNegatives": Defect("ignored further negatives", "inputs-used"),
    "plain_contrastive:TransposesPositives": Defect("transposed positives", "order", ("direction",)),
    "plain_contrastive:RollsNegatives": Defect("neighbours for negatives", "order"),
    "plain_contrastive:DrawsNegatives": Defect("negatives from the global generator", "untouched"),
    "plain_contrastive:BranchesOnHost": Defect("a branch on a score", "host-sync", ("meta",)),
    "plain_contrastive:ForgetsDevice": Defect("arange without a device", "meta"),
    "plain_contrastive:LoopsOverPairs": Defect("loop over pairs with slices", "growth"),
    "plain_contrastive:ComparesTriples": Defect("cubic memory", "growth"),
    "plain_contrastive:GathersWithoutGradient": Defect("gather without gradient", "processes", level="full"),
    # plain modules on labels, triplets and classes
    "plain_labelled:TurnsMargin": Defect("margin the wrong way round", "direction"),
    "plain_labelled:PicksByMask": Defect("boolean index", "host-sync", ("meta",)),
    "plain_labelled:RootOfZero": Defect("NaN gradient at equal vectors", "degenerate"),
    "plain_labelled:SwapsSign": Defect("wrong sign of distances", "direction"),
    "plain_labelled:DetachesPositive": Defect("detached branch", "inputs-used", ("gradient",)),
    "plain_labelled:LooksAtClasses": Defect("labels as a Python list", "host-sync", ("meta",)),
    # plain modules for cross-encoders
    "plain_scores:UnstableSigmoid": Defect("logarithm of a sigmoid", "degenerate", ("float32",)),
    "plain_scores:IgnoresLabels": Defect("labels ignored on scores", "labels-used", ("direction",)),
    "plain_scores:KeepsColumnAxis": Defect("scores [n, 1] against labels [n]", "labels-used"),
    "plain_scores:SwapsMargins": Defect("margins of the wrong sign", "direction"),
    # losses on pairs
    "pairs:SumsRows": Defect("sum in a row-wise loss", "batch-size", SLICES),
    "pairs:CountsFromZero": Defect("labels of a slice indexed from 0", "additivity", ("executions",)),
    "pairs:ComparesNeighbours": Defect("order dependence", "order"),
    "pairs:IgnoresLabels": Defect("ignored labels", "labels-used"),
    "pairs:TurnsSign": Defect("wrong sign", "direction"),
    "pairs:Detaches": Defect("detached term", "gradient"),
    "pairs:DoublesGradient": Defect("gradient scaled by a Function of its own", "gradient"),
    "pairs:DividesByLength": Defect("NaN at zero vectors", "degenerate"),
    "pairs:Standardizes": Defect("NaN at equal labels", "degenerate"),
    "pairs:OverflowsInHalf": Defect("overflow in half precision", "half-precision"),
    "pairs:FollowsDefaultDtype": Defect("constant in the default dtype", "default-dtype"),
    "pairs:NamesDevice": Defect("tensor on the processor", "meta"),
    "pairs:NamesAccelerator": Defect("device literal", "source"),
    "pairs:ReadsOnHost": Defect("host sync", "host-sync", ("meta",)),
    "pairs:WeighsNothing": Defect("sample weights ignored", "weights-used"),
    "pairs:SharesWeights": Defect("divided by the sum of sample weights", "weights-used"),
    "pairs:HoldsFunction": Defect("a lambda among the attributes", "pickled"),
    "pairs:RenamesArgument": Defect("argument under another name", "constructor", ("config",)),
    "pairs:ConvertsArgument": Defect("argument converted", "constructor", ("config", "extreme-options")),
    "pairs:ForgetsOption": Defect("configuration without an option's value", "config"),
    "pairs:SharesDefault": Defect("mutable default", "constructor", ("source",)),
    "pairs:TakesAnything": Defect("**kwargs", "constructor", ("source", "config")),
    "pairs:LeavesGraph": Defect("kept graph of an intermediate result", "kept-graphs"),
    "pairs:RemembersOutside": Defect("hidden state in compute", "repeatable", (*STATE, "gradient")),
    "pairs:SharesState": Defect(
        "state on the class",
        "instances",
        (*STATE, "copies", "dropout", "order", "padding", "config", "pickled", "stochastic"),
    ),
    "pairs:Unreduced": Defect("no reduction in compute", "returns", ANY),
    "pairs:CopiesItself": Defect("a deep copy that is none", "copies"),
    "pairs:RaisesTypeError": Defect("TypeError that leaves forward", "refusals"),
    "pairs:Deviates": Defect("declared deviation that does not occur", "order"),
    "pairs:KeepsTensor": Defect("tensor that is no buffer", "meta"),
    "pairs:SwallowsErrors": Defect("bare except", "source", ("executions",)),
    "pairs:SetsDtype": Defect("default dtype set in a call", "untouched", ("source",)),
    "pairs:ClipsFactor": Defect("temperature clipped without gradient", "gradient"),
    # contrastive losses
    "in_batch:Unstable": Defect("unstable softmax", "degenerate", ("float32",)),
    "in_batch:ClaimsTile": Defect("more memory than declared", "growth"),
    "in_batch:Cubic": Defect("cubic memory of a losskit loss", "growth"),
    "in_batch:ReadsTwoColumns": Defect("negatives left out of compute", "inputs-used"),
    "in_batch:PositivesOfOthers": Defect("positives of a slice indexed from 0", "additivity", ("executions",)),
    "in_batch:Transposed": Defect("worst for best", "direction"),
    "in_batch:PicksByMask": Defect("boolean index of scores", "host-sync", ("meta",)),
    "in_batch:Loops": Defect("quadratic Python loop", "growth"),
    # draws and memories
    "drawn:DrawsInSecret": Defect("stochastic, not declared", "stochastic"),
    "drawn:DrawsNothing": Defect("declared stochastic, is not", "stochastic"),
    "drawn:DrawsGlobally": Defect("draws from the global generator", "untouched", (*STATE, "stochastic")),
    "drawn:ForgetsMemory": Defect("buffer that is not saved", "repeatable", ("fixed-dimension", "owned-state")),
    "drawn:RemembersInCompute": Defect("memory kept in compute", "repeatable", STATE),
    # parameters and parts of records
    "owned:HidesWidth": Defect("fixed dimension, not declared", "fixed-dimension"),
    "owned:ClaimsWidth": Defect("declared fixed dimension, is not", "fixed-dimension"),
    "owned:FreezesModel": Defect("model changed by the constructor", "constructor", ("model-child",)),
    "owned:PermutesLabels": Defect("labels sorted", "labels-used", ("order",)),
    "owned:AsksInVain": Defect("needs asked for and not read", "needs"),
    "owned:CountsPadding": Defect("padding counted", "padding", ("needs",)),
    "owned:ReadsMasked": Defect("masked tokens read", "masking", ("executions", "padding")),
    "owned:CountsRows": Defect("denominator of rows for a mean over tokens", "additivity", ("executions",)),
    # classes and lists
    "classes:MeanOfNothing": Defect("mean over no pairs", "degenerate"),
    "classes:SumsPairs": Defect("sum over pairs", "batch-size"),
    "classes:FirstOfClass": Defect("the first row is special", "order"),
    "lists:SoftmaxOverPadding": Defect("softmax over padding", "additivity", ("executions",)),
    "lists:ReadsPadding": Defect("scores read where there is no document", "masking", SLICES),
    "lists:CountsQueries": Defect("denominator of queries for a mean over documents", "additivity", ("executions",)),
    "lists:ExponentialCost": Defect("exponential that overflows", "degenerate"),
    "lists:LowerIsBetter": Defect("order of scores turned", "direction"),
    # wrappers
    "wrappers:ClaimsRowWise": Defect("row-wise around what is not", "additivity", ("executions",)),
    "wrappers:DetachesFirst": Defect("wrapper that detaches a column", "inputs-used", ("gradient",)),
    "wrappers:DropsNegatives": Defect("wrapper that drops columns", "inputs-used"),
    "wrappers:ScalesRecords": Defect("records changed in place", "repeatable", (*STATE, "gradient")),
    # regularizers, similarities, weightings
    "small_kinds:SumsSquares": Defect("regularizer scaled with the batch", "batch-size"),
    "small_kinds:RootOfSquares": Defect("root of 0 in a regularizer", "degenerate"),
    "small_kinds:ForgetsWanted": Defect("configuration of a regularizer", "config"),
    "small_kinds:OtherDiagonal": Defect("pairs unlike the matrix", "diagonal"),
    "small_kinds:OtherTransform": Defect("transform unlike the matrix", "transform"),
    "small_kinds:CentersBatch": Defect("similarity that depends on other rows", "additivity"),
    "small_kinds:DividesByNorm": Defect("similarity of zero vectors", "degenerate"),
    "small_kinds:GainDifferences": Defect("negative weights", "weights"),
    "small_kinds:SharesOfBatch": Defect("weights that depend on other lists", "of-lists-alone"),
    "small_kinds:OnProcessor": Defect("weights on another device", "weights", ("meta", "default-dtype")),
    # encoders
    "encoders:CountsPadding": Defect(
        "padding pooled", "encoder-padding", ("encode", "encoder-take-join", "encoder-in-a-loss")
    ),
    "encoders:CentersBatch": Defect(
        "records that depend on the batch", "encode", ("encoder-take-join", "encoder-in-a-loss")
    ),
    "encoders:SavesHalf": Defect("option that is not saved", "encoder-saved"),
    "encoders:ForgetsPower": Defect("configuration of an encoder", "encoder-config"),
    "encoders:AdoptsAll": Defect("adopts what is foreign", "encoder-adapt"),
    "encoders:DetachesWords": Defect("parameters out of reach", "encoder-gradient"),
    "encoders:StaysInEval": Defect("encoder left in evaluation mode", "encoder-modes"),
    "encoders:DropsPrompt": Defect("prompt dropped", "encoder-roles"),
    "encoders:SortsTexts": Defect("results out of order", "encode", ("encoder-roles",)),
    "encoders:MisstatesWidth": Defect("wrong dimension", "encoder-records"),
    "encoders:ClaimsUnitLength": Defect("claims unit length", "encoder-records"),
    "encoders:HoldsGenerator": Defect("a generator among the attributes", "encoder-pickled", ("encoder-in-a-loss",)),
    "encoders:LacksSave": Defect("no save", "encoder-protocol", ("encoder-saved",)),
}
"""What misses a law: one defect each, all of different kinds."""
