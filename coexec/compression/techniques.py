"""Make a model smaller: techniques by name, in the order in which they are asked for.

``prune:0.3`` removes channels, ``svd:0.5`` and ``svd-energy:0.9`` factorise weights, ``int8`` and
``int8-dynamic`` quantise, ``float16`` halves. What comes out is a standard ONNX model; all but the
forms of 8 and 16 bits can be trained further.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedOpsetsPass, ShapeInferencePass

from coexec.base.errors import DataError, UsageError
from coexec.core.types import Array
from coexec.frontend.read import read_model
from coexec.inputs import check_feeds, model_inputs
from coexec.passes.clean import clean
from coexec.passes.float16 import HALF, Conversion, to_float16
from coexec.passes.fold_batch_norm import fold_batch_norm
from coexec.passes.low_rank import Factorised, RankRule, by_cost, by_energy, factorise
from coexec.passes.prune_channels import PrunedGroup, prune_channels
from coexec.processors.find import quantise, quantise_dynamically

BATCH = 32
"""Samples at a time, where the model leaves that open."""
MOST_SAMPLES = 256
"""Of the calibration data: spread evenly over all of it."""
QUANTISED = "nothing else works on quantised weights"
LAST: Mapping[str, str] = {
    "int8": QUANTISED,
    "int8-dynamic": QUANTISED,
    HALF: "all else works on weights of float32",
}
"""Techniques behind which nothing comes, and why."""
QUANTISING = ("QuantizeLinear", "DynamicQuantizeLinear")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply by weights: it is told where they stay in floats."""


@dataclass(frozen=True)
class Quantised:
    """An operator, and how many of its nodes read and make 8-bit values.

    ``in_floats`` is how many do not, of an operator that multiplies by weights.
    """

    op_type: str
    nodes: int
    in_floats: int = 0


Change = Factorised | PrunedGroup | Quantised | Conversion


@dataclass(frozen=True)
class Settings:
    """What techniques need besides their share.

    ``multiple``: pruned layers keep a multiple of so many channels. ``calibration``: typical inputs
    by name, each (samples, ...), for 8-bit ranges.
    """

    multiple: int = 1
    calibration: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Applied:
    """A technique, as it was asked for, and what it did."""

    technique: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Technique:
    """``share`` is what a bare name means; ``None``: there is nothing to choose."""

    text: str
    share: float | None
    apply: Callable[[ir.Model, float, Settings], tuple[ir.Model, Sequence[Change]]]


def compress(
    model: ir.Model, techniques: Sequence[str], settings: Settings | None = None
) -> tuple[ir.Model, tuple[Applied, ...]]:
    """Apply techniques (``name`` or ``name:share``) to a loaded model, which stays as it is.

    Raises:
        UsageError: an unknown technique, a share that makes no sense, 8 or 16 bits before something
            else, or 8 bits without calibration data or of a model that has them.
        DataError: calibration data that do not fit the model.
        ModelError: the quantiser fails.
        ProcessorError: the quantiser's library is not installed.
    """
    chosen = [(text, *parse_technique(text)) for text in techniques]
    early = next((text for text in techniques[:-1] if text in LAST), "")
    if early:
        raise UsageError(f"{early} comes last: {LAST[early]}")
    result, applied = model.clone(), []
    for text, technique, share in chosen:
        result, changes = technique.apply(result, share, settings or Settings())
        applied.append(Applied(text, tuple(changes)))
    return result, tuple(applied)


def parse_technique(text: str) -> tuple[Technique, float]:
    """A technique and its share from ``name`` or ``name:share``.

    Raises:
        UsageError: no such technique (the known ones are listed), or no such share.
    """
    name, separator, number = text.partition(":")
    if name not in TECHNIQUES:
        known = ", ".join(f"{n} ({t.text})" for n, t in TECHNIQUES.items())
        raise UsageError(f"technique {text!r} is unknown; known: {known}")
    technique = TECHNIQUES[name]
    if technique.share is None:
        if separator:
            raise UsageError(f"technique {text!r}: {name} takes no share")
        return technique, 0.0
    try:
        share = float(number) if separator else technique.share
    except ValueError:
        share = float("nan")
    if not 0 < share < 1:
        example = f"{name}:{technique.share}"
        raise UsageError(f"technique {text!r}: the share lies between 0 and 1, as in {example}")
    return technique, share


