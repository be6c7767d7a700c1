"""Shares of every operator's examples, joined, are what the whole call computes."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.base.window import Window
from coexec.core.types import Array, OpCall
from coexec.ops.opdef import Example, OpDef
from coexec.ops.split import CannotSplit, Way, share_call
from coexec.ops.split_rules import ELEMENTWISE, RULES, way
from coexec.ops.table import OPERATORS

REPRESENTATIVES = ("Add", "Clip", "PRelu", "Where", "coexec::GeluGrad")
"""Of the elementwise operators, which have one rule."""


@pytest.mark.parametrize("identifier", [*RULES, *REPRESENTATIVES])
def test_joined_shares_are_the_whole(identifier: str, rng: np.random.Generator) -> None:
    op = OPERATORS[identifier]
    divided = sum(_check(op, example, rng) for example in op.examples)
    assert divided, "no example divides"


def test_every_operator_called_elementwise_is_one() -> None:
    assert set(OPERATORS) >= ELEMENTWISE
    assert not ELEMENTWISE & set(RULES)


def test_spans_of_windows_are_clipped_and_padded() -> None:
    window = Window(axis=2, extent=10, step=2, before=1, reach=5)
    assert [window.span(0, 2), window.padding(0, 2)] == [(0, 6), (1, 0)]
    assert [window.span(2, 5), window.padding(2, 5)] == [(3, 10), (0, 2)]


def _check(op: OpDef, example: Example, rng: np.random.Generator) -> int:
    """Along how many axes an example divides; each is checked with a first share of one unit."""
    operands = example.draw(rng)
    call = example.call(op, operands)
    divided = 0
    for axis in range(max((kind.rank for kind in call.outputs if kind is not None), default=0)):
        try:
            how = way(call, axis)
        except CannotSplit:
            continue
        bounds = [(0, 1), (1, how.count)]
        parts = [_share(op, call, how, operands, start, stop) for start, stop in bounds]
        for index, joined in enumerate(zip(*parts, strict=True)):
            expected = op.reference(call, operands)[index]
            found = np.concatenate(joined, axis=axis)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        divided += 1
    return divided


def _share(
    op: OpDef, call: OpCall, how: Way, operands: list[Array | None], start: int, stop: int
) -> list[Array]:
    share = share_call(call, how, start, stop)
    cut: list[Array | None] = []
    own = how.operands(start, stop)
    for index, operand in enumerate(operands):
        read = how.span(index, start, stop)
        if operand is None or read is None:
            cut.append(own.get(index, operand))
        else:
            window, first, last = read
            cut.append(operand[(*[slice(None)] * window.axis, slice(first, last))])
    results = op.reference(share, cut)[: len(share.outputs)]
    found = [np.asarray(result) for result in results]
    assert [each.shape for each in found] == [share.output(i).shape for i in range(len(found))]
    return found
