"""Which operators NPUs run: lists by vendor's compiler, shared by the chips that name them.

A list stands in ``coexec/machines/npus/operators.toml``::

    [edge-tpu]
    basis = "specified"
    text = "where it is from"
    runs = ["Add", "Conv"]
    lacks = { float16 = ["Exp"] }   # of these, what is missing in an element type
    constant_operand = ["MatMul"]   # of these, what wants a constant as second operand
    over_three_axes = []            # of these, convolutions and pools that go over three axes
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import as_file, files

from coexec.core.soc_source import Source, read_source
from coexec.core.toml_table import TomlTable
from coexec.core.types import OpCall

LISTS = files("coexec") / "machines" / "npus" / "operators.toml"
WINDOWS = frozenset(
    {
        "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool",
        "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
    }
)  # fmt: skip
PLANE = 2
"""Axes that every convolution and pool goes over."""


@dataclass(frozen=True)
class NpuOperators:
    """What an NPU runs: ``runs`` are operators of ONNX, less ``lacks`` by element type.

    ``constant_operand`` are operators whose second operand must be known when the graph is built,
    ``over_three_axes`` are convolutions and pools that go over three axes, all others go over two
    at most. coexec's own operators (gradients, updates of parameters) are in no vendor's list: they
    are taken to run, an assumption. ``source`` is that of the list, nothing for one that stands in
    the chip's own file.
    """

    name: str
    runs: frozenset[str]
    lacks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    constant_operand: frozenset[str] = frozenset()
    over_three_axes: frozenset[str] = WINDOWS
    source: Source | None = None

    def refusal(self, call: OpCall, precision: str) -> str:
        """Why ``call`` does not run there in this element type (NumPy's name), or nothing."""
        name = call.identifier
        if not call.domain and name not in self.runs:
            return f"has no {name}{self._said}"
        if name in self.lacks.get(precision, ()):
            return f"has no {name} in {precision}{self._said}"
        if name in self.constant_operand and call.has_input(1) and call.constant(1) is None:
            return f"wants a constant as second operand of {name}{self._said}"
        axes = call.input(0).rank - 2 if name in WINDOWS - self.over_three_axes else 0
        if axes > PLANE:
            return f"has no {name} over {axes} axes{self._said}"
        return ""

    def less(self, names: Iterable[str]) -> NpuOperators:
        """The same NPU without some operators."""
        return replace(self, runs=self.runs - frozenset(names))

    @property
    def _said(self) -> str:
        basis = f", {self.source.basis}" if self.source else ""
        return f" (list {self.name}{basis})"


@functools.cache
def npu_operators() -> Mapping[str, NpuOperators]:
    """The lists of the package by name.

    Raises:
        UsageError: the file is damaged; the message names the key.
    """
    with as_file(LISTS) as path:
        table = TomlTable.of_file(path)
        return {name: _list(name, each) for name, each in _tables(table).items()}


def _tables(table: TomlTable) -> dict[str, TomlTable]:
    return {name: table.table(name) for name in table.values}


def _list(name: str, table: TomlTable) -> NpuOperators:
    lacks = table.table("lacks") if "lacks" in table.values else None
    found = NpuOperators(
        name=name,
        runs=_names(table, "runs"),
        lacks={kind: _names(lacks, kind) for kind in lacks.values} if lacks else {},
        constant_operand=_names(table, "constant_operand"),
        over_three_axes=_names(table, "over_three_axes"),
        source=read_source(table),
    )
    table.nothing_else()
    return found


def _names(table: TomlTable, key: str) -> frozenset[str]:
    return frozenset(map(str, table.array(key)))
