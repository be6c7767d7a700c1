"""The running half alone, for saved programs: neither compiler nor operators nor ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coexec.core.processor import Executable, Runner
from coexec.core.types import Array
from coexec.processors.opencl.device import OpenCLDevice
from coexec.processors.opencl.executable import executable_from_json
from coexec.processors.opencl.options import parse_options
from coexec.processors.opencl.sub_devices import choose_part


def open_runner(name: str, options: Mapping[str, str]) -> Runner:
    """The device a spec means, or the part of it that its options say.

    Raises:
        ProcessorError: no such device or option, or it has no such part.
    """
    parsed = parse_options(name, options)
    chosen, device = choose_part(name, parsed.cores, parsed.first)
    return OpenCLDevice(f"{chosen}{parsed}", device, parsed)


def load_executable(
    record: Mapping[str, Any], arrays: Mapping[str, Array], processor: str
) -> Executable:
    """An executable from a bundle."""
    return executable_from_json(record, arrays, processor)
