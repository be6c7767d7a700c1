"""Scales and shifts of channels disappear into what stands in front, where that is right."""

from __future__ import annotations

import numpy as np
import pytest

from coexec.passes.fold_batch_norm import fold_batch_norm
from coexec.passes.fold_scale import fold_scale
from tests.graphs import evaluate
from tests.passes.test_fold_batch_norm import NORM, feed, types, with_weights

CONV = "float[2,6,5,5] x, float[4,6,3,3] w, float[4] c"
NET = "float[2,6,5,5] x, float[6] s, float[6] b, float[6] m, float[6] v"
Case = tuple[str, str, int, list[str]]
CASES: dict[str, Case] = {
    "conv": (
        f"{CONV}, float[4,1,1] k, float[1,4,1,1] j",
        "h = Conv(x, w, c) i = Mul(h, k) y = Add(j, i)",
        2,
        ["Conv"],
    ),
    "shift before scale, no bias": (
        f"{CONV}, float[4,1,1] k, float[4,1,1] j",
        "h = Conv(x, w) i = Add(h, j) y = Mul(i, k)",
        2,
        ["Conv"],
    ),
    "one number for all": (f"{CONV}, float k", "h = Conv(x, w, c) y = Mul(k, h)", 1, ["Conv"]),
    "behind a norm": (
        f"{NET}, float[6,1,1] k, float[6,1,1] j",
        "h = BatchNormalization(x, s, b, m, v) i = Mul(h, k) y = Add(i, j)",
        2,
        ["BatchNormalization"],
    ),
    "behind a norm that went into a conv": (
        f"{CONV}, {NORM}, float[4,1,1] k".replace(", float[4] c", ""),
        "h = Conv(x, w) n = BatchNormalization(h, s, b, m, v) y = Mul(n, k)",
        1,
        ["Conv"],
    ),
}
KEPT = {
    "others read it": (f"{CONV}, float[4,1,1] k", "h = Conv(x, w, c) i = Mul(h, k) y = Add(i, h)"),
    "not by channel": (f"{CONV}, float[3,1] k", "h = Conv(x, w, c) y = Mul(h, k)"),
    "last axis": (f"{CONV}, float[3] k", "h = Conv(x, w, c) y = Add(h, k)"),
    "two tensors": (f"{CONV}", "h = Conv(x, w, c) y = Add(h, h)"),
    "no weights": ("float[2,4,3,3] x, float[4,1,1] k", "h = Relu(x) y = Mul(h, k)"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_the_same_with_fewer_nodes(case: str) -> None:
    inputs, body, count, left = CASES[case]
    model = with_weights(f"g ({inputs}) => (float[2,N,A,B] y) {{ {body} }}")
    x = feed(model)
    expected = evaluate(model, x)["y"]
    fold_batch_norm(model)
    assert fold_scale(model) == count
    assert types(model) == left
    np.testing.assert_allclose(evaluate(model, x)["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", KEPT)
def test_what_is_no_scale_of_channels_stays(case: str) -> None:
    inputs, body = KEPT[case]
    model = with_weights(f"g ({inputs}) => (float[2,4,3,3] y) {{ {body} }}")
    before = types(model)
    assert fold_scale(model) == 0
    assert types(model) == before


def test_a_norm_by_the_batch_keeps_its_scale() -> None:
    model = with_weights(
        f"g ({NET}, float[6,1,1] k) => (float[2,6,5,5] y) "
        "{ h = BatchNormalization<training_mode = 1>(x, s, b, m, v) y = Mul(h, k) }"
    )
    assert fold_scale(model) == 0


def test_scales_that_a_run_may_change_stay() -> None:
    inputs, body, _, _ = CASES["conv"]
    model = with_weights(f"g ({inputs}) => (float[2,4,3,3] y) {{ {body} }}")
    model.graph.inputs.append(model.graph.initializers["k"])
    assert fold_scale(model) == 0
