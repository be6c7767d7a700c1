"""The processors that the installed ONNX Runtime offers, opened and listed."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from coexec.base.cores import physical_cores
from coexec.base.errors import ProcessorError
from coexec.core.machine import Rates
from coexec.core.processor import Candidate, Processor
from coexec.processors.ort.measure import measure as measure_processor
from coexec.processors.ort.options import DEFAULT_OPTIONS, OrtOptions, parse_options
from coexec.processors.ort.processor import OrtProcessor, spec_of
from coexec.processors.ort.providers import PROVIDERS, Provider

DEFAULT = "ort:cpu"


def candidates() -> list[Candidate]:
    """Every provider that coexec knows, here or absent with the reason."""
    return [
        Candidate(name, None, reason)
        if (reason := provider.absent())
        else Candidate(name, spec_of(provider, DEFAULT_OPTIONS))
        for name, provider in PROVIDERS.items()
    ]


def open_device(name: str, options: Mapping[str, str]) -> Processor:
    """Open a provider's processor, once for each set of options.

    Raises:
        ProcessorError: no such provider, absent (with the reason), or options that make no sense.
    """
    return _open(name, options)


def measure(name: str, options: Mapping[str, str]) -> Rates:
    """Measured limits of a provider with these options."""
    return measure_processor(_open(name, options))


def _open(name: str, options: Mapping[str, str]) -> OrtProcessor:
    provider = _provider(name)
    known = ("threads", "cores") if provider.name == DEFAULT else ()
    return _opened(provider.name, parse_options(name, options, physical_cores(), known))


def _provider(name: str) -> Provider:
    provider = PROVIDERS.get(DEFAULT if name == "ort" else name)
    if provider is None:
        raise ProcessorError(f"unknown processor {name!r}; known: {', '.join(PROVIDERS)}")
    reason = provider.absent()
    if reason:
        raise ProcessorError(f"processor {name!r} is not available: {reason}")
    return provider


@functools.cache
def _opened(name: str, options: OrtOptions) -> OrtProcessor:
    return OrtProcessor(PROVIDERS[name], options)
