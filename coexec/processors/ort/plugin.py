"""ONNX Runtime's processors where it is installed, and how to get it where it is not."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Protocol, cast

from coexec.base.errors import ProcessorError
from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Processor
from coexec.core.types import Array

INSTALL = "pip install 'coexec[ort]'"


class Installed(Protocol):
    """What the module ``installed`` offers; it needs ONNX Runtime."""

    def candidates(self) -> list[Candidate]: ...

    def open_device(self, name: str, options: Mapping[str, str]) -> Processor: ...

    def measure(self, name: str, options: Mapping[str, str]) -> Rates: ...


class Quantiser(Protocol):
    """What the module ``quantise`` offers; it needs ONNX Runtime."""

    def quantise(self, model: bytes, batches: Sequence[Mapping[str, Array]]) -> bytes: ...

    def quantise_dynamically(self, model: bytes) -> bytes: ...


def candidates() -> list[Candidate]:
    """Providers that are here or could be."""
    try:
        return _installed().candidates()
    except ProcessorError as error:
        return [Candidate("ort", None, str(error))]


def open_device(name: str, options: Mapping[str, str]) -> Processor:
    """Open a provider's processor.

    Raises:
        ProcessorError: ONNX Runtime or the provider is absent, or the options make no sense.
    """
    return _installed().open_device(name, options)


def measure(name: str, options: Mapping[str, str]) -> Rates:
    """Measured limits of a provider with these options."""
    return _installed().measure(name, options)


def quantise(model: bytes, batches: Sequence[Mapping[str, Array]]) -> bytes:
    """The 8-bit form of an ONNX file's bytes; ``batches`` are typical inputs by name.

    Raises:
        ProcessorError: ONNX Runtime is absent.
        ModelError: it cannot run or quantise the model.
    """
    return _quantiser().quantise(model, batches)


def quantise_dynamically(model: bytes) -> bytes:
    """An ONNX file's bytes with linear layers whose ranges are found in each run.

    Raises:
        ProcessorError: ONNX Runtime is absent.
        ModelError: it cannot run or quantise the model.
    """
    return _quantiser().quantise_dynamically(model)


def _quantiser() -> Quantiser:
    return cast(Quantiser, _import("coexec.processors.ort.quantise"))


def _installed() -> Installed:
    return cast(Installed, _import("coexec.processors.ort.installed"))


def _import(name: str) -> ModuleType:
    """A module that needs ONNX Runtime."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not (error.name or "").startswith("onnxruntime"):
            raise
        raise ProcessorError(f"ONNX Runtime does not load ({error}): {INSTALL}") from error
