"""Operands of a Concat that are made where its result lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, Kept, Part, Region
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region, plan_storage
from coexec.processors.opencl.concatenation import (
    joined,
    parts_across,
    parts_of_results,
    place_of,
)
from coexec.processors.opencl.executable import ARENA, ARGUMENT
from coexec.processors.opencl.family import Lowering
from coexec.processors.opencl.preparation import Prepared
from coexec.processors.opencl.storage import Storage
from tests.random_regions import RegionDice, evaluated
from tests.running import run_region
from tests.runtimes import RUNTIMES, open_opencl

ALIGNMENT = 64
NO_KERNELS = Prepared((), (), Lowering(()))


class ChannelDice(RegionDice):
    """Regions of tensors (1, channels, 2, 8): a channel is 64 bytes."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed, exact=True)

    def image(self, channels: int) -> str:
        return self.operand((1, channels, 2, 8))

    def join(self, *names: str) -> str:
        return self.append("Concat", names, {"axis": 1})

    def grow(self) -> None:
        """One more node: of one operand, of two alike, a view or a concatenation."""
        known = [node.outputs[0] for node in self.nodes] or [self.image(self.randrange(1, 4))]
        first = self.choice(known)
        alike = [name for name in known if self.types[name] == self.types[first]]
        pick = self.random()
        if pick < 0.35:
            self.append(self.choice(("Neg", "Relu")), (first,))
        elif pick < 0.5:
            self.append("Add", (first, self.choice(alike)))
        elif pick < 0.6:
            self.append("Identity", (first,))
        else:
            self.join(*(self.choice(known[-4:]) for _ in range(self.randrange(2, 4))))

    def with_outputs(self, *names: str) -> Region:
        return Region(tuple(self.nodes), tuple(self.values), names, self.types, {}, {})


def replayed(region: Region, storage: Storage, values: Mapping[str, Array]) -> dict[str, Array]:
    """The region's outputs, computed by references on the places that tensors were given."""
    arguments = [values[name].tobytes() for name in storage.inputs]
    arguments += [bytes(region.types[name].nbytes) for name in storage.outputs]
    memory = {(ARGUMENT, i): np.frombuffer(bytearray(a), "u1") for i, a in enumerate(arguments)}
    memory[ARENA, 0] = np.full(storage.arena_bytes, 0xA5, np.uint8)

    def tensor(name: str) -> Array:
        slot, kind = storage.slot(name), region.types[name]
        held = memory[slot.kind, slot.index][slot.offset :][: kind.nbytes]
        return held.view(kind.dtype).reshape(kind.shape)

    for node in region.nodes:
        op = OPERATORS[node.call.identifier]
        if not op.view and not joined(node, storage.parts):
            results = op.reference(node.call, [tensor(name).copy() for name in node.inputs])
            tensor(node.outputs[0])[...] = results[0]
    return {name: tensor(storage.copied.get(name, name)).copy() for name in region.outputs}


def test_places_hold_what_nodes_read() -> None:
    """Whatever is joined, viewed, updated in place or an output: random regions on their arena."""
    joins = 0
    for seed in range(150):
        dice = ChannelDice(f"places {seed}")
        region = dice.region(nodes=14, outputs=2)
        prepared = [None if OPERATORS[n.call.identifier].view else NO_KERNELS for n in region.nodes]
        parts = parts_of_results(region, ALIGNMENT)
        lowerings = [None if one is None else one.lowering for one in prepared]
        storage = Storage.plan(region, lowerings, ALIGNMENT, parts)
        joins += sum(joined(node, parts) for node in region.nodes)
        expected = evaluated(region, dice.values)
        for name, result in replayed(region, storage, dice.values).items():
            np.testing.assert_array_equal(result, expected[name], err_msg=f"{seed} {name}")
    assert joins > 100


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_dense_block_copies_nothing(runtime: str) -> None:
    """Each layer adds channels to those before it; some of these are read again later."""
    dice, processor = ChannelDice("dense"), open_opencl(runtime)
    channels = processor.facts.alignment // 64 * 2
    x = dice.image(channels)
    first = dice.append("Softmax", (x,), {"axis": -1})
    block = dice.join(first, dice.append("Softmax", (x,), {"axis": -2}))
    block = dice.join(block, dice.append("Softmax", (block,), {"axis": -1}))
    region = dice.with_outputs(
        dice.append("Softmax", (block,), {"axis": -1}),
        dice.append("Softmax", (first,), {"axis": -1}),
    )
    executable = compile_region(region, processor.facts, runtime)
    assert [step.label.operator.split(".")[0] for step in executable.steps] == ["Softmax"] * 5
    results = run_region(processor, region, executable, dict(dice.values))
    expected = evaluated(region, dice.values)
    for name, result in zip(region.outputs, results, strict=True):
        np.testing.assert_allclose(result, expected[name], rtol=1e-6)


