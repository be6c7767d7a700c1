"""Weights, biases and scales of a layer on bytes, from the floats that loading made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coexec.core.types import Array
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.whole_weights import quantised
from coexec.processors.opencl.fusion.integer_cores import Core
from coexec.processors.opencl.fusion.integer_operators import LANES, Steps, stored_channels

MOST_SUM = 2**31 - 1
BYTE_PRODUCT = 255 * 128


@dataclass(frozen=True)
class IntegerWeights:
    """int8 ``values`` (K, C / groups, height, width), int32 ``bias`` of the sums.

    ``scale`` is that of the sums over that of the inputs: a float for each channel. Both have
    entries for all stored channels, 0 where there are none.
    """

    values: Array
    bias: Array
    scale: Array
    depthwise: bool


def integer_weights(
    core: Core, steps: Steps, result: Steps, constants: Mapping[str, Array]
) -> IntegerWeights | None:
    """Of a convolution or linear layer; ``None`` where kernels on bytes do not compute it.

    Its weights are whole multiples of symmetric scales, its channels are one group or each its own,
    and no sum leaves 32 bits.
    """
    g = ConvGeometry.of(core.call)
    depthwise = g.group > 1 and g.group == g.in_channels == g.out_channels
    stored = stored_channels(g.out_channels)
    if (g.group > 1 and not depthwise) or stored % LANES:
        return None
    weights = constants[core.weights]
    if core.call.attribute("transposed", False):
        weights = weights.T
    found = quantised(weights.reshape(g.weight_shape), by_channel=True)
    if found is None:
        return None
    scale = np.broadcast_to(found.scale.astype(np.float64) * steps.scale, (g.out_channels,))
    bias = np.zeros(g.out_channels)
    if core.bias:
        bias = np.rint(constants[core.bias].reshape(-1).astype(np.float64) / scale)
    depth = found.values[0].size
    if np.abs(bias).max(initial=0) + BYTE_PRODUCT * depth > MOST_SUM:
        return None
    more = (0, stored - g.out_channels)
    return IntegerWeights(
        found.values,
        np.pad(bias.astype(np.int32), more),
        np.pad((scale / result.scale).astype(np.float32), more),
        depthwise,
    )
