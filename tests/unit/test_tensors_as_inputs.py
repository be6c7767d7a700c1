"""Tensors of other libraries as inputs of a session."""

from __future__ import annotations

import pytest
from onnx import parser

import coexec
from coexec.base.errors import DataError

MODEL = '<ir_version: 9, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }'


@pytest.mark.parametrize("kind", [RuntimeError, TypeError])
def test_tensors_that_do_not_become_arrays_are_named(kind: type[Exception]) -> None:
    """PyTorch's say so where they require a gradient or lie on another device."""

    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> None:
            raise kind("use tensor.detach()")

    session = coexec.compile(coexec.load(parser.parse_model(MODEL)), ["reference"])
    with pytest.raises(DataError, match=r"input 'x' is no array: use tensor\.detach"):
        session.run({"x": Tensor()})  # type: ignore[dict-item]
