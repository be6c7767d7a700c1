"""Register tiles for vectors of 64 bytes: shares of layers compute little that is not there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.family import ceil_to
from coexec.processors.opencl.kernels import conv_direct, winograd
from coexec.processors.opencl.kernels.conv import FAMILY, suited_packing
from coexec.processors.opencl.kernels.winograd import TILE
from tests.runtimes import THOROUGH, open_opencl

FACTS = replace(open_opencl(THOROUGH[0]).facts, vector_bytes=64, compute_units=1)
LANES = 16
MOST_ADDRESSES = 8
"""Of a tile's positions: one in a register each, of which there are 16 for all that loops hold."""


def conv(channels: int, rows: int, size: tuple[int, int], kernel: int = 1) -> OpCall:
    """A convolution of one image with weights that are known."""
    weights = np.zeros((rows, channels, kernel, kernel), np.float32)
    x = TensorType((1, channels, *size), np.dtype("float32"))
    call = OpCall(
        "Conv",
        (x, TensorType.of(weights)),
        {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4},
        constants={1: weights},
        version=21,
    )
    return OPERATORS["Conv"].typed(call)


def chosen(call: OpCall) -> str:
    variant, _ = FAMILY.choose(call, FACTS)
    assert variant is not None
    return variant.name


@pytest.mark.parametrize(
    ("size", "columns"), [((7, 7), 64), ((7, 14), 128), ((14, 14), 224), ((56, 56), 3168)]
)
def test_packed_tiles_waste_few_columns(size: tuple[int, int], columns: int) -> None:
    tile = suited_packing(conv(512, 1024, size), FACTS)
    assert ceil_to(size[0] * size[1], tile["NV"] * LANES) == columns


def test_packed_tiles_are_the_fastest_ones_where_none_wastes_more() -> None:
    tile = suited_packing(conv(512, 1024, (56, 56)), FACTS)
    assert (tile["MR"], tile["NV"]) == (8, 3)


@pytest.mark.parametrize("size", [(3, 7), (4, 7), (7, 7), (7, 14), (14, 14)])
@pytest.mark.parametrize("rows", [32, 64, 96, 160, 320, 960])
def test_direct_tiles_keep_their_addresses_in_registers(size: tuple[int, int], rows: int) -> None:
    call = conv(96, rows, size)
    tile = conv_direct.suited(call, FACTS)
    assert tile["PX"] <= MOST_ADDRESSES
    assert ceil_to(rows, tile["NV"] * LANES) * ceil_to(size[0] * size[1], tile["PX"]) <= (
        1.3 * rows * size[0] * size[1]
    )


@pytest.mark.parametrize("size", [(7, 14), (14, 14)])
def test_tiles_of_filtering_fill_those_of_small_images(size: tuple[int, int]) -> None:
    call = conv(256, 256, size, kernel=3)
    tiles = -(-size[0] // TILE) * -(-size[1] // TILE)
    assert tiles % winograd.suited(call, FACTS)["MR"] == 0


def test_filters_beyond_the_caches_are_not_fetched_transformed_for_few_tiles() -> None:
    """4 times as many bytes as weights: a network has put others into the caches meanwhile."""
    assert chosen(conv(512, 512, (7, 7), kernel=3)) != "winograd"
    assert chosen(conv(128, 128, (7, 7), kernel=3)) == "winograd"
    assert chosen(conv(256, 256, (14, 14), kernel=3)) == "winograd"
