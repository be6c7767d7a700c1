"""Whether steps of a resumed training are computed as they were before it was interrupted.

Bits depend on the kernels: on the plan, on what was tuned and measured, on drivers. A checkpoint
holds what they were, so that a training that goes on otherwise says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coexec.core.processor import Processor
from coexec.training.trainer import Trainer

NAMED = 3
"""Kernels that a note names."""

Computed = Mapping[str, Mapping[str, str]]
"""Kernels in words, by program and then by node and processor."""


def record_of(trainer: Trainer) -> dict[str, Any]:
    """What the steps so far were computed by, and what that was chosen by, for a checkpoint."""
    return {
        "computed": trainer.computed,
        "devices": {name: _device(each) for name, each in trainer.processors.items()},
        "choices": {name: each.choices() for name, each in trainer.processors.items()},
    }


def choose_as_before(trainer: Trainer, record: Mapping[str, Any]) -> list[str]:
    """Have processors choose kernels as a training did that goes on; what to say of it.

    Raises:
        UsageError: what was chosen by is damaged.
    """
    notes = []
    for name, choices in record.get("choices", {}).items():
        processor = trainer.processors.get(name)
        if processor is None or processor.choices() == choices:
            continue
        processor.choose_by(choices)
        notes.append(
            f"{name}: kernels are chosen as when this training began; what was tuned since is for "
            "others"
        )
    return notes


class Earlier:
    """What steps were computed by before a training was interrupted (:func:`record_of`).

    Of a checkpoint without such a record nothing is known, and nothing is said.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._computed: Computed = record.get("computed", {})
        self._devices: Mapping[str, str] = record.get("devices", {})
        self._seen: set[str] = set()

    def differences(self, trainer: Trainer) -> list[str]:
        """What to say of programs that are there since the last question."""
        now = trainer.computed if self._computed.keys() - self._seen else {}
        new = [name for name in now if name not in self._seen]
        self._seen.update(new)
        known = [name for name in new if name in self._computed]
        notes = [_difference(name, self._computed[name], now[name]) for name in known]
        kinds = {name.partition(" ")[0] for name in self._computed}
        notes += [
            f"{name} is no program of the training before the interruption ("
            f"{', '.join(self._computed)}), so that last bits may differ"
            for name in new
            if name.partition(" ")[0] not in kinds
        ]
        devices = self._other_devices(trainer.processors) if new else []
        return [note for note in (*devices, *notes) if note]

    def completed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """``record``, with programs that have not been made again."""
        return {**record, "computed": {**self._computed, **record["computed"]}}

    def _other_devices(self, processors: Mapping[str, Processor]) -> list[str]:
        known, self._devices = self._devices, {}
        found = {name: _device(each) for name, each in processors.items()}
        return [
            f"{name} is {found[name]}, and was {device}: last bits may differ"
            for name, device in known.items()
            if name in found and found[name] != device
        ]


def _device(processor: Processor) -> str:
    spec = processor.describe()
    return ", ".join(filter(None, (spec.device, spec.driver)))


def _difference(program: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In words; "" if there is none."""
    other = [name for name in now if before.get(name) != now[name]]
    gone = [name for name in before if name not in now]
    if not other and not gone:
        return ""
    some = [f"{n}: {now[n]}, was {before.get(n, 'not there')}" for n in other[:NAMED]]
    some += [f"{name} is gone" for name in gone[: NAMED - len(some)]]
    more = "; ..." if len(other) + len(gone) > NAMED else ""
    return (
        f"{program}: {len(other)} of {len(now)} kernels are others than before the interruption, "
        f"so that last bits may differ from those of a training in one go ({'; '.join(some)}{more})"
    )
