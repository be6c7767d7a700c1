"""Models nobody here wrote: ONNX's nine light networks, its node cases, PyTorch exports."""

from __future__ import annotations

import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from coexec.base.errors import ModelError, ShapeError, UnsupportedOperators
from coexec.frontend import ValuesNeeded, from_torch, is_parameter, load, specialise
from coexec.ops.node import known_type
from tests.graphs import evaluate

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def test_there_are_nine_light_models() -> None:
    assert len(LIGHT) == 9


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_model_loads_static_and_valid(path: Path) -> None:
    model = load(path)
    outputs = [value for node in model.graph for value in node.outputs if value.name]
    assert all(known_type(value) is not None for value in outputs)
    assert [value.shape for value in model.graph.outputs] == [ir.Shape((1, 1000))] or [
        value.shape for value in model.graph.outputs
    ] == [ir.Shape((1, 1000, 1, 1))]
    assert "ConstantOfShape" not in {node.op_type for node in model.graph}
    weights = [v for v in model.graph.initializers.values() if is_parameter(v)]
    assert sum(np.prod(v.shape.numpy()) for v in weights if v.shape is not None) > 1e6
    onnx.checker.check_model(ir.to_proto(model))


@cache
def _node_cases() -> list[TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in load_model_tests(kind="node") if case.model is not None]


def test_every_node_case_loads_or_says_why() -> None:
    """All of ONNX's node cases: loaded, or refused for a reason of a known kind."""
    refused: dict[str, str] = {}
    loaded = 0
    for case in _node_cases():
        try:
            load(case.model)
            loaded += 1
        except UnsupportedOperators:
            continue
        except (ModelError, ShapeError) as error:
            refused[case.name] = str(error)
    assert loaded > 1500
    allowed = ("coexec computes on tensors", "these operators changed until then: Scan", "Mod")
    assert not [name for name, why in refused.items() if not any(a in why for a in allowed)]
    assert len(refused) < 10


# PyTorch


@pytest.fixture
def torch() -> object:
    return pytest.importorskip("torch", reason="PyTorch is the user's to install")


def test_from_torch_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="from_torch needs PyTorch: pip install torch"):
        from_torch(object(), np.zeros(1))
