"""A compiled region as data: kernels with geometry and argument slots over one arena.

Free of ONNX, so that a saved program runs with NumPy and PyOpenCL alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from coexec.base.sources import text_digest
from coexec.core.processor import Executable
from coexec.core.types import Array
from coexec.processors.opencl.family import Scalar


@dataclass(frozen=True)
class Slot:
    """Where a tensor lives: argument ``index``, ``offset`` in the arena, or constant ``name``.

    A ``prepared`` one lives at ``offset`` in the memory that :attr:`OpenCLExecutable.preparation`
    fills, a ``page`` at ``offset`` in memory outside of the device. ``block`` names what a place in
    the arena is for, until all regions of that are known.
    """

    kind: str
    index: int = 0
    offset: int = 0
    nbytes: int = 0
    name: str = ""
    block: str = field(default="", compare=False)


ARGUMENT, ARENA, CONSTANT, PREPARED, PAGE = "argument", "arena", "constant", "prepared", "page"
PREPARE = "prepare"
"""Phase of the steps that run once."""


@dataclass(frozen=True)
class Label:
    """What an event says about a step; ``choice`` is the kernel's variant with its values.

    ``moves`` marks transfers beside kernels (``out``, ``in``) and waits for them (``wait``),
    ``meets`` kernels that wait for other processors.
    """

    name: str
    operator: str = ""
    phase: str = ""
    flop: int = 0
    bytes: int = 0
    layout: bool = False
    source: str = ""
    dtype: str = ""
    items: int = 0
    live: int = 0
    choice: str = ""
    gradients: int = 0
    workspace: int = 0
    moves: str = ""
    meets: bool = False


@dataclass(frozen=True)
class KernelStep:
    """One kernel enqueue; ``program`` indexes :attr:`OpenCLExecutable.programs`."""

    program: int
    entry: str
    args: tuple[Slot | Scalar, ...]
    global_size: tuple[int, ...]
    local_size: tuple[int, ...] | None
    label: Label


@dataclass(frozen=True)
class CopyStep:
    """One copy between device buffers (an output that is a view of something else)."""

    dst: Slot
    src: Slot
    nbytes: int
    label: Label


@dataclass(frozen=True)
class PageStep:
    """A transfer of a tensor to offset ``page`` outside of the device (``out``), or back (``in``).

    Without a tensor: the wait until that transfer is over.
    """

    direction: str
    page: int
    nbytes: int
    tensor: Slot | None
    label: Label


Step = KernelStep | CopyStep | PageStep


@dataclass(frozen=True)
class ProgramSource:
    """OpenCL C text with its ``#define`` lines in front; ``parts`` sources became one."""

    family: str
    text: str
    parts: int = 1


@dataclass(frozen=True)
class OpenCLExecutable(Executable):
    """Programs, steps and the constants that steps refer to by name.

    ``preparation`` are steps that run once, before the first of ``steps``: from constants they fill
    ``prepared_bytes`` of memory that ``steps`` only read.
    """

    programs: tuple[ProgramSource, ...] = ()
    steps: tuple[Step, ...] = ()
    constants: Mapping[str, Array] = field(default_factory=dict)
    preparation: tuple[KernelStep, ...] = ()
    prepared_bytes: int = 0

    @property
    def resident(self) -> frozenset[str]:
        """Constants that steps read; the others leave the device once they are prepared."""
        return frozenset(
            slot.name for step in self.steps for slot in slots_of(step) if slot.kind == CONSTANT
        )

    @property
    def constant_bytes(self) -> int:
        """Resident constants and what is prepared from the others."""
        return self.prepared_bytes + sum(self.constants[name].nbytes for name in self.resident)

    def computed(self) -> Mapping[str, str]:
        """Kernels by their nodes, numbered where a node has several: variant, values, digest."""
        texts = [text_digest(program.text) for program in self.programs]
        found: dict[str, str] = {}
        for step in self.steps:
            if not isinstance(step, KernelStep):
                continue
            scalars = [arg for arg in step.args if isinstance(arg, Scalar)]
            told = (texts[step.program], step.entry, scalars, step.global_size, step.local_size)
            name, number = step.label.name, 1
            while name in found:
                number += 1
                name = f"{step.label.name} {number}"
            found[name] = f"{step.label.choice or step.entry} ({text_digest(repr(told))[:8]})"
        return found

    def halves(
        self, phase: str, results: Sequence[str]
    ) -> tuple[OpenCLExecutable, OpenCLExecutable]:
        """What both read is on the device twice; what is carried, the second half leaves behind."""
        behind = (i for i, s in enumerate(self.steps) if s.label.phase not in (phase, ""))
        place = next(behind, len(self.steps))
        first, second = self.steps[:place], self.steps[place:]
        touched = {slot.index for s in first for slot in slots_of(s) if slot.kind == ARGUMENT}
        late = [name for name in results if self.arguments.index(name) not in touched]
        if late or self.preparation:
            raise ValueError(f"cannot pause behind {phase}: {late or 'weights are prepared'}")
        return (
            replace(self._only(first), naive_bytes=0, carried={}),
            self._only(second),
        )

    def _only(self, steps: tuple[Step, ...]) -> OpenCLExecutable:
        """So many of the steps, with the constants and programs of these."""
        names = {slot.name for s in steps for slot in slots_of(s) if slot.kind == CONSTANT}
        used = sorted({step.program for step in steps if isinstance(step, KernelStep)})
        return replace(
            self,
            programs=tuple(self.programs[number] for number in used),
            steps=tuple(
                replace(s, program=used.index(s.program)) if isinstance(s, KernelStep) else s
                for s in steps
            ),
            constants={name: self.constants[name] for name in sorted(names)},
        )

    def moved(self, shifts: Mapping[str, int], nbytes: int) -> Self:
        def place(slot: Slot) -> Slot:
            far = shifts[slot.block] if slot.kind == ARENA else 0
            return replace(slot, offset=slot.offset + far) if far else slot

        return replace(
            self,
            scratch_bytes=nbytes if self.scratch_bytes else 0,
            carried={},
            blocks=(),
            steps=tuple(_with_slots(step, place) for step in self.steps),
        )

    def arena_use(self) -> Iterable[tuple[str, int]]:
        return [(step.label.name, step.label.live) for step in self.steps]

    def to_json(self) -> tuple[dict[str, Any], dict[str, Array]]:
        record = {
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "scratch_bytes": self.scratch_bytes,
            "naive_bytes": self.naive_bytes,
            "carried": dict(self.carried),
            "continued": list(self.continued),
            "page_bytes": self.page_bytes,
            "programs": [vars(program) for program in self.programs],
            "steps": [_step_to_json(step) for step in self.steps],
            "preparation": [_step_to_json(step) for step in self.preparation],
            "prepared_bytes": self.prepared_bytes,
        }
        return record, dict(self.constants)


