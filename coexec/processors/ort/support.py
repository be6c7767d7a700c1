"""Whether a provider executes a call: asked of ONNX Runtime itself with a model of one node."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from coexec.base.sources import module_digest
from coexec.core.processor import Support
from coexec.core.types import Array, OpCall, RegionNode, TensorType
from coexec.ops.packed_product import ONNX_RUNTIME
from coexec.ops.table import OPERATORS
from coexec.processors.ort.answers import Answers
from coexec.processors.ort.differences import difference
from coexec.processors.ort.failures import refusal
from coexec.processors.ort.inline import Step, body_steps, native_step
from coexec.processors.ort.model import LARGE_BYTES, build_model
from coexec.processors.ort.on_bytes import ON_BYTES, layer_of, layer_steps
from coexec.processors.ort.providers import Provider

NARROW = tuple(
    np.dtype(getattr(ml_dtypes, name))
    for name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")
    if hasattr(ml_dtypes, name)
)
"""Element types that ONNX Runtime packs into bytes and NumPy does not."""


QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


class SupportOracle:
    """Answers by call signature; a question takes a session of one node, an answer known nothing.

    What ONNX Runtime was ever asked is known in later processes, too.

    An operator of ONNX runs natively if it can. One that ONNX has no name for, or that the
    provider lacks, runs through its function body if it has one.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.known = Answers(provider.name, f"{provider.version()} on {provider.device}")
        self._native: dict[Hashable, Support] = {}
        self._answers: dict[Hashable, Support] = {}

    def supports(self, call: OpCall) -> Support:
        """Whether and, if not, why not."""
        key = signature(call)
        if key not in self._answers:
            self._answers[key] = self._answer(call)
        return self._answers[key]

    def steps(self, node: RegionNode, origin: int) -> list[Step]:
        """A supported node as the operators that are known to run."""
        if self._runs_natively(node.call).yes:
            return [native_step(node, origin)]
        return body_steps(node, origin)

    def code_of(self, call: OpCall) -> str:
        """Digest of our part in executing a call: the function body's module, or nothing."""
        if call.domain == ON_BYTES:
            return module_digest(layer_steps)
        op = OPERATORS.get(call.identifier)
        if op is None or op.body is None or self._runs_natively(call).yes:
            return ""
        return module_digest(op.body)

    def _answer(self, call: OpCall) -> Support:
        if call.domain == ON_BYTES:
            return self.supports(layer_of(call).core)
        refused = refused_unasked(call) or (difference(call) if call.domain else "")
        if refused:
            return Support(False, refused)
        native = self._runs_natively(call)
        op = OPERATORS.get(call.identifier)
        if native.yes or op is None or op.body is None:
            return native
        node = _nameless(call)
        try:
            steps = body_steps(node)
        except ValueError:
            return native
        body = self._try(node, steps)
        return body if body.yes or not native.reason else Support(False, _both(native, body, call))

    def _runs_natively(self, call: OpCall) -> Support:
        key = signature(call)
        if key not in self._native:
            self._native[key] = self._ask_natively(call)
        return self._native[key]

    def _ask_natively(self, call: OpCall) -> Support:
        if call.domain not in ("", ONNX_RUNTIME):
            return Support(False, f"{call.identifier} is no operator of ONNX Runtime")
        differs = difference(call)
        if differs:
            return Support(False, differs)
        node = _nameless(call)
        try:
            step = native_step(node)
        except ValueError as error:
            return Support(False, str(error))
        if call.op_type in QUANTIZING and self.provider.kind == "npu":
            return self._try_in_company(node, step)
        return self._try(node, [step])

    def _try_in_company(self, node: RegionNode, step: Step) -> Support:
        """An NPU takes a change between float and integers beside other nodes only: ask for two.

        The other one is the inverse, behind a quantisation or in front of a dequantisation.
        """
        inverse, types = inverse_of(node)
        before = node.call.op_type == "QuantizeLinear"
        steps = [step, inverse] if before else [inverse, step]
        return self._try(node, steps, types)

    def _try(
        self,
        node: RegionNode,
        steps: Sequence[Step],
        extra: Mapping[str, TensorType] | None = None,
    ) -> Support:
        """Build a session of these steps; weights are inputs here, so that none is copied.

        ``extra`` are values beside the node's that one of the steps reads or writes.
        """
        call = node.call
        constants = {node.inputs[i]: array for i, array in call.constants.items() if _small(array)}
        kinds = zip(node.inputs + node.outputs, call.inputs + call.outputs, strict=True)
        types = {name: kind for name, kind in kinds if kind is not None} | dict(extra or {})
        read = {name for step in steps for name in step.inputs}
        made = {name for step in steps for name in step.outputs}
        inputs = [name for name in types if name in read and name not in {*made, *constants}]
        # What lies between two steps is no result; what a body reads again is one all the same.
        outputs = [name for name in types if name in made and not (extra and name in read)]
        model = build_model(steps, inputs, outputs, types, constants)
        known = self.known.find(model.text)
        return self._ask(call, model.text) if known is None else known

    def _ask(self, call: OpCall, text: bytes) -> Support:
        """Ask ONNX Runtime; what else went wrong is a refusal too, but is not kept."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        answer, start = Support(True), time.perf_counter()
        try:
            self.provider.session(text, options)
        except Exception as error:  # noqa: BLE001  pybind classes without a common base but Exception
            answer = Support(False, refusal(error, self.provider.device))
            if not type(error).__module__.startswith(ort.__name__):
                return answer
        self.known.put(call.identifier, text, answer, time.perf_counter() - start)
        return answer


def _nameless(call: OpCall) -> RegionNode:
    """A call as a node; calls that differ in their names only are one question."""
    return RegionNode.alone(replace(call, name=""))


def inverse_of(node: RegionNode) -> tuple[Step, dict[str, TensorType]]:
    """The step that undoes a (de)quantisation, and the type of its other side."""
    call = node.call
    attributes = {n: v for n, v in call.attributes.items() if n in ("axis", "block_size")}
    scales = node.inputs[1:]
    if call.op_type == "QuantizeLinear":
        other = "DequantizeLinear"
        inputs, outputs, side = (node.outputs[0], *scales), ("float",), call.input(0)
    else:
        other = "QuantizeLinear"
        inputs, outputs, side = ("float", *scales), (node.inputs[0],), call.output(0)
        if not call.has_input(2):
            attributes["output_dtype"] = int(ir.DataType.from_numpy(call.input(0).dtype))
    bare = OpCall(other, (), attributes, version=call.version, name="inverse")
    return native_step(RegionNode(bare, inputs, outputs)), {"float": side}


def signature(call: OpCall) -> Hashable:
    """All that decides: operator, types, attributes and small constants; names do not."""
    attributes = tuple(sorted((name, _frozen(value)) for name, value in call.attributes.items()))
    constants = tuple(
        sorted((i, _frozen(array)) for i, array in call.constants.items() if _small(array))
    )
    kinds = tuple(map(_kind, call.inputs)), tuple(map(_kind, call.outputs))
    return call.identifier, call.version, kinds, attributes, constants


def refused_unasked(call: OpCall) -> str:
    """What can be told without ONNX Runtime; empty if it must be asked."""
    op = OPERATORS.get(call.identifier)
    if call.domain and (op is None or op.body is None):
        return f"{call.identifier} is no operator of ONNX Runtime and has no function body"
    for kind in (*call.inputs, *call.outputs):
        if kind is None:
            continue
        if kind.dtype.kind == "O":
            return "strings have no fixed size"
        if kind.dtype in NARROW:
            return f"ONNX Runtime packs {kind.dtype.name}, coexec gives each element a byte"
    return ""


def _both(native: Support, body: Support, call: OpCall) -> str:
    if call.domain:
        return f"the function body of {call.identifier} does not run: {body.reason}"
    return f"{native.reason}; its function body does not run either: {body.reason}"


def _kind(kind: TensorType | None) -> str:
    return "" if kind is None else str(kind)


def _small(array: Array) -> bool:
    return array.nbytes <= LARGE_BYTES


def _frozen(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape, value.tobytes()
    return repr(value)
