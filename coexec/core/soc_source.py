"""Where the figures of a system on chip are from."""

from __future__ import annotations

from dataclasses import dataclass

from coexec.core.toml_table import TomlTable

MEASURED, SPECIFIED, ASSUMED = "measured", "specified", "assumed"
BASES = (MEASURED, SPECIFIED, ASSUMED)


@dataclass(frozen=True)
class Source:
    """Where figures are from; ``basis`` is ``measured``, ``specified`` or ``assumed``."""

    basis: str
    text: str


def read_source(table: TomlTable) -> Source:
    """The ``basis`` and ``text`` of a table.

    Raises:
        UsageError: one is missing or unknown; the message names the key.
    """
    basis = table.text("basis")
    if basis not in BASES:
        raise table.error("basis", f"is {basis!r}; one of {', '.join(BASES)} is wanted")
    return Source(basis, table.text("text"))
