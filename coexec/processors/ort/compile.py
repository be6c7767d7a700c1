"""From a region to a session of ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from coexec.base.cpu import cpu_flags
from coexec.base.errors import FallbackWarning, ProcessorError
from coexec.core.processor import IN_FLOATS
from coexec.core.types import Array, OpCall, Region, RegionNode
from coexec.processors.ort.executable import OrtExecutable, summary_of
from coexec.processors.ort.failures import refusal
from coexec.processors.ort.inline import Step, native_step
from coexec.processors.ort.integer_weights import with_integer_weights
from coexec.processors.ort.model import OnnxModel, build_model
from coexec.processors.ort.on_bytes import ON_BYTES, byte_calls, layer_steps
from coexec.processors.ort.providers import PROVIDERS, Provider
from coexec.processors.ort.support import QUANTIZING, SupportOracle

IN_INTEGERS = ("cpu", "npu")
"""Kinds of providers that compute in 8 bits where all around an operator is quantised."""
NOT_WHOLE = "its weights are no multiples of symmetric 8-bit scales, or an activation is between"
EXACT = frozenset({"avx512_vnni", "avx_vnni"})
"""Instructions of x86 CPUs that add products of bytes up to 32 bits; Linux's names."""


def compile_region(
    region: Region, oracle: SupportOracle, provider: Provider, name: str, threads: int
) -> OrtExecutable:
    """Compile a region whose every call is supported; ``threads`` compute inside an operator.

    Raises:
        ProcessorError: ONNX Runtime refuses the region as a whole.
    """
    steps, constants = _steps(region, oracle)
    if provider.kind in IN_INTEGERS:
        steps, constants = with_integer_weights(steps, constants)
    model = build_model(steps, region.inputs, region.outputs, region.types, constants)
    if provider.kind == "npu" and all(node.call.op_type in QUANTIZING for node in region.nodes):
        provider = _instead(provider, region)
    try:
        session = provider.session(model.text, session_options(threads, model))
    except Exception as error:  # pybind classes without a common base but Exception
        first, last = region.nodes[0].call, region.nodes[-1].call
        raise ProcessorError(
            f"{name} cannot compile {first.name or first.op_type!r} to "
            f"{last.name or last.op_type!r}: {refusal(error, provider.device)}"
        ) from error
    return OrtExecutable(
        name,
        region.inputs,
        region.outputs,
        0,
        0,
        session,
        {n: region.types[n] for n in (*region.inputs, *region.outputs)},
        summary_of(region, name),
        model.weights,
        sum(array.nbytes for array in constants.values()),
    )


def _steps(region: Region, oracle: SupportOracle) -> tuple[list[Step], dict[str, Array]]:
    """The operators of a region, with the constants that they read."""
    steps, constants = [], dict(region.constants)
    for index, node in enumerate(region.nodes):
        if node.call.domain == ON_BYTES:
            own, known = layer_steps(node, index)
            constants |= known
        else:
            own = oracle.steps(node, index)
        steps += own
    return steps, constants


def layers_in_floats(
    region: Region, layers: Mapping[str, str], oracle: SupportOracle, provider: Provider
) -> dict[str, str]:
    """Quantised layers of a region that its session computes in floats, with the reasons."""
    nodes = {node.call.name: node for node in region.nodes}
    able = [name for name in layers if oracle.supports(nodes[name].call).yes]
    if provider.kind not in IN_INTEGERS:
        return {name: layers[name] or IN_FLOATS for name in able}
    steps = [native_step(node, index) for index, node in enumerate(region.nodes) if _bare(node)]
    changed, _ = with_integer_weights(steps, region.constants)
    before = {step.name: step for step in steps}
    whole = {step.name for step in changed if before.get(step.name, step) != step}
    return {name: layers[name] or NOT_WHOLE for name in able if name not in whole}


def on_bytes(region: Region, provider: Provider) -> dict[str, OpCall | None]:
    """What computes nodes of a region on bytes, by their names; nothing: another node's call."""
    return byte_calls(region) if provider.kind in IN_INTEGERS else {}


def _bare(node: RegionNode) -> bool:
    """Whether a node is an operator of ONNX, as all around a quantised layer are."""
    return not node.call.domain


def _instead(provider: Provider, region: Region) -> Provider:
    """The CPU for changes between float and integers that stand alone: no NPU takes those."""
    names = ", ".join(node.call.name for node in region.nodes)
    warnings.warn(f"{provider.device} leaves to the CPU: {names}", FallbackWarning, 2)
    return PROVIDERS["ort:cpu"]


def session_options(threads: int, model: OnnxModel) -> Any:
    """All optimisations, one run at a time, quiet, weights handed over by pointer."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    # Threads that wait for the next run would take a core from another processor.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if EXACT.isdisjoint(cpu_flags()):
        # Without it, 8-bit products saturate at 16 bits on x86 CPUs before AVX-512 VNNI. With it,
        # those that do not saturate anyway take three times as long.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if model.weights:
        values = [_view(array) for array in model.weights.values()]
        options.add_external_initializers(list(model.weights), values)
    return options


def _view(array: Array) -> Any:
    """ONNX Runtime's view of an array, of any element type; it copies what it keeps."""
    element = int(ir.DataType.from_numpy(array.dtype))
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, element)
