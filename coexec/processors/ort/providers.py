"""ONNX Runtime's execution providers by coexec's names, and how each is attached to a session."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import onnxruntime as ort

from coexec.base.cpu import cpu_name
from coexec.base.errors import ProcessorError

MEASURED_SIDE = 768
"""Side of the matrices whose product is timed: large enough for a CPU or NPU to reach its best."""
SIMULATED_SIDE = 64
"""A simulator of an NPU takes tens of milliseconds for this."""

Options = dict[str, str]


@dataclass(frozen=True)
class Plugin:
    """A provider in a package of its own, which ONNX Runtime loads when it is told to.

    ``options`` are those of its session, from the package; ``install`` is the package's name.
    """

    module: str
    install: str
    options: Callable[[ModuleType], Options]


@dataclass(frozen=True)
class Provider:
    """An execution provider: ``engine`` is ONNX Runtime's name for it, or ours for a plug-in.

    ``kind`` is what computes ("": its first device tells); ``simulated`` that this host's CPU plays
    it.
    """

    name: str
    engine: str
    kind: str
    device: str
    plugin: Plugin | None = None
    simulated: bool = False

    @property
    def measured_side(self) -> int:
        """Side of the matrices for :mod:`measure`."""
        return SIMULATED_SIDE if self.simulated else MEASURED_SIDE

    def absent(self) -> str:
        """Why it cannot be used here, and what to do; empty if it can."""
        if self.plugin is not None:
            return _missing_plugin(self.plugin, self.engine)
        if self.engine in ort.get_available_providers():
            return ""
        return f"this build of ONNX Runtime {ort.__version__} has no {self.engine}"

    def unit_kind(self) -> str:
        """``cpu``, ``gpu`` or ``npu``."""
        if self.kind or self.plugin is None:
            return self.kind
        return str(_devices(self.plugin, self.engine)[0].device.type.name).lower()

    def version(self) -> str:
        """Versions of ONNX Runtime and of a plug-in."""
        text = f"ONNX Runtime {ort.__version__}"
        if self.plugin is None:
            return text
        return f"{text}, {self.plugin.install} {importlib.metadata.version(self.plugin.install)}"

    def session(self, text: bytes, options: Any) -> Any:
        """A session in which this provider executes every node, or none.

        Raises:
            Exception: ONNX Runtime's own, of a class per status (see :mod:`failures`).
        """
        if self.engine == CPU:
            return ort.InferenceSession(text, options, providers=[CPU])
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if self.plugin is None:
            return ort.InferenceSession(text, options, providers=[self.engine])
        device = _devices(self.plugin, self.engine)[0]
        chosen = self.plugin.options(importlib.import_module(self.plugin.module))
        options.add_provider_for_devices([device], chosen)
        return ort.InferenceSession(text, options)


CPU = "CPUExecutionProvider"


def _qnn_options(package: ModuleType) -> Options:
    return {"backend_path": str(package.get_qnn_htp_path())}


def _no_options(_package: ModuleType) -> Options:
    return {}


QNN_SIMULATED = platform.machine() in ("x86_64", "AMD64") and sys.platform == "linux"
"""The wheel for Linux on x86-64 holds a simulator of the Hexagon NPU."""

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider("ort:cpu", CPU, "cpu", cpu_name()),
        Provider(
            "ort:qnn",
            "coexec.qnn",
            "npu",
            "Hexagon NPU (simulated)" if QNN_SIMULATED else "Hexagon NPU",
            Plugin("onnxruntime_qnn", "onnxruntime-qnn", _qnn_options),
            simulated=QNN_SIMULATED,
        ),
        Provider(
            "ort:openvino",
            "coexec.openvino",
            "",
            "OpenVINO",
            Plugin("onnxruntime_ep_openvino", "onnxruntime-ep-openvino", _no_options),
        ),
        Provider("ort:coreml", "CoreMLExecutionProvider", "npu", "Core ML"),
        Provider("ort:nnapi", "NnapiExecutionProvider", "npu", "Android NNAPI"),
    )
}


def _missing_plugin(plugin: Plugin, engine: str) -> str:
    if importlib.util.find_spec(plugin.module) is None:
        return f"not installed: pip install {plugin.install}"
    try:
        found = _devices(plugin, engine)
    except ProcessorError as error:
        return str(error)
    return "" if found else f"{plugin.install} finds no device that it can use"


@functools.cache
def _devices(plugin: Plugin, engine: str) -> list[Any]:
    """The devices of a plug-in, which is loaded into ONNX Runtime on the first call."""
    package = importlib.import_module(plugin.module)
    # Some plug-ins name their devices after the name given here, others do not.
    before = {device.ep_name for device in ort.get_ep_devices()}
    try:
        ort.register_execution_provider_library(engine, str(package.get_library_path()))
    except Exception as error:  # pybind classes without a common base but Exception
        raise ProcessorError(f"{plugin.install} does not load: {error}") from error
    return [device for device in ort.get_ep_devices() if device.ep_name not in before]
