"""How ONNX Runtime follows an OpenCL processor by its flag, and has others follow it.

The thread that runs the sessions reads the flag (:mod:`coexec.core.flag`) until its number is high
enough: in a loop of ONNX Runtime, which needs no lock of the interpreter, and whose core stays
awake. It raises its own by a store, which others see behind all stores before it: so it is on x86
(total store order); elsewhere, processors tell each other by events.
"""

from __future__ import annotations

import platform
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import parser

from coexec.base.errors import ProcessorError
from coexec.core.flag import Flag, Raised, flag_page, number_in, signed

DRIVER = "ONNX Runtime"
STORES_IN_ORDER = platform.machine() in ("x86_64", "AMD64", "i686")
PATIENCE = 1 << 25
"""Reads of a number before giving up: a minute and more."""
READ = """
<ir_version: 8, opset_import: ["" : 17]>
read_flag (int32 flag, int32 wanted, int64 patience) => (bool late)
<int32 zero = {0}> {
    ahead = Sub(flag, wanted)
    early = Less(ahead, zero)
    late = Loop (patience, early, early) <body = again (int64 trip, bool go, bool last)
        => (bool more, bool still) {
        rest = Sub(flag, wanted)
        more = Less(rest, zero)
        still = Identity(more)
    }>
}
"""
"""Reads ``flag`` until it is not before ``wanted``; ``late``: it was, to the last. What counts is
the difference, as numbers wrap around."""


class OrtFlags:
    """The flag of one processor, whose one thread has ``silicon``, and its way to read others'."""

    def __init__(self, silicon: frozenset[str]) -> None:
        self.own = Flag(flag_page(), DRIVER, silicon)
        self._number = number_in(self.own.memory)
        self._count = 0
        self._readers: dict[Flag, _Reader] = {}

    def next_moment(self) -> Raised:
        """The moment that :meth:`reach` brings about; moments are reached in order."""
        self._count += 1
        return Raised(self.own, self._count)

    def reach(self, moment: Raised) -> None:
        """Tell others, on the thread of the processor, that all before a moment is done."""
        self._number[...] = signed(moment.number)

    def can_wait_for(self, moment: Raised) -> bool:
        """Whether waiting takes no core from whoever is to bring a moment about."""
        return self.own.silicon.isdisjoint(moment.flag.silicon)

    def wait_for(self, moment: Raised) -> None:
        """Return, on the thread of the processor, behind a moment of another one.

        Raises:
            ProcessorError: it did not come in about a minute.
        """
        if moment.flag not in self._readers:
            self._readers[moment.flag] = _Reader(self._session, moment.flag)
        if not self._readers[moment.flag].reaches(signed(moment.number)):
            raise ProcessorError(
                f"{moment.flag.driver} did not come to an end in a minute; with its option "
                "follow=event it is waited for without a limit"
            )

    @cached_property
    def _session(self) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # The body reads the same memory each time: nothing may be taken out of the loop.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        text = parser.parse_model(READ).SerializeToString()
        return ort.InferenceSession(text, options, providers=["CPUExecutionProvider"])


class _Reader:
    """The loop bound to a flag; its operands are arrays whose memory it reads when it runs."""

    def __init__(self, session: Any, flag: Flag) -> None:
        self._session = session
        self._wanted, self._late = np.array(0, np.int32), np.array(False)
        self._operands = {
            "flag": number_in(flag.memory),
            "wanted": self._wanted,
            "patience": np.array(PATIENCE, np.int64),
        }
        self._bound = session.io_binding()
        for name, array in self._operands.items():
            self._bound.bind_input(name, "cpu", 0, array.dtype, [], array.ctypes.data)
        late = self._late
        self._bound.bind_output("late", "cpu", 0, late.dtype, [], late.ctypes.data)

    def reaches(self, number: int) -> bool:
        """Read until the flag has come to a number; whether it did."""
        self._wanted[...] = number
        self._session.run_with_iobinding(self._bound)
        return not self._late
