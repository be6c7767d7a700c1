"""Which operators NPUs run: lists shared by chips, refusals that name operator and list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from coexec.base.errors import UsageError
from coexec.core.npu_operators import npu_operators
from coexec.core.soc_file import find_soc, read_soc, soc_names
from coexec.core.types import OpCall, TensorType
from coexec.cost.soc.predict import supports

FILE = Path(__file__).parents[2] / "coexec" / "machines" / "snapdragon-865.toml"
NPUS = {soc.name: soc.npu for soc in map(find_soc, soc_names()) if soc.npu is not None}


def call(op_type: str, *shapes: tuple[int, ...], constant: int | None = None) -> OpCall:
    kinds = tuple(TensorType(shape, np.dtype("float32")) for shape in shapes)
    known = {} if constant is None else {constant: np.zeros(shapes[constant], np.float32)}
    return OpCall(op_type, kinds, {}, (kinds[0],), known, version=21)


def reason(chip: str, asked: OpCall, precision: str = "int8") -> str:
    return supports(find_soc(chip), "npu", asked, precision).reason


def test_every_list_is_of_operators_of_onnx_and_some_chip_has_it() -> None:
    assert set(npu_operators()) == {npu.operators.name for npu in NPUS.values()}
    for each in npu_operators().values():
        assert each.source is not None
        assert each.source.text
        listed = each.runs.union(each.constant_operand, *each.lacks.values())
        assert all(onnx.defs.has(name) for name in listed)
        assert each.constant_operand | each.over_three_axes <= each.runs
        for lacking in each.lacks.values():
            assert lacking < each.runs


def test_lists_differ_by_vendor_and_are_of_types_that_a_chip_has() -> None:
    rules = [replace(each, name="", source=None) for each in npu_operators().values()]
    assert all(rule not in rules[:place] for place, rule in enumerate(rules))
    for name, npu in NPUS.items():
        assert {"Conv", "Relu", "Softmax", "Concat"} <= npu.operators.runs, name
        assert "NonMaxSuppression" not in npu.operators.runs, name
    assert set(NPUS["tensor-g2"].gops) == {"int8"}
    assert set(NPUS["apple-a12"].gops) == {"float16"}


def test_a_refusal_names_the_operator_and_the_list() -> None:
    image = call("Conv", (1, 8, 16, 16), (8, 8, 3, 3), constant=1)
    assert supports(find_soc("snapdragon-865"), "npu", image, "int8").yes
    gelu = reason("snapdragon-865", call("Gelu", (1, 64)))
    assert gelu == "Hexagon 698 has no Gelu (list hexagon-nn, assumed)"
    clip = reason("kirin-990", call("Conv", (1, 8, 8, 16, 16), (8, 8, 3, 3, 3), constant=1))
    assert clip == "Da Vinci D110 Lite has no Conv over 3 axes (list hiai, assumed)"


def test_a_product_of_two_results_is_refused_where_weights_are_built_in() -> None:
    products = call("MatMul", (4, 8, 8), (4, 8, 8)), call("MatMul", (4, 8), (8, 8), constant=1)
    refused, taken = (reason("tensor-g2", each) for each in products)
    assert "wants a constant as second operand of MatMul (list edge-tpu" in refused
    assert not taken
    assert not reason("dimensity-9300", products[0])


def test_gradients_are_in_no_vendors_list_and_taken_to_run() -> None:
    gradient = replace(call("ReluGrad", (4, 8), (4, 8)), domain="coexec")
    assert not reason("snapdragon-865", gradient)


def test_an_npu_can_be_left_without_operators() -> None:
    whole = NPUS["kirin-990"].operators
    less = whole.less(["Softmax"])
    assert not whole.refusal(call("Softmax", (4, 8)), "int8")
    assert less.refusal(call("Softmax", (4, 8)), "int8") == "has no Softmax (list hiai, assumed)"


def test_a_file_may_have_a_list_of_its_own_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    path, text = tmp_path / "mine.toml", FILE.read_text(encoding="utf-8")
    path.write_text(text.replace('operators = "hexagon-nn"', 'operators = ["Conv"]'))
    own = read_soc(path)
    assert own.npu is not None
    refused = own.npu.operators.refusal(call("Relu", (4, 8)), "int8")
    assert refused == "has no Relu (list its own)"
    path.write_text(text.replace('operators = "hexagon-nn"', 'operators = "magic"'))
    with pytest.raises(UsageError, match=r"npu\.operators is 'magic'; known: .*edge-tpu"):
        read_soc(path)
