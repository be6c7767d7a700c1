"""How many layers of a quantised model are on bytes and which are not, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from coexec.placement.in_floats import QuantisedLayers


def quantised_record(found: QuantisedLayers) -> dict[str, Any] | None:
    """For ``--json``; nothing of a model without quantised layers."""
    if not found.layers:
        return None
    floats = [asdict(each) for each in found.in_floats]
    return {"layers": found.layers, "on_bytes": found.on_bytes, "in_floats": floats}


def quantised_counts(layers: int, on_bytes: int) -> str:
    """The layers in words."""
    return f"{on_bytes} on bytes, {layers - on_bytes} in floats"
