"""Normalisations that write and read blocks of codes, on every OpenCL runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array, Region
from coexec.ops.compressed import BLOCK, WORD
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.compression import fuse_compression
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.kernels import winograd_weight
from coexec.processors.opencl.processor import OpenCLProcessor
from tests.conformance.test_fusion_norm import NormalisationDice
from tests.random_regions import evaluated
from tests.running import assert_close, run_region
from tests.runtimes import RUNTIMES, open_opencl

KEEPING_TAPS = "coexec.opencl::KeepingMaxPoolTaps"
KEEPING, EXPANDING = (
    "coexec.opencl::KeepingNormalization",
    "coexec.opencl::ExpandingNormalizationGrad",
)
EXPANDING_WEIGHT = "coexec.opencl::ExpandingConvWeightGrad"
COMPRESS, DECOMPRESS = "coexec::CompressBlocks", "coexec::DecompressBlocks"
WHOLE, SLICES, LONG = (3, 9, 16, 16), (5, 2, 16, 24), (3, 2, 64, 64)
FLAT, ODD, SMALL = (3, 8, 8, 8), (5, 32, 10, 10), (2, 8, 4, 4)
"""Shapes for each kernel: whole channels, parts of them, chunks of planes; runs of small planes, in
which a block belongs to one plane, or to several whole ones."""
SHAPES = [WHOLE, SLICES, LONG, FLAT, ODD, SMALL]


class CodeDice(NormalisationDice):
    """Regions with blocks of codes."""

    def compressed(self, x: str, bits: int) -> tuple[str, ...]:
        """Words and ends of a tensor."""
        return self.node(COMPRESS, (x,), {"bits": bits}, 2)

    def expanded(self, bits: int) -> str:
        """A tensor made of drawn codes, none of which is everywhere above or below 0."""
        size = int(np.prod(self.shape))
        blocks = -(-size // BLOCK)
        words = self.numpy.integers(0, 2**32, (blocks, BLOCK * bits // WORD), np.uint32)
        ends = np.stack([np.full(blocks, -1.25), np.linspace(0.5, 2, blocks)], 1)
        operands = (self.new(words), self.new(ends.astype(np.float32)))
        attributes = {"bits": bits, "shape": self.shape, "dtype": "float32"}
        return self.node(DECOMPRESS, operands, attributes)[0]


def run(
    processor: OpenCLProcessor, region: Region, values: Mapping[str, Array]
) -> dict[str, Array]:
    executable = compile_region(region, of_two_units(processor), processor.name)
    found = run_region(processor, region, executable, dict(values))
    return dict(zip(region.outputs, found, strict=True))


def of_two_units(processor: OpenCLProcessor) -> DeviceFacts:
    """What the same kernels are made for on any machine: runs of whole blocks are few here."""
    return replace(processor.facts, compute_units=2)


def kinds(region: Region) -> list[str]:
    return [node.call.identifier for node in region.nodes]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_normalisation_keeps_codes_of_its_operand_and_its_result(
    runtime: str, shape: tuple[int, ...], bits: int
) -> None:
    """The codes are those that kernels of their own make, bit by bit."""
    processor, dice = open_opencl(runtime), CodeDice(f"keep {shape} {bits}", shape)
    x = dice.append("Neg", (dice.drawn(*shape),))
    operands = (x, *(dice.drawn(shape[1], positive=i in (1, 4)) for i in range(1, 5)))
    normal, *statistics = dice.node("BatchNormalization", operands, {"training_mode": 1}, 3)
    y = dice.activated(normal, "Relu")
    codes = (*dice.compressed(x, bits), *dice.compressed(y, bits))
    region = dice.with_outputs(y, *statistics, *codes)
    assert kinds(fuse(region, of_two_units(processor))).count(COMPRESS) == 0
    assert KEEPING in kinds(fuse(region, of_two_units(processor)))
    found, expected = run(processor, region, dice.values), evaluated(region, dice.values)
    for name in (y, *statistics):
        assert_close(found[name], expected[name], 1e-4, 1e-4)
    own = CodeDice(f"own {shape} {bits}", shape)
    apart = [own.compressed(own.new(value), bits) for value in (-dice.values["x0"], found[y])]
    alone = own.with_outputs(*(name for pair in apart for name in pair))
    for name, value in zip(codes, run(processor, alone, own.values).values(), strict=True):
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_of_a_normalisation_reads_codes(
    runtime: str, shape: tuple[int, ...], bits: int
) -> None:
    """Of its operand and of the result of the activation behind it, which nobody expands."""
    processor, dice = open_opencl(runtime), CodeDice(f"expand {shape} {bits}", shape)
    x, y = dice.expanded(bits), dice.expanded(bits)
    dy = dice.append("Neg", (dice.drawn(*shape),))
    read_before = dice.append("Exp", (dy,))  # else the mask would join the chain that makes dY
    test = dice.append("Greater", (y, dice.constant(0.0)))
    flow = dice.append("Where", (test, dy, dice.constant(0.0)))
    scale = dice.drawn(shape[1], positive=True)
    results = dice.node("coexec::BatchNormalizationGrad", (x, scale, flow), outputs=3)
    region = dice.with_outputs(*results, dice.append("Exp", (flow,)), read_before)
    fused = kinds(fuse(region, of_two_units(processor)))
    assert EXPANDING in fused
    assert DECOMPRESS not in fused
    found, expected = run(processor, region, dice.values), evaluated(region, dice.values)
    for name in region.outputs:
        assert_close(found[name], expected[name], 1e-4, 1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_codes_that_others_read_in_full_are_expanded_for_them(runtime: str) -> None:
    processor, dice = open_opencl(runtime), CodeDice("others", WHOLE)
    x = dice.expanded(8)
    results = dice.node(
        "coexec::BatchNormalizationGrad",
        (x, dice.drawn(WHOLE[1], positive=True), dice.drawn(*WHOLE)),
        outputs=3,
    )
    region = dice.with_outputs(*results, dice.append("Exp", (x,)))
    fused = kinds(fuse(region, of_two_units(processor)))
    assert (fused.count(EXPANDING), fused.count(DECOMPRESS)) == (1, 1)
    found, expected = run(processor, region, dice.values), evaluated(region, dice.values)
    for name in region.outputs:
        assert_close(found[name], expected[name], 1e-4, 1e-4)


WEIGHTS: dict[str, tuple[tuple[int, ...], int, int, int, int]] = {
    "tiles, whole images": ((9, 24, 8, 8), 32, 3, 1, 1),
    "tiles, blocks of channels": ((3, 40, 16, 16), 20, 3, 1, 1),
    "outer products": ((7, 10, 9, 7), 20, 3, 2, 1),
    "outer products of groups": ((9, 12, 5, 6), 34, 3, 2, 2),
    "of few rows": ((5, 100, 8, 24), 13, 1, 1, 1),
    "of few columns": ((5, 13, 8, 24), 100, 1, 1, 1),
    "of one tap and groups": ((3, 14, 16, 16), 40, 1, 1, 2),
    "single channels": ((3, 6, 13, 17), 6, 3, 1, 6),
    "single channels, bands": ((2, 3, 70, 66), 6, 3, 2, 3),
}
"""Shape of x, channels of y, extent of the kernel, stride, groups."""


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("case", WEIGHTS)
def test_gradients_of_weights_read_codes(
    runtime: str, case: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd_weight, "DIRECT_COST", 1e6)
    shape, rows, extent, stride, groups = WEIGHTS[case]
    processor, dice = open_opencl(runtime), CodeDice(f"weights {case} {bits}", shape)
    size = [-(-n // stride) for n in shape[2:]]
    dy = dice.drawn(shape[0], rows, *size)
    attributes = {
        "kernel_shape": (extent, extent),
        "pads": (extent // 2,) * 4,
        "strides": (stride, stride),
        "group": groups,
    }
    operands = (dice.expanded(bits), dy)
    region = dice.with_outputs(*dice.node("coexec::ConvWeightGrad", operands, attributes))
    fused = kinds(fuse(region, of_two_units(processor)))
    assert fused == [EXPANDING_WEIGHT]
    (name,) = region.outputs
    expected = evaluated(region, dice.values)[name]
    naive = compile_region(
        fuse(region, of_two_units(processor)),
        processor.facts,
        processor.name,
        "naive",
        fusing=False,
    )
    (oracle,) = run_region(processor, region, naive, dict(dice.values))
    found = run(processor, region, dice.values)[name]
    spread = float(np.sqrt((expected**2).mean()))
    assert float(np.abs(found - expected).max()) < 2e-5 * spread
    assert float(np.abs(oracle - expected).max()) < 2e-5 * spread


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("shape", "bits"), [((6, 8, 12, 9), 8), ((5, 2, 33, 64), 4), ((4, 2, 16, 32), 8)], ids=str
)
def test_a_pooling_keeps_codes_of_its_result(
    runtime: str, shape: tuple[int, ...], bits: int
) -> None:
    """The codes are those that kernels of their own make, bit by bit."""
    processor, dice = open_opencl(runtime), CodeDice(f"pooling {shape}", shape)
    window = {"kernel_shape": (2, 2), "strides": (2, 2), "positive": 1}
    y, taps = dice.node("coexec::MaxPoolTaps", (dice.drawn(*shape),), window, 2)
    codes = dice.compressed(y, bits)
    region = dice.with_outputs(y, taps, *codes)
    fused = fuse(region, of_two_units(processor))
    assert kinds(fused) == [KEEPING_TAPS]
    naive = compile_region(fused, processor.facts, processor.name, "naive", fusing=False)
    oracle = run_region(processor, region, naive, dict(dice.values))
    found, expected = run(processor, region, dice.values), evaluated(region, dice.values)
    for name, value in zip(region.outputs, oracle, strict=True):
        if name in codes:
            own = CodeDice("own", shape)
            alone = own.with_outputs(*own.compressed(own.new(found[y]), bits))
            again = list(run(processor, alone, own.values).values())
            np.testing.assert_array_equal(found[name], again[codes.index(name)])
        else:
            np.testing.assert_array_equal(found[name], expected[name])
            np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("shape", [(3, 3, 15, 15), (3, 6, 4, 4)], ids=str)
def test_blocks_across_planes_or_images_keep_kernels_of_their_own(shape: tuple[int, ...]) -> None:
    processor, dice = open_opencl(RUNTIMES[0]), CodeDice(f"across {shape}", shape)
    y, *_ = dice.normalised(training=True)
    region = dice.with_outputs(y, *dice.compressed(y, 8))
    assert kinds(fuse_compression(region, processor.facts)) == kinds(region)
