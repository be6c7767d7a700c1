"""Outputs of a model that are inputs of its next run, and stay on processors in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from coexec.base.errors import DataError, ModelError, UsageError
from coexec.base.names import known_names
from coexec.core.processor import Buffer
from coexec.core.program import STATE
from coexec.core.types import Array, TensorType
from coexec.inputs import check_array, model_inputs
from coexec.ops.node import known_type, type_of
from coexec.passes.fixed_caches import fix_caches
from coexec.runtime.executor import Executor
from coexec.runtime.states import States


@dataclass
class Memory:
    """Where the states of programs are that carry tensors of the same types."""

    buffers: dict[str, Buffer] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)

    def adopt(self, executor: Executor) -> None:
        """Keep the memory of states that a program was the first to have."""
        for spec in executor.program.buffers:
            if spec.role == STATE:
                self.buffers[spec.name] = executor.buffers[spec.name]
                self.homes[spec.name] = spec.processor


class Carried:
    """Which outputs of a model are inputs of the next run, and what they are now.

    ``pairs`` maps outputs to inputs, by name. An input that a run is given all the same has that
    value from then on; before, it is zero.
    """

    def __init__(self, model: ir.Model, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)
        self.inputs = tuple(self.pairs.values())
        self.states = States()
        values = {str(value.name): value for value in model_inputs(model)}
        self._check_names(values, [str(value.name) for value in model.graph.outputs])
        self._values = {name: values[name] for name in self.inputs}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._memory: dict[tuple[TensorType, ...], Memory] = {}

    def _check_names(self, inputs: Mapping[str, ir.Value], outputs: Sequence[str]) -> None:
        """Every name is one of the model's, and no input is fed by two outputs.

        Raises:
            UsageError: with the names that there are.
        """
        for output, name in self.pairs.items():
            if output not in outputs:
                raise UsageError(f"carried: no output {output!r}; {known_names(output, outputs)}")
            if name not in inputs:
                raise UsageError(f"carried: no input {name!r}; {known_names(name, inputs)}")
            if self.inputs.count(name) > 1:
                raise UsageError(f"carried: input {name!r} is named for several outputs")

    def source(self, model: ir.Model) -> ir.Model:
        """The model as it is to be specialised: with caches of one length for all runs."""
        return fix_caches(model, self.pairs) if self.pairs else model

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of carried inputs that only their values told."""
        return self._shapes

    def take(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """``arrays`` without those of carried inputs, which have these values from now on."""
        if not self.pairs:
            return dict(arrays)
        given = {name: array for name, array in arrays.items() if name in self._values}
        self._note_shapes(given)
        self.states.give(given)
        return {name: array for name, array in arrays.items() if name not in given}

    def reset(self, values: Mapping[str, Array]) -> None:
        """Begin again, with values by input; inputs that are not named begin with zeros.

        Raises:
            DataError: a name is none of a carried input, or a value does not fit it.
        """
        unknown = [name for name in values if name not in self._values]
        if unknown:
            raise DataError(f"inputs {unknown} are not carried; carried are {[*self.inputs]}")
        arrays = {name: check_array(self._values[name], data) for name, data in values.items()}
        self._note_shapes(arrays)
        self.states.reset(arrays)

    def _note_shapes(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if known_type(self._values[name]) is None:
                self._shapes[name] = array.shape

    def values(self) -> dict[str, Array]:
        """Carried inputs by name, as the last run left them.

        Raises:
            DataError: there was none.
        """
        return {name: self.states.value(name) for name in self.inputs}

    def value(self, output: str) -> Array:
        """A carried output of the last run."""
        return self.states.value(self.pairs[output])

    def memory(self, model: ir.Model) -> Memory:
        """Memory for the states of a specialised model, the same for all with states of its types.

        Raises:
            ModelError: an output is of another type than the input that it is to be.
        """
        if not self.pairs:
            return Memory()
        made = {str(value.name): type_of(value) for value in model.graph.outputs}
        kinds = {str(value.name): type_of(value) for value in model.graph.inputs}
        for output, name in self.pairs.items():
            if made[output] != kinds[name]:
                raise ModelError(_differs(output, made[output], name, kinds[name]))
        return self._memory.setdefault(tuple(kinds[name] for name in self.inputs), Memory())


def _differs(output: str, made: TensorType, name: str, kind: TensorType) -> str:
    """Why an output cannot be carried, and what to do about it."""
    text = f"output {output!r} is {made} and cannot be carried to input {name!r}, which is {kind}"
    pairs = zip(made.shape, kind.shape, strict=False)
    grown = [axis for axis, (new, old) in enumerate(pairs) if new != old]
    alike = made.dtype == kind.dtype and made.rank == kind.rank
    if not alike or len(grown) != 1 or made.shape[grown[0]] < kind.shape[grown[0]]:
        return text
    return (
        f"{text}: it grows along axis {grown[0]} in each run, and code is made for fixed shapes. "
        "Export the model with a cache of fixed length (transformers: StaticCache; ONNX Runtime's "
        "GroupQueryAttention with past_present_share_buffer), or feed it without carrying it"
    )
