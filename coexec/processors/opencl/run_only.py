"""The running half alone, for saved programs: neither compiler nor operators nor ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coexec.core.processor import Executable, Runner
from coexec.core.types import Array
from coexec.processors.opencl.device import OpenCLDevice
from coexec.processors.opencl.discover import choose_device
from coexec.processors.opencl.executable import executable_from_json


def open_runner(name: str) -> Runner:
    """The device a spec means."""
    return OpenCLDevice(*choose_device(name))


def load_executable(
    record: Mapping[str, Any], arrays: Mapping[str, Array], processor: str
) -> Executable:
    """An executable from a bundle."""
    return executable_from_json(record, arrays, processor)
