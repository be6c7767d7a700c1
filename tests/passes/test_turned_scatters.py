"""Rows that are written into a turned tensor are written where they lie."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.core.types import Array
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.ops.node import type_of
from coexec.passes.turned_scatters import write_in_place
from tests.graphs import evaluate, parse

TEXT = (
    "g (float[1,2,9,4] k, int64[2,1] i, float[2,2,1,4] u) => (float[1,2,9,4] y)"
    " { t = Transpose<perm = [2, 1, 0, 3]>(k) s = ScatterND(t, i, u)"
    " y = Transpose<perm = [2, 1, 0, 3]>(s) }"
)
TURNED = TEXT.replace("[2,2,1,4] u", "[2,4,1,2] u").replace("[2, 1, 0, 3]>(k)", "[2, 3, 0, 1]>(k)")
TURNED = TURNED.replace("[2, 1, 0, 3]>(s)", "[2, 3, 0, 1]>(s)")


@pytest.mark.parametrize("text", [TEXT, TURNED])
def test_the_rest_is_not_moved(text: str) -> None:
    model = specialise(load(parse(text)), {}, {})
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {"i": np.array([[7], [2]])}
    for value in model.graph.inputs:
        if value.name != "i":
            drawn = rng.standard_normal(type_of(value).shape)
            feeds[str(value.name)] = drawn.astype(np.float32)
    expected = evaluate(model, feeds)["y"]
    write_in_place(model.graph)
    assert [node.op_type for node in model.graph][-1] == "ScatterElements"
    (cache,) = (value for value in model.graph.inputs if value.name == "k")
    assert [node.op_type for node in cache.consumers()] == ["ScatterElements"]
    np.testing.assert_array_equal(evaluate(model, feeds)["y"], expected)


@pytest.mark.parametrize(
    "change",
    [
        ("perm = [2, 1, 0, 3]>(s)", "perm = [0, 1, 2, 3]>(s)"),
        ("ScatterND(t", 'ScatterND<reduction = "add">(t'),
        ("y = T", "z = Neg(t) y = T"),
    ],
)
def test_other_scatters_stay(change: tuple[str, str]) -> None:
    text = TEXT.replace(*change)
    if "[0, 1, 2, 3]" in text:
        text = text.replace("(float[1,2,9,4] y)", "(float[9,2,1,4] y)")
    if "Neg" in text:
        text = text.replace("(float[1,2,9,4] y)", "(float[1,2,9,4] y, float[9,2,1,4] z)")
    model = specialise(load(parse(text)), {}, {})
    write_in_place(model.graph)
    assert "ScatterND" in [node.op_type for node in model.graph]
