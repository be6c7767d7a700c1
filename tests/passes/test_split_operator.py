"""Divided nodes compute what whole ones do: every axis, odd sizes, halos, groups, chains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coexec.base.errors import ModelError
from coexec.core.plan import Plan, Split
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from coexec.ops.node import call_of, type_of
from coexec.ops.split import CannotSplit, Way, share_call
from coexec.ops.split_rules import way
from coexec.passes.split_operator import split_operators
from tests.graphs import evaluate, parse
from tests.placement.test_first_that_can import MadeUp

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def network(text: str, data: int = 1) -> ir.Model:
    """A static model; inputs behind the first ``data`` are random weights."""
    model = load(parse(text))
    rng = np.random.default_rng(0)
    for value in list(model.graph.inputs)[data:]:
        assert value.shape is not None
        array = rng.standard_normal(value.shape.numpy()).astype(np.float32)
        value.const_value = ir.tensor(np.abs(array) + 0.5, name=value.name)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    static = specialise(model)
    for index, node in enumerate(static.graph):
        node.name = f"{node.op_type}{index}"
    return static


def divided(
    model: ir.Model, splits: Mapping[str, Split], *processors: MadeUp
) -> tuple[ir.Model, Plan]:
    """The model after division, checked against the model itself on random data."""
    rng = np.random.default_rng(1)
    feeds = {
        str(value.name): rng.standard_normal(type_of(value).shape).astype(np.float32)
        for value in model.graph.inputs
    }
    feeds |= {name: np.abs(feeds[name]) for name in feeds if name == "variance"}
    expected = evaluate(model, feeds)
    result = model.clone()
    plan = Plan({str(node.name): "a" for node in model.graph}, splits=splits)
    plan = split_operators(result.graph, plan, {each.name: each for each in processors})
    assert plan.splits == {}
    assert list(plan.processors) == [node.name for node in result.graph]
    found = evaluate(result, feeds)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
    return result, plan


def shares(total: int, *sizes: int) -> dict[str, int]:
    """Elements by processor: ``sizes``, and the rest."""
    return dict(zip("abc", (*sizes, total - sum(sizes)), strict=False))


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@dataclass(frozen=True)
class Windows:
    """A convolution or pooling along rows, of any geometry."""

    operator: str
    rows: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    auto_pad: str
    group: int
    ceil: int
    include: int

    @property
    def text(self) -> str:
        attributes = [
            f"kernel_shape = [{self.kernel}, 2]",
            f"strides = [{self.stride}, 2]",
        ]
        if self.auto_pad == "NOTSET":
            attributes.append(f"pads = [{self.begin}, 0, {self.end}, 1]")
            if self.operator != "Conv":
                attributes.append(f"ceil_mode = {self.ceil}")
        else:
            attributes.append(f'auto_pad = "{self.auto_pad}"')
        attributes.append(f"dilations = [{self.dilation}, 1]")
        operands, weights = "x", ""
        if self.operator == "Conv":
            attributes.append(f"group = {self.group}")
            operands, weights = (
                "x, w, b",
                f", float[6,{4 // self.group},{self.kernel},2] w, float[6] b",
            )
        if self.operator == "AveragePool":
            attributes.append(f"count_include_pad = {self.include}")
        node = f"{self.operator}<{', '.join(attributes)}>({operands})"
        return f"g (float[3,4,{self.rows},5] x{weights}) => (float y) {{ y = {node} }}"


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    """Geometries whose padding is smaller than their kernel."""
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    reach = (kernel - 1) * dilation + 1
    pads = st.integers(0, min(reach, kernel) - 1)
    return Windows(
        operator=draw(st.sampled_from(["Conv", "MaxPool", "AveragePool"])),
        rows=draw(st.integers(reach, 11)),
        kernel=kernel,
        stride=draw(st.integers(1, 3)),
        dilation=dilation,
        begin=draw(pads),
        end=draw(pads),
        auto_pad=draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])),
        group=draw(st.sampled_from([1, 2])),
        ceil=draw(st.integers(0, 1)),
        include=draw(st.integers(0, 1)),
    )


def _way(node: ir.Node, axis: int) -> Way | None:
    try:
        return way(call_of(node), axis)
    except CannotSplit as error:
        reason = str(error)
    expected = ("one unit", "outside its input", "counts padding")
    assert any(text in reason for text in expected)
    return None


@PROPERTY
@given(windows(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_windows_divide_along_every_axis(geometry: Windows, axis: int, random: object) -> None:
    model = network(geometry.text)
    (node,) = model.graph
    how = _way(node, axis)
    if how is None:
        return
    cut = random.randint(1, how.count - 1)  # type: ignore[attr-defined]
    sizes = [cut * how.quantum]
    if how.count - cut > 1:
        sizes.append(how.quantum)
    total = how.count * how.quantum
    result, _ = divided(model, {str(node.name): Split(axis, shares(total, *sizes))})
    assert kinds(result)[geometry.operator] == len(sizes) + 1
    # What a share is costed as is what it becomes.
    for made, (_, start, stop) in zip(
        (n for n in result.graph if n.op_type == geometry.operator),
        Split(axis, shares(total, *sizes)).shares,
        strict=True,
    ):
        costed = share_call(call_of(node), how, *how.units(start, stop))
        assert (costed.inputs, costed.outputs) == (call_of(made).inputs, call_of(made).outputs)


OPERATORS = {
    "Gemm": ("float[5,7] x, float[7,6] w, float[6] c", "Gemm<alpha = 2.0, beta = 0.5>(x, w, c)"),
    "Gemm transposed": ("float[7,5] x, float[6,7] w", "Gemm<transA = 1, transB = 1>(x, w)"),
    "Gemm with rows": ("float[5,7] x, float[7,6] w, float[5,1] c", "Gemm(x, w, c)"),
    "MatMul": ("float[2,5,7] x, float[7,6] w", "MatMul(x, w)"),
    "MatMul of batches": ("float[1,3,5,7] x, float[2,1,7,6] w", "MatMul(x, w)"),
    "MatMul of vectors": ("float[7] x, float[3,7,6] w", "MatMul(x, w)"),
    "Add": ("float[3,4,5] x, float[4,1] w", "Add(x, w)"),
    "Where": ("float[3,4] x, float[3,1] w", "Where(c, x, w)"),
    "Softmax": ("float[3,4,5] x", "Softmax<axis = 1>(x)"),
    "Normalised": (
        "float[3,4,5] x, float[4] s, float[4] b, float[4] m, float[4] variance",
        "BatchNormalization(x, s, b, m, variance)",
    ),
    "LayerNormalization": ("float[3,4,5] x, float[5] s", "LayerNormalization(x, s)"),
    "InstanceNormalization": (
        "float[3,4,5] x, float[4] s, float[4] b",
        "InstanceNormalization(x, s, b)",
    ),
    "Depthwise": ("float[2,4,5] x, float[8,1,3] w", "Conv<group = 4>(x, w)"),
    "Pooled": ("float[3,4,5] x", "GlobalAveragePool(x)"),
    "LRN": ("float[3,4,5,2] x", "LRN<size = 3>(x)"),
    "Concat": ("float[3,4] x, float[3,2] w", "Concat<axis = 1>(x, w)"),
    "Transpose": ("float[3,4,5] x", "Transpose<perm = [2, 0, 1]>(x)"),
    "Flatten": ("float[3,4,5] x", "Flatten(x)"),
    "Flatten of channels": ("float[1,4,5] x", "Flatten(x)"),
    "Reshape into heads": ("float[2,5,6] x", "Reshape(x, heads)"),
    "Reshape of heads": ("float[2,5,3,2] x", "Reshape(x, flat)"),
}
SHAPES = {"heads": "{0, 5, 3, 2}", "flat": "{2, 5, -1}"}
"""Constants of the expressions above."""


@pytest.mark.parametrize("case", OPERATORS)
@pytest.mark.parametrize("data", [1, 9], ids=["weights", "inputs"])
def test_operators_divide_along_every_axis_they_do_not_mix(case: str, data: int) -> None:
    operands, expression = OPERATORS[case]
    condition = "c = Less(x, w)" if "c, x" in expression else ""
    shapes = "".join(
        f"{name} = Constant<value = int64[{text.count(',') + 1}] {text}>() "
        for name, text in SHAPES.items()
        if name in expression
    )
    model = network(f"g ({operands}) => (float y) {{ {condition}{shapes} y = {expression} }}", data)
    node = list(model.graph)[-1]
    count = 0
    for axis, size in enumerate(call_of(node).output(0).shape):
        try:
            how = way(call_of(node), axis)
        except CannotSplit:
            continue
        result, _ = divided(model, {str(node.name): Split(axis, shares(size, how.quantum))})
        count += 1
        if data == 1 and case in ("Gemm", "MatMul", "Depthwise") and axis:
            made = [n for n in result.graph if n.op_type == node.op_type]
            assert all(v is not None and v.is_initializer() for n in made for v in n.inputs[1:2])
    assert count


@pytest.mark.parametrize("scale", ["float w", "float[4] w"], ids=["one scale", "channels"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_conversions_divide_with_their_scales(scale: str, axis: int) -> None:
    model = network(
        f"g (float[3,4,5] x, {scale}) => (float[3,4,5] y)"
        " { q = QuantizeLinear(x, w) y = DequantizeLinear(q, w) }"
    )
    sizes = shares((3, 4, 5)[axis], 1)
    result, _ = divided(model, {str(node.name): Split(axis, sizes) for node in model.graph})
    assert kinds(result) == {"Slice": 2, "QuantizeLinear": 2, "DequantizeLinear": 2, "Concat": 1}


def test_who_reads_a_dequantised_value_dequantises_what_it_reads() -> None:
    """So that integers are cut, moved and joined."""
    model = network(
        "g (float[1,4,9,9] x, float[4,4,3,3] v, float[4,4,3,3] u, float s) => (float[1,4,9,9] y)"
        " { a = Conv<pads = [1, 1, 1, 1]>(x, v) q = QuantizeLinear(a, s)"
        " d = DequantizeLinear(q, s) b = Conv<pads = [1, 1, 1, 1]>(d, u) y = Add(b, d) }"
    )
    rows = Split(2, shares(9, 4))
    divides = ("Conv", "QuantizeLinear", "Add")
    splits = {str(node.name): rows for node in model.graph if node.op_type in divides}
    result, plan = divided(model, splits)
    assert kinds(result)["DequantizeLinear"] == 4
    moved = {
        type_of(value).dtype.name
        for node in result.graph
        for value in node.inputs
        if value is not None and (maker := value.producer()) is not None
        if plan.processors[str(maker.name)] != plan.processors[str(node.name)]
        if node.outputs[0] not in result.graph.outputs
    }
    assert moved == {"uint8"}


def test_a_chain_along_rows_exchanges_only_halos() -> None:
    model = network(
        "g (float[1,2,9,4] x, float[3,2,3,3] v, float[2,3,3,3] w) => (float[1,2,9,4] y) {"
        " a = Conv<pads = [1, 1, 1, 1]>(x, v) b = Relu(a) y = Conv<pads = [1, 1, 1, 1]>(b, w) }"
    )
    split = Split(2, {"a": 5, "b": 4})
    result, plan = divided(model, dict.fromkeys(("Conv0", "Relu1", "Conv2"), split))
    # Relu reads what its convolution made; each second convolution gets one row of the other's.
    assert kinds(result) == {"Conv": 4, "Relu": 2, "Slice": 4, "Concat": 3}
    halos = [
        n for n in result.graph if n.op_type == "Slice" and n.inputs[0] not in result.graph.inputs
    ]
    assert [type_of(n.outputs[0]).shape for n in halos] == [(1, 3, 1, 4)] * 2
    # A halo is cut where it was made, and joined where it is read.
    assert sorted(plan.processors[str(n.name)] for n in halos) == ["a", "b"]


def test_shares_that_overlap_exchange_nothing() -> None:
    model = network(
        "g (float[1,2,9,4] x, float[3,2,3,3] v, float[2,3,3,3] w) => (float[1,2,9,4] y) {"
        " a = Conv<pads = [1, 1, 1, 1]>(x, v) b = Relu(a) y = Conv<pads = [1, 1, 1, 1]>(b, w) }"
    )
    sizes = {"a": 5, "b": 4}
    splits = dict.fromkeys(("Conv0", "Relu1"), Split(2, sizes, overlap=(1, 1)))
    result, _ = divided(model, {**splits, "Conv2": Split(2, sizes)})
    # Only the input is cut, and only the result is joined.
    assert kinds(result) == {"Conv": 4, "Relu": 2, "Slice": 2, "Concat": 1}


def test_a_share_before_a_stride_has_what_is_read_and_is_not_cut() -> None:
    model = network(
        "g (float[1,2,8,4] x, float[3,2,3,3] v, float[2,3,3,3] w) => (float[1,2,4,2] y) {"
        " a = Conv<pads = [1, 1, 1, 1]>(x, v)"
        " y = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(a, w) }"
    )
    splits = {
        "Conv0": Split(2, {"a": 4, "b": 4}, overlap=(1, 0)),
        "Conv1": Split(2, {"a": 2, "b": 2}),
    }
    result, _ = divided(model, splits)
    rows = [type_of(n.outputs[0]).shape[2] for n in result.graph if n.op_type == "Conv"]
    assert rows == [4, 5, 2, 2]
    # Only the input is cut, and only the result is joined.
    assert kinds(result) == {"Conv": 4, "Slice": 2, "Concat": 1}


OVERLAPS = st.tuples(st.integers(0, 9), st.integers(0, 9))


@PROPERTY
@given(st.lists(OVERLAPS, min_size=4, max_size=4), st.integers(1, 4), st.integers(1, 4))
def test_shares_may_overlap_by_anything(
    overlaps: list[tuple[int, int]], one: int, two: int
) -> None:
    """Too little for what follows, too much, over whole neighbours; read in parts and whole."""
    model = network(
        "g (float[1,2,9,4] x, float[3,2,3,3] v, float[2,3,3,3] w) => (float[1,3,9,4] b, float y) {"
        " a = Conv<pads = [1, 1, 1, 1]>(x, v) b = Relu(a)"
        " c = Conv<pads = [1, 1, 1, 1]>(b, w) y = GlobalMaxPool(c) }"
    )
    sizes = shares(9, one, two)
    names = ["Conv0", "Relu1", "Conv2"]
    splits = {n: Split(2, sizes, more) for n, more in zip(names, overlaps, strict=False)}
    divided(model, {**splits, "GlobalMaxPool3": Split(1, {"b": 1, "a": 1}, overlaps[3])})


def test_a_chain_of_channels_and_elements_needs_no_node_in_between() -> None:
    model = network(
        "g (float[2,4,5] x, float[8,1,3] v, float[8] s) => (float[2,8,1] y) {"
        " a = Conv<group = 4>(x, v) b = Mul(a, a) y = GlobalAveragePool(b) }"
    )
    split = Split(1, {"a": 2, "b": 6})
    result, _ = divided(model, dict.fromkeys((str(n.name) for n in model.graph), split))
    assert kinds(result) == {"Slice": 2, "Conv": 2, "Mul": 2, "GlobalAveragePool": 2, "Concat": 1}


ATTENTION = """
g (float[1,7,12] x, float[12,36] v, float[12,12] w) => (float[1,7,12] y) {
  heads = Constant<value = int64[4] {0, 7, 3, 4}>()
  flat = Constant<value = int64[3] {0, 7, 12}>()
  a = MatMul(x, v)
  p, r, s = Split<axis = -1, num_outputs = 3>(a)
  q3 = Reshape(p, heads)
  q = Transpose<perm = [0, 2, 1, 3]>(q3)
  k3 = Reshape(r, heads)
  k = Transpose<perm = [0, 2, 3, 1]>(k3)
  v3 = Reshape(s, heads)
  u = Transpose<perm = [0, 2, 1, 3]>(v3)
  m = MatMul(q, k)
  n = Softmax<axis = -1>(m)
  o = MatMul(n, u)
  t = Transpose<perm = [0, 2, 1, 3]>(o)
  f = Reshape(t, flat)
  h = MatMul(f, w)
  y = Add(x, h)
}
"""
"""Attention of three heads over seven tokens."""
TOKEN_AXES = (1, 1, 1, 2, 1, 3, 1, 2, 2, 2, 2, 1, 1, 1, 1)
"""The axis of the tokens in the result of each of its nodes."""
HEAD_AXES = {2: 2, 3: 1, 4: 2, 5: 1, 6: 2, 7: 1, 8: 1, 9: 1, 10: 1, 11: 2, 12: 2}
"""The axis of the heads, by number of a node: of nodes that have one, in the order above."""


def test_attention_in_shares_of_tokens_exchanges_only_keys_and_values() -> None:
    model = network(ATTENTION)
    nodes = [str(node.name) for node in model.graph]
    split = {
        name: Split(axis, {"a": 4, "b": 3}) for name, axis in zip(nodes, TOKEN_AXES, strict=True)
    }
    result, plan = divided(model, split)
    # Cuts of the input (once), keys and values joined by each, the result.
    found = kinds(result)
    assert (found["Slice"], found["Concat"]) == (2, 2 * 2 + 1)
    moved = {
        str(value.name)
        for node in result.graph
        for value in node.inputs
        if value is not None
        and (maker := value.producer()) is not None
        and plan.processors[str(maker.name)] != plan.processors[str(node.name)]
    }
    assert len(moved) == 4 + 1


@PROPERTY
@given(st.data())
def test_attention_divides_in_any_mixture_of_tokens_and_heads(data: st.DataObject) -> None:
    model = network(ATTENTION)
    splits = {}
    for index, node in enumerate(model.graph):
        what = data.draw(st.sampled_from(["tokens", "heads", "whole"]))
        cut = data.draw(st.integers(1, 6 if what == "tokens" else 2))
        if what == "tokens":
            splits[str(node.name)] = Split(TOKEN_AXES[index], {"a": cut, "b": 7 - cut})
        elif what == "heads" and index in HEAD_AXES:
            size = type_of(node.outputs[0]).shape[HEAD_AXES[index]] // 3
            sizes = {"b": cut * size, "a": (3 - cut) * size}
            splits[str(node.name)] = Split(HEAD_AXES[index], sizes)
    divided(model, splits)


def test_results_that_nobody_wants_stay_out_of_shares() -> None:
    model = network(
        "g (float[4,6,5] x) => (float y, float z) { y, , z = Split<axis = 1, num_outputs = 3>(x) }"
    )
    result, _ = divided(model, {"Split0": Split(0, {"a": 1, "b": 3})})
    assert kinds(result)["Split"] == 2


def test_a_divided_value_that_is_an_output_too_keeps_its_name() -> None:
    model = network("g (float[4,3] x) => (float[4,3] h, float[4,3] y) { h = Neg(x) y = Exp(h) }")
    result, plan = divided(model, {"Neg0": Split(0, {"a": 3, "b": 1})})
    assert kinds(result)["Concat"] == 1
    assert set(plan.processors.values()) == {"a", "b"}


def test_shares_along_different_axes_meet_in_a_whole_value() -> None:
    model = network("g (float[4,3] x) => (float[4,3] y) { h = Neg(x) y = Exp(h) }")
    splits = {"Neg0": Split(0, {"a": 3, "b": 1}), "Exp1": Split(1, {"a": 1, "b": 2})}
    divided(model, splits)


def places(model: ir.Model, plan: Plan, operator: str) -> list[str]:
    """Where the nodes of an operator are, in their order."""
    return [plan.processors[str(n.name)] for n in model.graph if n.op_type == operator]


def test_a_processor_that_refuses_to_join_has_another_one_do_it() -> None:
    text = "g (float[4,3] x) => (float[4,3] y) { h = Neg(x) k = Softmax<axis = 0>(h) y = Exp(k) }"
    splits = {"Neg0": Split(0, {"a": 3, "b": 1}), "Exp2": Split(0, {"a": 3, "b": 1})}
    joining = MadeUp("b", "Slice", "Concat")
    result, plan = divided(network(text), splits, MadeUp("a", "Slice"), joining)
    assert places(result, plan, "Softmax") == ["a"]
    assert places(result, plan, "Concat") == ["b", "b"]
    result, plan = divided(network(text), splits, MadeUp("a", "Slice", "Concat"), joining)
    assert places(result, plan, "Concat") == ["a", "a"]


def test_readers_that_refuse_to_join_read_what_one_joined() -> None:
    text = (
        "g (float[4,3] x) => (float[4,3] y, float[4,3] z) "
        "{ h = Neg(x) y = Softmax<axis = 0>(h) z = LogSoftmax<axis = 0>(h) }"
    )
    splits = {"Neg0": Split(0, {"a": 2, "c": 2})}
    others = (MadeUp("a", "Slice"), MadeUp("b", "Concat"), MadeUp("c", "Slice"))
    result, plan = divided(network(text), splits, *others)
    assert places(result, plan, "Concat") == ["b"]


def test_a_processor_that_refuses_to_cut_has_another_one_do_it() -> None:
    text = "g (float[4,3] x) => (float[4,3] y) { h = Neg(x) y = Exp(h) }"
    splits = {"Exp1": Split(0, {"a": 3, "b": 1})}
    result, plan = divided(network(text), splits, MadeUp("a", "Concat"), MadeUp("b", "Slice"))
    assert places(result, plan, "Neg") == ["a"]
    assert places(result, plan, "Slice") == ["b", "b"]
    assert places(result, plan, "Concat") == ["a"]


BAD = {
    "mixes what lies along axis 1": ("Softmax(x)", "float[4,6] x", Split(1, {"a": 3, "b": 3})),
    "no multiples of 3": (
        "Conv<group = 2, kernel_shape = [1]>(x, w)",
        "float[1,4,5] x, float[6,2,1] w",
        Split(1, {"a": 2, "b": 4}),
    ),
    "overlap of 1 is no multiple of 3": (
        "Conv<group = 2, kernel_shape = [1]>(x, w)",
        "float[1,4,5] x, float[6,2,1] w",
        Split(1, {"a": 3, "b": 3}, overlap=(0, 1)),
    ),
    "shares end before 4": ("Neg(x)", "float[4,6] x", Split(0, {"a": 1, "b": 2})),
    "has no axis 2": ("Neg(x)", "float[4,6] x", Split(2, {"a": 1, "b": 2})),
    "no rule for shares": ("CumSum(x, i)", "float[4,6] x", Split(0, {"a": 1, "b": 3})),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_refusal_says_why(reason: str) -> None:
    expression, operands, split = BAD[reason]
    axis = "i = Constant<value_int = 0>()" if "i)" in expression else ""
    model = network(f"g ({operands}) => (float y) {{ {axis} y = {expression} }}")
    node = list(model.graph)[-1]
    plan = Plan({str(n.name): "a" for n in model.graph}, splits={str(node.name): split})
    with pytest.raises(ModelError, match=reason):
        split_operators(model.graph, plan)


def test_a_node_that_is_not_there_is_told() -> None:
    model = network("g (float[4] x) => (float[4] y) { y = Neg(x) }")
    with pytest.raises(ModelError, match="has not"):
        split_operators(model.graph, Plan({}, splits={"gone": Split(0, {"a": 4})}))
