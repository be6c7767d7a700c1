"""Loops of a known number of steps are unrolled; all others are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

import coexec
from coexec.base.errors import CoexecError, ModelError, UnsupportedOperators
from coexec.core.types import Array

HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
POWERS = """
graph (float[2] x{inputs}) => (float[2] last, float[A, 2] all, float[B] sums) {{
    {count}
    go = Constant <value = bool {{1}}> ()
    last, all, sums = Loop <body = step (int64 number, bool given, float[2] old)
        => (bool kept, float[2] new, float[2] row, float sum) {{
        two = Constant <value = float {{2.0}}> ()
        shift = Cast <to = 1> (number)
        half = Mul (old, two)
        new = Add (half, shift)
        row = Sub (new, x)
        axes = Constant <value = int64[1] {{0}}> ()
        sum = ReduceSum <keepdims = 0> (row, axes)
        {kept}
    }}> (trips, go, x)
}}
"""
FIVE = "trips = Constant <value = int64 {5}> ()"
COPIED = "kept = Identity (given)"
SCAN = """
graph (float[3] start, float[3, 4] a, float[5, 3] b) => (float[3] last, float[4, 3] y) {
    last, y = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
        scan_output_directions = [1], body = step (float[3] old, float[3] row)
        => (float[3] new, float[3] shown) {
        sum = Add (old, row)
        new = Tanh (sum)
        shown = Mul (new, row)
    }> (start, a)
}
"""

NESTED = """
graph (float[2] x) => (float[2] last) {
    trips = Constant <value = int64 {4}> ()
    two = Constant <value = int64 {2}> ()
    go = Constant <value = bool {1}> ()
    last = Loop <body = step (int64 number, bool given, float[2] old)
        => (bool kept, float[2] new) {
        one = Constant <value = int64 {1}> ()
        odd = Mod (number, two)
        is_odd = Equal (odd, one)
        new = If (is_odd) <
            then_branch = odd_step () => (float[2] squared)
                { inner = Add (old, x) squared = Mul (inner, inner) },
            else_branch = even_step () => (float[2] repeated) {
                inner_trips = Add (number, one)
                repeated = Loop <body = inner_step (int64 k, bool inner_given, float[2] before)
                    => (bool inner_kept, float[2] after)
                    { after = Sin (before) inner_kept = Identity (inner_given) }>
                    (inner_trips, go, old)
            }>
        kept = Identity (given)
    }> (trips, go, x)
}
"""


def powers(count: str = FIVE, kept: str = COPIED, inputs: str = "") -> onnx.ModelProto:
    """A loop that doubles, adds its number, and stacks rows and scalars."""
    return parser.parse_model(HEAD + POWERS.format(count=count, kept=kept, inputs=inputs))


def both(model: onnx.ModelProto, feeds: dict[str, Array]) -> tuple[list[Any], list[Any]]:
    """What ONNX Runtime and the reference make of it."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    ours = coexec.compile(coexec.load(model), ["reference"]).run(feeds)
    return list(session.run(None, feeds)), list(ours.values())


def test_a_loop_of_constant_length_computes_what_onnxruntime_does() -> None:
    theirs, ours = both(powers(), {"x": np.array([0.5, -1], np.float32)})
    for expected, found in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_names_of_steps_are_unique() -> None:
    graph = coexec.load(powers()).graph
    names = [str(node.name) for node in graph]
    assert len(set(names)) == len(names)
    assert all(node.op_type != "Loop" for node in graph)


def test_branches_and_loops_within_steps_have_names_of_their_own() -> None:
    model = parser.parse_model(HEAD + NESTED)
    theirs, ours = both(model, {"x": np.array([0.5, -1], np.float32)})
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    graph = coexec.load(model).graph
    names = [str(value.name) for node in graph for value in node.outputs]
    assert len(set(names)) == len(names)
    assert {node.op_type for node in graph} == {"Sin", "Add", "Mul"}


def test_a_trip_count_of_the_caller_is_taken_from_each_run() -> None:
    model = powers("", inputs=", int64 trips")
    session = coexec.compile(coexec.load(model), ["reference"])
    for trips in (1, 4):
        feeds = {"x": np.array([1, 2], np.float32), "trips": np.array(trips)}
        assert session.run(feeds)["all"].shape == (trips, 2)


def test_a_condition_that_is_false_after_a_step_ends_the_loop() -> None:
    model = powers(kept="kept = Constant <value = bool {0}> ()")
    theirs, ours = both(model, {"x": np.array([3, 4], np.float32)})
    assert np.asarray(theirs[1]).shape == (1, 2)
    for expected, found in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_condition_computed_from_data_is_refused_by_name() -> None:
    limit = "most = Constant <value = float {9.0}> () kept = Less (sum, most)"
    with pytest.raises(UnsupportedOperators, match=r"Loop.*decides when it ends.*trip count"):
        coexec.load(powers(kept=limit))


def test_a_loop_without_steps_has_nothing_to_stack() -> None:
    with pytest.raises(ModelError, match="no steps"):
        coexec.load(powers("trips = Constant <value = int64 {0}> ()"))


def test_a_loop_of_too_many_steps_is_refused() -> None:
    with pytest.raises(CoexecError, match="steps would be"):
        coexec.load(powers("trips = Constant <value = int64 {900000}> ()"))


def test_a_scan_walks_axes_both_ways(rng: np.random.Generator) -> None:
    model = parser.parse_model(HEAD + SCAN.replace(", float[5, 3] b", ""))
    feeds = {"start": rng.random(3, np.float32), "a": rng.random((3, 4), np.float32)}
    theirs, ours = both(model, feeds)
    for expected, found in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


COUNTED = "Less(real, most)"
WHILE = """
graph (float[2] x{inputs}) => (float[2] last, int32 steps, float[A, 2] all) {{
    go = Constant <value = bool {{1}}> ()
    zero = Constant <value = int32 {{0}}> ()
    size = Constant <value = int32 {{4}}> ()
    last, steps, all = Loop <body = step (int64 number, bool given, float[2] old, int32 before)
        => (bool kept, float[2] new, int32 after, float[2] row) {{
        one = Constant <value = int32 {{1}}> ()
        after = Add (before, one)
        new = Add (old, x)
        row = Identity (new)
        real = Cast <to = 1> (after)
        most = Cast <to = 1> (size)
        kept = {kept}
    }}> ({trips}, go, x, zero)
}}
"""


@pytest.mark.parametrize("trips", ["", "trips"])
def test_a_condition_that_only_counts_is_followed(trips: str) -> None:
    """As tf2onnx writes the loops of Keras' GRU and ConvLSTM2D."""
    inputs = ", int64 trips" if trips else ""
    model = parser.parse_model(HEAD + WHILE.format(inputs=inputs, trips=trips, kept=COUNTED))
    for most in (3, 9) if trips else (0,):
        feeds = {"x": np.array([3, 4], np.float32)}
        theirs, ours = both(model, feeds | ({"trips": np.array(most)} if trips else {}))
        assert np.asarray(theirs[2]).shape == (min(most, 4) if trips else 4, 2)
        for expected, found in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kept", ["Equal(given, given)", "Less(real, total)"])
def test_a_loop_whose_end_is_not_known_is_refused(kept: str) -> None:
    """One that never ends, and one that ends by what it computes from data."""
    text = WHILE.format(inputs="", trips="", kept=kept).replace(
        "real =", "axis = Constant <value = int64 {0}> () total = Gather(new, axis) real ="
    )
    with pytest.raises(UnsupportedOperators, match=r"Loop.*decides when it ends"):
        coexec.load(parser.parse_model(HEAD + text))
