"""Other engines as mixes of the one whose kernels were measured: a multiple by kind of operator.

Engines differ in what they are good at: 3 x 3 convolutions by Winograd's method, products in
float16, calls. A mix says how many times longer than the measured engine (``LIKE``) each kind takes
and what a call takes beside. Mixes come in levels, the most specific one that was fitted counts:
any engine on this kind of processor, this engine, this element type, this chip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coexec.cost.soc.terms import POINTWISE, WIDE, kind_of
from coexec.cost.soc.workload import CONV, DENSE, DEPTHWISE, GROUPED, Workload

Numbers = NDArray[np.float64]

WINOGRAD, REST = "conv-3x3", "rest"
KINDS = (POINTWISE, WINOGRAD, WIDE, GROUPED, DEPTHWISE, DENSE, REST)
"""Kinds of operators with a multiple each; a mix has the calls' behind them."""
CALL_US = {"cpu": 2.5, "gpu": 10.0}
"""What a call takes beside its kernel, of which the last number of a mix is a multiple."""
WINOGRAD_CHANNELS = 16
"""With fewer input channels, transforming tiles takes longer than it saves."""


def mix_levels(engine: str, kind: str, precision: str, chip: str) -> tuple[str, ...]:
    """Names of the levels of a mix, general ones first."""
    own = f"{engine} {kind}"
    return kind, own, f"{own} {precision}", f"{own} {precision} {chip}"


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


def mix_row(calls: Sequence[Workload], like_us: Numbers, kind: str) -> Numbers:
    """Microseconds of a network by kind, and of its calls: what a mix is multiplied with."""
    row = np.zeros(len(KINDS) + 1)
    np.add.at(row, _places(calls), like_us)
    row[-1] = len(calls) * CALL_US[kind]
    return row


def mixed_us(mix: Numbers, calls: Sequence[Workload], like_us: Numbers, kind: str) -> Numbers:
    """Times of calls from those of the measured engine, shape (calls,)."""
    times: Numbers = mix[_places(calls)] * like_us + mix[-1] * CALL_US[kind]
    return times


def _places(calls: Sequence[Workload]) -> NDArray[np.intp]:
    return np.array([KINDS.index(_kind(call)) for call in calls], np.intp)


def _kind(work: Workload) -> str:
    if work.family == DEPTHWISE:
        return DEPTHWISE
    kind = kind_of(work)
    tiles = work.kernel == 3 and work.stride == 1 and work.in_channels >= WINOGRAD_CHANNELS
    if kind == WIDE and tiles:
        return WINOGRAD
    return kind if kind in KINDS else REST