def test_the_place_of_a_part_of_a_part() -> None:
    parts = {"a": Part("b", 64), "b": Part("c", 128)}
    assert place_of("a", parts) == Part("c", 192)
    assert place_of("c", parts) == Part("c", 0)


def several_images(dice: ChannelDice) -> Region:
    a, b = (dice.append(name, (dice.operand((2, 1, 2, 8)),)) for name in ("Neg", "Relu"))
    return dice.with_outputs(dice.append("Neg", (dice.join(a, b),)))


def uneven_planes(dice: ChannelDice) -> Region:
    a, b = (dice.append(name, (dice.operand((1, 1, 3, 3)),)) for name in ("Neg", "Relu"))
    return dice.with_outputs(dice.append("Neg", (dice.join(a, b),)))


def an_argument(dice: ChannelDice) -> Region:
    a = dice.append("Neg", (dice.image(1),))
    return dice.with_outputs(dice.append("Neg", (dice.join(a, dice.image(1)),)))


def one_twice(dice: ChannelDice) -> Region:
    a = dice.append("Neg", (dice.image(1),))
    return dice.with_outputs(dice.append("Neg", (dice.join(a, a),)))


def a_result(dice: ChannelDice) -> Region:
    a, b = (dice.append(name, (dice.image(1),)) for name in ("Neg", "Relu"))
    return dice.with_outputs(dice.append("Identity", (dice.join(a, b),)))


@pytest.mark.parametrize(
    "make",
    [several_images, uneven_planes, an_argument, one_twice, a_result],
    ids=lambda make: make.__name__,
)
def test_what_cannot_lie_there_is_copied(make: object) -> None:
    assert callable(make)
    assert parts_of_results(make(ChannelDice("copied")), ALIGNMENT) == {}


def test_a_result_that_would_wait_long_for_an_operand_is_copied() -> None:
    """As the skip connections of a U-Net: their other halves come last."""
    dice = ChannelDice("skip")
    skip = dice.append("Neg", (dice.image(1),))
    deep = dice.append("Neg", (dice.image(64),))
    deep = dice.append("Add", (dice.append("Relu", (deep,)), dice.append("Abs", (deep,))))
    late, _ = dice.node("Split", (deep,), {"axis": 1, "num_outputs": 2}, outputs=2)
    region = dice.with_outputs(dice.append("Relu", (dice.join(skip, late),)))
    assert parts_of_results(region, ALIGNMENT)
    assert not plan_storage(region, [NO_KERNELS] * 7, ALIGNMENT, joining=True).parts


def second_region(offset: int, *, placed: bool = True, step: int = 64) -> Region:
    """Joins ``a``, which an earlier region left, with ``b``; ``placed``: where it was to be."""
    dice = ChannelDice("second")
    a = dice.image(1)
    b = dice.append("Relu", (dice.image(1),))
    region = dice.with_outputs(dice.append("Neg", (dice.join(a, b),)))
    ab = region.nodes[1].outputs[0]
    parts = {a: Part("memory", 0), b: Part("memory", step), ab: Part("memory", 0)}
    kept = {a: Kept(offset if placed else 0, 64, after=False), "memory": Kept(offset, 128, True)}
    return replace(region, joined=parts, kept=kept)


def test_what_an_earlier_region_left_in_its_place_is_joined_there() -> None:
    region = second_region(256)
    parts = parts_across(region, ALIGNMENT)
    assert parts == region.joined
    assert joined(region.nodes[1], parts)
    storage = plan_storage(region, [NO_KERNELS] * 3, ALIGNMENT, joining=True)
    b, ab = (node.outputs[0] for node in region.nodes[:2])
    assert (storage.slot(b).offset, storage.slot(ab).offset) == (256 + 64, 256)


def test_what_an_earlier_region_left_elsewhere_is_copied() -> None:
    region = second_region(256, placed=False)
    parts = parts_across(region, ALIGNMENT)
    assert parts.keys() == {region.nodes[0].outputs[0]}
    assert not joined(region.nodes[1], parts)


def test_parts_that_no_kernel_can_begin_at_are_copied() -> None:
    assert parts_across(second_region(256, step=32), ALIGNMENT) == {}
