"""What a call on an NPU is charged for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coexec.core.soc_file import find_soc
from coexec.core.types import OpCall, TensorType
from coexec.cost.calibration.single_layers import convolution
from coexec.cost.calibration.zoo_networks import fused_layers, zoo_layers
from coexec.cost.soc.limits import Limits, limits_of
from coexec.cost.soc.npu_terms import NPU_TERMS, WEIGHTS_SHARE, npu_rows
from coexec.cost.soc.workload import (
    ACTIVATION,
    ELEMENTWISE,
    INPUT,
    MOVE,
    OUTPUT,
    POOL,
    REDUCE,
    Workload,
    workload,
)
from coexec.ops.table import opdef

LIMITS = limits_of(find_soc("snapdragon-8-gen-3"), "npu", "float16")
SMALL = convolution(1, 28, 256, 256, 3)


def charged(
    work: Workload, precision: str = "float16", limits: Limits = LIMITS
) -> dict[str, float]:
    """Terms of a call that are not zero, in microseconds."""
    row = npu_rows([work], limits, precision)[0]
    return {name: us for name, us in zip(NPU_TERMS, row, strict=True) if us}


def image(channels: int, op: str) -> Workload:
    elements = 224.0 * 224 * channels
    return Workload(MOVE, 0.0, elements, elements, out_pixels=224.0**2, in_channels=channels, op=op)


def test_few_channels_take_as_long_as_a_block_of_them() -> None:
    thin, whole = convolution(1, 112, 3, 8, 3), convolution(1, 112, 32, 32, 3)
    assert charged(thin)["matrix unit or DRAM"] == pytest.approx(
        charged(whole)["matrix unit or DRAM"]
    )


def test_weights_come_from_dram_while_the_matrix_unit_computes() -> None:
    heavy = replace(SMALL, weights=1e8)
    read_us = WEIGHTS_SHARE * 2e8 / LIMITS.gbps / 1e3
    assert charged(heavy)["matrix unit or DRAM"] == pytest.approx(read_us)
    assert charged(SMALL)["matrix unit or DRAM"] == pytest.approx(SMALL.flop / LIMITS.gflops / 1e3)


def test_maps_that_the_memory_beside_the_units_does_not_hold_come_from_dram() -> None:
    large = convolution(1, 400, 64, 64, 1)
    bytes_moved = 2 * (large.in_elements + large.out_elements)
    assert bytes_moved > LIMITS.tcm_bytes
    found = charged(large)
    assert found["matrix unit or DRAM"] == pytest.approx(
        (bytes_moved + 2 * WEIGHTS_SHARE * large.weights) / LIMITS.gbps / 1e3
    )
    assert "convolutions: maps" not in found
    roomy = charged(large, limits=replace(LIMITS, tcm_bytes=1e9))
    assert roomy["matrix unit or DRAM"] < found["matrix unit or DRAM"]
    assert "convolutions: maps" in roomy


def test_twice_the_work_never_takes_less() -> None:
    double = replace(
        SMALL,
        flop=2 * SMALL.flop,
        in_elements=2 * SMALL.in_elements,
        out_elements=2 * SMALL.out_elements,
    )
    for name, us in charged(SMALL).items():
        assert charged(double)[name] >= us


def test_a_run_pays_for_bringing_its_image_in_and_its_result_out() -> None:
    assert set(charged(image(3, INPUT))) == {"runs", "input"}
    assert set(charged(image(3, OUTPUT))) == {"output"}
    # In floats a single channel takes as much room as a block of them.
    assert charged(image(1, INPUT))["input"] == pytest.approx(charged(image(32, INPUT))["input"])
    quantised = [charged(image(count, INPUT), "int8")["input"] for count in (1, 3)]
    assert quantised[1] == pytest.approx(3 * quantised[0])


def test_quantised_maps_of_whole_blocks_of_channels_are_brought_in_as_they_are() -> None:
    blocks = [charged(image(count, INPUT), "int8")["input"] for count in (32, 64, 3)]
    assert blocks[1] == pytest.approx(2 * blocks[0])
    assert blocks[2] > blocks[0]


def test_joining_whole_blocks_takes_no_time() -> None:
    joined = Workload(MOVE, 0.0, 1e5, 1e5, op="Concat", height=16.0, width=24.0, part_channels=64.0)
    assert charged(joined) == {}
    assert set(charged(replace(joined, op="Transpose"))) == {"calls", "moves"}


@pytest.mark.parametrize(
    "parts", [{"part_channels": 58.0}, {"height": 14.0}, {"width": 7.0}], ids=str
)
@pytest.mark.parametrize("op", ["Concat", "Split"])
def test_parts_of_blocks_are_moved_to_join_or_split_them(op: str, parts: dict[str, Any]) -> None:
    whole = Workload(MOVE, 0.0, 1e5, 3e4, op=op, height=16.0, width=24.0, part_channels=64.0)
    assert charged(whole) == {}
    moved_us = 2 * 1e5 / LIMITS.gbps / 1e3
    assert charged(replace(whole, **parts)) == {"parts of blocks": pytest.approx(moved_us)}


@pytest.mark.parametrize("op", ["Add", "Resize", "Transpose", "MaxPool"])
def test_maps_that_are_no_whole_blocks_cost_vector_units_more(op: str) -> None:
    whole = Workload(POOL, 0.0, 1e5, 5e4, op=op, height=16.0, width=16.0)
    found = charged(replace(whole, height=14.0, width=14.0))
    more_us = 2 * 5e4 / LIMITS.gbps / 1e3
    assert found == charged(whole) | {"parts of blocks": pytest.approx(more_us)}


def test_a_single_pixel_and_the_scores_of_attention_are_no_parts_of_blocks() -> None:
    pixel = Workload(REDUCE, 0.0, 1e5, 1e3, op="GlobalAveragePool")
    scores = Workload(REDUCE, 0.0, 1e5, 1e5, op="Softmax", height=197.0, width=197.0)
    assert "parts of blocks" not in charged(pixel) | charged(scores)


def test_an_activation_behind_a_layer_takes_vector_units_but_no_call() -> None:
    alone = Workload(ELEMENTWISE, 0.0, 1e5, 1e5, op="HardSwish")
    behind = charged(replace(alone, op=ACTIVATION))
    assert charged(alone) == behind | {"calls": LIMITS.dispatch.median_us}


def test_a_product_takes_more_than_a_convolution_of_as_much_arithmetic() -> None:
    product, conv = (charged(replace(SMALL, op=op)) for op in ("MatMul", "Conv"))
    plain_us = SMALL.flop / LIMITS.gflops / 1e3
    assert product["products: arithmetic"] == pytest.approx(plain_us)
    assert "products: arithmetic" not in conv


def test_what_streams_is_cheap_as_long_as_it_stays_beside_the_units() -> None:
    added = Workload(ELEMENTWISE, 0.0, 1e5, 1e5, op="Add")
    assert set(charged(added)) == {"calls", "streams"}
    assert set(charged(replace(added, op="Gelu"))) == {"calls", "activations"}
    large = replace(added, in_elements=1e7, out_elements=1e7)
    assert set(charged(large)) == {"calls", "streams from DRAM"}


def joined(*channels: int, side: int = 16) -> Workload:
    """Maps of so many channels, joined."""
    kinds = [TensorType((1, count, side, side), np.dtype("float32")) for count in channels]
    call = OpCall("Concat", tuple(kinds), {"axis": 1}, version=21)
    return workload(opdef(call).typed(call))


def test_a_joined_map_knows_its_sides_and_what_divides_the_channels_of_its_parts() -> None:
    found = joined(64, 96)
    assert (found.height, found.width, found.part_channels) == (16, 16, 32)
    assert charged(found) == {}
    assert set(charged(joined(64, 58))) == set(charged(joined(64, side=14))) == {"parts of blocks"}


def test_activations_other_than_maxima_are_layers_of_networks_on_npus_alone() -> None:
    assert ACTIVATION in {layer.op for layer in zoo_layers("mobilenet_v3_small")}
    assert ACTIVATION not in {layer.op for layer in zoo_layers("mobilenetv2")}
    assert ACTIVATION not in {layer.op for layer in fused_layers("mobilenet_v3_small")}
