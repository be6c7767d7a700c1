"""A plan in the model's file, as ONNX's own multi-device configuration says it (IR version 11).

The model declares a configuration with the processors as its devices; each node's outputs carry a
sharding specification that names one device and splits no axis: that is where the node runs. That
of a divided node names several devices and the axis; the sizes of unequal shares stand in the
node's metadata, since ONNX has no place for them. Nodes stand in the plan's order. What else ONNX
has no place for (refusals, the policy, the predicted time, how the batch is divided, what is
recomputed, whether updates come early) stands in the model's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from coexec.base.disk import write_atomically
from coexec.base.errors import ModelError
from coexec.core.plan import Plan, Refusal, Split
from coexec.ops.node import type_of
from coexec.placement.byte_weights import pack_weights, unpack_weights

CONFIGURATION = "coexec"
METADATA = "coexec.plan"
SHARES = "coexec.shares"
"""Key of a divided node's metadata: elements of the axis by device, as in ``40,24``."""
OVERLAP = "coexec.overlap"
"""Key of a divided node's metadata: elements of its neighbours that each share computes, too."""
IR_VERSION = 11
"""The first with multi-device configurations."""


def write_plan(model: ir.Model, plan: Plan) -> ir.Model:
    """A copy of the planned ``model`` that carries ``plan``."""
    copy = model.clone()
    copy.ir_version = max(copy.ir_version, IR_VERSION)
    names = plan.named
    nodes = {str(node.name): node for node in copy.graph}
    if plan.order:
        copy.graph.remove(list(nodes.values()))
        copy.graph.extend(nodes[name] for name in plan.order)
    configuration = ir.ModelConfiguration(CONFIGURATION, len(names), names)
    others = [c for c in copy.device_configurations if c.name != CONFIGURATION]
    copy.device_configurations = (*others, configuration)
    for name, node in nodes.items():
        node.metadata_props.pop(SHARES, None)
        split = plan.splits.get(name)
        if split is None:
            device = (names.index(plan.processors[name]),)
            specs = tuple(ir.ShardingSpec(value, device) for value in node.outputs if value.name)
        else:
            specs = (_divided(node, split, names),)
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
            "batch": dict(plan.batch),
            "recompute": list(plan.recompute),
            "early": plan.early,
            "refusals": [vars(refusal) for refusal in plan.refusals],
        }
    )
    return copy


def _divided(node: ir.Node, split: Split, names: Sequence[str]) -> ir.ShardingSpec:
    """The specification of a divided node's result; its sizes go to the node's metadata."""
    node.metadata_props[SHARES] = ",".join(map(str, split.sizes.values()))
    if any(split.overlap):
        node.metadata_props[OVERLAP] = ",".join(map(str, split.overlap))
    value = node.outputs[0]
    dimension = ir.SimpleShardedDim(type_of(value).shape[split.axis], len(split.sizes))
    device = tuple(names.index(name) for name in split.sizes)
    return ir.ShardingSpec(value, device, (), (ir.ShardedDim(split.axis, (dimension,)),))


def _read_split(node: ir.Node, devices: Sequence[str], axis: int) -> Split:
    """Shares in the sizes that the node's metadata says; without any, equal ones."""
    total = type_of(node.outputs[0]).shape[axis]
    count = len(devices)
    text = node.metadata_props.get(SHARES)
    even = [total * (i + 1) // count - total * i // count for i in range(count)]
    try:
        sizes = even if text is None else [int(size) for size in text.split(",")]
        before, behind = map(int, node.metadata_props.get(OVERLAP, "0,0").split(","))
    except ValueError:
        sizes, before, behind = [], 0, 0
    bad = len(sizes) != count or min(sizes) < 1 or sum(sizes) != total
    if bad or min(before, behind) < 0:
        found = f"{SHARES} {text!r} and {OVERLAP} {node.metadata_props.get(OVERLAP)!r}"
        raise ModelError(f"node {node.name!r} has {found} on {count} of {total} elements")
    return Split(axis, dict(zip(devices, sizes, strict=True)), (before, behind))


def save_plan(model: ir.Model, plan: Plan, path: Path) -> None:
    """Write the planned ``model`` with ``plan`` as one ONNX file, atomically.

    Weights that are multiples of 8 bits take 8 bits there.

    Raises:
        SaveError: the disk refused.
    """
    marked = write_plan(model, plan)
    pack_weights(marked.graph)
    data = ir.to_proto(marked).SerializeToString()
    write_atomically(path, lambda file: file.write(data))


def read_plan(model: ir.Model) -> Plan:
    """The plan that a model carries, whoever wrote it.

    Raises:
        ModelError: there is none, or a node is on no device or on several.
    """
    configuration = next((c for c in model.device_configurations if c.name == CONFIGURATION), None)
    if configuration is None or not configuration.device_names:
        raise ModelError(
            f"the model carries no plan (no device configuration {CONFIGURATION!r}); "
            "coexec plan --save writes one"
        )
    processors: dict[str, str] = {}
    splits: dict[str, Split] = {}
    for node in model.graph:
        name = str(node.name)
        specs = [
            spec
            for each in node.device_configurations
            if each.configuration is configuration
            for spec in each.sharding_specs
        ]
        places = dict.fromkeys(place for spec in specs for place in spec.device)
        known = all(0 <= place < len(configuration.device_names) for place in places)
        axes = {dim.axis for spec in specs for dim in spec.sharded_dims}
        if not places or not known or len(axes) != (len(places) > 1):
            raise ModelError(
                f"node {name!r} is on devices {sorted(places)}, not on one, nor divided on one axis"
            )
        devices = [configuration.device_names[place] for place in places]
        processors[name] = devices[0]
        if axes:
            splits[name] = _read_split(node, devices, axes.pop())
            sizes = splits[name].sizes
            processors[name] = max(devices, key=lambda device: sizes[device])
    return replace(
        _read_metadata(model), processors=processors, order=tuple(processors), splits=splits
    )


def load_plan(path: Path) -> tuple[ir.Model, Plan]:
    """A planned model and its plan, from a file that :func:`save_plan` wrote.

    Raises:
        ModelError: no readable model, or one without a plan.
    """
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir raise what they like
        raise ModelError(f"{path} is not a readable ONNX model: {error}") from error
    unpack_weights(model.graph)
    return model, read_plan(model)


def _read_metadata(model: ir.Model) -> Plan:
    """What does not stand at nodes: policy, predicted time, refusals, batch, what is recomputed."""
    try:
        record = json.loads(model.metadata_props.get(METADATA, "{}"))
        refusals = tuple(Refusal(**each) for each in record.get("refusals", ()))
        predicted = record.get("predicted_us")
        batch = {str(name): int(count) for name, count in record.get("batch", {}).items()}
        if any(count < 1 for count in batch.values()):
            raise ValueError(f"samples by processor are {batch}")
        return Plan(
            {},
            refusals,
            policy=str(record.get("policy", "")),
            predicted_us=None if predicted is None else float(predicted),
            batch=batch,
            recompute=tuple(map(str, record.get("recompute", ()))),
            early=bool(record.get("early", False)),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the model's {METADATA} is damaged: {error}") from error
