"""From a file to a checked model in modern ONNX whose every operator coexec has.

The order of the stages is :func:`coexec.frontend.load.load`; each stage is a file.
"""

from coexec.frontend.bind import Shape
from coexec.frontend.from_torch import from_torch
from coexec.frontend.load import load
from coexec.frontend.read import ModelSource, read_model
from coexec.frontend.specialise import ValuesNeeded, specialise
from coexec.ops.node import CONSTANT_MARK, is_parameter

__all__ = [
    "CONSTANT_MARK",
    "ModelSource",
    "Shape",
    "ValuesNeeded",
    "from_torch",
    "is_parameter",
    "load",
    "read_model",
    "specialise",
]
