"""Rewrites operators of opset 9 and newer into their modern form (opset 21 semantics).

Why not a library: onnx.version_converter (C++, tried in 1.23) turns Upsample-9 and Resize-10 into a
half-pixel Resize where they mean an asymmetric one, gives float16 Clip and Pad a float32 operand,
leaves GroupNormalization's per-group scale unchanged, skips function bodies, and refuses
BatchNormalization with saved statistics; onnxscript's converter starts at opset 18. Each rule
here is one row of a table, applied to every node that was written for an older version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from coexec.frontend import upgrade_attributes, upgrade_semantics
from coexec.frontend.elements import propagate_elements
from coexec.frontend.rewrite import Emitter
from coexec.ops.node import version_of

TARGET_OPSET = 21
"""Oldest version a modernised model is in; newer ones are kept as they are."""

Upgrade = Callable[[ir.Node, Emitter], None]


@dataclass(frozen=True)
class Rule:
    """``apply`` brings a node written for an opset before ``since`` to the form of ``since``."""

    since: int
    apply: Upgrade


RULES: dict[str, tuple[Rule, ...]] = {
    "BatchNormalization": (Rule(14, upgrade_semantics.batch_normalization),),
    "Clip": (Rule(11, upgrade_attributes.clip),),
    "DFT": (Rule(20, upgrade_attributes.dft),),
    "Dropout": (Rule(12, upgrade_attributes.dropout),),
    "GridSample": (Rule(20, upgrade_attributes.grid_sample),),
    "GroupNormalization": (Rule(21, upgrade_semantics.group_normalization),),
    "Hardmax": (Rule(13, upgrade_semantics.softmax),),
    "LogSoftmax": (Rule(13, upgrade_semantics.softmax),),
    "Pad": (Rule(11, upgrade_attributes.pad),),
    "Resize": (
        Rule(11, upgrade_semantics.resize),
        Rule(99, upgrade_semantics.resize_empty_operands),
    ),
    "Scatter": (Rule(99, upgrade_semantics.scatter),),
    "Slice": (Rule(10, upgrade_attributes.slice_),),
    "Softmax": (Rule(13, upgrade_semantics.softmax),),
    "Split": (Rule(13, upgrade_attributes.split), Rule(18, upgrade_attributes.split_evenly)),
    "Squeeze": (Rule(13, upgrade_attributes.axes),),
    "TopK": (Rule(10, upgrade_attributes.top_k),),
    "Unsqueeze": (Rule(13, upgrade_attributes.axes),),
    "Upsample": (Rule(99, upgrade_semantics.upsample),),
    "ReduceSum": (Rule(13, upgrade_attributes.axes),),
} | {
    f"Reduce{kind}": (Rule(18, upgrade_attributes.axes),)
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}


def modernise(model: ir.Model) -> None:
    """Bring every node of ``model``, subgraphs included, to opset 21 form, in place.

    The ONNX opset import becomes 21, or stays what it is where newer. Functions must have been
    inlined. ``ModelError`` names a node whose old meaning has no modern counterpart.
    """
    target = max(TARGET_OPSET, model.opset_imports.get("", 0))
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    propagate_elements(nodes)
    for node in nodes:
        if node.domain == "":
            _upgrade(node, target)
    model.opset_imports[""] = target


def _upgrade(node: ir.Node, target: int) -> None:
    """Apply every rule that is newer than the node; its operator may change on the way."""
    version = version_of(node)
    for rule in RULES.get(node.op_type, ()):
        if version < rule.since:
            rule.apply(node, Emitter(node, target))
    node.version = target
