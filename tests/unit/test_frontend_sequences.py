"""Sequences inside a model: their readers read the tensors themselves."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.base.errors import ModelError, UnsupportedOperators
from coexec.frontend import load, specialise
from tests.graphs import evaluate, parse

X = np.arange(24, dtype=np.float32).reshape(4, 6)

CASES = {
    "chunk": (
        (
            "{ k = Constant<value_int = 2>() s = SplitToSequence<axis = 1>(x, k) "
            "i = Constant<value_int = -1>() y = SequenceAt(s, i) }"
        ),
        X[:, 4:],
    ),
    "chunk with a rest": (
        (
            "{ k = Constant<value_int = 4>() s = SplitToSequence<axis = -1>(x, k) "
            "i = Constant<value_int = 1>() y = SequenceAt(s, i) }"
        ),
        X[:, 4:],
    ),
    "split": (
        (
            "{ k = Constant<value_ints = [1, 3]>() s = SplitToSequence(x, k) "
            "i = Constant<value_int = 1>() y = SequenceAt(s, i) }"
        ),
        X[1:],
    ),
    "unbind": (
        (
            "{ s = SplitToSequence<axis = 1, keepdims = 0>(x) i = Constant<value_int = 2>() "
            "y = SequenceAt(s, i) }"
        ),
        X[:, 2],
    ),
    "unbind that keeps the axis": (
        "{ s = SplitToSequence<axis = 1>(x) i = Constant<value_int = 2>() y = SequenceAt(s, i) }",
        X[:, 2:3],
    ),
    "cat": (
        "{ a = Neg(x) s = SequenceConstruct(x, a) y = ConcatFromSequence<axis = 1>(s) }",
        np.concatenate([X, -X], 1),
    ),
    "stack": (
        (
            "{ a = Neg(x) s = SequenceConstruct(x, a) "
            "y = ConcatFromSequence<axis = 1, new_axis = 1>(s) }"
        ),
        np.stack([X, -X], 1),
    ),
    "a list that grows and shrinks": (
        (
            "{ e = SequenceEmpty() a = Neg(x) b = Abs(a) zero = Constant<value_int = 0>() "
            "s = SequenceInsert(e, x) t = SequenceInsert(s, a, zero) u = SequenceInsert(t, b) "
            "v = SequenceErase(u, zero) y = ConcatFromSequence<axis = 0>(v) }"
        ),
        np.concatenate([X, X]),
    ),
    "len": (
        "{ s = SplitToSequence(x) n = SequenceLength(s) f = Cast<to = 1>(n) y = Mul(x, f) }",
        4 * X,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_readers_of_a_sequence_read_its_tensors(name: str) -> None:
    body, expected = CASES[name]
    shape = ",".join(f"d{i}" for i in range(expected.ndim))
    model = specialise(load(parse(f"g (float[N,6] x) => (float[{shape}] y) {body}")), {"x": (4, 6)})
    np.testing.assert_array_equal(evaluate(model, {"x": X})["y"], expected)
    assert not any("equence" in node.op_type for node in model.graph)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "{ s = SplitToSequence(x) i = Constant<value_int = 4>() y = SequenceAt(s, i) }",
            "position 4 of a sequence with 4 places",
        ),
        (
            (
                "{ k = Constant<value_ints = [1, 2]>() s = SplitToSequence(x, k) "
                "i = Constant<value_int = 0>() y = SequenceAt(s, i) }"
            ),
            "parts of [1, 2] elements of 4",
        ),
        (
            (
                "{ k = Constant<value_int = 0>() s = SplitToSequence(x, k) "
                "i = Constant<value_int = 0>() y = SequenceAt(s, i) }"
            ),
            "parts of 0 elements",
        ),
        (
            (
                "{ s = SplitToSequence<axis = 2>(x) i = Constant<value_int = 0>() "
                "y = SequenceAt(s, i) }"
            ),
            "axis 2 of float32[4x6]",
        ),
        (
            "{ s = SequenceEmpty() y = ConcatFromSequence<axis = 0>(s) }",
            "an empty sequence has nothing to join",
        ),
    ],
)
def test_positions_and_parts_that_there_are_not(body: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(parse(f"g (float[4,6] x) => (float[n,m] y) {body}"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "graph",
    [
        "g (float[4,6] x) => (seq(float[4,6]) y) { y = SequenceConstruct(x, x) }",
        (
            "g (seq(float[4,6]) x) => (float[4,6] y) "
            "{ i = Constant<value_int = 0>() y = SequenceAt(x, i) }"
        ),
    ],
    ids=["output", "input"],
)
def test_sequences_of_the_model_itself_are_refused(graph: str) -> None:
    with pytest.raises(UnsupportedOperators, match="its sequence is an input or output"):
        load(parse(graph))
