"""What rules for names of networks are made of: widths and sizes in a name, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from coexec.cost.calibration.zoo_networks import Options

Network = tuple[str, Options]
Parts = re.Match[str]
Rules = Mapping[str, Callable[[Parts], Network]]
"""What names of a form mean: by a regular expression, what its groups decide."""
LETTERS = {"t": "tiny", "s": "small", "b": "base", "l": "large"}
SIZE = r"(?P<size>tiny|small|base|large|[tsbl])"
WIDTH = r"(?:_?x?(?P<width>\d[._]\d+|0\d\d?|1\d\d|1))?x?"
"""``_0.25``, ``_x0_5``, ``_025``, ``_100``, ``_1.0x``."""


def size_of(parts: Parts) -> str:
    """``tiny`` to ``large``, also where a letter says it."""
    return LETTERS.get(parts["size"], parts["size"])


def width_of(parts: Parts) -> Options:
    """``0.25``, ``0_5``, ``025``, ``05`` and ``100`` as numbers; nothing for the full width."""
    text = parts["width"]
    if text is None:
        return ()
    signed = re.sub(r"[._]", ".", text)
    if "." in signed or len(signed) == 1:
        number = float(signed)
    elif signed.startswith("0"):
        number = float(f"0.{signed[1:]}")
    else:
        number = int(signed) / 100
    return () if number == 1 else (("width", number),)


def scaled(network: str) -> Callable[[Parts], Network]:
    """A network that comes at several widths."""
    return lambda parts: (network, width_of(parts))


def numbered(network: str) -> Callable[[Parts], Network]:
    """A network of a number."""
    return lambda parts: (network, (("number", int(parts["number"])),))


def ordered(network: str, sizes: tuple[str, ...]) -> Callable[[Parts], Network]:
    """A network by the place of its size among all."""

    def meaning(parts: Parts) -> Network:
        fits = (number for number, size in enumerate(sizes) if re.fullmatch(size, parts["size"]))
        return network, (("number", next(fits)),)

    return meaning


def named(network: str, options: Options = ()) -> Callable[[Parts], Network]:
    """A network that is one alone."""
    return lambda parts: (network, options)
