"""States of inference: what a run of a program leaves where it is for the next one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.base.errors import DataError
from coexec.core.types import Array, TensorType
from coexec.runtime.executor import Executor


class States:
    """Values of a program's states: zeros before the first run, unless others are given.

    Programs over the same states may run in turns.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Array] = {}
        self._executor: Executor | None = None

    def reset(self, values: Mapping[str, Array]) -> None:
        """Begin again with copies of ``values``; states that are not named begin with zeros."""
        self._executor = None
        self._waiting = {name: np.array(value) for name, value in values.items()}

    def give(self, values: Mapping[str, Array]) -> None:
        """Let states have these values in the next run, which is to begin before they change."""
        self._waiting.update(values)

    def begin(self, executor: Executor) -> None:
        """Bring what was given to where the states of a program are.

        Raises:
            DataError: a value is of another type than the program's state, or states are of other
                types than those of the program that ran before.
        """
        waiting, self._waiting = self._waiting, {}
        types = executor.program.types
        for name, value in waiting.items():
            kind = TensorType.of(value)
            if kind != types[name]:
                raise DataError(f"carried input {name!r} is {types[name]} here, not {kind}")
        if self._executor is None:
            zeros = {name: _zeros(types[name]) for name in executor.program.state}
            waiting = {**zeros, **waiting}
        elif self._executor is not executor:
            self._require_same(executor)
        for name, value in waiting.items():
            executor.write_state(name, value)
        self._executor = executor

    def _require_same(self, executor: Executor) -> None:
        assert self._executor is not None
        types, now = self._executor.program.types, executor.program.types
        for name in executor.program.state:
            if types[name] != now[name]:
                raise DataError(
                    f"carried input {name!r} is {types[name]} since the last run, and the inputs "
                    f"of this one want {now[name]}; reset() first"
                )

    def value(self, name: str) -> Array:
        """A state as the last run left it.

        Raises:
            DataError: there was none.
        """
        if self._executor is None:
            raise DataError(f"nothing is carried in {name!r} before the first run")
        return self._executor.read_state(name)


def _zeros(kind: TensorType) -> Array:
    return np.zeros(kind.shape, kind.dtype)
