"""FLOP and bytes of OpDefs against closed forms of two networks, after their papers' tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from coexec import load
from coexec.ops.node import call_of
from coexec.ops.opdef import Work
from coexec.ops.table import OPERATORS
from coexec.zoo.catalog import build

BATCH = 2
RELATIVE = 0.01
FLOAT = 4
"""Bytes of an element."""


@dataclass
class ClosedForm:
    """Work by operator type of a network on (BATCH, channels, side, side), layer after layer."""

    channels: int
    side: int
    flop: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def conv(self, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        before = self.image()
        weights = width * (self.channels // groups) * kernel**2
        self.channels, self.side = width, -(-self.side // stride)
        taps = weights // width
        self.flop["Conv"] += 2 * self.image() * taps
        self.bytes["Conv"] += FLOAT * (before + weights + self.image())
        # Normalisation follows: reads and writes the image, reads four numbers per channel.
        self.bytes["BatchNormalization"] += FLOAT * (2 * self.image() + 4 * width)

    def elementwise(self, operator: str, operands: int = 1) -> None:
        self.flop[operator] += operands * self.image() // (2 if operator == "Add" else 1)
        self.bytes[operator] += FLOAT * (operands + 1) * self.image()

    def head(self, classes: int) -> None:
        self.bytes["GlobalAveragePool"] += FLOAT * (self.image() + BATCH * self.channels)
        self.flop["Gemm"] += 2 * BATCH * self.channels * classes
        weights = (self.channels + 1) * classes
        self.bytes["Gemm"] += FLOAT * (BATCH * (self.channels + classes) + weights)

    def image(self) -> int:
        return BATCH * self.channels * self.side**2


def resnet18(side: int) -> ClosedForm:
    """He et al. 2016, table 1, 18 layers, with a 3 x 3 stem for small images."""
    net = ClosedForm(3, side)
    net.conv(64, 3)
    net.elementwise("Relu")
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            channels, before = net.channels, net.side
            net.conv(width, 3, stride)
            net.elementwise("Relu")
            net.conv(width, 3)
            if stride == 2:
                net.channels, net.side = channels, before
                net.conv(width, 1, stride)
            net.elementwise("Add", operands=2)
            net.elementwise("Relu")
    net.head(10)
    return net


def mobilenetv2(side: int) -> ClosedForm:
    """Sandler et al. 2018, table 2: expansion t, channels c, repeats n, stride s."""
    table = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    net = ClosedForm(3, side)
    net.conv(32, 3, 2)
    net.elementwise("Clip")
    for t, c, n, s in table:
        for repeat in range(n):
            before, stride = net.channels, s if repeat == 0 else 1
            hidden = t * before
            if t > 1:
                net.conv(hidden, 1)
                net.elementwise("Clip")
            net.conv(hidden, 3, stride, groups=hidden)
            net.elementwise("Clip")
            net.conv(c, 1)
            if stride == 1 and before == c:
                net.elementwise("Add", operands=2)
    net.conv(1280, 1)
    net.elementwise("Clip")
    net.head(1000)
    return net


def counted(name: str, side: int) -> dict[str, Work]:
    """Work by operator type as the OpDefs count it."""
    model = load(build(name, batch=BATCH), {"x": (BATCH, 3, side, side)})
    total: dict[str, Work] = {}
    for node in model.graph:
        call = call_of(node)
        work = OPERATORS[call.identifier].work(call)
        known = total.get(call.op_type, Work(0, 0))
        total[call.op_type] = Work(known.flop + work.flop, known.bytes + work.bytes)
    return total


CASES = [("resnet18", 32, resnet18(32)), ("mobilenetv2", 224, mobilenetv2(224))]


@pytest.mark.parametrize(("name", "side", "expected"), CASES)
def test_flop_equal_the_closed_form(name: str, side: int, expected: ClosedForm) -> None:
    works = counted(name, side)
    for operator, flop in expected.flop.items():
        assert works[operator].flop == pytest.approx(flop, rel=RELATIVE), operator


@pytest.mark.parametrize(("name", "side", "expected"), CASES)
def test_bytes_equal_the_closed_form(name: str, side: int, expected: ClosedForm) -> None:
    works = counted(name, side)
    for operator, nbytes in expected.bytes.items():
        assert works[operator].bytes == pytest.approx(nbytes, rel=RELATIVE), operator
    total = sum(work.bytes for work in works.values())
    assert total == pytest.approx(expected.bytes.total(), rel=RELATIVE)


def test_the_closed_form_gives_the_published_count() -> None:
    # Table 4 of the MobileNetV2 paper: 300 million multiply-adds for one image.
    net = mobilenetv2(224)
    assert (net.flop["Conv"] + net.flop["Gemm"]) / 2 / BATCH == pytest.approx(300e6, rel=0.01)
