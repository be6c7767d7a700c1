"""Binding shapes and values, folding, and what must not be folded."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from coexec.base.errors import (
    DataError,
    ModelError,
    ModelWarning,
    ShapeError,
    UnsupportedOperators,
)
from coexec.frontend import ValuesNeeded, is_parameter, load, specialise
from coexec.ops.node import known_type, type_of
from tests.graphs import evaluate, parse

TWO = "g (float[N,4] x, float[N,3] z) => (float[N,7] y) { y = Concat<axis = 1>(x, z) }"


def _kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _static(model: ir.Model) -> bool:
    values = [v for node in model.graph for v in node.outputs if v.name]
    values += [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    return all(known_type(value) is not None for value in values)


# Shapes


def test_symbolic_dimension_binds_everywhere() -> None:
    model = load(parse(TWO))
    bound = specialise(model, {"x": (5, 4)})
    assert [str(type_of(v)) for v in bound.graph.inputs] == ["float32[5x4]", "float32[5x3]"]
    assert str(type_of(bound.graph.outputs[0])) == "float32[5x7]"
    assert _static(bound)


def test_source_stays_untouched_and_weights_are_shared() -> None:
    model = load(
        parse("g (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> { y = Add(x, w) }")
    )
    before = str(model)
    bound = specialise(model, {"x": (3, 2)})
    assert str(model) == before
    assert bound.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"x": (5, 4), "z": (6, 3)},
            "input 'z' is [N, 3], given 6x3: dimension 'N' is already 5 (input 'x')",
        ),
        ({"x": (5, 5)}, "input 'x' is [N, 4], given 5x5: dimension 1 must be 4"),
        ({"x": (5,)}, "input 'x' is [N, 4], given 5: the rank differs"),
        ({"x": (-5, 4)}, "input 'x': negative dimension in -5x4"),
        ({"q": (5, 4)}, "no input is named 'q'; the model's inputs are 'x', 'z'"),
        (
            {},
            (
                "the shapes of these inputs are not known:\n  x: [N, 4]\n  z: [N, 3]\n"
                "give them: --shape x=Nx4 --shape z=Nx3"
            ),
        ),
    ],
)
def test_shapes_that_contradict(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        specialise(load(parse(TWO)), shapes)
    assert str(caught.value) == message


def test_load_binds_what_is_given_and_leaves_the_rest_open() -> None:
    proto = parse("g (float[N,4] x, float[M,4] z) => (float[K,4] y) { y = Concat<axis = 0>(x, z) }")
    partly = load(proto, {"x": (2, 4)})
    assert [known_type(value) is not None for value in partly.graph.inputs] == [True, False]
    whole = load(proto, {"x": (2, 4), "z": (3, 4)})
    assert str(type_of(whole.graph.outputs[0])) == "float32[5x4]"
    with pytest.raises(ShapeError, match="dimension 1 must be 4"):
        load(proto, {"x": (2, 5)})


@pytest.mark.parametrize("rows", ["2", "N"])
def test_output_of_another_element_type_than_declared_is_refused(rows: str) -> None:
    proto = parse(f"g (float[{rows},3] x) => (int64[{rows},3] y) {{ y = Relu(x) }}")
    with pytest.raises(ModelError) as caught:
        specialise(load(proto), {"x": (2, 3)})
    assert str(caught.value) == (
        "output 'y' is declared to be int64, but the model computes float32[2x3]: correct the "
        "declaration, or cast the result"
    )


@pytest.mark.parametrize("declared", ["3,3", "2,3,1", "M,4", ""])
def test_output_of_another_shape_than_declared_is_said(declared: str) -> None:
    proto = parse(f"g (float[N,3] x) => (float[{declared or 7}] y) {{ y = Relu(x) }}")
    if not declared:
        del proto.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.warns(ModelWarning, match=r"output 'y' is declared .*computes float32\[2x3\]"):
        model = specialise(load(proto), {"x": (2, 3)})
    assert str(type_of(model.graph.outputs[0])) == "float32[2x3]"


@pytest.mark.parametrize("declared", ["2,3", "N,3", "M,K"])
def test_output_declared_as_it_is_needs_no_word(declared: str) -> None:
    proto = parse(f"g (float[N,3] x) => (float[{declared}] y) {{ y = Relu(x) }}")
    undeclared = onnx.ModelProto.FromString(proto.SerializeToString())
    undeclared.graph.output[0].type.tensor_type.ClearField("shape")
    untyped = onnx.ModelProto.FromString(proto.SerializeToString())
    untyped.graph.output[0].ClearField("type")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (proto, undeclared, untyped):
            specialise(load(source), {"x": (2, 3)})


def test_initializers_that_are_also_inputs_are_weights() -> None:
    proto = parse("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
    weight = onnx.numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    proto.graph.initializer.append(weight)
    model = load(proto)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert is_parameter(model.graph.initializers["w"])


# Folding


def test_shape_arithmetic_folds_away() -> None:
    """The flatten that exporters write: Shape, Gather, Unsqueeze, Concat, Reshape."""
    graph = (
        "g (float[N,3,4] x) => (float[N,12] y) <int64 zero = {0}, int64[1] rest = {-1}, "
        "int64[1] first = {0}> { s = Shape(x) n = Gather(s, zero) m = Unsqueeze(n, first) "
        "t = Concat<axis = 0>(m, rest) y = Reshape(x, t) }"
    )
    model = specialise(load(parse(graph)), {"x": (2, 3, 4)})
    assert _kinds(model) == ["Reshape"]
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(evaluate(model, {"x": x})["y"], x.reshape(2, 12))


TIED = (
    "g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}> "
    "{ t = Transpose<perm = [1, 0]>(w) a = MatMul(x, w) y = MatMul(a, t) }"
)


def test_weights_are_not_folded_unless_asked() -> None:
    """Folding Transpose(w) would untie the two uses of w, and training would go wrong."""
    model = load(parse(TIED))
    kept = specialise(model, {"x": (1, 2)})
    assert _kinds(kept) == ["Transpose", "MatMul", "MatMul"]
    folded = specialise(model, {"x": (1, 2)}, fold_parameters=True)
    assert _kinds(folded) == ["MatMul", "MatMul"]
    x = np.array([[1, -2]], np.float32)
    np.testing.assert_array_equal(evaluate(kept, {"x": x})["y"], evaluate(folded, {"x": x})["y"])


def test_constants_are_told_from_weights() -> None:
    graph = (
        "g (float[N] x) => (float[N] y) <float[1] w = {2}, int64[1] n = {3}> "
        "{ c = Constant<value_float = 4.0>() r = Sqrt(c) a = Mul(x, w) b = Add(a, r) "
        "z = ConstantOfShape<value = float[1] {0.5}>(n) y = Mul(b, z) }"
    )
    model = specialise(load(parse(graph)), {"x": (3,)})
    assert _kinds(model) == ["Mul", "Add", "Mul"]
    initializers = model.graph.initializers
    assert {name for name, value in initializers.items() if is_parameter(value)} == {"w", "z"}
    again = load(ir.to_proto(model).SerializeToString())
    assert {n for n, v in again.graph.initializers.items() if is_parameter(v)} == {"w", "z"}


def test_random_operators_are_never_folded() -> None:
    """Every operand is a constant, and yet each run must draw anew."""
    graph = (
        "g (float[4] x) => (float[4] y) { c = Constant<value = float[4] {1, 2, 3, 4}>() "
        "r = Constant<value_float = 0.5>() t = Constant<value = bool[1] {1}>() "
        "d = Dropout<seed = 1>(c, r, t) y = Add(x, d) }"
    )
    assert _kinds(load(parse(graph))) == ["Dropout", "Add"]


def test_large_results_are_left_to_the_device() -> None:
    graph = (
        "g (int64[1] x) => (int64[N] y) <int64[1] n = {20000000}> "
        "{ z = ConstantOfShape<value = int64[1] {1}>(n) y = Add(x, z) }"
    )
    assert _kinds(load(parse(graph))) == ["ConstantOfShape", "Add"]


def test_generated_weights_take_no_memory_until_they_are_used() -> None:
    graph = (
        "g (float[1] x) => (float[N] y) <int64[1] n = {100000000000}> "
        "{ z = ConstantOfShape<value = float[1] {1}>(n) y = Add(x, z) }"
    )
    weight = load(parse(graph)).graph.initializers["z"]
    assert is_parameter(weight)
    assert weight.const_value is not None
    assert weight.const_value.numpy().strides == (0,)


def test_copies_are_dropped_and_outputs_keep_their_names() -> None:
    graph = (
        "g (float[2,3] x) => (float[2,3] y, float[2,3] same, float[2,3] again) "
        "<int64[2] s = {2, 3}> { a = Reshape(x, s) b = Cast<to = 1>(a) c = Relu(b) "
        "y = Identity(c) same = Identity(c) again = Identity(x) }"
    )
    model = load(parse(graph))
    assert sorted(_kinds(model)) == ["Identity", "Identity", "Relu"]
    assert [value.name for value in model.graph.outputs] == ["y", "same", "again"]
    assert _static(model)
    x = np.array([[-1, 0, 1], [2, 3, 4]], np.float32)
    result = evaluate(model, {"x": x})
    np.testing.assert_array_equal(result["y"], np.maximum(x, 0))
    np.testing.assert_array_equal(result["same"], np.maximum(x, 0))
    np.testing.assert_array_equal(result["again"], x)


# Values that decide shapes

BY_VALUE = "g (float[4] x, int64[K] s) => (float[A,B] y) { t = Abs(s) y = Reshape(x, t) }"


def test_values_needed_names_the_inputs() -> None:
    model = load(parse(BY_VALUE))
    with pytest.raises(ValuesNeeded) as caught:
        specialise(model, {"s": (2,)})
    assert caught.value.names == ("s",)
    assert str(caught.value) == (
        "node 'Reshape_y' (Reshape): the value of input 1 ('t') must be known; "
        "it depends on the values of 's'"
    )


def test_values_given_become_constants_of_the_walk() -> None:
    model = specialise(load(parse(BY_VALUE)), values={"s": np.array([-2, 2], np.int64)})
    assert str(type_of(model.graph.outputs[0])) == "float32[2x2]"
    assert [value.name for value in model.graph.inputs] == ["x", "s"]
    with pytest.raises(DataError, match="input 's' is int64, given float64"):
        specialise(load(parse(BY_VALUE)), values={"s": np.array([2.0, 2.0])})


def test_shape_from_weights_folds_on_demand() -> None:
    """Resize scales are floating-point and look like weights."""
    graph = (
        "g (float[1,1,2,2] x) => (float[1,1,H,W] y) <float[4] s = {0.5, 0.5, 1, 2}> "
        '{ t = Add(s, s) y = Resize<mode = "nearest">(x, , t) }'
    )
    assert str(type_of(load(parse(graph)).graph.outputs[0])) == "float32[1x1x4x8]"


# If

BRANCH = (
    "g (float[N] x{more}) => (float[M] y) <float[1] one = {{1}}> {{ {condition} "
    "y = If(c) <then_branch = t () => (float[M] p) {{ k = Constant<value = float[1] {{10}}>() "
    "p = Mul(x, k) }}, else_branch = e () => (float[M] q) {{ k = Neg(x) q = Sub(k, one) }}> }}"
)


@pytest.mark.parametrize(("size", "expected"), [(3, [10, 20, 30]), (2, [-2, -3])])
def test_if_on_a_shape_is_decided_when_shapes_are_bound(size: int, expected: list[float]) -> None:
    condition = "n = Size(x) three = Constant<value_int = 3>() c = Equal(n, three)"
    model = load(parse(BRANCH.format(more="", condition=condition)))
    assert "If" in _kinds(model)
    bound = specialise(model, {"x": (size,)})
    assert "If" not in _kinds(bound)
    x = np.arange(1, size + 1, dtype=np.float32)
    np.testing.assert_array_equal(evaluate(bound, {"x": x})["y"], expected)


def test_if_with_a_constant_condition_is_gone_after_load() -> None:
    condition = "c = Constant<value = bool[1] {1}>()"
    model = load(parse(BRANCH.format(more="", condition=condition)))
    assert _kinds(model) == ["Mul"]
    assert model.graph.outputs[0].name == "y"


def test_if_on_a_flag_asks_for_its_value() -> None:
    graph = parse(BRANCH.format(more=", bool[1] flag", condition="c = Not(flag)"))
    with pytest.raises(ValuesNeeded) as caught:
        specialise(load(graph), {"x": (2,)})
    assert caught.value.names == ("flag",)
    model = specialise(load(graph), {"x": (2,)}, {"flag": np.array([True])})
    assert _kinds(model) == ["Neg", "Sub"]


def test_if_on_data_is_unsupported() -> None:
    condition = "m = ReduceMax(x) z = Constant<value_float = 0.0>() c = Greater(m, z)"
    with pytest.raises(UnsupportedOperators, match="control flow: its condition is computed"):
        load(parse(BRANCH.format(more="", condition=condition)), {"x": (2,)})


def test_what_hangs_on_data_is_found_in_a_deep_graph_of_sums() -> None:
    """Each node reads the one before it twice: as many paths as 2 to the power of their number."""
    chain = " ".join(f"x{i + 1} = Add(x{i}, x{i})" for i in range(60))
    model = parse(f"g (float[4] x0) => (int64[1,N] y) {{ {chain} y = NonZero(x60) }}")
    with pytest.raises(ValuesNeeded, match="x0"):
        specialise(load(model))
