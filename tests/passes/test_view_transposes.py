"""Transposes that move no data become views."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.passes.view_transposes import view_transposes
from tests.graphs import evaluate, parse


@pytest.mark.parametrize(
    ("shape", "perm", "becomes"),
    [
        ((1, 1, 8, 4), "[0, 2, 1, 3]", "Reshape"),
        ((1, 8, 1, 4), "[0, 2, 1, 3]", "Reshape"),
        ((3, 1), "[1, 0]", "Reshape"),
        ((2, 3), "[0, 1]", "Reshape"),
        ((1, 2, 8, 4), "[0, 2, 1, 3]", "Transpose"),
        ((0, 1, 2), "[1, 0, 2]", "Transpose"),
    ],
)
def test_only_axes_of_length_one_move(shape: tuple[int, ...], perm: str, becomes: str) -> None:
    dims = ",".join(map(str, shape))
    text = f"g (float[{dims}] x) => (float[N] y) {{ [turn] y = Transpose<perm = {perm}>(x) }}"
    result = ",".join(str(shape[int(axis)]) for axis in perm[1:-1].split(","))
    model = specialise(load(parse(text.replace("[N]", f"[{result}]"))), {}, {})
    x = {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}
    expected = evaluate(model, x)["y"]
    view_transposes(model.graph)
    (node,) = model.graph
    assert (node.op_type, node.name) == (becomes, "turn")
    np.testing.assert_array_equal(evaluate(model, x)["y"], expected)


def test_axes_in_reverse_order_are_the_default() -> None:
    text = "g (float[1,5] x) => (float[1,5] y) { t = Transpose(x) y = Transpose(t) }"
    model = specialise(load(parse(text)), {}, {})
    view_transposes(model.graph)
    assert [node.op_type for node in model.graph] == ["Reshape", "Reshape"]
    x = {"x": np.arange(5, dtype=np.float32).reshape(1, 5)}
    np.testing.assert_array_equal(evaluate(model, x)["y"], x["x"])
