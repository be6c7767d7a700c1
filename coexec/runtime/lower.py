"""From a placed graph to a program: regions, buffers, copies between processors."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.core.processor import Executable
from coexec.core.program import (
    BOUNDARY,
    INPUT,
    MEETING,
    OUTPUT,
    PAGES,
    SCRATCH,
    STATE,
    BufferSpec,
    Free,
    Instruction,
    Launch,
    Program,
    Read,
    Wait,
    Write,
)
from coexec.core.types import TensorType
from coexec.ops.node import type_of
from coexec.runtime.boundary_memory import BoundaryMemory
from coexec.runtime.host_pieces import HostPieces, host_pieces
from coexec.runtime.joined_parts import JoinedParts, joined_parts
from coexec.runtime.lowering import Lowering
from coexec.runtime.pack_arenas import LaidOut, laid_into, pack
from coexec.runtime.part_regions import PartRegions
from coexec.runtime.partition import (
    Part,
    Partitioning,
    exported,
    joined_at_gate,
    last_reads,
    meeting_places,
    meets,
    partition,
)
from coexec.runtime.returns import Returns
from coexec.runtime.state_homes import state_homes

FORWARD = "forward"


def lower(graph: ir.Graph, how: Lowering) -> Program:
    """Compile the regions of ``graph`` and string them together."""
    return _Lowerer(graph, how).run()


class _Lowerer:
    def __init__(self, graph: ir.Graph, how: Lowering) -> None:
        self.graph = graph
        self.how = how
        outputs = (str(value.name) for value in graph.outputs if value.name not in how.state)
        self.outputs = tuple(dict.fromkeys(outputs))
        self.pieces = self._host_pieces()
        self.output_names = {*how.state, *self.pieces.results(self.outputs)}
        self.exported = exported(graph, how.plan, self.pieces.nodes)
        self.places = meeting_places(graph)
        self.parts = self._partition()
        self.several = len({part.processor for part in self.parts}) > 1
        self.instructions: list[Instruction] = []
        self.executables: list[Executable] = []
        self.buffers: dict[str, BufferSpec] = {}
        self.types: dict[str, TensorType] = {}
        first = next(iter(how.processors))
        self.homes = state_homes(self.parts, how.state_inputs, how.state, how.homes, first)
        # Which processors hold the current value of a tensor, in which buffer; the instruction that
        # sent one to others.
        self.held: dict[tuple[str, str], str] = {}
        self.sent: dict[str, int] = {}
        self.feeds: set[str] = set()
        self.fetched: set[str] = set()  # outputs that are on their way to the host
        self.returns = Returns(self.instructions, self.types, self.held)
        several, meet = self.several, bool(self.places)
        self.between = BoundaryMemory(how, self.returns, several=several, meet=meet)
        self.laid_out: dict[str, list[LaidOut]] = {name: [] for name in how.processors}
        self.last_read = last_reads(self.parts)
        self.regions = PartRegions(
            how,
            self.types,
            homes=self.homes,
            last_read=self.last_read,
            joined={name: self._joined(name) for name in how.processors},
            exported=self.exported,
            outputs=self.output_names,
        )

    def _partition(self) -> list[Part]:
        how = self.how
        phase, free = (how.gated_phase, FORWARD if how.early else "") if how.gate else ("", "")
        alone, skipped = how.mode.by_operator, self.pieces.nodes
        division = Partitioning(how.plan, phase, how.state, alone, free, skipped, how.reuses)
        parts = partition(self.graph, division)
        if not free or alone:
            return parts
        return joined_at_gate(parts, [name for name, each in how.processors.items() if each.pauses])

    def _host_pieces(self) -> HostPieces:
        kept = {*self.how.state, *self.how.state_inputs, *self.how.gate}
        alone = self.how.mode.by_operator
        return HostPieces() if alone else host_pieces(self.graph, self.how.plan, kept)

    def run(self) -> Program:
        inputs = [str(value.name) for value in self.graph.inputs]
        for value in self.graph.inputs:
            name = str(value.name)
            self.types[name] = type_of(value)
            if name in self.how.state_inputs:
                home = self.homes[name]
                self.held[name, home] = self._buffer(name, home, self.types[name].nbytes, STATE)
            else:
                self.feeds.add(name)
        self._spread_states()
        gated = False
        for index, part in enumerate(self.parts):
            if part.gated and not gated and self.how.gate:
                if not part.pauses:
                    self._pass_gate()
                    self._take_back_ahead(self.parts[index:])
                gated = True
            self._launch(index, part)
        if self.how.reuses and self.several:
            found = pack(self.laid_out, self.executables, self.between.lent.blocks())
            for place, packed in found.items():
                arena = BufferSpec(f"#{SCRATCH}@{place}", place, packed.nbytes, SCRATCH)
                self.buffers = laid_into(arena, self.buffers, packed.lent)
        for name in self.outputs:
            self._fetch(name)
        self.instructions.append(Wait())
        return Program(
            instructions=tuple(self.instructions),
            executables=tuple(self.executables),
            buffers=tuple(self.buffers.values()),
            inputs=tuple(name for name in inputs if name not in self.how.state_inputs),
            outputs=self.outputs,
            state=tuple(name for name in inputs if name in self.how.state_inputs),
            types=self.types,
        )

    def _spread_states(self) -> None:
        """States go to others that read them before anything runs.

        Later, their homes would first finish what was launched there. All are on their way before
        the first is waited for.
        """
        read = [
            (str(value.name), part.processor)
            for part in self.parts
            for node in part.nodes
            for value in node.inputs
            if value is not None and value.name in self.how.state_inputs
        ]
        away = [(name, place) for name, place in dict.fromkeys(read) if self.homes[name] != place]
        for name, _ in away:
            self._stage(name)
        for place in self.how.processors:
            self._obtain_all([name for name, reader in away if reader == place], place)

    def _joined(self, processor: str) -> JoinedParts:
        parts = () if self.how.mode.by_operator else self.parts
        regions = [part.nodes for part in parts if part.processor == processor]
        found = joined_parts(regions, self.exported | self.output_names)
        self.types.update(found.types)
        self.last_read.update(found.reads_of(self.last_read))
        return found

    def _pass_gate(self) -> None:
        for name in self.how.gate:
            self._fetch(name)
        self.instructions.append(Wait(gate=True))

    def _launch(self, index: int, part: Part) -> None:
        region = self.regions.of(index, part)
        processor = self.how.processors[part.processor]
        executable = processor.compile(region) if self.how.builds else processor.lay_out(region)
        inputs = self._obtain_all(executable.inputs, part.processor)
        self.between.lent.take_back(part.processor, len(self.laid_out[part.processor]))
        outputs = tuple(self._result(name, part.processor) for name in executable.outputs)
        scratch: tuple[str, ...] = ()
        if executable.scratch_bytes:
            scratch = (self._scratch(part.processor, executable.scratch_bytes, SCRATCH),)
        if executable.page_bytes:
            scratch += (self._scratch(part.processor, executable.page_bytes, PAGES),)
        buffers = inputs + outputs + scratch
        self._take_back(executable.outputs, part.processor)
        number = len(self.executables)
        if part.pauses:
            first, second = executable.halves(FORWARD, self.how.gate)
            self._submit(first, buffers)
            self._pass_gate()
            self._submit(second, buffers)
        else:
            self._submit(executable, buffers)
        self.laid_out[part.processor].append(LaidOut(executable, number, len(self.executables)))
        self.returns.met[part.processor] += sum(map(meets, part.nodes))
        for name, offset in executable.carried.items():
            self.regions.carried[name, part.processor] = offset
        for name in executable.outputs:
            self._store_state(name, part.processor)
            # On its way before the processor goes on: others wait for it.
            if name in self.exported and self.how.mode.residency != "host":
                self._stage(name)
            # Before more is started: several processors need not be done with that at the gate.
            if name in self.how.gate and self.several:
                self._fetch(name)
        if self.how.mode.residency == "host":
            self._evict(executable.outputs)
        elif self.how.mode.synchronise == "operator":
            self.instructions.append(Wait(launches=True))
        self._free_dead(index)

    def _submit(self, executable: Executable, buffers: tuple[str, ...]) -> None:
        self.instructions.append(Launch(len(self.executables), buffers))
        self.executables.append(executable)
        states = self.how.state_inputs.intersection(executable.inputs)
        self.returns.launched(executable.processor, states)

    def _take_back_ahead(self, parts: Sequence[Part]) -> None:
        """What these parts will replace, so that they wait for none of each other."""
        for part in () if self.how.early else parts:
            made = [str(value.name) for node in part.nodes for value in node.outputs]
            self._take_back(made, part.processor)

    def _take_back(self, made: Sequence[str], home: str) -> None:
        """Before states at ``home`` are replaced: wait for others that read them where they are."""
        olds = [self.how.state[new] for new in made if new in self.how.state]
        for name in (old for old in olds if self.homes[old] == home):
            for reader in self.how.processors:
                buffer = self.held.get((name, reader))
                if reader != home and buffer is not None and self.buffers[buffer].shares:
                    self.returns.come_after(name, reader, home)

    def _evict(self, names: Sequence[str]) -> None:
        """Bring results to the host and forget that the device has them; states stay there."""
        for name in names:
            if name not in self.how.state and name not in self.output_names:
                self._stage(name)
                for key in [key for key in self.held if key[0] == name]:
                    del self.held[key]

    def _obtain_all(self, names: Sequence[str], processor: str) -> tuple[str, ...]:
        """Buffers of tensors. What was sent last is waited for first: it tells for all before."""
        latest_first = sorted(names, key=lambda name: self.sent.get(name, 0), reverse=True)
        found = {name: self._obtain(name, processor) for name in latest_first}
        return tuple(found[name] for name in names)

    def _obtain(self, name: str, processor: str) -> str:
        """Buffer with the tensor's value on ``processor``, copied through the host if need be."""
        if (name, processor) not in self.held:
            source, part = self.pieces.cuts.get(name, (name, ()))
            role = INPUT if source in self.feeds else BOUNDARY
            source = source if role == INPUT else self._stage(name)
            shares = "" if part else self._sharer(name, processor)
            nbytes = self.types[name].nbytes
            # One for each piece of memory: other tensors may have been there.
            views = (b.name for b in self.buffers.values() if b.shares and b.shares == shares)
            known = (view for view in views if self.buffers[view].processor == processor)
            buffer = next(known, f"{name}@{processor}")
            buffer = self._buffer(buffer, processor, nbytes, role, shares)
            self.instructions.append(Write(source, buffer, part))
            if role == BOUNDARY:
                self.returns.came(name, processor)
            self.held[name, processor] = buffer
        return self.held[name, processor]

    def _result(self, name: str, processor: str) -> str:
        """Buffer for a region's output: a state's own where it lives, else a new one."""
        old = self.how.state.get(name)
        if old is not None and self.homes[old] == processor:
            self.held[name, processor] = self.held[old, processor]
        else:
            role = OUTPUT if name in self.output_names else BOUNDARY
            role = MEETING if name in self.places else role
            nbytes, buffer = self.types[name].nbytes, f"{name}@{processor}"
            if role == BOUNDARY:
                region = len(self.laid_out[processor])
                buffer = self.between.take(processor, name, nbytes, region)
            self.held[name, processor] = self._buffer(buffer, processor, nbytes, role)
        return self.held[name, processor]

    def _store_state(self, name: str, processor: str) -> None:
        """A state computed away from its home goes back there."""
        old = self.how.state.get(name)
        if old is None or self.homes[old] == processor:
            return
        self._take_back([name], self.homes[old])
        self.instructions.append(Write(self._stage(name), self.held[old, self.homes[old]]))

    def _stage(self, name: str) -> str:
        """Bring a tensor to the host on its way to another processor, once; its name there."""
        staged = f"{name}#staged"
        if staged not in self.types:
            self.types[staged] = self.types[name]
            self.sent[name] = len(self.instructions)
            self.returns.sent(name, self.buffers[self._holder(name)].processor)
            self.instructions.append(Read(staged, self._holder(name)))
            self.instructions.append(Wait())
        return staged

    def _fetch(self, name: str) -> None:
        """Read an output to the host from any processor that holds it, once."""
        if name in self.fetched:
            return
        self.fetched.add(name)
        self.types.update((name, type_of(v)) for v in self.graph.outputs if v.name == name)
        for piece, part in self.pieces.joins.get(name, ((name, ()),)):
            self.instructions.append(Read(name, self._holder(piece), part))

    def _sharer(self, name: str, processor: str) -> str:
        """The buffer in whose memory a processor finds a tensor; none: it needs its own."""
        new = all(held != name for held, _ in self.held)
        if new or self.how.mode.residency == "host" or not self.types[name].nbytes:
            return ""
        holder = self.buffers[self._holder(name)]
        places = (self.how.processors[holder.processor], self.how.processors[processor])
        if not all(place.host_memory for place in places):
            return ""
        return holder.shares or holder.name

    def _holder(self, name: str) -> str:
        """A buffer that holds a tensor."""
        return next(buffer for (held, _), buffer in self.held.items() if held == name)

    def _free_dead(self, index: int) -> None:
        for (name, _), buffer in self.held.items():
            spec = self.buffers[buffer]
            if spec.role == BOUNDARY and self.last_read.get(name) == index:
                self.instructions.append(Free(buffer))
                if self.how.reuses and not spec.shares:
                    self._let_others_in(name, spec)

    def _let_others_in(self, name: str, spec: BufferSpec) -> None:
        """Memory of a dead tensor is there for others; copies of it may have come from there."""
        others = [place for held, place in self.held if held == name and place != spec.processor]
        shared = any(self.buffers[self.held[name, place]].shares for place in others)
        readers = {place: self.returns.launches[place] for place in others if shared}
        self.between.give(name, spec, readers)

    def _scratch(self, processor: str, nbytes: int, role: str) -> str:
        """One arena per processor, and memory for its pages: its regions run one after another."""
        return self._buffer(f"#{role}@{processor}", processor, nbytes, role)

    def _buffer(self, name: str, processor: str, nbytes: int, role: str, shares: str = "") -> str:
        known = self.buffers.get(name)
        nbytes = max(nbytes, known.nbytes if known else 0)
        self.buffers[name] = BufferSpec(name, processor, nbytes, role, shares)
        return name
