"""Which operators Qualcomm's NPU runs, as ``onnxruntime-qnn`` says (its simulator on x86-64).

pip install 'coexec[npu]'; python -m bench.npu_operators --chip snapdragon-888 > answers.toml

Every operator of coexec is asked for by networks of the zoo and ONNX's own node cases as a float
model, which that engine computes in float16. An operator is there if one of its cases runs with
no node left to the CPU. Only what is data is an input; shapes, axes and, in a second form, weights
are constants. 8-bit models are not asked for: at one of them the simulator ends the process.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, defs, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from rich.console import Console
from rich.progress import track

from coexec import load, zoo
from coexec.base.errors import UsageError
from coexec.core.types import Array, OpCall, RegionNode
from coexec.ops.node import call_of
from coexec.ops.table import OPERATORS
from coexec.processors.ort.failures import refusal
from coexec.processors.ort.providers import PROVIDERS

NEWEST_OPSET = 22
"""What the engine knows: cases of newer opsets are asked in this one, operators
that came later never."""
IR_VERSION = 10
ZOO = ("mobilenetv2", "inception_v2", "detector", "sensor_cnn", "cnn3d", "vit_tiny", "gpt_tiny")
"""Networks whose calls are asked for first: each operator with each number of axes."""
SPATIAL = ("Conv", "MaxPool", "AveragePool", "BatchNormalization", "GlobalAveragePool")
SOLID, SOLID_AXES = " (3-D)", 5
"""Windows over three axes are asked for apart: many NPUs have those over two only."""
SEVERAL_RESULTS = ("Split", "TopK", "DynamicQuantizeLinear")
"""Operators whose second result is no statistic for training."""
MODELS = {
    "snapdragon-888": 30,
    "qcm6490": 35,
    "snapdragon-8-gen-2": 43,
    "snapdragon-8-gen-3": 57,
    "snapdragon-8-elite": 69,
}
"""Chips by the engine's numbers for them (``QnnHtpDevice``)."""
CASES = 12
"""Cases of an operator that are asked before it counts as refused."""
Case = onnx.ModelProto


def cases() -> dict[str, list[Case]]:
    """Models of one node with float32 data, by operator: those of the zoo before ONNX's own."""
    found = zoo_cases()
    for name, own in node_cases().items():
        found.setdefault(name, []).extend(own)
    return found


def zoo_cases() -> dict[str, list[Case]]:
    """One node of each operator and number of axes in the networks of :data:`ZOO`."""
    found: dict[tuple[str, int], Case] = {}
    for network in ZOO:
        for node in load(zoo.build(network, batch=1)).graph:
            call = call_of(node)
            key = (call.op_type, call.input(0).rank)
            if not call.domain and key not in found and call.input(0).dtype == np.float32:
                found[key] = _zoo_case(call)
    grouped: dict[str, list[Case]] = defaultdict(list)
    for (name, axes), case in found.items():
        grouped[f"{name}{SOLID}" if name in SPATIAL and axes == SOLID_AXES else name].append(case)
    return grouped