def executable_from_json(
    record: Mapping[str, Any], constants: Mapping[str, Array], processor: str
) -> OpenCLExecutable:
    """The inverse of :meth:`OpenCLExecutable.to_json`.

    Raises:
        ValueError: a step refers to a program or a constant that is not there.
    """
    steps = tuple(_step_from_json(step) for step in record["steps"])
    preparation = tuple(_kernel_from_json(step) for step in record["preparation"])
    prepared_bytes = int(record["prepared_bytes"])
    for step in (*preparation, *steps):
        _check_step(step, len(record["programs"]), constants, prepared_bytes)
    return OpenCLExecutable(
        processor=processor,
        inputs=tuple(record["inputs"]),
        outputs=tuple(record["outputs"]),
        scratch_bytes=int(record["scratch_bytes"]),
        naive_bytes=int(record["naive_bytes"]),
        carried=dict(record["carried"]),
        continued=tuple(record["continued"]),
        page_bytes=int(record.get("page_bytes", 0)),
        programs=tuple(ProgramSource(**program) for program in record["programs"]),
        steps=steps,
        constants=constants,
        preparation=preparation,
        prepared_bytes=prepared_bytes,
    )


def _with_slots(step: Step, place: Callable[[Slot], Slot]) -> Step:
    if isinstance(step, CopyStep):
        return replace(step, dst=place(step.dst), src=place(step.src))
    if isinstance(step, PageStep):
        return step if step.tensor is None else replace(step, tensor=place(step.tensor))
    return replace(step, args=tuple(place(a) if isinstance(a, Slot) else a for a in step.args))


def slots_of(step: Step) -> tuple[Slot, ...]:
    """Where the tensors of a step live."""
    if isinstance(step, CopyStep):
        return step.dst, step.src
    if isinstance(step, PageStep):
        return () if step.tensor is None else (step.tensor,)
    return tuple(arg for arg in step.args if isinstance(arg, Slot))


def _check_step(
    step: Step, programs: int, constants: Mapping[str, Array], prepared_bytes: int
) -> None:
    if isinstance(step, KernelStep) and not 0 <= step.program < programs:
        raise ValueError(f"there is no program {step.program}")
    for slot in slots_of(step):
        if slot.kind == CONSTANT and slot.name not in constants:
            raise ValueError(f"there is no constant {slot.name!r}")
        if slot.kind == PREPARED and not 0 <= slot.offset <= prepared_bytes - slot.nbytes:
            raise ValueError(f"{slot.nbytes} bytes at {slot.offset} are not prepared")


def _step_to_json(step: Step) -> dict[str, Any]:
    label = vars(step.label)
    if isinstance(step, CopyStep):
        return {
            "kind": "copy",
            "dst": _slot_to_json(step.dst),
            "src": _slot_to_json(step.src),
            "nbytes": step.nbytes,
            "label": label,
        }
    if isinstance(step, PageStep):
        tensor = None if step.tensor is None else _slot_to_json(step.tensor)
        return {**vars(step), "kind": "page", "tensor": tensor, "label": label}
    return {
        "kind": "kernel",
        "program": step.program,
        "entry": step.entry,
        "args": [
            {"scalar": vars(a)} if isinstance(a, Scalar) else {"slot": _slot_to_json(a)}
            for a in step.args
        ],
        "global_size": list(step.global_size),
        "local_size": None if step.local_size is None else list(step.local_size),
        "label": label,
    }


def _slot_to_json(slot: Slot) -> dict[str, Any]:
    return {name: value for name, value in vars(slot).items() if name != "block"}


def _step_from_json(record: Mapping[str, Any]) -> Step:
    if record["kind"] == "copy":
        label = Label(**record["label"])
        return CopyStep(Slot(**record["dst"]), Slot(**record["src"]), record["nbytes"], label)
    if record["kind"] == "page":
        tensor = None if record["tensor"] is None else Slot(**record["tensor"])
        where = (record["direction"], record["page"], record["nbytes"])
        return PageStep(*where, tensor, Label(**record["label"]))
    return _kernel_from_json(record)


def _kernel_from_json(record: Mapping[str, Any]) -> KernelStep:
    local = record["local_size"]
    return KernelStep(
        program=record["program"],
        entry=record["entry"],
        args=tuple(
            Scalar(**a["scalar"]) if "scalar" in a else Slot(**a["slot"]) for a in record["args"]
        ),
        global_size=tuple(record["global_size"]),
        local_size=None if local is None else tuple(local),
        label=Label(**record["label"]),
    )
