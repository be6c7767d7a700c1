"""Where tensors are made that several regions join by Concat."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import pytest

from coexec.core.types import Part
from coexec.frontend import load
from coexec.runtime.joined_parts import JoinedParts, joined_parts
from tests.graphs import parse

CHANNEL = 4 * 64
"""Bytes of a channel of 8 x 8."""


def joined(
    nodes: str, places: str, *, fixed: Sequence[str] = ("y",), images: int = 1
) -> JoinedParts:
    """Of a graph whose nodes lie in the regions numbered in ``places``; others are elsewhere."""
    text = f"g (float[{images},2,8,8] x) => (float[{images},C,H,8] y) {{{nodes}}}"
    graph = load(parse(text), shapes={}).graph
    regions: list[list[ir.Node]] = [[] for _ in range(4)]
    for node, place in zip(graph, places, strict=True):
        if place != "-":
            regions[int(place)].append(node)
    return joined_parts(regions, fixed)


CHAIN = (
    "a = Relu(x) b = Neg(a) ab = Concat<axis = 1>(a, b) c = Softmax(ab)"
    " abc = Concat<axis = 1>(c, ab) y = Neg(abc)"
)


def test_a_chain_lies_in_its_last_result() -> None:
    found = joined(CHAIN, "001233")
    memory = "abc#joined"
    assert found.parts == {
        "abc": Part(memory, 0),
        "c": Part(memory, 0),
        "ab": Part(memory, 4 * CHANNEL),
        "a": Part(memory, 4 * CHANNEL),
        "b": Part(memory, 6 * CHANNEL),
    }
    assert {name: kind.nbytes for name, kind in found.types.items()} == {memory: 8 * CHANNEL}


def test_memory_is_read_for_as_long_as_anything_in_it() -> None:
    found = joined(CHAIN, "001233")
    assert found.reads_of({"a": 1, "b": 7, "ab": 3, "x": 9}) == {"abc#joined": 7}


PAIR = "a = Relu(x) b = Neg(a) ab = Concat<axis = 1>(a, b)"


@pytest.mark.parametrize(
    ("nodes", "places"),
    [
        (CHAIN, "000000"),
        ("a = Relu(x) ab = Concat<axis = 1>(a, x) y = Neg(ab)", "012"),
        ("a = Relu(x) aa = Concat<axis = 1>(a, a) y = Neg(aa)", "012"),
        ("a = Relu(x) b = Neg(a) ab = Concat<axis = 2>(a, b) y = Neg(ab)", "0123"),
        ("a = Relu(x) b = Neg(a) y = Concat<axis = 1>(a, b)", "012"),
        (f"{PAIR} y = Neg(ab)", "0-12"),
        (f"{PAIR} y = Neg(ab)", "012-"),
        (f"{PAIR} v = Flatten(b) most = ReduceMax(v) y = Add(ab, most)", "012223"),
    ],
    ids=[
        "one region",
        "an input",
        "one twice",
        "not one behind the other",
        "an output",
        "made elsewhere",
        "read elsewhere",
        "a view",
    ],
)
def test_what_regions_do_not_join_by_themselves_is_copied(nodes: str, places: str) -> None:
    assert joined(nodes, places) == JoinedParts()


def test_several_images_are_copied() -> None:
    assert joined(CHAIN, "001233", images=2) == JoinedParts()


def test_an_operand_that_others_see_is_copied() -> None:
    assert joined(CHAIN, "001233", fixed=("y", "a", "c")) == JoinedParts()


def test_an_operand_of_two_results_lies_in_the_first() -> None:
    found = joined(
        f"{PAIR} ba = Concat<axis = 1>(b, a) y = Sub(ab, ba)",
        "01233",
    )
    assert found.parts.keys() == {"a", "b", "ab"}


def test_a_result_that_would_wait_long_for_an_operand_is_copied() -> None:
    """As the skip connections of a U-Net: their other halves come last."""
    deep = "".join(f" d{i} = Concat<axis = 1>(d{i - 1}, x)" for i in range(1, 9))
    found = joined(
        f"skip = Relu(x) d0 = Neg(x){deep} e = Relu(d8) late = Abs(e)"
        " both = Concat<axis = 1>(skip, late) y = Neg(both)",
        "0" * 10 + "1233",
    )
    assert found == JoinedParts()
