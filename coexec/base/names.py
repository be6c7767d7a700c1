"""Names that were not found, beside those that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.75
"""From which share of equal letters on a name is taken to be misspelt."""
SHOWN = 3
"""So many names are shown that may be meant, where there are many."""


def known_names(name: str, known: Iterable[str]) -> str:
    """``known: a, b``, and before it the one that ``name`` may have meant.

    The end of a message that refuses ``name``. Case does not count.
    """
    names = list(known)
    close = close_names(name, names, 1)
    listed = f"known: {', '.join(names)}"
    return f"did you mean {close[0]!r}? {listed}" if close else listed


def close_names(name: str, known: Iterable[str], most: int) -> list[str]:
    """At most so many of ``known`` that ``name`` may have meant, the likeliest first."""
    spelt = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(name.casefold(), spelt, n=most, cutoff=CLOSE)
    return [spelt[one] for one in close]


def meant_among_many(name: str, known: Iterable[str], lister: str) -> str:
    """``did you mean 'a' or 'b'? coexec zoo lists all 90``, where ``known`` would fill a screen.

    After the closest one, those that begin with ``name`` are named. ``lister`` is the command that
    lists them.
    """
    names = list(known)
    close = close_names(name, names, SHOWN)
    part = name.casefold()
    longer = [one for one in names if part and one.casefold().startswith(part)]
    shown = [repr(one) for one in dict.fromkeys([*close[:1], *longer, *close])][:SHOWN]
    meant = " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"{f'did you mean {meant}? ' if shown else ''}{lister} lists all {len(names)}"
