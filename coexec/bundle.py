"""Running saved programs: imports neither onnx nor onnx_ir."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coexec.base.errors import DataError
from coexec.core.processor import Executable, Runner
from coexec.core.program import Program
from coexec.core.types import Array
from coexec.processors.find import open_runner, run_only
from coexec.runtime.bundle import load_bundle
from coexec.runtime.executor import Executor
from coexec.runtime.states import States


class BundleSession:
    """A saved program on a device: ``run`` takes and gives arrays by name.

    Inputs that are carried from run to run (``program.state``) are zeros at first.
    """

    def __init__(self, program: Program, executor: Executor) -> None:
        self.program = program
        self._executor = executor
        self._states = States()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name. A carried input that is given all the same has that value from then on.

        Raises:
            DataError: a missing input, or one of another shape or type.
        """
        if not isinstance(feeds, Mapping):
            raise DataError(
                f"inputs are arrays by name, not {type(feeds).__name__}; "
                f"the program wants {self.program.inputs}"
            )
        inputs = {name: self._input(name, feeds) for name in self.program.inputs}
        given = [name for name in self.program.state if name in feeds]
        self._states.give({name: self._input(name, feeds) for name in given})
        self._states.begin(self._executor)
        return self._executor.run(inputs)

    def reset(self, values: Mapping[str, Array] | None = None) -> None:
        """Let the next run begin with zeros in carried inputs, or with ``values`` by their names.

        Raises:
            DataError: a name is none of a carried input, or a value does not fit it.
        """
        unknown = [name for name in values or {} if name not in self.program.state]
        if unknown:
            raise DataError(f"inputs {unknown} are not carried; carried are {self.program.state}")
        self._states.reset({name: self._input(name, values or {}) for name in values or {}})

    def carried(self) -> dict[str, Array]:
        """Carried inputs by name, as the last run left them.

        Raises:
            DataError: there was no run.
        """
        return {name: self._states.value(name) for name in self.program.state}

    def _input(self, name: str, feeds: Mapping[str, Array]) -> Array:
        kind = self.program.types[name]
        if name not in feeds:
            raise DataError(f"input {name!r} is missing; the program wants {self.program.inputs}")
        array = np.ascontiguousarray(feeds[name])
        if array.shape != kind.shape or array.dtype != kind.dtype:
            raise DataError(f"input {name!r} wants {kind}, not {array.dtype}{array.shape}")
        return array


def open_bundle(path: str | Path, processor: str = "") -> BundleSession:
    """Open a bundle that ``Session.save`` wrote, on ``processor`` or on the one it was made for.

    Raises:
        ModelError: not a bundle, or a damaged one.
        ProcessorError: the processor is not there.
    """
    runners: dict[str, Runner] = {}

    def load(record: Mapping[str, Any], arrays: Mapping[str, Array], made_for: str) -> Executable:
        wanted = processor or made_for
        if made_for not in runners:
            runners[made_for] = open_runner(wanted)
        return run_only(wanted).load_executable(record, arrays, made_for)

    program = load_bundle(Path(path), load)
    return BundleSession(program, Executor(program, runners))
