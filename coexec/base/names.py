"""Names that were not found, beside those that are known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.75
"""From which share of equal letters on a name is taken to be misspelt."""


def known_names(name: str, known: Iterable[str]) -> str:
    """``known: a, b``, and before it the one that ``name`` may have meant.

    The end of a message that refuses ``name``. Case does not count.
    """
    names = list(known)
    spelt = {one.casefold(): one for one in names}
    close = difflib.get_close_matches(name.casefold(), spelt, n=1, cutoff=CLOSE)
    listed = f"known: {', '.join(names)}"
    return f"did you mean {spelt[close[0]]!r}? {listed}" if close else listed
