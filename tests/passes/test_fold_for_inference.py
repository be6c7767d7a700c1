"""Inference has one list of foldings: sessions, plans and sizes see the same nodes."""

from __future__ import annotations

import numpy as np

from coexec import zoo
from coexec.compression.effect import size_of
from coexec.frontend import load
from coexec.ops.node import call_of
from coexec.ops.table import opdef
from coexec.passes.clean import clean
from coexec.passes.fold_for_inference import fold_for_inference
from coexec.planning.static_model import static_model
from coexec.processors.find import open_processor
from coexec.session import Session
from tests.graphs import evaluate
from tests.passes.test_fold_batch_norm import feed, types, with_weights

CAFFE = (
    "g (float[2,3,5,5] x, float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] v,"
    " float[4,1,1] k) => (float[2,4,3,3] y)"
    " { h = Conv(x, w) n = BatchNormalization(h, s, b, m, v) y = Mul(n, k) }"
)


def test_a_norm_and_the_scale_behind_it_go_into_the_convolution() -> None:
    model = with_weights(CAFFE)
    x = feed(model)
    expected = evaluate(model, x)["y"]
    assert fold_for_inference(model) == 2
    assert types(model) == ["Conv"]
    np.testing.assert_allclose(evaluate(model, x)["y"], expected, rtol=1e-4, atol=1e-5)
    assert fold_for_inference(model) == 0


def test_sessions_plans_and_sizes_have_the_same_nodes() -> None:
    model = load(zoo.build("mobilenetv2", batch=1, image_size=32))
    x = {"x": np.zeros((1, 3, 32, 32), np.float32)}
    session = Session(model, {"reference": open_processor("reference")})
    session.run(x)
    planned = static_model(model, x)
    clean(planned)
    assert session.plan.processors.keys() == {str(node.name) for node in planned.graph}
    works = [opdef(call_of(node)).work(call_of(node)) for node in planned.graph]
    assert size_of(model, {"x": (1, 3, 32, 32)}).flop == sum(work.flop for work in works)
