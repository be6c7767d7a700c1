"""What costs nothing because the kernel before it computes it."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Region
from coexec.processors.opencl.fusion.taken_in import taken_in
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.random_regions import RegionDice
from tests.runtimes import THOROUGH, open_opencl


class Layers(RegionDice):
    """Layers of a network; nodes are named after their results."""

    def drawn(self, *shape: int) -> str:
        return self.new(self.numpy.standard_normal(shape, np.float32))

    def conv(self, x: str) -> str:
        channels = self.types[x].shape[1]
        weights = self.drawn(channels, channels, 3, 3)
        return self.append("Conv", (x, weights), {"pads": [1, 1, 1, 1]})

    def with_outputs(self, *outputs: str) -> Region:
        inputs = tuple(name for name in self.values if name not in self.constants)
        return Region(tuple(self.nodes), inputs, outputs, self.types, self.constants, {})


@pytest.fixture
def processor() -> OpenCLProcessor:
    return open_opencl(THOROUGH[0])


@pytest.fixture
def layers() -> Layers:
    return Layers("taken in", exact=False)


def free(region: Region, processor: OpenCLProcessor) -> set[str]:
    """Operators that cost nothing, with the place of their node."""
    named = {node.call.name: f"{node.call.op_type} {i}" for i, node in enumerate(region.nodes)}
    assert len(named) == len(region.nodes), "names are unique"
    found = taken_in(region, processor.facts)
    assert processor.fused(region) == found
    assert set(found.values()) <= {None}
    return {named[name] for name in found}


def test_activations_behind_convolutions_cost_nothing(
    layers: Layers, processor: OpenCLProcessor
) -> None:
    first = layers.append("Relu", (layers.conv(layers.drawn(1, 4, 6, 6)),))
    second = layers.conv(first)
    limits = (layers.constant(-0.5), layers.constant(1.5))
    result = layers.append("Clip", (second, *limits))
    assert free(layers.with_outputs(result), processor) == {"Relu 1", "Clip 3"}


def test_a_sum_costs_what_it_reads_and_the_activation_behind_it_nothing(
    layers: Layers, processor: OpenCLProcessor
) -> None:
    x = layers.drawn(1, 4, 6, 6)
    summed = layers.append("Add", (layers.conv(x), x))
    result = layers.append("Relu", (summed,))
    assert free(layers.with_outputs(result), processor) == {"Relu 2"}


def test_what_others_read_too_is_written_and_read_again(
    layers: Layers, processor: OpenCLProcessor
) -> None:
    made = layers.conv(layers.drawn(1, 4, 6, 6))
    result = layers.append("Relu", (made,))
    assert free(layers.with_outputs(made, result), processor) == set()


def test_what_no_kernel_precedes_costs_what_it_does_alone(
    layers: Layers, processor: OpenCLProcessor
) -> None:
    result = layers.append("Relu", (layers.drawn(1, 4, 6, 6),))
    assert free(layers.with_outputs(result), processor) == set()
