"""Which operators compute in float16: the one list that conversions for inference go by.

Kernels add up in float32 whatever they read, so softmax and normalisations keep their accuracy:
what counts is whether results lie in float16's range (6e-5 to 65,504 at 11 bits).
"""

from __future__ import annotations

from collections.abc import Mapping

PRODUCTS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "Attention", "com.microsoft::MatMulNBits"}
)
"""Worth float16 whatever their operands come in, if they compute enough."""

_MOVING = frozenset(
    {
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Concat", "Split"),
        *("Slice", "Pad", "Expand", "Tile", "Gather", "GatherElements", "GatherND", "Where"),
        *("DepthToSpace", "SpaceToDepth", "ReverseSequence", "Trilu", "CenterCropPad"),
        *("ScatterElements", "ScatterND", "TensorScatter", "Resize", "GridSample"),
        "Dropout",
    }
)
_CHOOSING = frozenset(
    {
        *("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "TopK", "Clip"),
        *("ArgMax", "ArgMin", "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Abs", "Neg"),
    }
)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Mean", "Sqrt"})
_CURVES = frozenset(
    {
        *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu", "Swish", "Mish", "Elu"),
        *("Celu", "Selu", "Softplus", "Softsign", "Softmax", "LogSoftmax"),
    }
)
_AVERAGES = frozenset(
    {
        *("AveragePool", "GlobalAveragePool", "ReduceMean", "BatchNormalization"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization"),
    }
)
FOLLOWERS = _MOVING | _CHOOSING | _ARITHMETIC | _CURVES | _AVERAGES
"""In float16 if most of what they read is: results stay in, or close to, the range of operands."""

TABLES = frozenset({"Gather"})
"""In float16, too, if they read a constant: rows of a table of embeddings."""

ONLY_FIRST = frozenset({"BatchNormalization", "Resize", "GridSample", "Dropout"})
"""Of these the first operand alone: the others are statistics, scales, places and shares."""

FIRST_RESULT = frozenset({"BatchNormalization", "LayerNormalization", "RMSNormalization"})
"""Of these the first result alone: the others are statistics."""

CUTS = frozenset({"Clip", "Max", "Min", "Pad"})
"""Constants of theirs may become infinite: so is a bound that nothing reaches."""

BOUNDED = frozenset(
    {
        *("Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign", "Hardmax", "Sign"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization"),
        *("Sin", "Cos"),
    }
)
"""Their results are small, however large what they read is."""

_GROWS = "its results may be beyond float16's range"
_PLACES = "coordinates need more than 11 bits"
_STEPS = "its state would be rounded in every step"
_SPECTRUM = "sums over whole signals need more than 11 bits"
STAYS: Mapping[str, str] = {
    **dict.fromkeys(("Exp", "Pow", "Reciprocal", "Log", "Tan", "Sinh", "Cosh"), _GROWS),
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd"), _GROWS),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "CumSum", "CumProd", "Det"), _GROWS),
    **dict.fromkeys(("LRN", "LpPool", "GlobalLpPool", "LpNormalization"), _GROWS),
    "MeanVarianceNormalization": _GROWS,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool", "DeformConv", "Sin", "Cos", "Range"), _PLACES),
    **dict.fromkeys(("NonMaxSuppression", "Floor", "Ceil", "Round", "Mod"), _PLACES),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _STEPS),
    **dict.fromkeys(("DFT", "STFT", "MelWeightMatrix"), _SPECTRUM),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), "scales of 8-bit numbers are float32"),
    "DynamicQuantizeLinear": "scales of 8-bit numbers are float32",
}
"""Why an operator stays in float32, whatever it reads."""

UNKNOWN = "not on the list of operators that keep their accuracy in float16"
"""Why all others do."""