def batches(model: ir.Model, arrays: Mapping[str, Array], rows: Array) -> list[dict[str, Array]]:
    """Samples ``rows`` of arrays (samples, ...) in batches of the model's size, else of 32.

    The last batch is filled up with its last sample.

    Raises:
        DataError: arrays of different lengths, or that do not fit the model's inputs.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not len(rows):
        raise DataError(f"inputs need the same number of samples, one at least: {lengths}")
    size = _batch_size(model)
    filled = np.resize(rows, -(-len(rows) // size) * size)
    filled[len(rows) :] = rows[-1]
    return [
        check_feeds(model, {name: array[part] for name, array in arrays.items()})
        for part in filled.reshape(-1, size)
    ]


def _batch_size(model: ir.Model) -> int:
    shape = model_inputs(model)[0].shape
    first = shape[0] if shape is not None and len(shape) else None
    return first if isinstance(first, int) else BATCH


def _prune(
    model: ir.Model, share: float, settings: Settings
) -> tuple[ir.Model, Sequence[PrunedGroup]]:
    return model, prune_channels(model, share, settings.multiple)


def _factorise_by(
    rule: Callable[[float], RankRule],
) -> Callable[[ir.Model, float, Settings], tuple[ir.Model, Sequence[Factorised]]]:
    return lambda model, share, _settings: (model, factorise(model, rule(share)))


def _quantise(
    model: ir.Model, _share: float, settings: Settings
) -> tuple[ir.Model, Sequence[Quantised]]:
    if not settings.calibration:
        raise UsageError(
            "technique int8 needs typical inputs to measure ranges on: --data FILE.npz"
        )
    _require_floats(model, "int8")
    samples = len(next(iter(settings.calibration.values())))
    rows = np.linspace(0, samples - 1, min(samples, MOST_SAMPLES)).astype(int)
    data = batches(model, settings.calibration, rows)
    result = read_model(quantise(ir.to_proto(model).SerializeToString(), data))
    RemoveUnusedOpsetsPass()(result)
    return result, _quantised(result.graph)


def _quantise_dynamically(
    model: ir.Model, _share: float, _settings: Settings
) -> tuple[ir.Model, Sequence[Quantised]]:
    _require_floats(model, "int8-dynamic")
    result = read_model(quantise_dynamically(ir.to_proto(model).SerializeToString()))
    RemoveUnusedOpsetsPass()(result)
    return result, _quantised(result.graph)


def _require_floats(model: ir.Model, technique: str) -> None:
    found = next((node for node in model.graph if node.op_type in QUANTISING), None)
    if found is not None:
        raise UsageError(
            f"technique {technique}: the model is in 8 bits already ({found.op_type} "
            f"{found.name!r}); give the one in float32"
        )


def _quantised(graph: ir.Graph) -> list[Quantised]:
    """Operators between a dequantisation and a quantisation, and those on bytes themselves."""
    counts: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    for node in graph:
        makers = [value.producer() for value in node.inputs if value is not None]
        readers = [reader.op_type for value in node.outputs for reader, _ in value.uses()]
        reads = any(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)
        if reads and "QuantizeLinear" in readers:
            counts[node.op_type] += 1
        elif node.op_type == "MatMulInteger":
            counts["MatMul"] += 1
        elif node.op_type in WEIGHTED:
            floats[node.op_type] += 1
    names = dict.fromkeys(name for name, _ in (*counts.most_common(), *floats.most_common()))
    return [Quantised(name, counts[name], floats[name]) for name in names]


def _halve(
    model: ir.Model, _share: float, _settings: Settings
) -> tuple[ir.Model, Sequence[Conversion]]:
    # Both passes ask for element types alone: shapes may stay open.
    fold_batch_norm(model)
    typed = ShapeInferencePass()(model).model
    conversion = to_float16(typed)
    clean(typed)
    return typed, [conversion]


TECHNIQUES: Mapping[str, Technique] = {
    "prune": Technique("remove this share of the channels", 0.3, _prune),
    "svd": Technique("factorise weights to this share of the work", 0.5, _factorise_by(by_cost)),
    "svd-energy": Technique(
        "factorise weights, keep this share of their energy", 0.9, _factorise_by(by_energy)
    ),
    "int8": Technique("quantise weights and results to 8 bits", None, _quantise),
    "int8-dynamic": Technique(
        "quantise linear layers to 8 bits, ranges found in each run", None, _quantise_dynamically
    ),
    HALF: Technique("compute in float16 what keeps its accuracy in it", None, _halve),
}
