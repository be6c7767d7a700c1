"""GroupQueryAttention of ONNX Runtime is read as ONNX's Attention over a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from coexec.base.errors import UnsupportedOperators
from coexec.core.types import Array
from coexec.frontend import load
from coexec.frontend.specialise import specialise
from tests.graphs import evaluate, parse

SIZE = 32


@dataclass(frozen=True)
class Case:
    """``before`` rows of each sample are in a cache of ``room`` rows; ``rows`` are new.

    Where ``before`` is negative, so many of them are padding.
    """

    rows: int
    before: tuple[int, ...]
    room: int | None
    total: int
    attributes: str = ""
    heads: tuple[int, int] = (4, 2)
    packed: bool = False
    tables: int = 0
    operands: Mapping[int, str] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return len(self.before)

    @property
    def present(self) -> int:
        return max(self.total, self.room or 0)


CASES = {
    "prompt": Case(5, (0, 0), None, 5),
    "prompt into a cache without room": Case(5, (0, 0), 0, 5),
    "prompt into a cache with room": Case(5, (0, 0), 9, 5),
    "prompt, padding behind a sample": Case(5, (0, -2), 0, 5),
    "prompt, one head for all keys": Case(3, (0,), None, 3, heads=(4, 1)),
    "prompt, packed": Case(4, (0, 0), 0, 4, packed=True),
    "prompt, both ways": Case(5, (0, 0), None, 5, ", causal = 0"),
    "one more": Case(1, (4, 4), 4, 5),
    "one more, room": Case(1, (4, 4), 9, 5),
    "one more, samples of several lengths": Case(1, (3, 6), 6, 7),
    "one more, scaled and capped": Case(1, (4, 4), 4, 5, ", scale = 0.7, softcap = 3.0"),
    "some more": Case(3, (4,), 7, 7),
    "one more, window": Case(1, (6, 4), 8, 7, ", local_window_size = 3"),
    "prompt, window": Case(6, (0, 0), None, 6, ", local_window_size = 2"),
    "prompt, rotary": Case(5, (0, 0), 0, 5, ", do_rotary = 1", tables=SIZE),
    "one more, rotary": Case(1, (3, 6), 6, 7, ", do_rotary = 1", tables=SIZE, packed=True),
    "rotary in part, interleaved": Case(
        2, (4,), 6, 6, ", do_rotary = 1, rotary_interleaved = 1", tables=SIZE // 2
    ),
    "bias": Case(2, (4,), 9, 6, operands={10: "float[1,4,2,6] bias"}),
}


def text(case: Case) -> str:
    """The model of a case."""
    (heads, kv_heads), batch, rows = case.heads, case.batch, case.rows
    width = heads + 2 * kv_heads if case.packed else heads
    inputs, names = [f"float[{batch},{rows},{width * SIZE}] q"], ["q"]
    if not case.packed:
        inputs += [f"float[{batch},{rows},{kv_heads * SIZE}] {name}" for name in "kv"]
    names += [""] * 2 if case.packed else ["k", "v"]
    if case.room is not None:
        inputs += [f"float[{batch},{kv_heads},{case.room},{SIZE}] {name}" for name in ("pk", "pv")]
    names += [""] * 2 if case.room is None else ["pk", "pv"]
    inputs += [f"int32[{batch}] last", "int32 total"]
    names += ["last", "total"]
    inputs += [f"float[16,{case.tables // 2}] {name}" for name in ("cos", "sin") if case.tables]
    names += ["cos", "sin"] if case.tables else [""] * 2
    names += ["", case.operands.get(10, "").split(" ")[-1]]
    inputs += case.operands.values()
    present = f"float[{batch},{kv_heads},{case.present},{SIZE}]"
    heading = f"g ({', '.join(inputs)}) => (float[{batch},{rows},{heads * SIZE}] y, "
    called = "com.microsoft.GroupQueryAttention"
    node = f"{called}<num_heads = {heads}, kv_num_heads = {kv_heads}{case.attributes}>"
    return f"{heading}{present} nk, {present} nv) {{ y, nk, nv = {node}({', '.join(names)}) }}"


def model_of(case: Case) -> onnx.ModelProto:
    return parse(text(case), opset=21, domains='"com.microsoft": 1')


def feeds_of(case: Case, model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    known = {
        "last": np.array(case.before, np.int32) + case.rows - 1,
        "total": np.array(case.total, np.int32),
    }
    feeds = {}
    for info in model.graph.input:
        shape = tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        drawn = rng.normal(size=shape).astype(np.float32)
        feeds[info.name] = known.get(info.name, drawn)
    return feeds


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_onnx_runtime(name: str, rng: np.random.Generator) -> None:
    case = CASES[name]
    model = model_of(case)
    feeds = feeds_of(case, model, rng)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = dict(zip(("y", "nk", "nv"), session.run(None, feeds), strict=True))
    loaded = specialise(load(model), values=feeds)
    onnx.checker.check_model(ir.to_proto(loaded), full_check=True)
    assert not any(node.domain for node in loaded.graph)
    found = evaluate(loaded, feeds)
    for sample, before in enumerate(case.before):
        end = before + case.rows  # what lies behind is anything, and so are rows of padding
        rows = min(end, case.rows)
        np.testing.assert_allclose(
            found["y"][sample, :rows], expected["y"][sample, :rows], rtol=1e-4, atol=1e-5
        )
        for cache in ("nk", "nv"):
            np.testing.assert_allclose(
                found[cache][sample, :, :end], expected[cache][sample, :, :end], atol=1e-5
            )


@pytest.mark.parametrize(
    "attributes", [", smooth_softmax = 1", ", sliding_window_cache = 1, local_window_size = 2"]
)
def test_forms_that_are_not_covered_are_refused(attributes: str) -> None:
    with pytest.raises(UnsupportedOperators, match=r"com\.microsoft"):
        load(model_of(Case(1, (4,), 4, 5, attributes)))
