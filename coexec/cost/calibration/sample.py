"""One measured time with everything that its prediction may look at."""

from __future__ import annotations

from dataclasses import dataclass

from coexec.core.soc import Soc
from coexec.cost.soc.workload import Workload

PRECISIONS = {
    "fp32": "float32",
    "fp16": "float16",
    "int8": "int8",
    "float": "float16",
    "w8a8": "int8",
    "w8a16": "int16",
    "float16": "float16",
    "float32": "float32",
}
"""Names of element types in files of measurements."""


@dataclass(frozen=True)
class Sample:
    """``calls`` is one kernel or, where ``whole``, a network run once.

    ``model`` and ``soc`` are what is held out together; ``weight_bytes`` is the size of its file.
    """

    dataset: str
    model: str
    soc: Soc
    processor: str
    precision: str
    engine: str
    measured_us: float
    calls: tuple[Workload, ...]
    whole: bool = True

    @property
    def kind(self) -> str:
        """``cpu``, ``gpu`` or ``npu``."""
        return self.processor.partition(":")[0]

    @property
    def flop(self) -> float:
        return sum(call.flop for call in self.calls)

    @property
    def group(self) -> str:
        """Engine, kind of processor and element type: what has factors of its own."""
        return f"{self.engine} {self.kind} {self.precision}"
