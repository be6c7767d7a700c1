"""Models nobody here wrote: ONNX's nine light networks, its node cases, PyTorch exports."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.loader import load_model_tests

from coexec.autodiff.selection import select
from coexec.base.errors import ModelError, ShapeError, UnsupportedOperators
from coexec.frontend import from_torch, is_parameter, load, specialise
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
    (output,) = model.graph.outputs
    assert output.shape is not None
    assert output.shape.numpy() in ((1, 1000), (1, 1000, 1, 1))
    assert "ConstantOfShape" not in {node.op_type for node in model.graph}
    weights = [v for v in model.graph.initializers.values() if is_parameter(v)]
    assert sum(np.prod(v.shape.numpy()) for v in weights if v.shape is not None) > 1e6


def _node_cases() -> dict[str, onnx.ModelProto]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return {case.name: case.model for case in cases if case.model is not None}


def test_every_node_case_loads_or_says_why() -> None:
    """All of ONNX's node cases: loaded, or refused for a reason of a known kind."""
    refused: dict[str, str] = {}
    loaded = 0
    for name, model in _node_cases().items():
        try:
            load(model)
            loaded += 1
        except UnsupportedOperators:
            continue
        except (ModelError, ShapeError) as error:
            refused[name] = str(error)
    assert loaded > 1500
    allowed = ("coexec computes on tensors", "these operators changed until then: Scan")
    assert not [name for name, why in refused.items() if not any(a in why for a in allowed)]
    assert len(refused) < 10


# PyTorch


def test_from_torch_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match="from_torch needs PyTorch: pip install torch"):
        from_torch(object(), np.zeros(1))


def _network(torch: Any) -> Any:
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(64, 3),
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_module_computes_the_same(dynamic: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the user's to install")
    module = _network(torch).eval()
    x = torch.randn(2, 1, 8, 8)
    model = from_torch(module, (x,), input_names=["image"], dynamic_batch=dynamic)
    weights = {name for name, v in model.graph.initializers.items() if is_parameter(v)}
    assert weights == {name for name, p in module.state_dict().items() if p.is_floating_point()}
    x = torch.randn(5 if dynamic else 2, 1, 8, 8)
    static = specialise(model, {"image": tuple(x.shape)})
    (result,) = evaluate(static, {"image": x.numpy()}).values()
    np.testing.assert_allclose(result, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_torch_weights_are_copies() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the user's to install")
    module = torch.nn.Linear(3, 2).eval()
    model = from_torch(module, torch.ones(2, 3))
    before = module.bias.detach().numpy().copy()
    with torch.no_grad():
        module.bias.add_(1.0)
    bias = model.graph.initializers["bias"].const_value
    assert bias is not None
    np.testing.assert_array_equal(bias.numpy(), before)


def test_torch_module_in_training_mode_keeps_what_training_needs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the user's to install")
    model = from_torch(_network(torch).train(), torch.randn(2, 1, 8, 8))
    assert {"BatchNormalization", "Dropout"} <= {node.op_type for node in model.graph}


def test_what_torch_trains_is_trained() -> None:
    """Scalars too; no buffers, no tensors within the module, nothing that needs no gradient."""
    torch = pytest.importorskip("torch", reason="PyTorch is the user's to install")

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)
            self.frozen = torch.nn.Parameter(torch.ones(4), requires_grad=False)
            self.temperature = torch.nn.Parameter(torch.tensor(2.0))
            self.register_buffer("offset", torch.ones(4))

        def forward(self, x: Any) -> Any:
            weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
            return self.norm(x) * weights * self.frozen * self.temperature + self.offset

    model = from_torch(Net().train(), torch.randn(3, 4))
    assert [each.name for each in select(model, ())] == ["temperature", "norm.weight", "norm.bias"]


def test_torch_module_that_cannot_be_exported() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the user's to install")

    class Branching(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="PyTorch cannot export the module to ONNX"):
        from_torch(Branching(), torch.ones(2))


def test_the_reason_is_told_for_which_a_module_cannot_be_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch's exporter raises an error of its own, with advice, from the one that says it."""

    def export(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("Failed to decompose. Next steps:") from ValueError("Cannot view\nat")

    onnx_module = types.SimpleNamespace(export=export)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(onnx=onnx_module))
    with pytest.raises(ModelError, match=r"to ONNX: Cannot view$"):
        from_torch(object(), (np.ones(2),))
