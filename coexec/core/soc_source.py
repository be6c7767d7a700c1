"""Where the figures of a system on chip are from."""

from __future__ import annotations

from dataclasses import dataclass

from coexec.core.toml_table import TomlTable

MEASURED, SPECIFIED, ASSUMED = "measured", "specified", "assumed"
BASES = (MEASURED, SPECIFIED, ASSUMED)


@dataclass(frozen=True)
class Source:
    """Where figures are from; ``basis`` is ``measured``, ``specified`` or ``assumed``.

    ``against`` names the chips of whose figures a measured one is a multiple, if any.
    """

    basis: str
    text: str
    against: tuple[str, ...] = ()


def read_source(table: TomlTable) -> Source:
    """The ``basis`` and ``text`` of a table.

    Raises:
        UsageError: one is missing or unknown; the message names the key.
    """
    basis = table.text("basis")
    if basis not in BASES:
        raise table.error("basis", f"is {basis!r}; one of {', '.join(BASES)} is wanted")
    against = tuple(map(str, table.array("against"))) if "against" in table.values else ()
    return Source(basis, table.text("text"), against)
