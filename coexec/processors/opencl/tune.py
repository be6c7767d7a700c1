"""Tuning as the command line reaches it: the tuner of a device, and merging of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from coexec.base.errors import UsageError
from coexec.core.tuning import Tuner
from coexec.processors.opencl.options import parse_options
from coexec.processors.opencl.processor import OpenCLProcessor
from coexec.processors.opencl.sub_devices import choose_part
from coexec.processors.opencl.tuning.store import merge
from coexec.processors.opencl.tuning.tuner import OpenCLTuner


def open_tuner(name: str, options: Mapping[str, str]) -> Tuner:
    """A tuner with a processor of its own.

    Raises:
        ProcessorError: no such device or option.
        UsageError: the options leave nothing to tune.
    """
    parsed = parse_options(name, options)
    chosen, device = choose_part(name, parsed.cores, parsed.first)
    if parsed.kernels == "naive":
        raise UsageError(f"{chosen}{parsed}: naive kernels are not tuned; leave kernels=naive out")
    # It notes calls and takes defaults whatever was tuned before.
    untuned = replace(parsed, tuned="off")
    return OpenCLTuner(OpenCLProcessor(f"{chosen}{parsed}", device, untuned))


def merge_tuned(paths: list[Path], out: Path) -> int:
    """Merge files of tuned values of one device; the number of entries written.

    Raises:
        UsageError: a file cannot be read, or they are of different devices.
        SaveError: ``out`` cannot be written.
    """
    merged = merge(paths)
    merged.write(out)
    return len(merged.entries)
