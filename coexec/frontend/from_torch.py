"""PyTorch modules through ``torch.onnx.export``; PyTorch itself is the user's to install."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.base.errors import ModelError
from coexec.frontend.load import load
from coexec.frontend.parameters import tell_by_names

INSTALL = "pip install torch onnxscript"


def from_torch(
    module: Any,
    example_inputs: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = False,
) -> ir.Model:
    """The model of a ``torch.nn.Module``, exported on ``example_inputs`` and loaded.

    ``example_inputs`` is a tensor or a tuple of tensors: the module's positional arguments.
    ``dynamic_batch`` leaves the first dimension of every input open (named "batch"); the example
    should then have a batch of at least 2, because PyTorch specialises on 1. To train the result,
    export after ``module.train()``: in evaluation mode PyTorch leaves dropout out of the graph.
    Parameters keep their PyTorch names (``0.weight``) and are copied. What is trained are those
    that require gradients, scalars too; other parameters, buffers and tensors are constants.

    ``ModelError`` if PyTorch is not installed or cannot export the module; as :func:`load` else.
    """
    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    names = list(input_names or [f"x{i}" if i else "x" for i in range(len(arguments))])
    if len(names) != len(arguments):
        raise ModelError(f"{len(names)} input names for {len(arguments)} example inputs")
    dynamic = tuple({0: "batch"} for _ in arguments) if dynamic_batch else None
    program = _export(
        module,
        arguments,
        input_names=names,
        output_names=None if output_names is None else list(output_names),
        dynamic_shapes=dynamic,
    )
    model: ir.Model = program.model.clone()
    for value in model.graph.initializers.values():
        _own(value)
    loaded = load(model)
    every = module.named_parameters(remove_duplicate=False)
    tell_by_names(loaded.graph, {name for name, each in every if each.requires_grad})
    return loaded


def _export(module: Any, arguments: tuple[Any, ...], **options: Any) -> Any:
    """PyTorch's own exporter, without its optimiser, which would fold BatchNormalization away."""
    try:
        torch = importlib.import_module("torch")  # heavy and optional: only here
    except ImportError as error:
        raise ModelError(f"from_torch needs PyTorch: {INSTALL}") from error
    try:
        return torch.onnx.export(
            module, arguments, dynamo=True, optimize=False, verbose=False, **options
        )
    except ImportError as error:
        raise ModelError(f"PyTorch's ONNX exporter lacks {error.name}: {INSTALL}") from error
    except Exception as error:  # the exporter raises its own and torch.export's many classes
        cause = error.__cause__ or error  # the outer one says at which of its steps it failed
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise ModelError(f"PyTorch cannot export the module to ONNX: {reason}") from error


def _own(value: ir.Value) -> None:
    """Copy a weight: the exporter's tensor shares memory with the module's parameter."""
    if value.const_value is not None:
        array = np.array(value.const_value.numpy())
        value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=value.name)
