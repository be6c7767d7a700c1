"""Other engines as mixes of the one whose kernels were measured: a multiple by kind of operator.

Engines differ in what they are good at: 3 x 3 convolutions by Winograd's method, products in
float16, calls. A mix says how many times longer than the measured engine (``LIKE``) each kind takes
and, beside that, what bringing tensors into the engine's own order takes (on CPUs, by their bytes)
and what a call does. Mixes come in levels, the most specific one that was fitted counts: any engine
on this kind of processor, this engine, this element type, this chip, these of its cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coexec.cost.soc.terms import POINTWISE, WIDE, kind_of
from coexec.cost.soc.workload import ATTENTION, CONV, DENSE, DEPTHWISE, GROUPED, Workload

Numbers = NDArray[np.float64]

WINOGRAD, MATRICES, REST = "conv-3x3", "products of many rows", "rest"
KINDS = (POINTWISE, WINOGRAD, WIDE, GROUPED, DEPTHWISE, DENSE, MATRICES, REST)
"""Kinds of operators with a multiple each; a mix has those of traffic and of calls behind them."""
PRODUCTS_OF_ROWS = frozenset({"MatMul", "Gemm", ATTENTION})
"""Operators of transformers: engines for images have other kernels for them, or poor ones."""
WIDTH = len(KINDS) + 2
CALL_US = {"cpu": 2.5, "gpu": 10.0}
"""What a call takes beside its kernel, of which the last number of a mix is a multiple."""
WINOGRAD_CHANNELS = 16
"""With fewer input channels, transforming tiles takes longer than it saves."""


def mix_levels(engine: str, precision: str, chip: str, processor: str) -> tuple[str, ...]:
    """Names of the levels of a mix, general ones first; of a CPU the last is a mix of cores."""
    kind = processor.partition(":")[0]
    own = f"{engine} {kind}"
    levels = kind, own, f"{own} {precision}", f"{own} {precision} {chip}"
    return (*levels, f"{levels[-1]} {processor}") if kind == "cpu" else levels


def mix_of(mixes: Mapping[str, Numbers], names: Sequence[str]) -> Numbers | None:
    """The most specific mix. None if nothing was fitted for the engine (the second level)."""
    if names[1] not in mixes:
        return None
    return next(mixes[name] for name in reversed(names) if name in mixes)


def without_groups(work: Workload) -> Workload:
    """A grouped convolution as a plain one of the same arithmetic and traffic.

    The measured engine computes groups one by one (dozens of times slower); no other one does.
    """
    if work.family != GROUPED:
        return work
    return replace(work, family=CONV, kernel=1.0, groups=1.0)


@dataclass(frozen=True)
class Mixable:
    """Calls with what mixes are multiples of, in microseconds, shape (calls,).

    ``like_us`` is their time in the measured engine, ``traffic_us`` that of the tensors that they
    read and write at full bandwidth (0 where that is in ``like_us``, kernel by kernel).
    """

    kind: str
    calls: Sequence[Workload]
    like_us: Numbers
    traffic_us: Numbers

    @property
    def row(self) -> Numbers:
        """What the mix of a whole network is multiplied with, shape (WIDTH,)."""
        row = np.zeros(WIDTH)
        np.add.at(row, _places(self.calls), self.like_us)
        row[-2:] = self.traffic_us.sum(), len(self.calls) * CALL_US[self.kind]
        return row

    def times_us(self, mix: Numbers) -> Numbers:
        """Times of calls in the engine of a mix, shape (calls,)."""
        beside = mix[-2] * self.traffic_us + mix[-1] * CALL_US[self.kind]
        times: Numbers = mix[_places(self.calls)] * self.like_us + beside
        return times


def _places(calls: Sequence[Workload]) -> NDArray[np.intp]:
    return np.array([KINDS.index(_kind(call)) for call in calls], np.intp)


def _kind(work: Workload) -> str:
    if work.family == DEPTHWISE:
        return DEPTHWISE
    if work.family == CONV and work.op in PRODUCTS_OF_ROWS:
        return MATRICES
    kind = kind_of(work)
    tiles = work.kernel == 3 and work.stride == 1 and work.in_channels >= WINOGRAD_CHANNELS
    if kind == WIDE and tiles:
        return WINOGRAD
    return kind if kind in KINDS else REST
