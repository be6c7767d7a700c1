"""Channels go together with all that belongs to them; those that do nothing can go unnoticed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from coexec.base.errors import UsageError
from coexec.core.types import Array
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.passes.channel_groups import ChannelGroups
from coexec.passes.find_channel_groups import find_channel_groups
from coexec.passes.prune_channels import PrunedGroup, prune_channels
from coexec.zoo.catalog import build
from coexec.zoo.mobilenet import mobilenetv2
from coexec.zoo.squeezenet import squeezenet
from tests.graphs import parse

SHARE = 0.4
NETS: dict[str, Callable[[], ir.Model]] = {
    "plain": lambda: build("digits_cnn"),
    "residual": lambda: build("resnet18", classes=10),
    "inverted residual, depthwise": lambda: mobilenetv2(width=0.25, classes=10, image_size=32),
    "fire modules": lambda: squeezenet(classes=10, image_size=32),
    "fixed batch": lambda: build("lenet5", batch=2),
}
TEXTS = {
    "channels joined by a product, and a gate": (
        "g (float[N,3,6,6] x, float[8,3,3,3] w1, float[8,3,3,3] w2, float[8,8,1,1] w3, "
        "float[4,8,1,1] w4, float[8,1,1] k) => (float[N,4,4,4] y) "
        "{ a = Conv(x, w1) b = Conv(x, w2) c = Mul(a, b) p = GlobalAveragePool(c) "
        "s = Conv(p, w3) t = Sigmoid(s) d = Mul(c, t) e = Add(d, k) y = Conv(e, w4) }"
    ),
    "one channel spread over many": (
        "g (float[N,3,6,6] x, float[8,3,1,1] w1, float[1,3,1,1] w2, float[4,8,1,1] w3) => "
        "(float[N,4,6,6] y) { a = Conv(x, w1) b = Conv(x, w2) c = Mul(a, b) y = Conv(c, w3) }"
    ),
    "concatenation, norm, reduction": (
        "g (float[N,3,6,6] x, float[8,3,1,1] w1, float[6,3,1,1] w2, float[14] s, float[14] b, "
        "float[14] m, float[14] v, float[14,5] w3) => (float[N,5] y) "
        "{ a = Conv(x, w1) b2 = Conv(x, w2) c = Concat<axis = 1>(a, b2) "
        "d = BatchNormalization(c, s, b, m, v) i = Constant<value = int64[2] {2, 3}>() "
        "e = ReduceMean<keepdims = 0>(d, i) y = MatMul(e, w3) }"
    ),
    "flattened by a reshape": (
        "g (float[2,3,6,6] x, float[8,3,3,3] w1, float[128,10] w2, float[10] c, "
        "float[10,4] w3) => (float[2,4] y) { a = Conv(x, w1) "
        "i = Constant<value = int64[2] {2, 128}>() b = Reshape(a, i) d = Gemm(b, w2, c) "
        "e = Relu(d) y = MatMul(e, w3) }"
    ),
    "transposed convolution": (
        "g (float[N,3,4,4] x, float[3,8,2,2] w1, float[8] c, float[8] k, float[8] b, "
        "float[8,4,2,2] w2) => (float[N,4,9,9] y) { h = ConvTranspose<strides = [2, 2]>(x, w1, c) "
        "i = InstanceNormalization(h, k, b) y = ConvTranspose(i, w2) }"
    ),
}


def with_weights(text: str) -> ir.Model:
    """A model whose inputs but the first are initializers of random values."""
    model = load(parse(text))
    rng = np.random.default_rng(0)
    for value in list(model.graph.inputs)[1:]:
        assert value.shape is not None
        array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        array = np.abs(array) if value.name == "v" else array
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    return model


def network(name: str) -> ir.Model:
    return load(NETS[name]()) if name in NETS else with_weights(TEXTS[name])


def outputs(model: ir.Model) -> Array:
    """What ONNX Runtime makes of the model and seeded data."""
    text = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    shape = [n if isinstance(n, int) else 2 for n in session.get_inputs()[0].shape]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


def silence(found: ChannelGroups, share: float) -> None:
    """Set every weight of some channels of each group to zero: as many as pruning removes."""
    rng = np.random.default_rng(2)
    silent: dict[int, Array] = {}
    for cut in found.cuts:
        for group in map(found.find, cut.layout.groups):
            if group not in silent:
                size = found.sizes[group]
                silent[group] = np.zeros(size, bool)
                if group not in found.kept_whole:
                    silent[group][rng.permutation(size)[: int(size * share)]] = True
        mask = np.concatenate([silent[found.find(group)] for group in cut.layout.groups])
        assert cut.value.const_value is not None
        array = np.moveaxis(cut.value.const_value.numpy().copy(), cut.axis, 0)
        array[np.repeat(mask, len(array) // len(mask))] = 0
        cut.value.const_value = ir.tensor(np.moveaxis(array, 0, cut.axis), name=cut.value.name)


@pytest.mark.parametrize("name", [*NETS, *TEXTS])
def test_channels_without_weights_go_and_the_result_stays(name: str) -> None:
    model = network(name)
    silence(find_channel_groups(model.graph), SHARE)
    expected = outputs(model)
    pruned = prune_channels(model, SHARE)
    assert any(group.after < group.before for group in pruned)
    for group in pruned:
        assert group.reason or group.after == group.before - int(group.before * SHARE)
    # Every shape that the model states is that of what is left.
    specialise(load(ir.to_proto(model)), {"x": (2, *_rest(model))})
    found = outputs(model)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def _rest(model: ir.Model) -> list[int]:
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return [int(str(size)) for size in list(shape)[1:]]


def pruned_by(text: str, share: float = 0.5, multiple: int = 1) -> dict[str, PrunedGroup]:
    """Groups of a model by the nodes that make them."""
    groups = prune_channels(with_weights(text), share, multiple)
    return {" ".join(group.nodes): group for group in groups}


TWO = "g (float[1,3,6,6] x, float[20,3,1,1] w, float[4,20,1,1] v) => (float[1,4,6,6] y)"


def test_outputs_of_the_model_keep_their_channels() -> None:
    groups = pruned_by(f"{TWO} {{ [a] h = Conv(x, w) [b] y = Conv(h, v) }}")
    assert (groups["a"].after, groups["b"].after) == (10, 4)
    assert "output 'y' of the model" in groups["b"].reason


def test_what_is_left_is_a_multiple_and_never_less_than_was_asked_for() -> None:
    text = f"{TWO} {{ [a] h = Conv(x, w) [b] y = Conv(h, v) }}"
    assert pruned_by(text, 0.5, 8)["a"].after == 16
    few = pruned_by(text, 0.1, 32)["a"]
    assert few.after == 20
    assert "too few" in few.reason


def test_residual_branches_lose_the_same_channels() -> None:
    model = with_weights(
        "g (float[1,3,6,6] x, float[8,3,1,1] w, float[8,8,1,1] v, float[2,8,1,1] u) => "
        "(float[1,2,6,6] y) { [a] h = Conv(x, w) [b] i = Conv(h, v) [c] j = Add(h, i) "
        "[d] y = Conv(j, u) }"
    )
    weights = model.graph.initializers
    w = weights["w"].const_value
    assert w is not None
    # Channel 5 is the smallest of the sum of both.
    for name in ("w", "v"):
        array = weights[name].const_value
        assert array is not None
        changed = array.numpy().copy()
        changed[5] *= 0.01
        weights[name].const_value = ir.tensor(changed, name=name)
    groups = prune_channels(model, 0.125)
    assert groups[0] == PrunedGroup(("a", "b"), 8, 7)
    left = weights["w"].const_value
    assert left is not None
    np.testing.assert_array_equal(left.numpy(), np.delete(w.numpy(), 5, axis=0))
    v = weights["v"].const_value
    assert v is not None
    assert v.shape == (7, 7, 1, 1)


KEPT = {
    "a grouped convolution": (
        (
            "g (float[1,3,6,6] x, float[8,3,1,1] w, float[8,4,1,1] v) => (float[1,8,6,6] y) "
            "{ [a] h = Conv(x, w) [b] y = Conv<group = 2>(h, v) }"
        ),
        "Conv 'b' reads them",
    ),
    "a softmax over the channels": (
        (f"{TWO} {{ [a] h = Conv(x, w) [s] i = Softmax<axis = 1>(h) y = Conv(i, v) }}"),
        "Softmax 's' reads them",
    ),
    "the model's input added": (
        (
            "g (float[1,3,6,6] x, float[3,3,1,1] w, float[4,3,1,1] v) => (float[1,4,6,6] y) "
            "{ [a] h = Conv(x, w) [s] i = Add(h, x) y = Conv(i, v) }"
        ),
        "Add 's' reads them",
    ),
    "weights that two nodes read": (
        (
            "g (float[1,3,6,6] x, float[3,3,1,1] w, float[4,3,1,1] v) => (float[1,4,6,6] y) "
            "{ [a] h = Conv(x, v) [b] i = Conv(x, w) [c] j = Conv(i, w) [d] k = Conv(j, v) "
            "y = Add(h, k) }"
        ),
        "",
    ),
    "channels moved to another axis": (
        (
            "g (float[1,3,6,6] x, float[8,3,1,1] w, float[6,5] v) => (float[1,8,6,5] y) "
            "{ [a] h = Conv(x, w) [s] y = MatMul(h, v) }"
        ),
        "MatMul 's' reads them",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_channels_that_something_needs_all_stay_and_it_is_said(case: str) -> None:
    text, reason = KEPT[case]
    model = with_weights(text)
    expected = outputs(model)
    groups = {" ".join(group.nodes): group for group in prune_channels(model, 0.5)}
    assert all(group.before == group.after for group in groups.values())
    if reason:
        assert groups["a"].reason == reason
    np.testing.assert_array_equal(outputs(model), expected)


@pytest.mark.parametrize(("share", "multiple"), [(0.0, 1), (1.0, 1), (-0.5, 1), (0.5, 0)])
def test_shares_and_multiples_that_make_no_sense_are_refused(share: float, multiple: int) -> None:
    with pytest.raises(UsageError, match=r"between 0 and 1|multiples of 0"):
        prune_channels(with_weights(TEXTS["one channel spread over many"]), share, multiple)