def _zoo_case(call: OpCall) -> Case:
    """A call with its constants."""
    step = RegionNode.alone(call)
    kinds = dict(zip(step.inputs + step.outputs, call.inputs + call.outputs, strict=True))
    types = {name: helper.np_dtype_to_tensor_dtype(k.dtype) for name, k in kinds.items() if k}

    def values(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
        shaped = ((name, kinds[name]) for name in names if name)
        return [helper.make_tensor_value_info(n, types[n], k.shape) for n, k in shaped if k]

    constants = {step.inputs[i]: array for i, array in call.constants.items()}
    inputs = values(name for name in step.inputs if name not in constants)
    node = helper.make_node(call.op_type, step.inputs, step.outputs, **call.attributes)
    weights = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    graph = helper.make_graph([node], "call", inputs, values(step.outputs), weights)
    opset = helper.make_opsetid("", NEWEST_OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def node_cases() -> dict[str, list[Case]]:
    """ONNX's own, each with inputs and with constants for weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        tests = load_model_tests(kind="node")
    found: dict[str, list[Case]] = defaultdict(list)
    for test in tests:
        model, sets = test.model, test.data_sets
        assert model is not None  # node cases carry their model and data
        assert sets is not None
        node = model.graph.node[0]
        asked = len(model.graph.node) == 1 and not node.domain
        if not asked or node.op_type not in OPERATORS:
            continue
        data = [_array(value) for value in sets[0][0]]
        for weights in (False, True):
            case = _case(model, data, weights=weights)
            if case is not None:
                found[node.op_type].append(case)
    return {name: each for name, each in found.items() if each}


def _array(value: Any) -> Array | None:
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
    return array if isinstance(array, np.ndarray) and array.ndim else None


def _case(model: onnx.ModelProto, data: Sequence[Array | None], *, weights: bool) -> Case | None:
    """A case whose inputs are data; ``weights``: the first float alone is, the others constant."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if made.graph.node[0].op_type not in SEVERAL_RESULTS:
        del made.graph.output[1:], made.graph.node[0].output[1:]
    graph, values = made.graph, list(zip(model.graph.input, data, strict=True))
    floats = [value.name for value, array in values if array is not None and array.dtype == "f4"]
    kept = set(floats[:1] if weights else floats)
    if not kept or (weights and len(floats) == 1):
        return None
    del graph.input[:]
    for value, array in values:
        if array is None:
            return None
        if value.name in kept:
            graph.input.append(value)
        else:
            graph.initializer.append(numpy_helper.from_array(array, value.name))
    for opset in made.opset_import:
        opset.version = min(opset.version, NEWEST_OPSET)
    if not defs.has(made.graph.node[0].op_type, max_inclusive_version=NEWEST_OPSET):
        return None
    made.ir_version = min(made.ir_version, IR_VERSION)
    return made


class Npu:
    """The engine for the NPU of one chip of :data:`MODELS`.

    A process can have one only: the engine keeps what the first session said of the chip. Where
    none is named, it fails to build what needs the NPU's own memory (``Where`` in float16).

    Raises:
        UsageError: it is not installed.
    """

    def __init__(self, chip: str) -> None:
        self.provider = PROVIDERS["ort:qnn"]
        plugin = self.provider.plugin
        if plugin is None or self.provider.absent():
            raise UsageError(f"ort:qnn: {self.provider.absent()}")
        self.devices = [d for d in ort.get_ep_devices() if d.ep_name == self.provider.engine][:1]
        package = importlib.import_module(plugin.module)
        self.options = {**plugin.options(package), "soc_model": str(MODELS[chip])}

    def refusal(self, text: bytes) -> str:
        """Why a model does not run there as a whole; empty if it does."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_provider_for_devices(self.devices, self.options)
        try:
            ort.InferenceSession(text, options)
        except Exception as error:
            if not type(error).__module__.startswith(ort.__name__):
                raise
            return refusal(error, self.provider.device)
        return ""


def why_not(npu: Npu, own: Sequence[Case]) -> str:
    """The first case's reason if none runs; empty if one does."""
    reasons = []
    for model in own[:CASES]:
        reason = npu.refusal(model.SerializeToString())
        if not reason:
            return ""
        reasons.append(reason)
    return reasons[0]


def main() -> None:
    """Print what is refused, and what no case asks for, as TOML."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operators", nargs="*", help="those to ask for (all)")
    parser.add_argument("--chip", default="snapdragon-8-gen-2", choices=MODELS)
    given = parser.parse_args()
    wanted, npu = set(given.operators), Npu(given.chip)
    asked = {name: own for name, own in sorted(cases().items()) if not wanted or name in wanted}
    show = Console(soft_wrap=True, markup=False, highlight=False).print
    show(f"# {npu.provider.version()}, {given.chip}: {len(asked)} operators asked")
    show("float16 = [")
    for name in track(asked, "asking", console=Console(stderr=True)):
        reason = why_not(npu, asked[name])
        if reason:
            show(f'    "{name}",  # {reason}')
    show("]")
    never = sorted(name for name in OPERATORS if "::" not in name and name not in asked)
    show(f"never_asked = {never if not wanted else []}")


if __name__ == "__main__":
    main()
