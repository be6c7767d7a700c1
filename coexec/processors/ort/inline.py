"""A region as standard operators: what ONNX has no name for is replaced by its function body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.defs
import onnx_ir as ir

from coexec.core.types import Array, OpCall, RegionNode, TensorType
from coexec.ops.node import attributes_of
from coexec.ops.packed_product import ONNX_RUNTIME
from coexec.ops.table import OPERATORS

LEAST_OPSET = 21


@dataclass(frozen=True)
class Step:
    """One operator of the model that ONNX Runtime gets; "" where a value is absent.

    ``origin`` is the index of the region's node that it belongs to, ``opset`` the oldest version
    of ONNX in which the operator means the same. ``domain`` is ONNX's, or ONNX Runtime's own.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, ir.Attr]
    opset: int
    origin: int
    domain: str = ""


def native_step(node: RegionNode, origin: int = 0) -> Step:
    """The node itself.

    Raises:
        ValueError: ONNX has no such operator, or it has no such attribute.
    """
    call = node.call
    if call.domain == ONNX_RUNTIME:
        return _own_step(node, origin)
    schema = _schema(call.op_type, call.version)
    attributes = {}
    for name, value in call.attributes.items():
        if name not in schema.attributes:
            raise ValueError(f"{call.op_type} has no attribute {name!r} in ONNX")
        wanted: Any = schema.attributes[name].type
        attributes[name] = _attribute(name, value, int(wanted))
    name = call.name or f"{call.op_type}_{origin}"
    outputs = tuple(node.outputs)
    if call.op_type == "BatchNormalization" and call.attribute("training_mode"):
        # In training all three are computed, wanted or not.
        extra = (f"{outputs[0]}/unused_{i}" for i in range(3))
        outputs = tuple(o or next(extra) for o in (*outputs, "", "")[:3])
    opset = max(schema.since_version, LEAST_OPSET)
    return Step(call.op_type, name, node.inputs, outputs, attributes, opset, origin)


def _own_step(node: RegionNode, origin: int) -> Step:
    """A node of ONNX Runtime's own; its attributes are whole numbers (ONNX has no schema)."""
    call = node.call
    attributes = {name: ir.AttrInt64(name, int(value)) for name, value in call.attributes.items()}
    name = call.name or f"{call.op_type}_{origin}"
    return Step(
        call.op_type,
        name,
        node.inputs,
        node.outputs,
        attributes,
        LEAST_OPSET,
        origin,
        call.domain,
    )


def body_steps(node: RegionNode, origin: int = 0) -> list[Step]:
    """The function body of the node's operator, bodies within it replaced as well.

    Raises:
        ValueError: there is none for this call.
    """
    call = node.call
    op = OPERATORS.get(call.identifier)
    function = op.body(call) if op is not None and op.body is not None else None
    if function is None:
        raise ValueError(f"{call.identifier} is no operator of ONNX and has no function body")
    return _Inliner(node, function, origin).steps()


class _Inliner:
    """Gives the values of a body names of the region, and its nodes types where they need them."""

    def __init__(self, node: RegionNode, function: ir.Function, origin: int) -> None:
        self.node = node
        self.function = function
        self.origin = origin
        self.prefix = node.call.name or f"{node.call.op_type}_{origin}"
        # A result's name is unique in the region, so that names made of it are; bodies within
        # bodies may make the same result, and differ by their operators.
        self.scope = f"{next(name for name in node.outputs if name)}/{node.call.op_type}"
        self.version = function.opset_imports.get("", LEAST_OPSET)
        self.names: dict[ir.Value, str] = {}
        self.types: dict[ir.Value, TensorType] = {}
        self.constants: dict[ir.Value, Array] = {}
        self.nested = any(inner.domain for inner in function)

    def steps(self) -> list[Step]:
        call = self.node.call
        for index, (value, name) in enumerate(
            zip(self.function.inputs, self.node.inputs, strict=False)
        ):
            kind = call.inputs[index]
            if name and kind is not None:
                self.names[value] = name
                self.types[value] = kind
                if index in call.constants:
                    self.constants[value] = call.constants[index]
        closing = self._name_outputs()
        return [step for inner in self.function for step in self._inline(inner)] + closing

    def _name_outputs(self) -> list[Step]:
        """Results get the region's names where they are computed; the others are copied there."""
        closing = []
        for value, name in zip(self.function.outputs, self.node.outputs, strict=False):
            if name and value in self.names:
                source = self.names[value]
                attributes: dict[str, ir.Attr] = {}
                step = f"{self.prefix}/{name}"
                closing.append(
                    Step("Identity", step, (source,), (name,), attributes, LEAST_OPSET, self.origin)
                )
            elif name:
                self.names[value] = name
        return closing

    def _inline(self, inner: ir.Node) -> list[Step]:
        name = f"{self.prefix}/{inner.name or inner.outputs[0].name}"
        inputs = tuple("" if value is None else self._name(value) for value in inner.inputs)
        outputs = tuple(self._name(value) if value.name else "" for value in inner.outputs)
        if not self.nested:
            schema = _schema(inner.op_type, self.version)
            opset = max(schema.since_version, LEAST_OPSET)
            step = Step(inner.op_type, name, inputs, outputs, inner.attributes, opset, self.origin)
            return [step]
        node = RegionNode(self._typed_call(inner, name), inputs, outputs)
        return body_steps(node, self.origin) if inner.domain else [native_step(node, self.origin)]

    def _name(self, value: ir.Value) -> str:
        return self.names.setdefault(value, f"{self.scope}/{value.name}")

    def _typed_call(self, inner: ir.Node, name: str) -> OpCall:
        attributes = attributes_of(inner)
        if inner.op_type == "Constant":
            array = np.asarray(attributes["value"])
            self.constants[inner.outputs[0]] = array
            self.types[inner.outputs[0]] = TensorType.of(array)
            made = (TensorType.of(array),)
            return OpCall("Constant", (), attributes, made, version=self.version, name=name)
        bare = OpCall(
            inner.op_type,
            tuple(None if value is None else self.types[value] for value in inner.inputs),
            attributes,
            (),
            _known(inner.inputs, self.constants),
            inner.domain,
            self.version,
            name,
            len(inner.outputs),
        )
        call = OPERATORS[bare.identifier].typed(bare)
        for value, kind in zip(inner.outputs, call.outputs, strict=True):
            if kind is not None:
                self.types[value] = kind
        return call


def _known(
    inputs: Sequence[ir.Value | None], constants: Mapping[ir.Value, Array]
) -> dict[int, Array]:
    return {i: constants[v] for i, v in enumerate(inputs) if v is not None and v in constants}


def _schema(op_type: str, version: int) -> onnx.defs.OpSchema:
    """The operator as ONNX defines it in ``version``, else (it is younger) in its first."""
    for asked in (version or LEAST_OPSET, onnx.defs.onnx_opset_version()):
        try:
            return onnx.defs.get_schema(op_type, asked, "")
        except onnx.defs.SchemaError:
            continue
    raise ValueError(f"ONNX {onnx.__version__} has no operator {op_type}")


def _attribute(name: str, value: object, kind: int) -> ir.Attr:
    """An attribute in the type that ONNX wants: () or a whole number does not say it."""
    wanted = ir.AttributeType(kind)
    if wanted == ir.AttributeType.TENSOR:
        return ir.AttrTensor(name, ir.tensor(np.asarray(value)))
    return ir.Attr(name, wanted, value)
