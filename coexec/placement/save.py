"""A plan in the model's file, as ONNX's own multi-device configuration says it (IR version 11).

The model declares a configuration with the processors as its devices; each node's outputs carry a
sharding specification that names one device and splits no axis: that is where the node runs. Nodes
stand in the plan's order. What ONNX has no place for (refusals, the policy, the predicted time)
stands in the model's metadata.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir

from coexec.base.disk import write_atomically
from coexec.base.errors import ModelError
from coexec.core.plan import Plan, Refusal

CONFIGURATION = "coexec"
METADATA = "coexec.plan"
IR_VERSION = 11
"""The first with multi-device configurations."""


def write_plan(model: ir.Model, plan: Plan) -> ir.Model:
    """A copy of the planned ``model`` that carries ``plan``."""
    copy = model.clone()
    copy.ir_version = max(copy.ir_version, IR_VERSION)
    names = tuple(dict.fromkeys(plan.processors.values()))
    nodes = {str(node.name): node for node in copy.graph}
    if plan.order:
        copy.graph.remove(list(nodes.values()))
        copy.graph.extend(nodes[name] for name in plan.order)
    configuration = ir.ModelConfiguration(CONFIGURATION, len(names), names)
    others = [c for c in copy.device_configurations if c.name != CONFIGURATION]
    copy.device_configurations = (*others, configuration)
    for name, node in nodes.items():
        device = (names.index(plan.processors[name]),)
        specs = tuple(ir.ShardingSpec(value, device) for value in node.outputs if value.name)
        kept = [
            each
            for each in node.device_configurations
            if each.configuration is None or each.configuration.name != CONFIGURATION
        ]
        node.device_configurations = (*kept, ir.NodeDeviceConfiguration(configuration, specs))
    copy.metadata_props[METADATA] = json.dumps(
        {
            "policy": plan.policy,
            "predicted_us": plan.predicted_us,
            "refusals": [vars(refusal) for refusal in plan.refusals],
        }
    )
    return copy


def save_plan(model: ir.Model, plan: Plan, path: Path) -> None:
    """Write the planned ``model`` with ``plan`` as one ONNX file, atomically.

    Raises:
        SaveError: the disk refused.
    """
    data = ir.to_proto(write_plan(model, plan)).SerializeToString()
    write_atomically(path, lambda file: file.write(data))


def read_plan(model: ir.Model) -> Plan:
    """The plan that a model carries, whoever wrote it.

    Raises:
        ModelError: there is none, or a node is on no device or on several.
    """
    configuration = next((c for c in model.device_configurations if c.name == CONFIGURATION), None)
    if configuration is None or not configuration.device_names:
        raise ModelError(f"the model carries no device configuration named {CONFIGURATION!r}")
    processors = {}
    for node in model.graph:
        places = {
            place
            for each in node.device_configurations
            if each.configuration is configuration
            for spec in each.sharding_specs
            for place in spec.device
        }
        if len(places) != 1 or not 0 <= min(places) < len(configuration.device_names):
            raise ModelError(f"node {node.name!r} is on devices {sorted(places)}, not on one")
        processors[str(node.name)] = configuration.device_names[places.pop()]
    policy, predicted, refusals = _read_metadata(model)
    return Plan(processors, refusals, tuple(processors), policy, predicted)


def load_plan(path: Path) -> tuple[ir.Model, Plan]:
    """A planned model and its plan, from a file that :func:`save_plan` wrote.

    Raises:
        ModelError: no readable model, or one without a plan.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir raise what they like
        raise ModelError(f"{path} is not a readable ONNX model: {error}") from error
    return model, read_plan(model)


def _read_metadata(model: ir.Model) -> tuple[str, float | None, tuple[Refusal, ...]]:
    try:
        record = json.loads(model.metadata_props.get(METADATA, "{}"))
        refusals = tuple(Refusal(**each) for each in record.get("refusals", ()))
        predicted = record.get("predicted_us")
        return (
            str(record.get("policy", "")),
            None if predicted is None else float(predicted),
            refusals,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the model's {METADATA} is damaged: {error}") from error
